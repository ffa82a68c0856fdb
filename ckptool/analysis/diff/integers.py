"""Integers of 64 bits compared exactly, where float64 would take neighbours for one number."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["distances", "is_exact_in_float64", "unequal"]

_LONG: Final = (np.dtype(np.int64), np.dtype(np.uint64))
_UNSIGNED: Final = np.dtype(np.uint64)


def is_exact_in_float64(dtype: np.dtype[Any]) -> bool:
    """Whether float64 has every number of a dtype."""
    return dtype not in _LONG


def unequal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each pair of numbers, one of them a 64-bit integer or both, whether they differ."""
    if is_exact_in_float64(a.dtype):
        return unequal(b, a)
    if a.dtype == b.dtype:
        different: NDArray[np.bool_] = a != b
        return different
    if b.dtype.kind == "b":
        b = b.astype(np.uint8)
    if b.dtype.kind in "iu":
        return _unequal_integers(a, b)
    return _unequal_to_float(a, b.astype(np.float64))


def _unequal_integers(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    different: NDArray[np.bool_]
    if _UNSIGNED not in (a.dtype, b.dtype):
        different = a.astype(np.int64) != b.astype(np.int64)
    else:
        # A negative number is no unsigned one, and would wrap round to one.
        different = (a < 0) | (b < 0) | (a.astype(np.uint64) != b.astype(np.uint64))
    return different


def _unequal_to_float(a: NDArray[Any], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    limits = np.iinfo(a.dtype)
    # The greatest integer is no float64; the next power of two is one, and out of range.
    is_whole = (b >= float(limits.min)) & (b < float(limits.max) + 1) & (np.floor(b) == b)
    converted = np.where(is_whole, b, 0).astype(a.dtype)
    different: NDArray[np.bool_] = ~is_whole | (converted != a)
    return different


def distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return how far numbers are apart; None where float64 has all of them."""
    if is_exact_in_float64(a.dtype) and is_exact_in_float64(b.dtype):
        return None
    apart: NDArray[np.float64]
    if a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
        # Where it is wider than float64, it has the integers and the floats.
        apart = np.abs(b.astype(np.longdouble) - a.astype(np.longdouble)).astype(np.float64)
        return apart
    if a.dtype == b.dtype:
        # The difference of any two fits 64 bits without a sign.
        larger, smaller = np.maximum(a, b).view(np.uint64), np.minimum(a, b).view(np.uint64)
        apart = (larger - smaller).astype(np.float64)
        return apart
    # The difference of any two of one sign fits 64 bits without a sign.
    sides = [np.where(side < 0, 0, side).astype(np.uint64) for side in (a, b)]
    apart = (np.maximum(*sides) - np.minimum(*sides)).astype(np.float64)
    below = [np.where(side < 0, side, 0).astype(np.int64) for side in (a, b)]
    beneath = (np.maximum(*below) - np.minimum(*below)).view(np.uint64)
    return apart + beneath.astype(np.float64)
