"""`diff`: what changed from one checkpoint to another."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.cli.options import (
    AsJson,
    LimitsOption,
    Match,
    ModelOption,
    NoColor,
    RoleOption,
    limits_of,
    model_of,
)
from ckptool.cli.output import (
    print_json,
    print_notes,
    print_rich,
    print_warnings,
    terminal_width,
)
from ckptool.cli.progress import ProgressBar

__all__ = ["diff"]

_DIFFERENT = 1


def _check_number(number: float) -> float:
    if not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no number")
    return number


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="The checkpoint before.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The one after; of any format.")],
    model: ModelOption = None,
    root_a: Annotated[
        str | None,
        typer.Option("--root-a", metavar="KEYPATH", help="Which subtree of A is the state_dict."),
    ] = None,
    root_b: Annotated[
        str | None,
        typer.Option("--root-b", metavar="KEYPATH", help="Which subtree of B is the state_dict."),
    ] = None,
    match: Match = None,
    role: RoleOption = None,
    exact_names: Annotated[
        bool, typer.Option("--exact-names", help="Do not look for a prefix between the names.")
    ] = False,
    atol: Annotated[
        float,
        typer.Option(
            "--atol",
            min=0.0,
            metavar="NUMBER",
            callback=_check_number,
            help="Values this far apart are close.",
        ),
    ] = 0.0,
    rtol: Annotated[
        float,
        typer.Option(
            "--rtol",
            min=0.0,
            metavar="NUMBER",
            callback=_check_number,
            help="The same as a share of the larger of the two; both add up.",
        ),
    ] = 0.0,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Trust recorded CRCs and sizes instead of reading values."),
    ] = False,
    fail_if_unchanged: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if-unchanged",
            metavar="GLOB",
            help="Differences are wanted: exit code 1 only where a tensor that matches has the "
            "same values, moved, cast or rounded at most. Repeatable.",
        ),
    ] = None,
    unfold: Annotated[
        bool, typer.Option("--all", help="List every tensor, the unchanged ones too.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, metavar="N", help="List the N lines that changed most."),
    ] = None,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Say what changed from A to B: names, values, and everything that is no tensor.

    Bytes are compared first and only what differs is measured. With --match or --role it is about
    those tensors alone. Exit code 1 where something differs.

    Examples:

      ckptool diff base.pt tuned.pt

      ckptool diff model.pt model.safetensors --quick

      ckptool diff base.ckpt tuned.pt --root-a model --match '*'

      ckptool diff base.pt tuned.pt --role parameter --json | jq .summary

      ckptool diff base.pt tuned.pt --fail-if-unchanged 'layers.*'
    """
    from ckptool.analysis.diff.diff import diff as compared

    bounds = limits_of(limits)
    with (
        open_checkpoint(a, root=root_a, limits=bounds) as before,
        open_checkpoint(b, root=root_b, limits=bounds) as after,
    ):
        with ProgressBar() as progress:
            found = compared(
                before,
                after,
                model=None if model is None else model_of(model),
                patterns=match or (),
                roles=role or (),
                atol=atol,
                rtol=rtol,
                exact_names=exact_names,
                quick=quick,
                must_change=fail_if_unchanged or (),
                processes=os.cpu_count() or 1,
                progress=progress,
            )
        if as_json:
            from ckptool.render.diff_json import diff_document

            print_json(diff_document(found))
        else:
            from ckptool.render.diffing import diff_view

            view = diff_view(found, unfold=unfold, top=top, width=terminal_width())
            print_rich(view, no_color=no_color)
            print_warnings(found.warnings)
            print_notes(found.notes)
    is_failed = bool(found.unchanged) if fail_if_unchanged else not found.is_same
    if is_failed:
        raise typer.Exit(_DIFFERENT)
