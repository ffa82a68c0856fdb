"""The options that reading commands share: each is written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, get_args

import typer

from ckptool.classification.roles import Role
from ckptool.cli.progress import waiting
from ckptool.pickling.limits import LIMIT_NAMES, Limits, read_limits

if TYPE_CHECKING:
    from ckptool.spec.strict_load import Model

__all__ = [
    "AsJson",
    "DryRun",
    "Force",
    "InPlace",
    "LimitsOption",
    "Match",
    "ModelOption",
    "NoColor",
    "Output",
    "PathArgument",
    "RoleOption",
    "RootOption",
    "SourceArgument",
    "Verify",
    "limits_of",
    "model_of",
]

_ROLES: Final[tuple[str, ...]] = get_args(Role)

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


def _check_roles(roles: list[str] | None) -> list[str] | None:
    for role in roles or ():
        if role not in _ROLES:
            raise typer.BadParameter(f"{role!r} is not one of {', '.join(_ROLES)}")
    return roles


RoleOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="ROLE",
        callback=_check_roles,
        help=f"Only tensors of this role: {', '.join(_ROLES)}. Repeatable.",
    ),
]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="What the tensors are held against: a spec file, a module saved whole, a .pt2 "
        "program, 'package.module:callable' or 'file.py:callable', called with literals or not.",
    ),
]


def _check_limits(texts: list[str] | None) -> list[str] | None:
    try:
        read_limits(texts or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return texts


LimitsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--limits",
        metavar="NAME=NUMBER",
        callback=_check_limits,
        help=f"How much of a file is read at most: {', '.join(LIMIT_NAMES)}. Repeatable.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
NoColor: TypeAlias = Annotated[bool, typer.Option("--no-color", help="Print without colours.")]

# Edits -----------------------------------------------------------------------------------------

SourceArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="SRC", help="The checkpoint that is read; it stays as it is.")
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DST", help="The file that is written."),
]
InPlace: TypeAlias = Annotated[
    bool,
    typer.Option("--in-place", help="Replace SRC itself, once the new file is right."),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace a DST that is there.")]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
]
Verify: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--verify", help="Compare copied bytes with SRC too; all others are always read again."
    ),
]


def limits_of(texts: list[str] | None) -> Limits | None:
    """Return the limits that --limits sets, None where it was not given."""
    return None if not texts else read_limits(texts)


def model_of(text: str) -> Model:
    """Return the model that MODEL names."""
    from ckptool.spec.loading import load_model_spec

    with waiting(f"reading the model {text}"):
        return load_model_spec(text)
