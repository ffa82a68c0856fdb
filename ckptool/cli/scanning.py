"""`scan`: what the pickles in a file would import and call."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptool.cli.options import AsJson, LimitsOption, NoColor, PathArgument, limits_of
from ckptool.cli.output import print_json, print_notes, print_rich, terminal_width
from ckptool.cli.progress import waiting

__all__ = ["scan"]

_FOUND = 1
Level = Annotated[
    Literal["unknown", "suspicious", "dangerous"],
    typer.Option("--fail-on", help="Exit code 1 where a finding is of this severity, or higher."),
]


def scan(
    path: PathArgument,
    fail_on: Level = "suspicious",
    unfold: Annotated[
        bool, typer.Option("--all", help="List harmless names and files without pickles too.")
    ] = False,
    as_json: AsJson = False,
    as_sarif: Annotated[
        bool, typer.Option("--sarif", help="Print SARIF 2.1.0, which code hosts show.")
    ] = False,
    limits: LimitsOption = None,
    no_color: NoColor = False,
) -> None:
    """Say what the pickles in a file would import and call.

    Of a directory, in all files below it; calls come with their arguments. Nothing is imported or
    called. Every pickle in a file is looked into, and so is what contradicts itself around them.
    Exit code 1 where something was found. It is inert inspection, and no promise that a file is
    safe.

    Examples:

      ckptool scan model.pt

      ckptool scan downloads/ --fail-on dangerous

      ckptool scan model.pt --sarif > scan.sarif
    """
    from ckptool.analysis.scan.scan import scan as scanned

    if as_json and as_sarif:
        raise typer.BadParameter("--json and --sarif exclude each other")
    with waiting(f"scanning {path}"):
        found = scanned(path, limits=limits_of(limits))
    is_failed = found.has_at_least(fail_on)
    if as_json:
        from ckptool.render.scan_json import scan_document

        print_json(scan_document(found, fail_on, is_failed=is_failed))
    elif as_sarif:
        from ckptool.render.sarif import sarif_document

        print_json(sarif_document(found))
    else:
        from ckptool.render.scanning import PROMISE, scan_view

        print_rich(scan_view(found, unfold=unfold, width=terminal_width()), no_color=no_color)
        print_notes([PROMISE])
    if is_failed:
        raise typer.Exit(_FOUND)
