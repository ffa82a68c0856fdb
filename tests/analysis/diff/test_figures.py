"""The figures, against numpy in float64 and against exact arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ckptool import Figures, TensorDiff, sources, values
from ckptool.analysis.diff import equality, steps, tally
from tests import builders, strategies
from tests.analysis.diff.tensor_pairs import NUMBERS, compare, compare_all, compare_files
from tests.builders import Tensor, torch_zip

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf")

BLOCK, STEP = steps.BLOCK, steps.STEP


# Two references ----------------------------------------------------------------------------------


def by_numpy(a: torch.Tensor, b: torch.Tensor) -> Figures:
    """The figures of finite tensors, in float64."""
    x, y = in_float64(a), in_float64(b)
    apart, norm = np.abs(y - x), float(np.linalg.norm(x))
    cosine = np.vdot(x, y).real / norm / np.linalg.norm(y)
    return Figures(
        int((x != y).sum()),
        float(apart.max()),
        float(apart.mean()),
        float(np.linalg.norm(y - x)) / norm,
        float(cosine),
        (0, 0),
        (0, 0),
    )


def in_float64(tensor: torch.Tensor) -> NDArray[Any]:
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    numbers: NDArray[Any] = tensor.resolve_conj().resolve_neg().to(wide).numpy().flatten()
    return numbers


def exactly(a: Sequence[complex], b: Sequence[complex], bits: Sequence[bool]) -> Figures:
    """The figures of any elements without rounding; `bits` says where their bits are the same."""
    finite = [both for both in zip(a, b, strict=True) if all(map(is_finite, both))]
    x, y = ([part for pair in finite for part in parts(pair[side])] for side in (0, 1))
    squares = [
        sum(((q - p) ** 2 for p, q in zip(parts(one), parts(other), strict=True)), Fraction())
        for one, other in finite
    ]
    of_a, of_b, of_both = dot(x, x), dot(y, y), dot(x, y)
    figures = Figures(
        sum(p != q and not same for p, q, same in zip(a, b, bits, strict=True)),
        nan=(count(math.isnan, a), count(math.isnan, b)),
        inf=(count(math.isinf, a), count(math.isinf, b)),
    )
    if not finite:
        return figures
    cosine = None
    if of_a and of_b:
        cosine = root(of_both**2 / (of_a * of_b)) * (1 if of_both >= 0 else -1)
    total = sum(squares, Fraction())
    relative = root(total / of_a) if of_a else math.inf if total else 0.0
    distances = [exact_root(square) for square in squares]
    mean = to_float(sum(distances, Fraction()) / len(finite))
    return figures._replace(
        max_abs=to_float(max(distances)), mean_abs=mean, rel_l2=relative, cosine=cosine
    )


def parts(number: complex) -> tuple[Fraction, Fraction]:
    return Fraction(number.real), Fraction(number.imag)


def is_finite(number: complex) -> bool:
    return math.isfinite(number.real) and math.isfinite(number.imag)


def count(is_so: Callable[[float], bool], numbers: Sequence[complex]) -> int:
    return sum(is_so(float(one.real)) or is_so(float(one.imag)) for one in numbers)


def dot(x: Sequence[Fraction], y: Sequence[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(x, y, strict=True)), Fraction())


def exact_root(square: Fraction) -> Fraction:
    """A square root to 100 bits or more."""
    if not square:
        return square
    shift = max(0, 200 - square.numerator.bit_length() + square.denominator.bit_length())
    return Fraction(math.isqrt(int(square * 4**shift)), 2**shift)


def root(square: Fraction) -> float:
    return to_float(exact_root(square))


def to_float(number: Fraction) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def agree(found: Figures, expected: Figures) -> bool:
    """Whether figures are the same within 1e-9, relative, and within the least number there is."""
    close = all(
        (one is None and other is None)
        or (one is not None and other is not None and one == pytest.approx(other, rel=1e-9, abs=at))
        for one, other, at in zip(
            found[1:5], expected[1:5], (1e-323, 1e-323, 1e-323, 1e-9), strict=True
        )
    )
    counts = (found.changed_elements, found.nan, found.inf)
    return close and counts == (expected.changed_elements, expected.nan, expected.inf)


# Numbers of usual size ---------------------------------------------------------------------------


def random_numbers(dtype: str, numel: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(numel, generator=generator, dtype=torch.float64) * 20 + 50
    if dtype.startswith("complex"):
        numbers = torch.complex(numbers, torch.randn(numel, generator=generator).double())
    if dtype == "bool":
        return numbers > 50
    return numbers.abs().to(getattr(torch, dtype))


@pytest.mark.parametrize("numel", [1, 7, 1000, BLOCK, BLOCK + 1])
def test_figures_of_every_dtype_are_those_of_numpy(numel: int, tmp_path: Path) -> None:
    pairs = {
        name: (random_numbers(name, numel, 1), random_numbers(name, numel, 2)) for name in NUMBERS
    }
    for name, one in compare_all(tmp_path, pairs).items():
        if one.figures.changed_elements:
            assert agree(one.figures, by_numpy(*pairs[name])), name


def test_figures_of_every_pair_of_dtypes_are_those_of_numpy(tmp_path: Path) -> None:
    pairs = {
        f"{a} {b}": (random_numbers(a, 30, 1), random_numbers(b, 30, 2))
        for a, b in itertools.permutations(NUMBERS, 2)
        if a != "bool"
    }
    for name, one in compare_all(tmp_path, pairs).items():
        assert agree(one.figures, by_numpy(*pairs[name])), name


@pytest.mark.parametrize("numel", [STEP - 1, STEP, STEP + 1, 2 * STEP + BLOCK + 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "int64", "float64"])
def test_figures_of_many_elements_are_those_of_numpy(
    dtype: str, numel: int, tmp_path: Path
) -> None:
    a, b = (random_numbers(dtype, numel, seed) for seed in (1, 2))
    assert agree(compare(tmp_path, a, b).figures, by_numpy(a, b))


def test_figures_count_what_is_not_finite_and_leave_it_out(tmp_path: Path) -> None:
    nan, inf = math.nan, math.inf
    a = torch.tensor([1, nan, nan, inf, inf, -inf, 4, 2])
    b = torch.tensor([2, nan, 3, inf, -inf, 7, inf, 2])
    found = compare(tmp_path, a, b).figures
    assert found[:4] == (5, 1, 0.5, 1 / math.sqrt(5))
    assert found.cosine == pytest.approx(6 / math.sqrt(5 * 8))
    assert (found.nan, found.inf) == ((2, 1), (3, 3))


def test_without_a_finite_pair_there_is_nothing_to_measure(tmp_path: Path) -> None:
    found = compare(tmp_path, torch.tensor([math.nan, 1]), torch.tensor([1, math.inf]))
    assert found.figures == Figures(2, nan=(1, 0), inf=(0, 1))


def test_a_complex_number_is_finite_where_both_its_parts_are(tmp_path: Path) -> None:
    a = torch.tensor([complex(1, math.nan), complex(3, 4), complex(math.inf, math.nan), 1j])
    b = torch.tensor([complex(1, math.nan), 0, 2, 1j])
    found = compare(tmp_path, a, b).figures
    assert found[:4] == (2, 5, 2.5, 5 / math.sqrt(26))
    assert (found.nan, found.inf) == ((2, 1), (1, 0))


def test_relative_figures_of_zeros(tmp_path: Path) -> None:
    zeros, ones = torch.zeros(4), torch.ones(4)
    assert compare(tmp_path, zeros, ones).figures[3:5] == (math.inf, None)
    assert compare(tmp_path, ones, zeros).figures[3:5] == (1, None)
    assert compare(tmp_path, zeros, -zeros).figures[3:5] == (0, None)
    assert compare(tmp_path, zeros, zeros.double()).figures[3:5] == (0, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_another_not_a_number_is_another_value(dtype: torch.dtype, tmp_path: Path) -> None:
    a = torch.tensor([math.nan, math.nan, 1], dtype=dtype)
    b = a.clone()
    b.view(torch.uint8)[0] ^= 1
    found = compare(tmp_path, a, b)
    assert (found.verdict, found.figures.changed_elements) == ("changed", 1)
    assert (found.figures.nan, found.figures.max_abs) == ((2, 2), 0)
    negative = a.clone()
    negative.view(torch.uint8)[a.itemsize - 1] ^= 0x80
    assert compare(tmp_path, a, negative).figures.changed_elements == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_denormal_numbers_are_measured(dtype: torch.dtype, tmp_path: Path) -> None:
    least = torch.zeros(3, dtype=dtype)
    least.view(torch.uint8)[0] = 1
    found = compare(tmp_path, least, 2 * least)
    assert found.figures.changed_elements == 1
    assert found.figures.max_abs == least[0].item() > 0
    assert found.figures[3:5] == (1, 1)


# Numbers whose squares leave the range of float64 ------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1e300, 1.0, -3e300], [1e300, 2.0, 3e300]),
        ([1e300, 1.0], [1e300, 2.0]),
        ([1e-300, 2e-300], [2e-300, 2e-300]),
        ([5e-324, 0.0], [5e-324, 5e-324]),
        ([5e-324], [-5e-324]),
        ([1.0, 1e-200], [1.0, 3e-200]),
        ([1.0, 0.0], [1.0, 5e-324]),
        ([1e300, 1e-300], [1e300, 2e-300]),
        ([1e-300], [1e300]),
        ([1e300], [1e-300]),
        ([5e-324], [1.7e308]),
        ([1.7e308, 1.7e308], [-1.7e308, 1.7e308]),
        ([1.7e308, 1.0], [1.6e308, 1.0]),
        ([1e160, 1e-160], [1e-160, 1e160]),
        ([0.0, 0.0], [1e-300, 0.0]),
        ([1e-170, 1.0], [1e-170, 1 + 2**-52]),
        ([1e300, math.nan, math.inf], [2e300, 1e300, math.inf]),
    ],
)
@pytest.mark.parametrize("kind", ["real", "imaginary"])
def test_huge_and_tiny_numbers_are_measured_all_the_same(
    a: list[float], b: list[float], kind: str, tmp_path: Path
) -> None:
    sides = [torch.tensor(side, dtype=torch.float64) for side in (a, b)]
    if kind == "imaginary":
        sides = [torch.complex(torch.zeros_like(side), side) for side in sides]
    for first, second in (sides, sides[::-1]):
        x, y = first.tolist(), second.tolist()
        expected = exactly(x, y, [str(p) == str(q) for p, q in zip(x, y, strict=True)])
        found = compare(tmp_path, first, second).figures
        assert agree(found, expected), (found, expected)


@pytest.mark.parametrize("size", [1.2e152, 1e154, 1e200])
@pytest.mark.parametrize("factor", [1.5, -1.5])
def test_sums_of_many_huge_numbers_are_no_trouble(
    size: float, factor: float, tmp_path: Path
) -> None:
    a = torch.full((4 * BLOCK,), size, dtype=torch.float64)
    found = compare(tmp_path, a, a * factor).figures
    assert found[1:4] == pytest.approx((size * abs(factor - 1),) * 2 + (abs(factor - 1),), rel=1e-9)
    assert found.cosine == pytest.approx(math.copysign(1, factor), rel=1e-9)


def test_huge_products_of_both_signs_are_no_trouble(tmp_path: Path) -> None:
    a = torch.full((4 * BLOCK,), 1e200, dtype=torch.float64)
    b = a.clone()
    b[2 * BLOCK :] *= -1
    expected = by_numpy(a / 1e200, b / 1e200)._replace(max_abs=2e200, mean_abs=1e200)
    assert agree(compare(tmp_path, a, b).figures, expected)


# Any bits, however they are stored ---------------------------------------------------------------


def zipped(**options: Any) -> Callable[[Tensor], bytes]:
    return lambda tensor: torch_zip({"t": tensor}, **options)


CONTAINERS: Final[list[Callable[[Tensor], bytes]]] = [
    zipped(),
    zipped(crc=False),
    zipped(byteorder="big"),
    zipped(compress=True, data_descriptor=False),
    lambda tensor: builders.legacy({"t": tensor}),
]


def numbers_of(dtype: str, data: bytes) -> list[complex]:
    if not data:
        return []
    tensor = torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype))
    return (tensor.to(torch.complex64) if dtype == "complex32" else tensor).tolist()


def changed_bytes(draw: st.DrawFn, dtype: str, data: bytes) -> bytes:
    """Other bits for some of the elements."""
    width = builders.ITEMSIZES[dtype]
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4)) if data else 0):
        at = draw(st.integers(0, len(data) // width - 1)) * width
        changed[at : at + width] = draw(st.binary(min_size=width, max_size=width))
    return bytes(byte & 1 for byte in changed) if dtype == "bool" else bytes(changed)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor, bytes, bytes]:
    """A view of any bits and a tensor like it, each with its elements."""
    a = draw(strategies.tensors())
    before = a.elements()
    after = changed_bytes(draw, a.dtype, before)
    return a, Tensor(a.dtype, a.shape, after), before, after


def verdict_of(same_bits: bool, changed: int) -> set[str]:
    if same_bits:
        return {"equal"}
    return {"changed", "rounded"} if changed else {"equal-values"}


@given(pair=pairs(), first=st.sampled_from(CONTAINERS), second=st.sampled_from(CONTAINERS))
def test_figures_of_any_bits_in_any_container_are_exact(
    pair: tuple[Tensor, Tensor, bytes, bytes],
    first: Callable[[Tensor], bytes],
    second: Callable[[Tensor], bytes],
    tmp_path: Path,
) -> None:
    a, b, before, after = pair
    found = compare_files(tmp_path, first(a), second(b))
    width = builders.ITEMSIZES[a.dtype]
    x, y = (numbers_of(a.dtype, data) for data in (before, after))
    places = [slice(at, at + width) for at in range(0, len(before), width)]
    expected = exactly(x, y, [before[at] == after[at] for at in places])
    assert found.verdict in verdict_of(before == after, expected.changed_elements or 0)
    assert found.elements == len(x)
    if before != after:
        assert agree(found.figures, expected), (found.figures, expected)


@given(pair=pairs())
def test_the_comparison_the_other_way_round_is_a_mirror(
    pair: tuple[Tensor, Tensor, bytes, bytes], tmp_path: Path
) -> None:
    a, b = (torch_zip({"t": tensor}) for tensor in pair[:2])
    there, back = compare_files(tmp_path, a, b), compare_files(tmp_path, b, a)
    assert mirrored(there) == summary(back)


def summary(one: TensorDiff) -> tuple[object, ...]:
    """All but what depends on the direction."""
    figures, verdict = one.figures, one.verdict
    return (
        one.change, "changed" if verdict == "rounded" else verdict, one.dtypes, one.elements,
        *figures[:3], figures.cosine, figures.nan, figures.inf,
    )  # fmt: skip


def mirrored(one: TensorDiff) -> tuple[object, ...]:
    *others, _nan, _inf = summary(one)
    others[2] = one.dtypes[::-1]
    return *others, one.figures.nan[::-1], one.figures.inf[::-1]


def test_another_dtype_the_other_way_round_is_a_mirror(tmp_path: Path) -> None:
    pairs = {
        f"{a} {b}": (random_numbers(a, 9, 1), random_numbers(b, 9, 2))
        for a, b in itertools.combinations(NUMBERS, 2)
    }
    there = compare_all(tmp_path, pairs)
    back = compare_all(tmp_path, {name: (b, a) for name, (a, b) in pairs.items()})
    assert [mirrored(one) for one in there.values()] == [summary(one) for one in back.values()]


@given(
    tensor=strategies.tensors(),
    first=st.sampled_from(CONTAINERS),
    second=st.sampled_from(CONTAINERS),
)
def test_a_tensor_is_equal_to_itself_however_it_is_stored(
    tensor: Tensor,
    first: Callable[[Tensor], bytes],
    second: Callable[[Tensor], bytes],
    tmp_path: Path,
) -> None:
    found = compare_files(tmp_path, first(tensor), second(tensor))
    assert (found.verdict, found.change, found.figures.changed_elements) == ("equal", "same", 0)


# What is read at a time --------------------------------------------------------------------------


def layouts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The same matrix, stored in different ways."""
    wide = torch.zeros(tensor.shape[0], tensor.shape[1] + 3, dtype=tensor.dtype)
    wide[:, 2:-1] = tensor
    behind = torch.cat((torch.zeros(5, dtype=tensor.dtype), tensor.flatten()))[5:]
    return [tensor, tensor.t().contiguous().t(), wide[:, 2:-1], behind.reshape(tensor.shape)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "int64", "float64"])
