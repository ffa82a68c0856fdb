"""What `inspect` says, as Rich renderables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ckptool.analysis.overview import Overview
from ckptool.analysis.sizes import StorageUse, Total, TotalName
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.modules import is_module
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.roles import ClassifiedEntry
from ckptool.render.escape import visible
from ckptool.render.leaves import leaf_text
from ckptool.render.natural import FORMAT_NAMES, natural_count, natural_role, natural_size
from ckptool.render.table import (
    ROLE_STYLES,
    TOP,
    dtype_text,
    shape_text,
    status_text,
    tensor_table,
)

__all__ = ["inspection"]

_TOTAL_NAMES: Final[dict[TotalName, tuple[str, str]]] = {
    "parameters": ("parameter", "parameters"),
    "persistent_buffers": ("persistent buffer", "persistent buffers"),
    "non_persistent_buffers": ("non-persistent buffer", "non-persistent buffers"),
    "buffers_of_unknown_persistence": (
        "buffer of unknown persistence",
        "buffers of unknown persistence",
    ),
    "extra_state": ("extra state", "extra states"),
    "mismatched": ("mismatched tensor", "mismatched tensors"),
    "stale_buffers": ("left-over buffer", "left-over buffers"),
    "unexpected": ("unexpected tensor", "unexpected tensors"),
    "missing_parameters": ("missing parameter", "missing parameters"),
    "missing_persistent_buffers": ("missing buffer", "missing buffers"),
    "missing_non_persistent_buffers": (
        "non-persistent buffer that is not saved",
        "non-persistent buffers that are not saved",
    ),
    "other_tensors": ("tensor of unknown role", "tensors of unknown role"),
}
_TRAINING_NAMES: Final = {
    "optimizer": "optimizer state",
    "scheduler": "learning-rate scheduler",
    "scaler": "gradient scaler",
    "rng": "random generator state",
}
_LEAVES_SHOWN = 20
_LEAF_CHARACTERS = 400
_DEEPEST_BRANCH = 12


def inspection(
    overview: Overview, *, unfold: bool = False, as_tree: bool = False, width: int | None = None
) -> Group:
    """Everything `inspect` says.

    Repeated layers, module attributes and settings of optimizers are folded unless `unfold` is
    set. On a terminal, which has a `width` in columns, long lists and long values of leaves are cut
    too. All of it is said.
    """
    checkpoint = overview.checkpoint
    parts: list[RenderableType] = [_heading(overview)]
    shorten = width is not None and not unfold
    above = list(_above(overview, unfold, shorten))
    if above:
        parts += ["", *above]
    inside = [one for one in overview.entries if one.name is not None]
    outside = [one for one in overview.entries if one.name is None]
    if inside:
        if as_tree:
            parts += ["", _tree(inside, checkpoint)]
        else:
            is_named = checkpoint.root is not None
            parts += ["", *tensor_table(inside, _title(checkpoint), is_named, unfold, width)]
    if outside:
        parts += ["", *tensor_table(outside, "outside the root", False, unfold, width)]
    if overview.contents.absent:
        from ckptool.render.matching import absent_table

        parts += ["", *absent_table(overview.contents.absent, unfold)]
    parts += ["", _totals(overview)]
    facts = list(_storage_facts(overview, shorten))
    if facts:
        parts += ["", Text("\n").join(facts)]
    return Group(*parts)


# What the file is ------------------------------------------------------------------------------


def _heading(overview: Overview) -> Table:
    checkpoint = overview.checkpoint
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for file in checkpoint.files:
        facts = [FORMAT_NAMES[checkpoint.format]]
        if file.protocol is not None:
            facts.append(f"protocol {file.protocol}")
        if file.byteorder is not None:
            facts.append(f"{file.byteorder}-endian")
        if file.crc not in (None, "recorded"):
            facts.append("CRC not recorded" if file.crc == "absent" else "CRC partly recorded")
        facts.append(natural_size(file.nbytes))
        grid.add_row(Text(visible(file.path.name)), Text(", ".join(facts)))
    locations = Counter(entry.tensor.location for entry in checkpoint.entries if entry.tensor)
    if any(locations):
        saved = ", ".join(
            f"{visible(name or 'no location')} ({natural_count(count, 'tensor')})"
            for name, count in locations.items()
        )
        grid.add_row("saved from", Text(saved))
    if overview.foreign_globals:
        names = ", ".join(visible(str(name)) for name in overview.foreign_globals)
        grid.add_row(
            "globals", Text.assemble((names, "yellow"), "\nnot plain data; nothing was imported")
        )
    if overview.contents.match is not None:
        from ckptool.render.matching import match_rows

        for label, text in match_rows(overview.contents.match):
            grid.add_row(label, text)
    if overview.contents.fingerprint is not None:
        grid.add_row("fingerprint", Text(overview.contents.fingerprint))
    return grid


def _title(checkpoint: Checkpoint) -> str:
    if checkpoint.root is None:
        return "all roots"
    return f"root {visible(checkpoint.root.path)}" if checkpoint.root.keys else ""


# The tree above the tensors --------------------------------------------------------------------


def _above(overview: Overview, unfold: bool, shorten: bool) -> Iterator[RenderableType]:
    """What stands beside the root: other roots, training state, leaves."""
    checkpoint = overview.checkpoint
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for root in checkpoint.roots:
        if root.keys or len(checkpoint.roots) > 1:
            chosen = root is checkpoint.root
            mark = "  <- root" if chosen else ""
            total = overview.roots.get(root.keys, Total())
            what = "module" if is_module(root.node) else natural_count(total.count, "tensor")
            grid.add_row(
                Text(visible(root.path) or TOP, "bold" if chosen else ""), Text(what + mark)
            )
    for state in checkpoint.training:
        grid.add_row(Text(visible(state.path) or TOP), Text(_TRAINING_NAMES[state.kind]))
    leaves = [entry for entry in checkpoint.entries if entry.tensor is None]
    shown = [entry for entry in leaves if unfold or _is_worth_a_line(entry, checkpoint)]
    if shorten:
        shown = shown[:_LEAVES_SHOWN]
    for entry in shown:
        text = leaf_text(entry.node)
        if shorten and len(text) > _LEAF_CHARACTERS:
            text = f"{text[:_LEAF_CHARACTERS]} ... ({len(text):,} characters; --all shows them)"
        grid.add_row(Text(visible(entry.path) or TOP), Text(text))
    if grid.row_count:
        yield grid
    if len(shown) < len(leaves):
        hidden = natural_count(len(leaves) - len(shown), "more leaf", "more leaves")
        yield Text(f"... and {hidden}; --all lists them", "dim")


def _is_worth_a_line(entry: Entry, checkpoint: Checkpoint) -> bool:
    """Attributes of modules and settings of optimizers are many, and rarely what is looked for."""
    return entry.member != "attribute" and checkpoint.training_of(entry) is None


# The tree of modules ---------------------------------------------------------------------------


def _tree(entries: Iterable[ClassifiedEntry], checkpoint: Checkpoint) -> Tree:
    top = Tree(Text(_title(checkpoint) or visible(checkpoint.path.name), "bold"))
    branches: dict[tuple[str, ...], Tree] = {(): top}
    for one in entries:
        *modules, leaf = (one.name or "").split(".", _DEEPEST_BRANCH)
        if checkpoint.root is None and (place := checkpoint.locate(one.entry)):
            modules.insert(0, place[0].path or TOP)
        for depth in range(len(modules)):
            above, here = tuple(modules[:depth]), tuple(modules[: depth + 1])
            if here not in branches:
                branches[here] = branches[above].add(Text(visible(modules[depth]), "bold"))
        tensor = one.entry.tensor
        facts = "" if tensor is None else f"  {dtype_text(tensor)} {shape_text(tensor.shape)}"
        role = natural_role(one), ROLE_STYLES[one.role]
        branch = Text.assemble(visible(leaf) or TOP, facts, "  ", role)
        if one.status not in (None, "matched"):
            branch.append("  ").append_text(status_text(one))
        branches[tuple(modules)].add(branch)
    return top


# Totals and storages ---------------------------------------------------------------------------


def _totals(overview: Overview) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    grid.add_column()
    grid.add_column(justify="right")
    for name, (one, many) in _TOTAL_NAMES.items():
        total = overview.sizes.totals.get(name)
        if total is not None:
            grid.add_row(
                f"{total.count:,}", one if total.count == 1 else many, natural_size(total.nbytes)
            )
    outside = overview.sizes.outside
    if outside.count:
        noun = "tensor" if outside.count == 1 else "tensors"
        grid.add_row(f"{outside.count:,}", f"{noun} outside the root", natural_size(outside.nbytes))
    return grid


def _storage_facts(overview: Overview, shorten: bool) -> Iterator[Text]:
    sizes = overview.sizes
    for group in {id(group): group for group in overview.ties.values()}.values():
        # A module's attribute that is one of its parameters again is no tie of the state_dict.
        tied = [visible(entry.path) for entry in group if entry.member != "attribute"]
        if len(tied) > 1:
            yield Text(f"tied: {' = '.join(tied)}")
    wasteful = [one for one in sizes.storages if one.is_referenced and one.used_bytes < one.nbytes]
    shown = wasteful[:_LEAVES_SHOWN] if shorten else wasteful
    for storage in shown:
        yield Text(_waste(storage), "yellow")
    if len(shown) < len(wasteful):
        yield Text(f"... and {len(wasteful) - len(shown):,} more such storages; --all lists them")
    if sizes.unreferenced:
        total = sum(one.nbytes for one in sizes.storages if not one.is_referenced)
        keys = ", ".join(visible(key) for key in sizes.unreferenced)
        yield Text(f"{natural_size(total)} in storages no tensor refers to: {keys}", "yellow")


def _waste(storage: StorageUse) -> str:
    users = ", ".join(visible(path) for path in storage.paths) or "no tensor that is listed"
    return (
        f"storage {visible(storage.key)}: {natural_size(storage.nbytes)} stored, "
        f"{natural_size(storage.used_bytes)} used by {users}"
    )
