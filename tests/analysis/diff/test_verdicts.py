"""Each verdict, on every dtype and layout."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ckptool import Figures
from tests import oracle
from tests.analysis.diff.tensor_pairs import NUMBERS, compare, compare_all, of_dtype

# torch warns of complex32, of sparse, quantized and nested tensors, and of how it saves them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIGNED_ZEROS: Final = (
    "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
    "float8_e4m3fn", "float8_e5m2",
)  # fmt: skip


def same_bits(tensor: Tensor) -> Tensor:
    return tensor.clone()


@pytest.mark.parametrize("dtype", oracle.PLAIN_DTYPES)
def test_the_same_bits_are_equal_whatever_they_stand_for(dtype: str, tmp_path: Path) -> None:
    tensor = oracle.every_dtype()[dtype]
    found = compare(tmp_path, tensor, same_bits(tensor))
    assert (found.verdict, found.change, found.elements) == ("equal", "same", tensor.numel())
    assert found.figures[:4] == (0, 0, 0, 0)
    assert found.dtypes == (dtype, dtype)


@pytest.mark.parametrize("dtype", SIGNED_ZEROS)
def test_zeros_of_the_other_sign_are_equal_values(dtype: str, tmp_path: Path) -> None:
    a, b = of_dtype(dtype, [0, 1, 0]), of_dtype(dtype, [-0.0, 1, -0.0])
    found = compare(tmp_path, a, b)
    assert (found.verdict, found.change) == ("equal-values", "same")
    assert found.figures == Figures(0, 0, 0, 0, 1, (0, 0), (0, 0))


@pytest.mark.parametrize("dtype", oracle.PLAIN_DTYPES)
def test_one_other_element_is_a_change(dtype: str, tmp_path: Path) -> None:
    found = compare(tmp_path, of_dtype(dtype, [1, 0, 0, 1]), of_dtype(dtype, [1, 0, 1, 1]))
    assert (found.verdict, found.change) == ("changed", "changed")
    # Of what is no number there is nothing to say but that it differs.
    assert found.figures.changed_elements == (1 if dtype in NUMBERS else None)
    assert dtype in NUMBERS or found.figures == Figures()


@pytest.mark.parametrize("dtype", oracle.PLAIN_DTYPES)
def test_another_shape_is_not_measured(dtype: str, tmp_path: Path) -> None:
    tensor = oracle.every_dtype()[dtype]
    for other in (tensor.flatten(), tensor[:1], tensor.reshape(3, 2), tensor.unsqueeze(0)):
        found = compare(tmp_path, tensor, other)
        assert (found.verdict, found.change, found.elements) == ("shape", "changed", None)
        assert found.figures == Figures()


def test_the_same_numbers_in_another_dtype_are_dtype_for_all_pairs_of_dtypes(
    tmp_path: Path,
) -> None:
    pairs = {}
    for a, b in itertools.permutations(NUMBERS, 2):
        # float8_e8m0fnu has no zero.
        numbers = [1.0] * 4 if "e8m0" in a + b else [1.0, 0, 0, 0]
        pairs[f"{a} {b}"] = of_dtype(a, numbers), of_dtype(b, numbers)
    found = compare_all(tmp_path, pairs)
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(pairs, "dtype")
    assert {one.figures for one in found.values()} == {Figures(0, 0, 0, 0, 1, (0, 0), (0, 0))}
    assert {one.change for one in found.values()} == {"changed"}


def test_one_other_number_in_another_dtype_is_a_change_for_all_pairs_of_dtypes(
    tmp_path: Path,
) -> None:
    names = [name for name in NUMBERS if "e8m0" not in name]
    pairs = {
        f"{a} {b}": (of_dtype(a, [1, 0, 1]), of_dtype(b, [1, 1, 1]))
        for a, b in itertools.permutations(names, 2)
    }
    found = compare_all(tmp_path, pairs)
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(pairs, "changed")
    assert {one.figures.changed_elements for one in found.values()} == {1}
    assert {one.figures.max_abs for one in found.values()} == {1}


def test_values_of_a_wider_dtype_that_the_narrower_one_has_not_are_a_change(
    tmp_path: Path,
) -> None:
    for a, b in (
        (torch.tensor([300]), torch.tensor([300]).to(torch.uint8)),
        (torch.tensor([-1]), torch.tensor([255], dtype=torch.uint8)),
        (torch.tensor([2]), torch.tensor([True])),
        (torch.tensor([1.5]), torch.tensor([1])),
        (torch.tensor([1 + 1j]), torch.tensor([1.0])),
        (torch.tensor([math.nan]), torch.tensor([0])),
        (torch.tensor([math.inf]), torch.tensor([2**63 - 1])),
    ):
        assert compare(tmp_path, a, b).verdict == "changed"
        assert compare(tmp_path, b, a).verdict == "changed"


def test_not_a_number_is_one_in_every_dtype(tmp_path: Path) -> None:
    tensor = torch.tensor([math.nan, math.inf, -math.inf, 1])
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e5m2):
        found = compare(tmp_path, tensor, tensor.to(dtype))
        assert (found.verdict, found.figures.nan, found.figures.inf) == ("dtype", (1, 1), (2, 2))


@pytest.mark.parametrize("dtype", oracle.PLAIN_DTYPES)
def test_single_elements_have_verdicts_like_all_others(dtype: str, tmp_path: Path) -> None:
    one, other = (of_dtype(dtype, [number])[0] for number in (1, 2 if dtype != "bool" else 0))
    assert compare(tmp_path, one, one.clone()).verdict == "equal"
    assert compare(tmp_path, one, other).verdict == "changed"
    assert compare(tmp_path, one, one.reshape(1)).verdict == "shape"


def test_without_elements_there_is_nothing_to_differ(tmp_path: Path) -> None:
    empty = torch.empty(0, 3)
    assert compare(tmp_path, empty, empty.clone()).verdict == "equal"
    assert compare(tmp_path, empty, torch.empty(3, 0)).verdict == "shape"
    found = compare(tmp_path, empty, empty.long())
    assert (found.verdict, found.elements) == ("dtype", 0)
    assert found.figures == Figures(0, nan=(0, 0), inf=(0, 0))


# Close -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "verdict"),
    [
        ([1.0, 2.0], [1.5, 1.5], {"atol": 0.5}, "close"),
        ([1.0, 2.0], [1.5, 1.25], {"atol": 0.5}, "changed"),
        ([1.0, -4.0], [2.0, -3.0], {"rtol": 0.5}, "close"),
        ([1.0], [2.125], {"rtol": 0.5}, "changed"),
        ([0.0], [1.0], {"rtol": 0.5}, "changed"),
        ([1.0], [3.0], {"atol": 0.5, "rtol": 0.5}, "close"),
        ([1.0], [3.25], {"atol": 0.5, "rtol": 0.5}, "changed"),
        ([1.0], [-1.0], {"atol": 1}, "changed"),
        ([1.0], [-1.0], {"rtol": 1}, "changed"),
        ([1.0], [-1.0], {"rtol": 2}, "close"),
        ([math.inf, 1.0], [math.inf, 1.5], {"atol": 1}, "close"),
        ([math.inf], [-math.inf], {"atol": 1, "rtol": 1}, "changed"),
        ([math.inf], [1.0], {"atol": 1, "rtol": 1}, "changed"),
        ([math.nan, 1.0], [math.nan, 1.5], {"atol": 1}, "close"),
        ([math.nan], [1.0], {"atol": 1, "rtol": 1}, "changed"),
    ],
)
def test_close_is_within_atol_and_rtol_times_the_larger_magnitude(
    a: list[float], b: list[float], tolerance: dict[str, float], verdict: str, tmp_path: Path
) -> None:
    for first, second in ((a, b), (b, a)):
        found = compare(tmp_path, torch.tensor(first), torch.tensor(second), **tolerance)
        assert (found.verdict, found.change) == (verdict, "same" if verdict == "close" else verdict)


@given(
    pairs=st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=4),
    atol=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    rtol=st.sampled_from([0.0, 0.125, 0.25, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int8]),
)
def test_close_is_what_its_formula_says(
    pairs: list[tuple[int, int]], atol: float, rtol: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    a, b = (torch.tensor(side).to(dtype) for side in zip(*pairs, strict=True))
    found = compare(tmp_path, a, b, atol=atol, rtol=rtol)
    expected = all(abs(x - y) <= atol + rtol * max(abs(x), abs(y)) for x, y in pairs)
    assert (found.change == "same") is expected


@given(
    pairs=st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_figures_do_not_depend_on_a_tolerance(
    pairs: list[tuple[int, int]], dtype: torch.dtype, tmp_path: Path
) -> None:
    a, b = (torch.tensor(side).to(dtype) for side in zip(*pairs, strict=True))
    assert compare(tmp_path, a, b, atol=0.5).figures == compare(tmp_path, a, b).figures


def test_complex_numbers_are_close_by_their_magnitudes(tmp_path: Path) -> None:
    a, b = torch.tensor([3 + 4j]), torch.tensor([0j])
    for first, second in ((a, b), (b, a)):
        assert compare(tmp_path, first, second, atol=5).verdict == "close"
        assert compare(tmp_path, first, second, rtol=1).verdict == "close"
        assert compare(tmp_path, first, second, atol=4.5).verdict == "changed"
    assert compare(tmp_path, a, torch.tensor([-3 + 4j]), atol=1).verdict == "changed"


def test_what_is_the_same_is_not_merely_close(tmp_path: Path) -> None:
    zeros = torch.zeros(3)
    assert compare(tmp_path, zeros, zeros.clone(), atol=1).verdict == "equal"
    assert compare(tmp_path, zeros, -zeros, atol=1).verdict == "equal-values"
    assert compare(tmp_path, zeros, torch.zeros(2), atol=1).verdict == "shape"


def test_values_of_any_magnitude_can_be_close(tmp_path: Path) -> None:
    for scale in (1e300, 1e-300):
        a = torch.tensor([1.0, 2.0], dtype=torch.float64) * scale
        assert compare(tmp_path, a, a * 1.125, rtol=0.25).verdict == "close"
        assert compare(tmp_path, a, a * 1.5, rtol=0.25).verdict == "changed"
        assert compare(tmp_path, a, -a, rtol=0.25).verdict == "changed"


def test_rounded_values_can_be_close(tmp_path: Path) -> None:
    a = torch.tensor([1 / 3, 2 / 3])
    assert compare(tmp_path, a, a.bfloat16(), rtol=2**-8).verdict == "close"
    assert compare(tmp_path, a, a.bfloat16(), rtol=2**-12).verdict == "rounded"


# Views -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128])
def test_conjugate_and_negative_bits_are_resolved(dtype: torch.dtype, tmp_path: Path) -> None:
    wave = torch.complex(torch.arange(1.0, 21), -torch.arange(1.0, 21)).reshape(4, 5).to(dtype)
    parts = wave.resolve_conj()
    assert compare(tmp_path, wave.conj(), parts.conj_physical()).verdict == "equal"
    assert compare(tmp_path, wave.conj().t(), parts.conj_physical().t()).verdict == "equal"
    assert compare(tmp_path, wave.conj(), wave).figures.changed_elements == 20
    if dtype != torch.complex32:
        negative = wave.clone().conj().imag
        assert negative.is_neg()
        assert compare(tmp_path, negative, negative.resolve_neg()).verdict == "equal"
        assert compare(tmp_path, negative, wave.imag).figures.changed_elements == 20


def views(base: Tensor) -> Iterator[Tensor]:
    yield from (base.t(), base[2:5, ::3], base.diagonal(), base[:, 3], base[1:, 1:].t())
    yield base[0, :4].reshape(4, 1).expand(4, 7)


def test_views_are_what_their_elements_are(tmp_path: Path) -> None:
    base = torch.randn(10, 12)
    pairs = {str(at): (view, view.contiguous()) for at, view in enumerate(views(base))}
    assert {one.verdict for one in compare_all(tmp_path, pairs).values()} == {"equal"}
    other = base.clone()
    other[2, 3] += 1
    pairs = {str(at): both for at, both in enumerate(zip(views(base), views(other), strict=True))}
    for name, one in compare_all(tmp_path, pairs).items():
        changed = int((pairs[name][0] != pairs[name][1]).sum())
        assert (one.figures.changed_elements, one.verdict) == (
            changed,
            "changed" if changed else "equal",
        )


# Several parts, and none -------------------------------------------------------------------------


def quantize(numbers: list[float], scale: float, zero_point: int, dtype: torch.dtype) -> Tensor:
    plain = torch.tensor(numbers, dtype=torch.float32)
    return torch.quantize_per_tensor(plain, scale, zero_point, dtype)


def quantize_channels(scales: list[float], zeros: list[int], axis: int = 0) -> Tensor:
    numbers = torch.arange(4.0).reshape(2, 2)
    return torch.quantize_per_channel(
        numbers, torch.tensor(scales), torch.tensor(zeros), axis, torch.quint8
    )


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32])
def test_quantized_values_are_measured_as_what_they_stand_for(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    a = quantize([0, 1, 2, 3], 0.125, 3, dtype)
    assert compare(tmp_path, a, a.clone()).verdict == "equal"
    for b in (
        quantize([0, 1, 2.5, 3], 0.125, 3, dtype),
        quantize([0, 1, 2, 3], 0.25, 3, dtype),
        quantize([0, 1, 4, 3], 0.5, 1, dtype),
    ):
        found = compare(tmp_path, a, b)
        apart = (a.dequantize().double() - b.dequantize().double()).abs()
        assert found.verdict == "changed"
        assert found.figures.changed_elements == int((apart > 0).sum())
        assert found.figures.max_abs == pytest.approx(apart.max().item(), rel=1e-9)
        assert found.figures.mean_abs == pytest.approx(apart.mean().item(), rel=1e-9)
    close = compare(tmp_path, a, quantize([0, 1, 2.125, 3], 0.125, 3, dtype), atol=0.25)
    assert close.verdict == "close"


def test_the_same_integers_of_other_quantizers_are_a_change(tmp_path: Path) -> None:
    a = quantize_channels([0.5, 0.25], [1, 2])
    assert compare(tmp_path, a, a.clone()).verdict == "equal"
    for b in (
        quantize_channels([0.5, 0.125], [1, 2]),
        quantize_channels([0.5, 0.25], [1, 3]),
        quantize_channels([0.5, 0.25], [1, 2], axis=1),
        quantize([0, 1, 2, 3], 0.5, 1, torch.quint8).reshape(2, 2),
    ):
        assert compare(tmp_path, a, b).verdict == "changed"
        assert compare(tmp_path, b, a).verdict == "changed"
    other = quantize([0, 1, 2, 3], 0.5, 0, torch.quint8)
    assert (
        compare(tmp_path, other, quantize([0, 1, 2, 3], 0.5, 0, torch.qint8)).verdict == "changed"
    )


def test_tensors_of_several_parts_are_equal_where_all_parts_are(tmp_path: Path) -> None:
    tensors = oracle.tensors_of_several_parts()
    found = compare_all(tmp_path, {name: (tensor, tensor) for name, tensor in tensors.items()})
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(tensors, "equal")
    assert {one.change for one in found.values()} == {"same"}


SPARSE: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "coo": lambda matrix: matrix.to_sparse(),
    "csr": lambda matrix: matrix.to_sparse_csr(),
    "csc": lambda matrix: matrix.to_sparse_csc(),
    "bsr": lambda matrix: matrix.to_sparse_bsr((2, 2)),
    "bsc": lambda matrix: matrix.to_sparse_bsc((2, 2)),
}


@pytest.mark.parametrize("layout", SPARSE)
def test_sparse_tensors_differ_in_values_or_in_where_they_are(layout: str, tmp_path: Path) -> None:
    to_sparse = SPARSE[layout]
    a = torch.eye(4)
    other_values = a.clone()
    other_values[2, 2] = 3
    found = compare(tmp_path, to_sparse(a), to_sparse(other_values))
    assert found.verdict == "changed"
    assert (found.figures.changed_elements, found.figures.max_abs) == (1, 2)
    elsewhere = a.flip(0)
    assert compare(tmp_path, to_sparse(a), to_sparse(elsewhere)).verdict == "changed"
    assert compare(tmp_path, to_sparse(a), a).verdict == "changed"
    assert compare(tmp_path, to_sparse(a), to_sparse(torch.eye(6))).verdict == "shape"


def nested(*sizes: int, layout: torch.layout, fill: float = 1) -> Tensor:
    parts = [torch.full((size, 3), fill) for size in sizes]
    tensor: Tensor = torch.nested.nested_tensor(parts, layout=layout)
    return tensor


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_differ_in_values_or_in_their_sizes(
    layout: torch.layout, tmp_path: Path
) -> None:
    a = nested(2, 4, layout=layout)
    assert compare(tmp_path, a, nested(2, 4, layout=layout)).verdict == "equal"
    assert compare(tmp_path, a, nested(2, 4, layout=layout, fill=2)).verdict == "changed"
    assert compare(tmp_path, a, nested(3, 3, layout=layout)).verdict == "changed"


def test_without_values_the_dtype_is_all_there_is(tmp_path: Path) -> None:
    meta = torch.empty(2, 3, device="meta")
    assert compare(tmp_path, meta, meta.clone()).verdict == "equal"
    assert compare(tmp_path, meta, meta.half()).verdict == "changed"
    assert compare(tmp_path, meta, torch.zeros(2, 3)).verdict == "changed"
    assert compare(tmp_path, torch.zeros(2, 3), meta).verdict == "changed"
    assert compare(tmp_path, meta, meta[0]).verdict == "shape"


def test_what_is_saved_as_a_parameter_is_its_tensor(tmp_path: Path) -> None:
    tensor = torch.randn(3)
    for other in (torch.nn.Parameter(tensor), torch.nn.Buffer(tensor)):
        assert compare(tmp_path, tensor, other).verdict == "equal"


def test_a_tolerance_is_about_integers_that_float64_cannot_tell_apart(tmp_path: Path) -> None:
    a = torch.tensor([2**62 + 1])
    for b in (a.new_tensor([2**62]).to(torch.uint64), torch.tensor([2.0**62]).double()):
        found = compare(tmp_path, a, b, atol=0.5)
        assert (found.verdict, found.figures.max_abs) == ("changed", 1)
        assert compare(tmp_path, a, b, atol=1).verdict == "close"