def test_figures_do_not_depend_on_how_elements_are_stored(dtype: str, tmp_path: Path) -> None:
    shape = (3, BLOCK + 5)
    a, b = (random_numbers(dtype, math.prod(shape), seed).reshape(shape) for seed in (1, 2))
    both = itertools.product(layouts(a), layouts(b))
    found = compare_all(tmp_path, {str(at): pair for at, pair in enumerate(both)})
    assert len({one.figures for one in found.values()}) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "complex32", "int64"])
def test_figures_do_not_depend_on_what_is_read_at_a_time(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (5, BLOCK + 77)
    a, b = (random_numbers(dtype, math.prod(shape), seed).reshape(shape) for seed in (1, 2))
    found = set()
    for step, chunk in ((STEP, 1 << 20), (BLOCK, 1 << 12), (3 * BLOCK, 1000), (2 * BLOCK, 48)):
        for module in (steps, tally):
            monkeypatch.setattr(module, "STEP", step)
        for module in (sources, values, equality):
            monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(equality, "_BEGINNING", 1)
        stored = {"plain": (a, b), "turned": (a.t().contiguous().t(), b)}
        found |= {(one.verdict, one.figures) for one in compare_all(tmp_path, stored).values()}
    assert len(found) == 1


# Repeated and tied elements ----------------------------------------------------------------------


def test_repeated_elements_count_as_often_as_they_stand_there(tmp_path: Path) -> None:
    a = torch.tensor([1.0, 2.0, math.nan, math.inf]).reshape(4, 1)
    b = torch.tensor([1.0, 5.0, 3.0, math.inf]).reshape(4, 1)
    found = compare(tmp_path, a.expand(4, 1000), b.expand(4, 1000))
    assert found.elements == 4000
    assert found.figures[:3] == (2000, 3, 1.5)
    assert (found.figures.nan, found.figures.inf) == ((1000, 0), (1000, 1000))
    plain = compare(tmp_path, a.expand(4, 1000).contiguous(), b.expand(4, 1000).contiguous())
    assert agree(found.figures, plain.figures)
    mixed = compare(tmp_path, a.expand(4, 1000), b.expand(4, 1000).contiguous())
    assert mixed.figures == plain.figures


def test_an_element_that_is_repeated_a_billion_times_is_read_once(tmp_path: Path) -> None:
    a, b = (torch.full((1, 1), number).expand(1 << 15, 1 << 15) for number in (1.0, 3.0))
    assert compare(tmp_path, a, a).verdict == "equal"
    found = compare(tmp_path, a, b)
    assert found.figures[:4] == (1 << 30, 2, 2, 2)


class Counted:
    """How many bytes a comparison says that it reads."""

    def __init__(self) -> None:
        self.expected = self.read = 0

    def expect(self, nbytes: int) -> None:
        self.expected += nbytes

    def advance(self, nbytes: int) -> None:
        self.read += nbytes


@pytest.mark.parametrize("factor", [1, 2])
def test_tied_tensors_are_read_once(factor: int, tmp_path: Path) -> None:
    a, b = torch.randn(5000), torch.randn(5000)
    if factor == 1:
        b = a.clone()
    alone, tied = Counted(), Counted()
    compare_all(tmp_path, {"x": (a, b)}, progress=alone)
    found = compare_all(tmp_path, {"x": (a, b), "y": (a, b)}, progress=tied)
    assert (tied.expected, tied.read) == (alone.expected, alone.read)
    assert found["x"].values == found["y"].values


def test_what_is_tied_on_one_side_only_is_compared_with_each(tmp_path: Path) -> None:
    a = torch.randn(50)
    found = compare_all(tmp_path, {"x": (a, a.clone()), "y": (a, a + 1), "z": (a, a.clone())})
    assert [one.verdict for one in found.values()] == ["equal", "changed", "equal"]
