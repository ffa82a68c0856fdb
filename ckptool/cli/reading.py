"""`inspect`, `list` and `show`: commands that only read."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ckptool.analysis.overview import Contents, list_contents, overview
from ckptool.checkpoint.opening import Checkpoint, open_checkpoint
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
from ckptool.cli.output import print_json, print_lines, print_rich, print_warnings, terminal_width
from ckptool.cli.progress import ProgressBar
from ckptool.errors import about

__all__ = ["inspect", "list_tensors", "show"]

Sort = Annotated[
    Literal["file", "name", "bytes"],
    typer.Option("--sort", help="The order of the tensors; by default that of the file."),
]
Sha256 = Annotated[
    bool, typer.Option("--sha256", help="Add content hashes and the fingerprint of the root.")
]


def inspect(
    path: PathArgument,
    model: ModelOption = None,
    root: RootOption = None,
    match: Match = None,
    role: RoleOption = None,
    sort: Sort = "file",
    sha256: Sha256 = False,
    tree: Annotated[bool, typer.Option("--tree", help="Show the tensors as a tree.")] = False,
    unfold: Annotated[
        bool, typer.Option("--all", help="Unfold repeated layers, list every leaf.")
    ] = False,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Say what a checkpoint is and what every tensor in it is.

    Nothing in the file is run, and no tensor data is read unless hashes are asked for. With a model
    its word decides, and what is missing or left over is said too.

    Examples:

      ckptool inspect model.pt

      ckptool inspect model.pt --model 'models.py:MyModel(10, 5)'

      ckptool inspect last.ckpt --root state_dict --match '*.bn*'

      ckptool inspect model.pt --json | jq .totals
    """
    with open_checkpoint(path, root=root, limits=limits_of(limits)) as checkpoint:
        found = _contents(checkpoint, model, match, role, sort, sha256)
        if as_json:
            _print_overview(found, "inspect")
        else:
            from ckptool.render.text import inspection

            with about(path):
                view = inspection(
                    overview(found), unfold=unfold, as_tree=tree, width=terminal_width()
                )
            print_rich(view, no_color=no_color)
            print_warnings(found.checkpoint.warnings)


def list_tensors(
    path: PathArgument,
    model: ModelOption = None,
    root: RootOption = None,
    match: Match = None,
    role: RoleOption = None,
    sort: Sort = "file",
    sha256: Sha256 = False,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,  # noqa: ARG001 - for scripts that pass it to every command
) -> None:
    """List the tensors of a checkpoint, one line each.

    A line has path, role, dtype, shape and bytes, separated by tabs; --sha256 adds a content hash,
    --model how the tensor stands to the model.

    Examples:

      ckptool list model.pt | sort -t$'\\t' -k5 -n | tail

      ckptool list model.safetensors --sha256
    """
    with open_checkpoint(path, root=root, limits=limits_of(limits)) as checkpoint:
        found = _contents(checkpoint, model, match, role, sort, sha256)
        if as_json:
            _print_overview(found, "list")
        else:
            from ckptool.render.listing import listing

            print_lines(listing(found))
            print_warnings(found.checkpoint.warnings)


def show(
    path: PathArgument,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Names in the root, paths, or patterns of either."),
    ],
    root: RootOption = None,
    limits: LimitsOption = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Show single tensors with their values, or other leaves whole.

    Examples:

      ckptool show model.pt bn.running_var

      ckptool show last.ckpt hyper_parameters epoch
    """
    from ckptool.analysis.details import details

    with open_checkpoint(path, root=root, limits=limits_of(limits)) as checkpoint:
        with ProgressBar() as progress:
            found = details(checkpoint, names, progress)
        if as_json:
            from ckptool.render.json import details_document

            print_json(details_document(checkpoint, found))
        else:
            from ckptool.render.showing import details_view

            with about(path):
                view = details_view(found)
            print_rich(view, no_color=no_color)


def _contents(
    checkpoint: Checkpoint,
    model: str | None,
    match: list[str] | None,
    role: list[str] | None,
    sort: Sort,
    sha256: bool,
) -> Contents:
    with ProgressBar() as progress:
        return list_contents(
            checkpoint,
            model=None if model is None else model_of(model),
            patterns=match or (),
            roles=role or (),
            sort=sort,
            with_hashes=sha256,
            progress=progress,
        )


def _print_overview(found: Contents, command: str) -> None:
    from ckptool.render.json import overview_document

    print_json(overview_document(overview(found), command))
