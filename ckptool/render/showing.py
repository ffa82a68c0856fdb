"""One tensor, or one leaf, for a person to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.analysis.details import Detail
from ckptool.analysis.statistics import Statistics
from ckptool.checkpoint.entries import Entry
from ckptool.classification.roles import ClassifiedEntry
from ckptool.render.escape import visible
from ckptool.render.excerpts import excerpt_text
from ckptool.render.leaves import leaf_type, plain
from ckptool.render.natural import natural_role, natural_size
from ckptool.tensors.refs import Components, Strided, TensorRef

__all__ = ["details_view"]

_BAR_WIDTH = 40


def details_view(details: Sequence[Detail]) -> Group:
    """Entries in full, one below the other."""
    parts: list[RenderableType] = []
    for detail in details:
        parts += ["", *(_leaf(detail.entry) if detail.entry.tensor is None else _tensor(detail))]
    return Group(*parts[1:])


def _leaf(entry: Entry) -> Iterator[RenderableType]:
    """A leaf that is no tensor, whole."""
    value = plain(entry.node, whole=True)
    yield Text.assemble((visible(entry.path) or "/", "bold"), "  ", visible(leaf_type(entry.node)))
    yield Text(visible(value) if isinstance(value, str) else json.dumps(value, indent=2))


def _tensor(detail: Detail) -> Iterator[RenderableType]:
    """A tensor's facts, its figures, a histogram, and its values."""
    yield Text(visible(detail.entry.path) or "/", "bold")
    tensor = detail.entry.tensor
    if tensor is None or detail.classified is None:
        return
    yield _facts(detail.classified, tensor)
    if isinstance(tensor.data, Components):
        yield from (_component(part.role, part.value) for part in tensor.data.parts)
    figures = detail.statistics
    if figures is not None and figures.elements:
        measured = "|x|" if tensor.dtype.kind == "complex" else ""
        yield from ("", _figures(figures, measured))
        if figures.histogram and figures.minimum is not None and figures.maximum is not None:
            yield from ("", _histogram(figures.histogram, figures.minimum, figures.maximum))
    if detail.excerpt is not None:
        yield from ("", Text(excerpt_text(detail.excerpt)))


def _facts(one: ClassifiedEntry, tensor: TensorRef) -> Text:
    facts = [
        f"{tensor.dtype} {list(tensor.shape)}",
        natural_size(tensor.nbytes),
        _role(one),
    ]
    if tensor.layout != "strided":
        facts.append(tensor.layout)
    if isinstance(tensor.data, Strided):
        data = tensor.data
        facts.append(
            f"stride {list(data.stride)}, offset {data.offset}, storage {data.storage.key}"
        )
    if tensor.location is not None:
        facts.append(f"saved from {tensor.location}")
    if tensor.requires_grad:
        facts.append("requires grad")
    return Text(visible(", ".join(facts)))


def _role(one: ClassifiedEntry) -> str:
    if one.evidence == "none":
        return "role unknown"
    return f"{natural_role(one)} (evidence: {one.evidence}{'' if one.is_certain else ', likely'})"


def _component(role: str, value: TensorRef | int | float) -> Text:
    what = f"{value.dtype} {list(value.shape)}" if isinstance(value, TensorRef) else f"{value!r}"
    return Text(visible(f"  {role}: {what}"))


def _figures(figures: Statistics, measured: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    for label, figure in (
        ("min", figures.minimum),
        ("max", figures.maximum),
        ("mean", figures.mean),
        ("std", figures.deviation),
    ):
        grid.add_row(f"{label} {measured}".rstrip(), _figure(figure))
    for label, count in (("NaN", figures.nan), ("inf", figures.inf), ("zero", figures.zero)):
        grid.add_row(label, Text(f"{count:,}", "red" if count and label != "zero" else ""))
    return grid


def _figure(figure: float | int | None) -> str:
    if isinstance(figure, float):
        return f"{figure:.6g}"
    return "-" if figure is None else f"{figure:,}"


def _histogram(counts: Sequence[int], low: float, high: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    grid.add_column()
    grid.add_column(justify="right")
    most = max(counts, default=0) or 1
    for index, count in enumerate(counts):
        bar = "█" * round(_BAR_WIDTH * count / most)
        start = low + index * (high - low) / len(counts)
        grid.add_row(f"{start:.4g}", Text(bar, "cyan"), f"{count:,}")
    return grid
