"""The table of tensors: names, roles, dtypes, shapes, bytes and evidence, layers folded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.classification.roles import ClassifiedEntry, Status
from ckptool.render.escape import visible
from ckptool.render.folding import Fold, fold
from ckptool.render.natural import natural_role, natural_size
from ckptool.tensors.refs import TensorRef

if TYPE_CHECKING:
    from ckptool.spec.model_spec import TensorSpec

__all__ = ["ROLE_STYLES", "TOP", "dtype_text", "shape_text", "status_text", "tensor_table"]

TOP: Final = "/"
"""How the path is shown that leads nowhere: the top of the file."""

ROLE_STYLES: Final = {
    "parameter": "cyan",
    "buffer": "green",
    "optimizer": "dim",
    "extra-state": "magenta",
    "tensor": "",
}


def tensor_table(
    entries: Iterable[ClassifiedEntry], title: str, by_name: bool, unfold: bool, width: int | None
) -> Iterator[RenderableType]:
    """The title and the table; `by_name` shows names in the root, not whole paths.

    `width` is that of the terminal in columns, None in a pipe.
    """
    if title:
        yield Text(title, "bold")
    rows = [_row(line) for line in _lines(entries, by_name, unfold)]
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    cells = [[heading, *(row[n].plain for row in rows)] for n, (heading, _) in enumerate(_COLUMNS)]
    for (heading, justify), (least, most) in zip(_COLUMNS, _widths(cells, width), strict=True):
        table.add_column(heading, justify=justify, overflow="fold", min_width=least, max_width=most)
    for row in rows:
        table.add_row(*row)
    yield table


def _widths(
    cells: Sequence[Sequence[str]], width: int | None
) -> list[tuple[int | None, int | None]]:
    """The least and the most width of each column.

    Where all is too wide, roles and evidence fold between their words, so that names have the
    room; where even that is too wide, everything folds anywhere.
    """
    free: list[tuple[int | None, int | None]] = [(None, None)] * len(cells)
    wanted = [max(map(len, column)) for column in cells]
    if width is None or sum(wanted) + _GAP * len(wanted) <= width:
        return free
    for index in _FOLDED:
        wanted[index] = max(len(word) for cell in cells[index] for word in cell.split())
    if _NARROWEST_NAME + sum(wanted[1:]) + _GAP * len(wanted) > width:
        return free
    return [(None, None), *((most, most) for most in wanted[1:])]


_GAP: Final = 2
_NARROWEST_NAME: Final = 12
_FOLDED: Final = (1, 5)
_COLUMNS: Final[tuple[tuple[str, Literal["left", "right"]], ...]] = (
    ("name", "left"),
    ("role", "left"),
    ("dtype", "left"),
    ("shape", "left"),
    ("bytes", "right"),
    ("evidence", "left"),
)


def _row(line: Fold[ClassifiedEntry]) -> tuple[Text, ...]:
    one = line.members[0]
    tensor = one.entry.tensor
    count = f"  x{len(line.members)}" if len(line.members) > 1 else ""
    nbytes = sum(m.entry.tensor.nbytes for m in line.members if m.entry.tensor)
    return (
        Text(visible(line.label) or TOP).append(count, "bold"),
        Text(natural_role(one), ROLE_STYLES[one.role]),
        Text("" if tensor is None else dtype_text(tensor)),
        Text("" if tensor is None else shape_text(tensor.shape)),
        Text(natural_size(nbytes)),
        _evidence(one),
    )


def dtype_text(tensor: TensorRef) -> str:
    return str(tensor.dtype) if tensor.layout == "strided" else f"{tensor.dtype} {tensor.layout}"


def _lines(
    entries: Iterable[ClassifiedEntry], by_name: bool, unfold: bool
) -> list[Fold[ClassifiedEntry]]:
    def name_of(one: ClassifiedEntry) -> str:
        return one.name if by_name and one.name is not None else one.entry.path

    if unfold:
        return [Fold(name_of(one), (one,)) for one in entries]
    return fold(entries, name_of=name_of, alike=_looks)


def _looks(one: ClassifiedEntry) -> tuple[object, ...]:
    tensor = one.entry.tensor
    facts = None if tensor is None else (tensor.dtype, tensor.layout, tensor.shape)
    verdict = (one.role, one.is_persistent, one.use, one.evidence, one.is_certain)
    return (*verdict, one.status, one.expected and _expected_text(one.expected), facts)


def shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("ragged" if size < 0 else str(size) for size in shape) + "]"


def _evidence(one: ClassifiedEntry) -> Text:
    """What says what an entry is; behind it, how it stands to the model."""
    is_sure = one.is_certain or one.evidence == "none"
    text = Text(one.evidence if is_sure else f"{one.evidence}, likely")
    return text if one.status is None else text.append(": ").append_text(status_text(one))


_STATUSES: Final[dict[Status, tuple[str, str]]] = {
    "matched": ("matched", ""),
    "mismatched": ("mismatched", "red"),
    "stale": ("left over", "yellow"),
    "unexpected": ("unexpected", "red"),
}


def status_text(one: ClassifiedEntry) -> Text:
    """Return how an entry stands to the model, with the model's side where it is another one."""
    if one.status is None:
        return Text("")
    text = Text(*_STATUSES[one.status])
    if one.expected is not None:
        text.append(f"; {_expected_text(one.expected)} in the model")
    return text


def _expected_text(spec: TensorSpec) -> str:
    shape = "" if spec.shape is None else f" {shape_text(spec.shape)}"
    return f"{spec.dtype or 'any dtype'}{shape}"
