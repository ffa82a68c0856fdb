"""Integers beyond what float64 tells apart, with Python's own as oracle."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ckptool.analysis.diff.integers import distances, is_exact_in_float64, unequal
from tests.analysis.diff.tensor_pairs import compare

LONG: Final = ("int64", "uint64")
OTHERS: Final = ("int8", "uint8", "int32", "uint32", "bool", "float16", "float32", "float64")
EDGES: Final = sorted(
    sign * ((1 << power) + more)
    for power in (0, 7, 8, 31, 32, 52, 53, 54, 62, 63, 64)
    for more in (-1, 0, 1)
    for sign in (-1, 1)
)
FLOATS: Final = st.one_of(st.floats(width=32), st.sampled_from(EDGES).map(float))


def numbers_of(dtype: str) -> st.SearchStrategy[int | float | bool]:
    if dtype == "bool":
        return st.booleans()
    if dtype.startswith("float"):
        info = np.finfo(dtype)
        return FLOATS.filter(lambda x: not abs(x) < np.inf or abs(x) <= float(info.max))
    limits = np.iinfo(dtype)
    least, most = int(limits.min), int(limits.max)
    within = [edge for edge in EDGES if least <= edge <= most]
    return st.one_of(st.integers(least, most), st.sampled_from(within))


def arrays(data: st.DataObject, dtype: str, size: int) -> np.ndarray[tuple[int], np.dtype]:
    return np.array([data.draw(numbers_of(dtype)) for _ in range(size)], dtype)


@given(st.data(), st.sampled_from(LONG), st.sampled_from(LONG + OTHERS), st.integers(1, 4))
def test_numbers_differ_where_python_says_so(
    data: st.DataObject, dtype: str, other: str, size: int
) -> None:
    a, b = arrays(data, dtype, size), arrays(data, other, size)
    expected = [x != y for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert unequal(a, b).tolist() == expected
    assert unequal(b, a).tolist() == expected


@given(st.data(), st.sampled_from(LONG), st.integers(1, 4))
def test_distances_are_rounded_once(data: st.DataObject, dtype: str, size: int) -> None:
    a, b = arrays(data, dtype, size), arrays(data, dtype, size)
    found = distances(a, b)
    assert found is not None
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    assert found.tolist() == [float(abs(x - y)) for x, y in pairs]


def test_only_long_integers_are_not_exact_in_float64() -> None:
    assert [name for name in LONG + OTHERS if not is_exact_in_float64(np.dtype(name))] == list(LONG)
    assert distances(np.zeros(1, np.int32), np.zeros(1, np.int32)) is None


@given(st.data(), st.sampled_from(LONG), st.sampled_from(LONG + OTHERS))
def test_integers_of_two_kinds_are_as_far_apart_as_they_are(
    data: st.DataObject, dtype: str, other: str
) -> None:
    a, b = arrays(data, dtype, 3), arrays(data, other, 3)
    for left, right in ((a, b), (b, a)):
        found = distances(left, right)
        assert found is not None
        for x, y, apart in zip(left.tolist(), right.tolist(), found.tolist(), strict=True):
            if math.isfinite(x) and math.isfinite(y):
                expected = float(abs(Fraction(x) - Fraction(y)))
                assert apart == pytest.approx(expected, rel=1e-15, abs=0)


def int64(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def uint64(*numbers: int) -> Tensor:
    return torch.from_numpy(np.array(numbers, np.uint64))


def float64(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        (int64(2**53, 5), int64(2**53 + 1, 5), 1),
        (int64(2**62 + 1), int64(2**62), 1),
        (int64(2**63 - 1), int64(-(2**63)), 2**64 - 1),
        (int64(-(2**63)), int64(-(2**63) + 3), 3),
        (uint64(2**64 - 1), uint64(2**64 - 2), 1),
        (uint64(0), uint64(2**64 - 1), 2**64 - 1),
        (uint64(2**63), uint64(2**63 + 1024), 1024),
    ],
)
def test_neighbours_beyond_float64_are_apart(
    a: Tensor, b: Tensor, apart: int, tmp_path: Path
) -> None:
    for first, second in ((a, b), (b, a)):
        found = compare(tmp_path, first, second)
        assert (found.verdict, found.figures.changed_elements) == ("changed", 1)
        assert found.figures.max_abs == float(apart)
        assert found.figures.mean_abs == float(apart) / len(a)
        assert compare(tmp_path, first, second, atol=apart / 2).verdict == "changed"
        assert compare(tmp_path, first, second, atol=float(apart)).verdict == "close"


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (int64(2**53 + 1), float64(2.0**53), "changed"),
        (int64(2**53), float64(2.0**53), "dtype"),
        (int64(2**63 - 1), float64(2.0**63), "changed"),
        (int64(-(2**63)), float64(-(2.0**63)), "dtype"),
        (uint64(2**64 - 1), float64(2.0**64), "changed"),
        (uint64(2**63), float64(2.0**63), "dtype"),
        (int64(2**62 + 1), uint64(2**62 + 1), "dtype"),
        (int64(2**62 + 1), uint64(2**62), "changed"),
        (int64(-1), uint64(2**64 - 1), "changed"),
        (int64(2**53 + 1), float64(2.0**53).to(torch.complex128), "changed"),
        (int64(2**53), float64(2.0**53).to(torch.complex128), "dtype"),
        (int64(2**62), torch.tensor([2.0**62]), "dtype"),
        (int64(2**62 + 1), torch.tensor([2.0**62]), "changed"),
        (int64(2**62), torch.tensor([2.0**62]).bfloat16(), "dtype"),
    ],
)
def test_integers_are_compared_exactly_with_any_dtype(
    a: Tensor, b: Tensor, verdict: str, tmp_path: Path
) -> None:
    for first, second in ((a, b), (b, a)):
        found = compare(tmp_path, first, second)
        assert found.verdict == verdict
        assert found.figures.changed_elements == int(verdict == "changed")
