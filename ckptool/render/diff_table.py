"""The table of tensors that are in both files: what became of each, what changed most first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from ckptool.analysis.diff.result import Change, Number, TensorDiff
from ckptool.render.columns import GAP, Column, in_columns
from ckptool.render.escape import visible
from ckptool.render.folding import Fold, fold
from ckptool.render.natural import natural_count
from ckptool.render.table import dtype_text, shape_text

__all__ = ["compared_table", "dtypes_text", "shapes_text"]

_BAR_WIDTH: Final = 12
_NARROWEST_NAME: Final = 24
_ARROW: Final = " -> "
# Shape and dtype seldom tell what changed, and the bar says what the figure beside it says.
_DISPENSABLE: Final = (3, 2, 7, 4)
_COUNTED: Final = 1_000
_COLUMNS: Final[tuple[Column, ...]] = (
    ("name", "left"),
    ("change", "left"),
    ("dtype", "left"),
    ("shape", "left"),
    ("elements", "right"),
    ("max abs", "right"),
    ("rel L2", "right"),
    ("", "left"),
)


def compared_table(
    entries: Sequence[TensorDiff], unfold: bool, top: int | None, width: int | None
) -> Iterator[RenderableType]:
    """The table, and how much of it `top` leaves out.

    Layers that differ in numbers only are one line, with the largest of their figures, unless
    `unfold` is set. `width` is that of the terminal in columns, None in a pipe.
    """
    lines = sorted(_lines(entries, unfold), key=_distance, reverse=True)
    shown = lines if top is None else lines[:top]
    most = max((size for line in shown if math.isfinite(size := _relative(line))), default=0.0)
    rows = [_row(line, most) for line in shown]
    kept = _kept_columns(rows, width)
    cells = [[row[index] for index in kept] for row in rows]
    yield in_columns([_COLUMNS[index] for index in kept], cells, width)
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
        if not is_telling and sum(wanted[column] + GAP for column in kept) > width:
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


def _distance(line: Fold[TensorDiff]) -> tuple[bool, bool, bool, float, float]:
    """What is sorted by: what is in the root, what is no number any more, what cannot be measured.

    Then the largest relative change, and where A is zero the largest change.
    """
    is_measured = all(one.figures.rel_l2 is not None for one in line.members)
    largest = max(one.figures.max_abs or 0.0 for one in line.members)
    is_inside = line.members[0].part is None
    return is_inside, _loses_numbers(line), not is_measured, _relative(line), largest


def _relative(line: Fold[TensorDiff]) -> float:
    return max((one.figures.rel_l2 or 0.0 for one in line.members), default=0.0)


def _row(line: Fold[TensorDiff], most: float) -> tuple[Text, ...]:
    one = line.members[0]
    times = f"  x{len(line.members)}" if len(line.members) > 1 else ""
    return (
        Text(visible(line.label)).append(times, "bold"),
        Text(_change(line), _STYLES[one.change]),
        Text(dtypes_text(one)),
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
    shapes = {shapes_text(one) for one in line.members}
    return shapes.pop() if len(shapes) == 1 else "several"


def dtypes_text(one: TensorDiff) -> str:
    """Return the dtype, or both with an arrow between them."""
    return _arrow(*_dtypes(one))


def shapes_text(one: TensorDiff) -> str:
    """Return the shape, or both with an arrow between them."""
    return _arrow(*_shapes(one))


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a}{_ARROW}{b}"


def _change(line: Fold[TensorDiff]) -> str:
    """The verdict, and whether numbers that are none came or went."""
    one = line.members[0]
    rounded_to = _rounded_to(one)
    said = [f"rounded to {rounded_to}" if rounded_to else str(one.verdict)]
    if one.values is not None and one.values.a_rounded_to is not None:
        said = [f"A is rounded to {one.values.a_rounded_to}"]
    if numbers := {member.values and member.values.numbers for member in line.members}:
        pair = numbers.pop()
        if pair and not numbers:
            said.append(_arrow(*map(_number, pair)))
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


def _number(number: Number) -> str:
    return f"{number:.6g}" if isinstance(number, float) else f"{number}"


def _loses_numbers(line: Fold[TensorDiff]) -> bool:
    """Whether there is NaN or infinity where there was none."""
    counts = [count for one in line.members for count in (one.figures.nan, one.figures.inf)]
    return any((after or 0) > (before or 0) for before, after in counts)


def _elements(line: Fold[TensorDiff]) -> str:
    counts = [one.figures.changed_elements for one in line.members]
    elements = [one.elements for one in line.members]
    if None in counts or None in elements:
        return ""
    changed, whole = (sum(count or 0 for count in numbers) for numbers in (counts, elements))
    if changed in (0, whole):
        return "all" if changed else "0"
    if min(changed, whole - changed) < _COUNTED or whole < 100 * _COUNTED:
        return f"{changed:,} of {whole:,}"
    # Neither none nor all of them, as rounding would have it.
    return f"{min(max(100 * changed / whole, 0.01), 99.99):.2f} %"


def _largest(figures: Sequence[float | None], times: str = "") -> str:
    known = [figure for figure in figures if figure is not None]
    if not known:
        return ""
    largest = max(known)
    return f"{'<= ' if times and largest else ''}{largest:.3g}"


def _bar(size: float, most: float) -> str:
    """A bar in eighths of a column; what is not zero is never without one."""
    if not size:
        return ""
    share = size / most if math.isfinite(size) else 1.0
    eighths = max(1, round(8 * _BAR_WIDTH * share))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]


_EIGHTHS: Final = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
