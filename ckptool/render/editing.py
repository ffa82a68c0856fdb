"""What an edit does, as Rich renderables for people: a plan, or what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.edit.plan import Changed, Left, Plan, Removed
from ckptool.render.columns import Column, in_columns
from ckptool.render.escape import visible
from ckptool.render.folding import fold
from ckptool.render.natural import FORMAT_NAMES, natural_count, natural_size

__all__ = ["edit_view"]

_OF_REMOVED: Final[tuple[Column, ...]] = (
    ("removed", "left"),
    ("tensors", "right"),
    ("bytes", "right"),
)
_OF_CHANGED: Final[tuple[Column, ...]] = (("changed", "left"), ("", "left"), ("to", "left"))
_OF_LEFT: Final[tuple[Column, ...]] = (("left as it is", "left"), ("why", "left"))


def edit_view(
    plan: Plan, target: Path | None, *, is_written: bool, width: int | None = None
) -> Group:
    """Everything an edit says: what goes, what changes, what stays; repeated layers folded.

    On a terminal, which has a `width` in columns, long names are folded. Nothing is left out.
    """
    parts: list[RenderableType] = [_heading(plan, target, is_written)]
    if plan.removed:
        parts += ["", in_columns(_OF_REMOVED, list(_removed(plan.removed)), width)]
    if plan.changed:
        parts += ["", in_columns(_OF_CHANGED, list(_changed(plan.changed)), width, (0, 2))]
    if plan.left:
        parts += ["", in_columns(_OF_LEFT, list(_left(plan.left)), width, (0, 1))]
    return Group(*parts, "", _summary(plan))


def _heading(plan: Plan, target: Path | None, is_written: bool) -> Table:
    checkpoint = plan.checkpoint
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    facts = f"{FORMAT_NAMES[checkpoint.format]}, {natural_size(plan.bytes_before)}"
    grid.add_row("from", Text(visible(f"{checkpoint.path}, {facts}")))
    name = "" if target is None else f"{target}, "
    done = Text("written and verified", "green") if is_written else Text("not written", "yellow")
    grid.add_row("to", Text.assemble(visible(name), natural_size(plan.nbytes), ", ", done))
    return grid


def _removed(removed: Sequence[Removed]) -> Iterator[list[Text]]:
    for line in fold(removed, name_of=lambda one: one.path, alike=lambda one: one[1:]):
        tensors = sum(one.tensors for one in line.members)
        nbytes = sum(one.nbytes for one in line.members)
        sizes = (f"{tensors:,}", natural_size(nbytes)) if tensors else ("", "")
        yield [_label(line.label, len(line.members)), *map(Text, sizes)]


def _changed(changed: Sequence[Changed]) -> Iterator[list[Text]]:
    for line in fold(changed, name_of=lambda one: one.path, alike=_alike):
        to = [one.to for one in line.members]
        told = fold(to, name_of=lambda text: text, alike=lambda _: None)[0].label
        label = _label(line.label, len(line.members))
        yield [label, Text(line.members[0].what), Text(visible(told))]


def _alike(one: Changed) -> tuple[str, str | None]:
    """What is told alike in one line: new names fold as the old ones do."""
    return one.what, None if one.what == "renamed" else one.to


def _left(left: Sequence[Left]) -> Iterator[list[Text]]:
    for line in fold(left, name_of=lambda one: one.path, alike=lambda one: one.why):
        label = _label(line.label, len(line.members))
        yield [label, Text(visible(line.members[0].why), "yellow")]


def _label(label: str, times: int) -> Text:
    return Text.assemble(visible(label), (f"  x{times}" if times > 1 else "", "bold"))


def _summary(plan: Plan) -> Text:
    tensors, nbytes = plan.kept
    kept = f"{natural_count(tensors, 'tensor')} in {natural_size(nbytes)} of storages"
    sizes = f"{natural_size(plan.bytes_before)} -> {natural_size(plan.nbytes)}"
    return Text.assemble(f"kept {kept}\n", (sizes, "bold"))
