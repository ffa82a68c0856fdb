"""The figures of one tensor's values, gathered in two passes over chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.tensors.dtypes import DType
from ckptool.tensors.refs import TensorRef
from ckptool.values import read_elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HISTOGRAM_BINS", "Statistics", "statistics"]

HISTOGRAM_BINS = 12
# Even, so that no pair of a complex32 is torn apart.
_BLOCK = 1 << 15


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


def statistics(tensor: TensorRef, progress: Progress = UNWATCHED) -> Statistics | None:
    """Return the figures of a tensor; None where its elements are no plain numbers."""
    if tensor.dtype.kind in ("quantized", "bits") or tensor.dtype.name.endswith("_x2"):
        return None
    import numpy as np

    progress.expect(2 * tensor.nbytes)
    elements = nan = zero = finite = 0
    low: float | int = math.inf
    high: float | int = -math.inf
    total = squares = 0.0
    # Squares and sums of the largest numbers overflow; the infinity that comes out is the answer.
    with np.errstate(all="ignore"):
        for block in _blocks(tensor, progress):
            elements += block.size
            zero += block.size - int(np.count_nonzero(block))
            values = _finite(block)
            if values is not block:
                nan += int(np.isnan(block).sum())
            if values.size:
                finite += values.size
                low, high = min(low, values.min().item()), max(high, values.max().item())
                total += float(values.sum(dtype=np.float64))
        mean = total / finite if finite else math.nan
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        width = float(high) - float(low)
        for block in _blocks(tensor, progress):
            values = _finite(block)
            squares += float(np.square(values - mean).sum())
            if 0 < width < math.inf:
                # The inverse of a width that is subnormal would be infinite.
                bins = (values.astype(np.float64) - float(low)) / width * HISTOGRAM_BINS
                counts += np.bincount(
                    np.clip(bins, 0, HISTOGRAM_BINS - 1).astype(np.int64), minlength=HISTOGRAM_BINS
                )
    inf = elements - nan - finite
    if not finite:
        return Statistics(elements, nan, inf, zero, None, None, None, None, ())
    deviation = math.sqrt(squares / finite)
    histogram = tuple(int(count) for count in counts) if counts.any() else ()
    return Statistics(elements, nan, inf, zero, low, high, mean, deviation, histogram)


def _finite(block: NDArray[Any]) -> NDArray[Any]:
    """The finite values of a block: itself where all are, as they mostly are."""
    import numpy as np

    is_finite = np.isfinite(block)
    if is_finite.all():
        return block
    finite: NDArray[Any] = block[is_finite]
    return finite


def _blocks(tensor: TensorRef, progress: Progress) -> Iterator[NDArray[Any]]:
    """The values as numbers that can be compared, as many at a time as a cache holds."""
    for chunk in read_elements(tensor):
        for at in range(0, chunk.size, _BLOCK):
            yield _comparable(chunk[at : at + _BLOCK], tensor.dtype)
        progress.advance(chunk.nbytes)


def _comparable(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Integers as they are, complex numbers as their magnitudes, the rest as float64."""
    import numpy as np

    if dtype.kind == "complex":
        pairs = values if dtype.name == "complex32" else values.view(values.real.dtype)
        magnitudes: NDArray[Any] = np.abs(pairs.astype(np.float64).view(np.complex128))
        return magnitudes
    if dtype.kind in ("int", "uint"):
        return values
    return values.astype(np.uint8 if dtype.kind == "bool" else np.float64)
