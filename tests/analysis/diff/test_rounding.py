"""What is a rounding of what, with torch's own `to` as oracle."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Final

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ckptool.analysis.diff import steps, tally
from ckptool.analysis.diff.rounding import candidates_for, magnitude_of, rounded_to
from ckptool.tensors.dtypes import DTYPES
from tests.analysis.diff.tensor_pairs import compare

EIGHTS: Final = (
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
ROUNDINGS: Final = [
    ("float64", "float32"),
    *itertools.product(("float64", "float32"), ("bfloat16", "float16")),
    ("float16", "bfloat16"),
    *itertools.product(("float64", "float32", "float16", "bfloat16"), EIGHTS),
]


def dtype_of(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def random_numbers(dtype: str, narrow: str) -> Tensor:
    """Numbers within the range of any dtype; what has no sign gets none."""
    numbers = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (numbers.abs() if "e8m0" in narrow else numbers).to(dtype_of(dtype))


@pytest.mark.parametrize(("dtype", "narrow"), ROUNDINGS)
def test_what_was_cast_to_fewer_bits_is_rounded(dtype: str, narrow: str, tmp_path: Path) -> None:
    a = random_numbers(dtype, narrow)
    found = compare(tmp_path, a, a.to(dtype_of(narrow)))
    assert (found.verdict, found.change) == ("rounded", "changed")
    assert found.values is not None
    assert found.values.rounded_to == narrow
    assert found.dtypes == (dtype, narrow)


@pytest.mark.parametrize(("dtype", "narrow"), ROUNDINGS)
def test_what_was_cast_to_fewer_bits_and_back_is_rounded(
    dtype: str, narrow: str, tmp_path: Path
) -> None:
    a = random_numbers(dtype, narrow)
    b = a.to(dtype_of(narrow)).to(a.dtype)
    found = compare(tmp_path, a, b)
    assert (found.verdict, found.change) == ("rounded", "changed")
    assert found.values is not None
    # Within the range of both, two of the float8 are one.
    named = found.values.rounded_to or ""
    assert torch.equal(a.to(dtype_of(named)).to(a.dtype), b)
    assert named == narrow or narrow.endswith("fnuz")


@pytest.mark.parametrize(("dtype", "narrow"), ROUNDINGS)
def test_roundings_beyond_the_range_of_a_dtype_are_those_of_torch(
    dtype: str, narrow: str, tmp_path: Path
) -> None:
    magnitudes = torch.logspace(-7, 6, 200, dtype=torch.float64)
    a = (random_numbers("float64", narrow) * magnitudes).to(dtype_of(dtype))
    if "e8m0" in narrow:
        # It has no zero, and no sign: it is meant for scales.
        a = a.clamp(2**-14, 2**15)
    a[:2] = torch.tensor([1.1, 1.7])
    for b in (a.to(dtype_of(narrow)), a.to(dtype_of(narrow)).to(a.dtype)):
        assert compare(tmp_path, a, b).verdict == "rounded"


@pytest.mark.parametrize("narrow", ["float32", "bfloat16", "float16", *EIGHTS])
def test_not_a_number_is_rounded_to_not_a_number(narrow: str, tmp_path: Path) -> None:
    a = random_numbers("float64", narrow)
    a[3] = math.nan
    for b in (a.to(dtype_of(narrow)), a.to(dtype_of(narrow)).to(a.dtype)):
        found = compare(tmp_path, a, b)
        assert found.verdict == "rounded"
        assert found.figures.nan == (1, 1)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16", *EIGHTS])
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1])
def test_not_a_number_of_any_bits_is_rounded_to_not_a_number(
    narrow: str, bits: int, tmp_path: Path
) -> None:
    a = random_numbers("float32", narrow)
    a[3] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    for b in (a.to(dtype_of(narrow)), a.to(dtype_of(narrow)).to(a.dtype)):
        assert compare(tmp_path, a, b).verdict == "rounded"


def test_ties_go_to_the_even_neighbour(tmp_path: Path) -> None:
    a = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 5 * 2**-8])
    even = torch.tensor([1, 1 + 2**-6, 1 + 2**-6])
    assert torch.equal(a.bfloat16().float(), even)
    assert compare(tmp_path, a, even).verdict == "rounded"
    assert compare(tmp_path, a, torch.tensor([1 + 2**-7, *even[1:].tolist()])).verdict == "changed"


def test_float64_is_rounded_by_way_of_float32_as_torch_does(tmp_path: Path) -> None:
    a = torch.tensor([1 + 2**-8 + 2**-40, 3.0], dtype=torch.float64)
    b = a.bfloat16()
    assert b[0] == 1
    assert compare(tmp_path, a, b).verdict == "rounded"


def test_bits_that_were_cut_off_are_not_rounded(tmp_path: Path) -> None:
    a = random_numbers("float32", "bfloat16")
    cut = (a.view(torch.int32) & ~0xFFFF).view(torch.float32)
    assert compare(tmp_path, a, cut).verdict == "changed"
    assert compare(tmp_path, a, cut.bfloat16()).verdict == "changed"


@pytest.mark.parametrize("place", [0, 31, 32, 8192, steps.STEP - 1, steps.STEP, steps.STEP + 8192])
def test_one_element_that_was_rounded_otherwise_is_enough(place: int, tmp_path: Path) -> None:
    a = torch.randn(steps.STEP + 8193)
    b = a.bfloat16()
    b.view(torch.int16)[place] += 1
    assert compare(tmp_path, a, b).verdict == "changed"
    assert compare(tmp_path, a, b.float()).verdict == "changed"


def test_more_bits_are_no_rounding(tmp_path: Path) -> None:
    a = random_numbers("float32", "bfloat16")
    assert compare(tmp_path, a.bfloat16(), a).verdict == "changed"
    assert compare(tmp_path, a.bfloat16().float(), a).verdict == "changed"
    assert compare(tmp_path, a.double(), a.double() * 1.5).verdict == "changed"
    assert compare(tmp_path, a, a.bfloat16().double()).verdict == "changed"


def test_only_floats_are_rounded(tmp_path: Path) -> None:
    a = random_numbers("float32", "bfloat16") * 10
    assert compare(tmp_path, a, a.round().int()).verdict == "changed"
    assert compare(tmp_path, a, torch.complex(a.bfloat16().float(), a * 0)).verdict == "changed"
    big = torch.tensor([2**53 + 1, 5])
    assert compare(tmp_path, big, big.double()).verdict == "changed"


def test_exact_values_in_a_narrower_dtype_are_not_rounded(tmp_path: Path) -> None:
    a = random_numbers("float32", "bfloat16").bfloat16().float()
    assert compare(tmp_path, a, a.bfloat16()).verdict == "dtype"


def test_ones_are_no_sign_of_rounding_but_in_a_narrower_dtype(tmp_path: Path) -> None:
    a = 1 + torch.rand(50) * 1e-4
    for scale, fresh in ((1, 1.0), (-0.5, -0.5), (1e-30, 0.0)):
        assert compare(tmp_path, a * scale, torch.full((50,), fresh)).verdict == "changed"
    assert compare(tmp_path, a, torch.ones(50).bfloat16()).verdict == "rounded"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([1, 1], False), ([0, 0], False), ([-2, 2], False), ([3, 3], True), ([1, 2], True)],
)
def test_one_power_of_two_tells_nothing(numbers: list[float], expected: bool) -> None:
    assert (magnitude_of(np.array(numbers, float)) is None) is expected


def test_what_is_read_at_a_time_does_not_tell_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = torch.tensor([1.0, 2.0]).repeat_interleave(steps.BLOCK)
    a = rounded * (1 + torch.rand(2 * steps.BLOCK) * 2**-10)
    assert torch.equal(a.bfloat16().float(), rounded)
    whole = compare(tmp_path, a, rounded).verdict
    for module in (steps, tally):
        monkeypatch.setattr(module, "STEP", steps.BLOCK)
    assert compare(tmp_path, a, rounded).verdict == whole


@pytest.mark.parametrize("narrow", ["bfloat16", "float16", *EIGHTS])
@given(bits=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40), data=st.data())
def test_any_bits_are_rounded_as_torch_rounds_them(
    narrow: str, bits: list[int], data: st.DataObject
) -> None:
    if "e8m0" in narrow:
        bits = [max(pattern, 1 << 23) for pattern in bits]
    else:
        bits = [pattern | data.draw(st.sampled_from([0, 1 << 31])) for pattern in bits]
    a = np.array(bits, np.uint32).view(np.float32)
    rounded = torch.from_numpy(a).to(dtype_of(narrow))
    stored = rounded.view(torch.uint8).numpy().view(getattr(ml_dtypes, narrow, narrow))
    candidates = candidates_for(DTYPES["float32"], DTYPES[narrow])
    with np.errstate(all="ignore"):
        found = rounded_to(a, stored, rounded.double().numpy(), candidates)
    assert found.names == (narrow,)
