"""Whether values are those of another tensor, rounded to fewer bits."""

from __future__ import annotations

import functools
import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptool.tensors.dtypes import DTYPES, DType
from ckptool.values import numpy_dtype

__all__ = ["NO_CANDIDATES", "Candidates", "candidates_for", "magnitude_of", "rounded_to"]

# The usual ones first: values of few bits can be the rounding of the same numbers to several.
_MANTISSA_BITS: Final = {
    "float64": 52,
    "float32": 23,
    "bfloat16": 7,
    "float16": 10,
    "float8_e4m3fn": 3,
    "float8_e5m2": 2,
    "float8_e4m3fnuz": 3,
    "float8_e5m2fnuz": 2,
    "float8_e8m0fnu": 0,
}
_NARROW: Final = tuple(_MANTISSA_BITS)[1:]
# Enough to tell most tensors that were not rounded from those that were.
_FIRST: Final = 32
_BLOCK: Final = 1 << 13
_LARGEST_E4M3FN: Final = 448.0


class Candidates(NamedTuple):
    """The dtypes that values may have been rounded to.

    It is B that may be A rounded, or where `is_reverse`, A that may be B rounded.
    """

    names: tuple[str, ...]
    is_reverse: bool = False


NO_CANDIDATES: Final = Candidates(())


@functools.cache
def candidates_for(a: DType, b: DType) -> Candidates:
    """Return the dtypes that values of A may have been rounded to: B's, or any that A's can hold.

    Only what is no wider than A's dtype counts; where B's is wider, it is A that may be rounded.
    """
    if a.kind != "float" or b.kind != "float" or a.itemsize == b.itemsize == 1:
        return NO_CANDIDATES
    if a.itemsize < b.itemsize:
        return candidates_for(b, a)._replace(is_reverse=True)
    narrow = [n for n in _NARROW if n != a.name and DTYPES[n].itemsize <= a.itemsize]
    return Candidates(tuple(name for name in narrow if a is b or name == b.name))


def rounded_to(
    a: NDArray[Any], b: NDArray[Any], numbers: NDArray[np.float64], candidates: Candidates
) -> Candidates:
    """Return those of the candidates that B is A rounded to.

    Rounding is torch's: to the nearest, by way of float32. `a` and `b` are elements as they are,
    `numbers` those of B as float64. A NaN is a NaN.
    """
    names = candidates.names
    if a.dtype == b.dtype and not _have_few_bits(numbers[:_FIRST], names):
        return NO_CANDIDATES
    starts = range(0, a.size if a.size > _FIRST else 0, _BLOCK)
    for part in (slice(_FIRST), *(slice(start, start + _BLOCK) for start in starts)):
        names = tuple(name for name in names if _is_rounded(a[part], b.dtype, numbers[part], name))
        if not names:
            break
    return candidates._replace(names=names)


def magnitude_of(numbers: NDArray[np.float64]) -> float | None:
    """Return the power of two, or zero, that is the magnitude of all numbers; None for others.

    It is no sign of rounding: a freshly made scale of ones is what any scale near it is rounded to.
    """
    magnitudes = np.abs(numbers)
    first = float(magnitudes[0])
    is_constant = math.frexp(first)[0] in (0, 0.5) and bool((magnitudes == first).all())
    return first if is_constant else None


def _have_few_bits(numbers: NDArray[np.float64], names: tuple[str, ...]) -> bool:
    """Whether the mantissas of all numbers are short enough for one of the dtypes."""
    most = max(_MANTISSA_BITS[name] for name in names)
    mantissas = np.frexp(numbers)[0] * float(2 << most)
    return not bool((np.floor(mantissas) < mantissas).any())


def _is_rounded(
    a: NDArray[Any], kept_in: np.dtype[Any], b: NDArray[np.float64], dtype: str
) -> bool:
    numbers = a.astype(np.float32)
    if dtype == "float8_e8m0fnu" and (numbers <= 0).any():
        # It has neither zero nor a sign, and what becomes of these is nobody's rounding.
        return False
    if dtype == "float8_e4m3fn":
        # Of all kinds, torch has this one end at its largest number instead of infinity or NaN.
        numbers = numbers.clip(-_LARGEST_E4M3FN, _LARGEST_E4M3FN)
    narrow = numbers.astype(numpy_dtype(DTYPES[dtype])).astype(np.float32)
    rounded = narrow.astype(kept_in).astype(np.float64)
    return bool(((rounded == b) | (np.isnan(rounded) & np.isnan(b))).all())
