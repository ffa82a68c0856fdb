"""`strip` and `reset-buffers`: edited checkpoints, written beside the one that is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.cli.interruption import interruptible
from ckptool.cli.options import (
    AsJson,
    DryRun,
    Force,
    InPlace,
    LimitsOption,
    ModelOption,
    NoColor,
    Output,
    RootOption,
    SourceArgument,
    Verify,
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

if TYPE_CHECKING:
    from ckptool.edit.plan import Plan

__all__ = ["reset_buffers", "strip"]


def strip(
    src: SourceArgument,
    output: Output = None,
    in_place: InPlace = False,
    training: Annotated[
        bool,
        typer.Option(
            "--training",
            help="Take out what only resuming needs: optimizers, schedulers, scalers, random "
            "generators, callbacks, loops.",
        ),
    ] = False,
    buffers: Annotated[
        bool, typer.Option("--buffers", help="Take out every buffer that is certain to be one.")
    ] = False,
    guess: Annotated[
        bool, typer.Option("--guess", help="With --buffers: the likely ones too.")
    ] = False,
    stale: Annotated[
        bool,
        typer.Option("--stale", help="Take out left-over buffers, which --model does not save."),
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="GLOB",
            help="Take out a name in the root, or with a leading / a path. Repeatable.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="GLOB", help="Take out all others. Repeatable."),
    ] = None,
    ema: Annotated[
        Literal["use", "drop"] | None,
        typer.Option("--ema", help="Of weights and their moving average keep one."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            metavar="P",
            help="Take a prefix off the names; 'auto' is the one that --model tells.",
        ),
    ] = None,
    extract: Annotated[
        bool, typer.Option("--extract", help="Make the root alone the file.")
    ] = False,
    root: RootOption = None,
    model: ModelOption = None,
    dry_run: DryRun = False,
    force: Force = False,
    verify: Verify = False,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Take out of a checkpoint what is not needed any more.

    What stays is copied byte for byte, in its order, with ties, strides, _metadata and objects that
    nobody knows. Storages that nothing refers to any more go too.

    Examples:

      ckptool strip last.ckpt -o model.ckpt --training

      ckptool strip last.ckpt -o weights.pt --training --ema use --extract

      ckptool strip old.pt -o new.pt --stale --prefix auto --model spec.json

      ckptool strip model.pt --in-place --drop 'head.*'

      ckptool strip model.pt --dry-run --keep 'backbone.*' --json | jq .removed
    """
    from ckptool.edit.strip import plan_strip

    if not (training or buffers or stale or drop or keep or ema or prefix or extract):
        raise typer.BadParameter("nothing is asked for: --training, --drop GLOB, ...")
    if guess and not buffers:
        raise typer.BadParameter("--guess goes with --buffers")
    _check_destination(output, in_place=in_place, dry_run=dry_run)
    with open_checkpoint(src, root=root, limits=limits_of(limits)) as checkpoint:
        plan = plan_strip(
            checkpoint,
            None if model is None else model_of(model),
            buffers=buffers,
            guess=guess,
            stale=stale,
            training=training,
            drop=drop or (),
            keep=keep or (),
            ema=ema,
            prefix=prefix,
            extract=extract,
        )
        _carry_out(plan, output, in_place, dry_run, force, verify, as_json, no_color)


def _check_number(text: str | None) -> str | None:
    if text is not None:
        try:
            _number(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is no number") from error
    return text


def _number(text: str) -> float:
    """An integer as it is: a float has not room for each."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def reset_buffers(
    src: SourceArgument,
    output: Output = None,
    in_place: InPlace = False,
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match",
            metavar="GLOB",
            help="Only buffers whose name in the root matches; '!GLOB' leaves out. Repeatable.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="VALUE",
            callback=_check_number,
            help="A number for all that --match names.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Make random initial values, behind this seed."),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(
            "--root",
            metavar="KEYPATH",
            help="Which subtree is the state_dict ('/' is the top). Repeatable.",
        ),
    ] = None,
    model: ModelOption = None,
    dry_run: DryRun = False,
    force: Force = False,
    verify: Verify = False,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Put buffers back to their initial values.

    With a model these are what its constructor gives; without one the known rules hold, for the
    statistics of normalisations: mean 0, variance 1, counter 0. Dtypes and shapes stay, and so does
    all that shares a storage with them. Parameters are never touched.

    Examples:

      ckptool reset-buffers averaged.pt -o fresh.pt

      ckptool reset-buffers model.pt -o new.pt --match '*.bn2.*'

      ckptool reset-buffers model.pt --in-place --model 'models.py:MyModel(10, 5)'

      ckptool reset-buffers model.pt -o new.pt --match '*mask_value' --to -10000
    """
    from ckptool.edit.reset_buffers import plan_reset_buffers

    if to is not None and not match:
        raise typer.BadParameter("--to goes with --match, which says for which buffers")
    _check_destination(output, in_place=in_place, dry_run=dry_run)
    with open_checkpoint(src, limits=limits_of(limits)) as checkpoint:
        plan = plan_reset_buffers(
            checkpoint,
            None if model is None else model_of(model),
            patterns=match or (),
            value=None if to is None else _number(to),
            seed=seed,
            roots=root or (),
        )
        _carry_out(plan, output, in_place, dry_run, force, verify, as_json, no_color)


def _check_destination(output: Path | None, *, in_place: bool, dry_run: bool) -> None:
    if output is not None and in_place:
        raise typer.BadParameter("-o and --in-place exclude each other")
    if output is None and not in_place and not dry_run:
        raise typer.BadParameter("-o DST says where to, or --in-place")


def _carry_out(
    plan: Plan,
    output: Path | None,
    in_place: bool,
    dry_run: bool,
    force: bool,
    verify: bool,
    as_json: bool,
    no_color: bool,
) -> None:
    """Write what is planned, unless it is only to be shown, and say so."""
    from ckptool.edit.write import check_target, write_checkpoint

    target = plan.checkpoint.path if in_place else output
    notes = list(plan.notes)
    if not dry_run:
        with ProgressBar() as bar, interruptible(bar) as progress:
            written = write_checkpoint(plan, output, force=force, verify=verify, progress=progress)
        notes += written.notes
    elif target is not None:
        check_target(plan, output, force=force)
    if as_json:
        from ckptool.render.edit_json import edit_document

        print_json(edit_document(plan, target, notes, is_written=not dry_run))
    else:
        from ckptool.render.editing import edit_view

        view = edit_view(plan, target, is_written=not dry_run, width=terminal_width())
        print_rich(view, no_color=no_color)
        print_warnings(plan.checkpoint.container.warnings)
        print_notes(notes)
