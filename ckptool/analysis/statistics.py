"""The figures of one tensor's values, gathered in two passes over chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.tensors.refs import TensorRef
from ckptool.values import read_elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HISTOGRAM_BINS", "Statistics", "statistics", "summary"]

HISTOGRAM_BINS = 12
_SUMMARISED_ABOVE = 1_000
_EDGE_ITEMS = 3


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures over the finite values; `histogram` counts them in equal bins from least to most.

    Complex numbers are measured by their magnitude. A figure of no values is None; `deviation` is
    the standard deviation of the values as they are, not of a sample. Where all values are the same
    there is no histogram.
    """

    elements: int
    nan: int
    inf: int
    zero: int
    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    deviation: float | None
    histogram: tuple[int, ...]


def statistics(tensor: TensorRef) -> Statistics | None:
    """Return the figures of a tensor; None where its elements are no plain numbers."""
    if tensor.dtype.kind in ("quantized", "bits") or tensor.dtype.name.endswith("_x2"):
        return None
    import numpy as np

    elements = nan = inf = zero = finite = 0
    low: float | int = math.inf
    high: float | int = -math.inf
    total = 0.0
    for values in _magnitudes(tensor):
        elements += values.size
        nan += int(np.isnan(values).sum())
        inf += int(np.isinf(values).sum())
        zero += int((values == 0).sum())
        values = values[np.isfinite(values)]
        if values.size:
            finite += values.size
            low, high = min(low, values.min().item()), max(high, values.max().item())
            total += float(values.sum(dtype=np.float64))
    if not finite:
        return Statistics(elements, nan, inf, zero, None, None, None, None, ())
    mean = total / finite
    squares = 0.0
    counts = np.zeros(HISTOGRAM_BINS, np.int64)
    for values in _magnitudes(tensor):
        values = values[np.isfinite(values)]
        squares += float(np.square(values - mean).sum())
        if 0 < high - low < math.inf:
            counts += np.histogram(values, HISTOGRAM_BINS, (low, high))[0]
    return Statistics(
        elements,
        nan,
        inf,
        zero,
        low,
        high,
        mean,
        math.sqrt(squares / finite),
        tuple(int(count) for count in counts) if counts.any() else (),
    )


def summary(tensor: TensorRef) -> str:
    """Return the values as text, the middle of large tensors left out and marked by dots."""
    import numpy as np

    shape = (*tensor.shape, 2) if tensor.dtype.name == "complex32" else tensor.shape
    is_whole = (tensor.numel or 0) <= _SUMMARISED_ABOVE
    kept = [range(size) if is_whole else _edges(size) for size in shape]
    picked = _pick(tensor, np.ravel_multi_index(np.ix_(*kept), shape).ravel() if kept else [0])
    return np.array2string(
        picked.reshape([len(indices) for indices in kept]),
        separator=", ",
        threshold=_SUMMARISED_ABOVE if is_whole else 0,
        edgeitems=_EDGE_ITEMS,
        max_line_width=100,
    )


def _edges(size: int) -> Sequence[int]:
    """The indices that are shown of an axis, and one between them to stand behind the dots."""
    if size <= 2 * _EDGE_ITEMS:
        return range(size)
    return [*range(_EDGE_ITEMS + 1), *range(size - _EDGE_ITEMS, size)]


def _pick(tensor: TensorRef, indices: Sequence[int] | NDArray[Any]) -> NDArray[Any]:
    """The elements at ascending row-major indices, gathered as the tensor passes by."""
    import numpy as np

    found = []
    start = 0
    wanted = np.asarray(indices)
    for chunk in read_elements(tensor):
        end = start + chunk.size
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
        found.append(chunk[here - start])
        start = end
    return np.concatenate(found) if found else np.empty(0)


def _magnitudes(tensor: TensorRef) -> Iterator[NDArray[Any]]:
    """The values as numbers that can be compared: integers as they are, the rest as float64."""
    import numpy as np

    for chunk in read_elements(tensor):
        if tensor.dtype.name == "complex32":
            yield np.hypot(chunk[0::2].astype(np.float64), chunk[1::2].astype(np.float64))
        elif tensor.dtype.kind == "complex":
            yield np.abs(chunk).astype(np.float64)
        elif tensor.dtype.kind in ("int", "uint"):
            yield chunk
        elif tensor.dtype.kind == "bool":
            yield chunk.astype(np.uint8)
        else:
            yield chunk.astype(np.float64)
