"""The options that reading commands share: each is written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["AsJson", "Match", "NoColor", "PathArgument", "RoleOption", "RootOption"]

PathArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="PATH", help="The checkpoint; its content says what it is.")
]
RootOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--root", metavar="KEYPATH", help="Which subtree is the state_dict ('/' is the top)."
    ),
]
Match: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--match",
        metavar="GLOB",
        help="Only tensors whose name in the root matches; '!GLOB' leaves out. Repeatable.",
    ),
]
RoleOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE",
        help="Only parameter, buffer, extra-state, optimizer or tensor. Repeatable.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
NoColor: TypeAlias = Annotated[bool, typer.Option("--no-color", help="Print without colours.")]
