"""Whether values are those of another tensor, rounded to fewer bits."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptool.tensors.dtypes import DTYPES, DType
from ckptool.values import numpy_dtype

__all__ = ["NO_CANDIDATES", "Candidates", "candidates_for", "is_telling", "rounded_to"]

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


class Candidates(NamedTuple):
    """The dtypes that values may have been rounded to.

    `foreign_bits` are the bits of an element of B that are zero then, whichever of them it was.
    """

    names: tuple[str, ...]
    foreign_bits: int


NO_CANDIDATES: Final = Candidates((), 0)


@functools.cache
def candidates_for(a: DType, b: DType) -> Candidates:
    """Return the dtypes that values of A may have been rounded to: B's, or any that A's can hold.

    Only what is narrower than A's dtype counts.
    """
    if a.kind != "float" or b.kind != "float":
        return NO_CANDIDATES
    narrower = [name for name in _NARROW if DTYPES[name].itemsize < a.itemsize]
    names = tuple(name for name in narrower if a is b or name == b.name)
    bits = _MANTISSA_BITS[a.name] - max((_MANTISSA_BITS[name] for name in names), default=0)
    return Candidates(names, (1 << bits) - 1 if a is b else 0)


def rounded_to(
    a: NDArray[Any], b: NDArray[Any], numbers: NDArray[np.float64], candidates: Candidates
) -> Candidates:
    """Return those of the candidates that B is A rounded to.

    Rounding is torch's: to the nearest, by way of float32. `a` and `b` are elements as they are,
    `numbers` those of B as float64. A NaN is a NaN.
    """
    names, foreign = candidates
    if foreign and (b[:_FIRST].view(f"u{b.itemsize}") & foreign).any():
        return NO_CANDIDATES
    for start in range(0, a.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        names = tuple(name for name in names if _is_rounded(a[part], numbers[part], name))
        if not names:
            break
    return Candidates(names, foreign)


def is_telling(numbers: NDArray[Any]) -> bool:
    """Whether numbers can tell that they were rounded: one power of two, or zero, is no sign of it.

    A freshly made scale of ones is what any scale near it is rounded to.
    """
    magnitudes = np.abs(numbers)
    first = magnitudes.flat[0]
    return bool((magnitudes != first).any() or np.frexp(first)[0] not in (0, 0.5))


def _is_rounded(a: NDArray[Any], b: NDArray[Any], dtype: str) -> bool:
    rounded = a.astype(np.float32).astype(numpy_dtype(DTYPES[dtype])).astype(np.float64)
    return bool(((rounded == b) | (np.isnan(rounded) & np.isnan(b))).all())
