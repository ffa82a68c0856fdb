"""What `diff` says, as Rich renderables for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.analysis.diff.result import METADATA, Change, Diff, LeafDiff, Side, TensorDiff
from ckptool.classification.roles import Role
from ckptool.render.columns import in_columns
from ckptool.render.diff_table import compared_table, dtypes_text, shapes_text
from ckptool.render.escape import visible
from ckptool.render.folding import fold
from ckptool.render.leaves import Leaves
from ckptool.render.natural import FORMAT_NAMES, natural_count
from ckptool.render.table import tensor_table

__all__ = ["diff_view"]

_LEAVES_SHOWN: Final = 20
_LEAF_CHARACTERS: Final = 200
_CHANGES_OF_A_PART: Final = 50
_OF_MOVED: Final = ("name in A", "name in B", "dtype", "shape")
_OF_LEAVES: Final = ("path", "change", "value")
_ROLES: Final[dict[Role, str]] = {
    "parameter": "parameters",
    "buffer": "buffers",
    "extra-state": "extra states",
    "optimizer": "optimizer",
    "tensor": "other tensors",
}


def diff_view(
    found: Diff, *, unfold: bool = False, top: int | None = None, width: int | None = None
) -> Group:
    """Everything `diff` says.

    What changed most comes first; with `top` no more lines than that. `unfold` lists every tensor
    on a line of its own, those that did not change too. On a terminal, which has a `width` in
    columns, long lists and values of leaves are cut. All of it is said.
    """
    parts: list[RenderableType] = [_heading(found), "", _statement(found)]
    compared = [one for one in found.entries if one.values and one.change != "moved"]
    listed = [one for one in compared if unfold or one.change == "changed"]
    if listed:
        parts += ["", *compared_table(listed, unfold, top, width)]
    moved = [one for one in found.entries if one.change == "moved"]
    if moved:
        parts += ["", *_moved(moved, width)]
    for title, alone in (
        ("only in A", [one.a for one in found.entries if one.a and one.change == "removed"]),
        ("only in B", [one.b for one in found.entries if one.b and one.change == "added"]),
    ):
        if alone:
            parts += ["", *tensor_table(alone, title, True, unfold, width)]
    leaves = [leaf for leaf in found.leaves if leaf.change != "same"]
    if leaves:
        parts += ["", *_leaves(leaves, unfold, width)]
    if found.unchanged is not None:
        parts += ["", _unchanged(found.unchanged)]
    return Group(*parts)


# What is compared, and what it comes to ---------------------------------------------------------


def _heading(found: Diff) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for label, side in (("A", found.a), ("B", found.b)):
        grid.add_row(label, Text(visible(_side(side))))
    changes: dict[Role, Counter[Change]] = defaultdict(Counter)
    for one in found.entries:
        changes[one.role][one.change] += 1
    for role, name in _ROLES.items():
        counts = changes.get(role)
        if counts:
            said = ", ".join(f"{counts[one]:,} {one}" for one in get_args(Change) if counts[one])
            label = "tensors" if list(changes) == ["tensor"] else name
            grid.add_row(label, Text(said, "" if set(counts) == {"same"} else "yellow"))
    return grid


def _side(side: Side) -> str:
    checkpoint = side.contents.checkpoint
    count = sum(one.entry.tensor is not None for one in side.contents.entries)
    facts = [f"{checkpoint.path}", FORMAT_NAMES[checkpoint.format], natural_count(count, "tensor")]
    if checkpoint.root is None and checkpoint.roots:
        facts.append("all roots")
    elif checkpoint.root is not None and checkpoint.root.keys:
        facts.append(f"root {checkpoint.root.path}")
    if side.prefix:
        facts.append(f"names without {side.prefix!r}")
    return ", ".join(facts)


def _statement(found: Diff) -> Text:
    return Text(visible(found.statement), "bold green" if found.is_same else "bold yellow")


# The rest --------------------------------------------------------------------------------------


def _moved(entries: Sequence[TensorDiff], width: int | None) -> Iterator[RenderableType]:
    yield Text("moved: the same content under another name", "bold")
    rows = []
    for one in entries:
        if one.a is not None:
            before = one.a.entry.path if one.a.name is None else one.a.name
            cells = before, one.label, dtypes_text(one), shapes_text(one)
            rows.append([Text(visible(cell)) for cell in cells])
    yield in_columns([(name, "left") for name in _OF_MOVED], rows, width, folding=(0, 1))


def _leaves(
    leaves: Sequence[LeafDiff], unfold: bool, width: int | None
) -> Iterator[RenderableType]:
    shorten = width is not None and not unfold
    yield Text("besides tensors", "bold")
    rows = list(_leaf_rows(leaves, unfold, shorten))
    shown = rows[:_LEAVES_SHOWN] if shorten else rows
    cells = [[Text(cell) for cell in row] for row in shown]
    yield in_columns([(name, "left") for name in _OF_LEAVES], cells, width, folding=(0, 2))
    if len(shown) < len(rows):
        yield Text(f"... and {len(rows) - len(shown):,} more lines; --all lists them", "dim")


def _leaf_rows(
    leaves: Sequence[LeafDiff], unfold: bool, shorten: bool
) -> Iterator[tuple[str, str, str]]:
    """Path, change and value of each leaf.

    A part that only one file has is one line, and so are the changes of a part that are too many.
    """
    shown = Leaves()
    sizes = Counter((leaf.part, leaf.change) for leaf in leaves)
    told: set[tuple[str | None, Change]] = set()
    for leaf in leaves:
        part = leaf.part, leaf.change
        most = _CHANGES_OF_A_PART if leaf.change == "changed" else 1
        if leaf.part is None or sizes[part] <= most or unfold:
            yield visible(leaf.path), leaf.change, _leaf_value(leaf, shown, shorten)
        elif part not in told:
            told.add(part)
            yield visible(leaf.part), leaf.change, natural_count(sizes[part], "value")


def _leaf_value(leaf: LeafDiff, shown: Leaves, shorten: bool) -> str:
    if leaf.path == METADATA:
        # All that a root says of its modules; what the other one lacks.
        modules = leaf.a if leaf.change == "removed" else leaf.b
        return f"of {natural_count(len(modules), 'module')}"
    if leaf.change == "changed":
        return " -> ".join(_cut(shown.text(node), shorten) for node in (leaf.a, leaf.b))
    return _cut(shown.text(leaf.a if leaf.change == "removed" else leaf.b), shorten)


def _cut(text: str, shorten: bool) -> str:
    if not shorten or len(text) <= _LEAF_CHARACTERS:
        return text
    return f"{text[:_LEAF_CHARACTERS]} ... ({len(text):,} characters; --all shows them)"


def _unchanged(names: Sequence[str]) -> Text:
    """Whether what should have changed did; what did not, one line each, layers folded."""
    if not names:
        return Text("everything that should have changed did", "bold green")
    count = natural_count(len(names), "tensor")
    text = Text(f"{count} should have changed and did not", "bold red")
    for line in fold(names, name_of=lambda name: name, alike=lambda _: None):
        times = f"  x{len(line.members)}" if len(line.members) > 1 else ""
        text.append(f"\n{visible(line.label)}", "not bold default").append(times, "bold default")
    return text
