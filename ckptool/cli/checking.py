"""`check` and `spec`: a checkpoint held against a model, and a model frozen into a file."""

from __future__ import annotations

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
    PathArgument,
    RoleOption,
    RootOption,
    limits_of,
    model_of,
)
from ckptool.cli.output import (
    print_json,
    print_lines,
    print_notes,
    print_rich,
    print_warnings,
    terminal_width,
    write_file,
)
from ckptool.cli.progress import ProgressBar

__all__ = ["check", "spec"]

_FOUND = 1


def _check_codes(texts: list[str] | None) -> list[str] | None:
    from ckptool.analysis.findings import read_allowances

    try:
        read_allowances(texts or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return texts


def check(
    path: PathArgument,
    model: ModelOption = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CODE[:GLOB]",
            callback=_check_codes,
            help="Let findings of this code pass, all or those whose name matches. Repeatable.",
        ),
    ] = None,
    root: RootOption = None,
    match: Match = None,
    role: RoleOption = None,
    unfold: Annotated[bool, typer.Option("--all", help="List every finding.")] = False,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Check that a checkpoint loads and holds together.

    All values are read: recorded CRCs, NaN and infinities, impossible statistics. Nothing is
    repaired. Exit code 1 where something was found. With a live model torch itself says whether a
    strict load would succeed.

    Examples:

      ckptool check model.pt

      ckptool check model.pt --model spec.json --allow stale

      ckptool check last.ckpt --model 'models.py:MyModel(10, 5)' --root state_dict
    """
    from ckptool.analysis.check import check as checked
    from ckptool.analysis.overview import overview

    opened = open_checkpoint(path, root=root, limits=limits_of(limits), keep_defects=True)
    with opened as checkpoint:
        with ProgressBar() as progress:
            found = checked(
                checkpoint,
                None if model is None else model_of(model),
                patterns=match or (),
                roles=role or (),
                allow=allow or (),
                progress=progress,
            )
        if as_json:
            from ckptool.render.json import overview_document

            print_json(overview_document(overview(found.contents), "check", found))
        else:
            from ckptool.render.checking import check_view

            print_rich(check_view(found, unfold=unfold, width=terminal_width()), no_color=no_color)
            print_warnings(found.contents.checkpoint.warnings)
            print_notes(found.notes)
    if not found.is_passed:
        raise typer.Exit(_FOUND)


def spec(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for --model of the other commands.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="SPEC", help="The file; without it, stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Freeze a model into a spec file.

    With it neither torch nor the model's code is needed any more. It has every parameter and buffer
    with persistence, dtype and shape, initial values of buffers, ties, and the hooks that the model
    loads with.

    Examples:

      ckptool spec 'models.py:MyModel(10, hidden_size=5)' -o spec.json

      ckptool spec transformers:BertModel -o bert.json
    """
    from ckptool.spec.document import write_document

    frozen = model_of(model).spec
    document = write_document(frozen)
    if output is None:
        print_lines([document])
    else:
        from ckptool.render.matching import spec_summary

        write_file(output, document, force=force)
        print_lines([f"{output}: {spec_summary(frozen)}\n"])
