"""What `diff` says, as Rich renderables for people."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, Literal, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.analysis.diff.result import Change, Diff, LeafDiff, Side, TensorDiff
from ckptool.classification.roles import Role
from ckptool.pickling.nodes import Node
from ckptool.render.escape import visible
from ckptool.render.folding import Fold, fold
from ckptool.render.leaves import leaf_text
from ckptool.render.natural import FORMAT_NAMES, natural_count
from ckptool.render.table import dtype_text, shape_text, tensor_table

__all__ = ["diff_view"]

_BAR_WIDTH: Final = 12
_LEAVES_SHOWN: Final = 20
_LEAF_CHARACTERS: Final = 200
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
        parts += ["", *_compared(listed, unfold, top, width)]
    moved = [one for one in found.entries if one.change == "moved"]
    if moved:
        parts += ["", *_moved(moved)]
    for title, alone in (
        ("only in A", [one.a for one in found.entries if one.a and one.change == "removed"]),
        ("only in B", [one.b for one in found.entries if one.b and one.change == "added"]),
    ):
        if alone:
            parts += ["", *tensor_table(alone, title, True, unfold, width)]
    leaves = [leaf for leaf in found.leaves if leaf.change != "same"]
    if leaves:
        parts += ["", *_leaves(leaves, unfold, shorten=width is not None and not unfold)]
    if found.unchanged:
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


# Values ----------------------------------------------------------------------------------------

_GAP: Final = 2
_NARROWEST_NAME: Final = 24
_ARROW: Final = " -> "
# Shape and dtype seldom tell what changed, and the bar says what the figure beside it says.
_DISPENSABLE: Final = (3, 2, 7, 4)
_COUNTED: Final = 100_000
_COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("name", "left"),
    ("change", "left"),
    ("dtype", "left"),
    ("shape", "left"),
    ("elements", "right"),
    ("max abs", "right"),
    ("rel L2", "right"),
    ("", "left"),
)


def _compared(
    entries: Sequence[TensorDiff], unfold: bool, top: int | None, width: int | None
) -> Iterator[RenderableType]:
    lines = sorted(_lines(entries, unfold), key=_distance, reverse=True)
    shown = lines if top is None else lines[:top]
    most = max((size for line in shown if math.isfinite(size := _relative(line))), default=0.0)
    rows = [_row(line, most) for line in shown]
    table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0))
    kept = _kept_columns(rows, width)
    for index in kept:
        heading, justify = _COLUMNS[index]
        # Names fold where there is no room, everything else stays in one piece.
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index > 0)
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    yield table
    if len(shown) < len(lines):
        hidden = sum(len(line.members) for line in lines[len(shown) :])
        more = natural_count(hidden, "more tensor")
        yield Text(f"... and {more}; without --top all are listed", "dim")


def _kept_columns(rows: Sequence[Sequence[Text]], width: int | None) -> list[int]:
    """The columns that a terminal has room for beside the names: the last ones go first."""
    kept = list(range(len(_COLUMNS)))
    if width is None:
        return kept
    wanted = [
        max(len(heading), *(len(row[index]) for row in rows))
        for index, (heading, _) in enumerate(_COLUMNS)
    ]
    wanted[0] = min(wanted[0], _NARROWEST_NAME)
    for index in _DISPENSABLE:
        is_telling = any(_ARROW in row[index].plain for row in rows)
        if not is_telling and sum(wanted[column] + _GAP for column in kept) > width:
            kept.remove(index)
    return kept


def _lines(entries: Sequence[TensorDiff], unfold: bool) -> list[Fold[TensorDiff]]:
    if unfold:
        return [Fold(one.label, (one,)) for one in entries]
    return fold(entries, name_of=lambda one: one.label, alike=_looks)


def _looks(one: TensorDiff) -> tuple[object, ...]:
    # Layers differ in their sizes more often than in what became of them.
    dimensions = [len(side.entry.node.shape) for side in (one.a, one.b) if side is not None]
    return one.role, one.verdict, _rounded_to(one), *_dtypes(one), *dimensions


def _distance(line: Fold[TensorDiff]) -> tuple[bool, float]:
    """What is sorted by: what cannot be measured first, then the largest relative change."""
    is_measured = all(one.figures.rel_l2 is not None for one in line.members)
    return not is_measured, _relative(line)


def _relative(line: Fold[TensorDiff]) -> float:
    return max((one.figures.rel_l2 or 0.0 for one in line.members), default=0.0)


def _row(line: Fold[TensorDiff], most: float) -> tuple[Text, ...]:
    one = line.members[0]
    times = f"  x{len(line.members)}" if len(line.members) > 1 else ""
    return (
        Text(visible(line.label)).append(times, "bold"),
        Text(_change(line), _STYLES[one.change]),
        Text(_arrow(*_dtypes(one))),
        Text(_shape(line)),
        Text(_elements(line)),
        Text(_largest([member.figures.max_abs for member in line.members])),
        Text(_largest([member.figures.rel_l2 for member in line.members], times)),
        Text(_bar(_relative(line), most), "cyan"),
    )


_STYLES: Final[dict[Change, str]] = {"same": "dim", "changed": ""}


def _rounded_to(one: TensorDiff) -> str | None:
    return None if one.values is None else one.values.rounded_to


def _dtypes(one: TensorDiff) -> tuple[str, ...]:
    return tuple(dtype_text(side.entry.node) for side in (one.a, one.b) if side is not None)


def _shapes(one: TensorDiff) -> tuple[str, ...]:
    return tuple(shape_text(side.entry.node.shape) for side in (one.a, one.b) if side is not None)


def _shape(line: Fold[TensorDiff]) -> str:
    shapes = {_arrow(*_shapes(one)) for one in line.members}
    return shapes.pop() if len(shapes) == 1 else "several"


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a}{_ARROW}{b}"


def _change(line: Fold[TensorDiff]) -> str:
    """The verdict, and whether numbers that are none came or went."""
    one = line.members[0]
    rounded_to = _rounded_to(one)
    said = [f"rounded to {rounded_to}" if rounded_to else str(one.verdict)]
    for name, counts in (
        ("NaN", [member.figures.nan for member in line.members]),
        ("inf", [member.figures.inf for member in line.members]),
    ):
        before, after = (sum(count or 0 for count in side) for side in zip(*counts, strict=True))
        if before or after:
            said.append(
                f"{name} {before:,} -> {after:,}" if before != after else f"{name} {after:,}"
            )
    return ", ".join(said)


def _elements(line: Fold[TensorDiff]) -> str:
    counts = [one.figures.changed_elements for one in line.members]
    elements = [one.elements for one in line.members]
    if None in counts or None in elements:
        return ""
    changed, whole = (sum(count or 0 for count in numbers) for numbers in (counts, elements))
    if changed == whole:
        return "all"
    if whole < _COUNTED:
        return f"{changed:,} of {whole:,}"
    return f"{100 * changed / whole:.2f} %" if changed / whole >= 0.0001 else "< 0.01 %"


def _largest(figures: Sequence[float | None], times: str = "") -> str:
    known = [figure for figure in figures if figure is not None]
    if not known:
        return ""
    return f"{'<= ' if times else ''}{max(known):.3g}"


def _bar(size: float, most: float) -> str:
    """A bar in eighths of a column; what is not zero is never without one."""
    if not size or not most:
        return ""
    eighths = max(1, round(8 * _BAR_WIDTH * min(1.0, size / most)))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


_EIGHTHS: Final = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


# The rest --------------------------------------------------------------------------------------


def _moved(entries: Sequence[TensorDiff]) -> Iterator[RenderableType]:
    yield Text("moved: the same content under another name", "bold")
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("name in A", "name in B", "dtype", "shape"):
        table.add_column(heading, overflow="fold")
    for one in entries:
        if one.a is not None:
            before = one.a.entry.path if one.a.name is None else one.a.name
            facts = _arrow(*_dtypes(one)), _arrow(*_shapes(one))
            table.add_row(*(Text(visible(cell)) for cell in (before, one.label, *facts)))
    yield table


def _leaves(leaves: Sequence[LeafDiff], unfold: bool, shorten: bool) -> Iterator[RenderableType]:
    yield Text("besides tensors", "bold")
    rows = list(_leaf_rows(leaves, unfold, shorten))
    shown = rows[:_LEAVES_SHOWN] if shorten else rows
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("path", "change", "value"):
        table.add_column(heading, overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    yield table
    if len(shown) < len(rows):
        yield Text(f"... and {len(rows) - len(shown):,} more lines; --all lists them", "dim")


def _leaf_rows(
    leaves: Sequence[LeafDiff], unfold: bool, shorten: bool
) -> Iterator[tuple[str, str, str]]:
    """Path, change and value of each leaf; a part that only one file has is one line."""
    sizes = Counter((leaf.part, leaf.change) for leaf in leaves)
    told: set[tuple[str | None, Change]] = set()
    for leaf in leaves:
        part = leaf.part, leaf.change
        if leaf.change == "changed" or leaf.part is None or sizes[part] == 1 or unfold:
            yield visible(leaf.path), leaf.change, _leaf_value(leaf, shorten)
        elif part not in told:
            told.add(part)
            yield visible(leaf.part), leaf.change, natural_count(sizes[part], "value")


def _leaf_value(leaf: LeafDiff, shorten: bool) -> str:
    if leaf.change == "changed":
        return f"{_leaf(leaf.a, shorten)} -> {_leaf(leaf.b, shorten)}"
    return _leaf(leaf.a if leaf.change == "removed" else leaf.b, shorten)


def _leaf(node: Node, shorten: bool) -> str:
    text = leaf_text(node)
    if not shorten or len(text) <= _LEAF_CHARACTERS:
        return text
    return f"{text[:_LEAF_CHARACTERS]} ... ({len(text):,} characters; --all shows them)"


def _unchanged(names: Sequence[str]) -> Text:
    count = natural_count(len(names), "tensor")
    folded = fold(names, name_of=lambda name: name, alike=lambda _: None)
    listed = ", ".join(visible(line.label) for line in folded)
    return Text(f"{count} should have changed and did not: {listed}", "bold red")
