"""The figures of `show`, against torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ckptool import open_checkpoint, sources, values
from ckptool.analysis.statistics import HISTOGRAM_BINS, Statistics, statistics
from ckptool.tensors.refs import TensorRef


def saved(folder: Path, tensor: Tensor) -> TensorRef:
    torch.save({"t": tensor}, folder / "t.pt")
    checkpoint = open_checkpoint(folder / "t.pt")
    (entry,) = checkpoint.entries
    assert entry.tensor is not None
    return entry.tensor


def figures_of(folder: Path, tensor: Tensor) -> Statistics:
    figures = statistics(saved(folder, tensor))
    assert figures is not None
    return figures


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "float8_e5m2"])
def test_figures_are_those_of_torch(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "CHUNK_BYTES", 256)
    monkeypatch.setattr(sources, "CHUNK_BYTES", 256)
    torch.manual_seed(0)
    tensor = torch.randn(40, 30).to(getattr(torch, dtype))
    exact = tensor.double()
    figures = figures_of(tmp_path, tensor)
    assert (figures.elements, figures.nan, figures.inf) == (1200, 0, 0)
    assert figures.zero == int((exact == 0).sum())
    assert (figures.minimum, figures.maximum) == (exact.min().item(), exact.max().item())
    assert figures.mean == pytest.approx(exact.mean().item(), abs=1e-12)
    assert figures.deviation == pytest.approx(exact.std(correction=0).item())
    expected = torch.histc(exact, HISTOGRAM_BINS)
    assert sum(figures.histogram) == 1200
    assert np.abs(np.array(figures.histogram) - expected.numpy()).sum() <= 4


def test_only_finite_values_count(tmp_path: Path) -> None:
    tensor = torch.tensor([1.0, math.nan, 3.0, math.inf, -math.inf, 0.0])
    figures = figures_of(tmp_path, tensor)
    assert (figures.nan, figures.inf, figures.zero) == (1, 2, 1)
    assert (figures.minimum, figures.maximum) == (0, 3)
    assert figures.mean == pytest.approx(4 / 3)


def test_without_finite_values_there_are_no_figures(tmp_path: Path) -> None:
    for tensor in (torch.empty(0), torch.tensor([math.nan])):
        figures = figures_of(tmp_path, tensor)
        assert (figures.minimum, figures.maximum, figures.mean, figures.deviation) == (None,) * 4
        assert figures.histogram == ()


def test_equal_values_have_no_histogram(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, torch.ones(5))
    assert (figures.deviation, figures.histogram) == (0, ())


def test_integers_keep_all_their_digits(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, torch.tensor([-(2**63), 0, 2**63 - 1]))
    assert (figures.minimum, figures.maximum) == (-(2**63), 2**63 - 1)
    figures = figures_of(tmp_path, torch.tensor([True, False, True]))
    assert (figures.minimum, figures.maximum, figures.zero) == (0, 1, 1)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_complex_numbers_are_measured_by_their_magnitude(tmp_path: Path) -> None:
    for dtype in (torch.complex32, torch.complex64, torch.complex128):
        figures = figures_of(tmp_path, torch.tensor([3 + 4j, 0]).to(dtype))
        assert (figures.maximum, figures.zero, figures.elements) == (5, 1, 2)


def test_magnitudes_of_finite_complex_numbers_are_finite(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, torch.tensor([3e38 + 3e38j, 1 + 1j]))
    assert figures.inf == 0
    assert figures.maximum == pytest.approx(3e38 * math.sqrt(2))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, 1 + 2**-52], dtype=torch.float64),
        torch.tensor([2**62, 2**62 + 1]),
        torch.tensor([2**63, 1], dtype=torch.uint64),
    ],
    ids=["float64", "int64", "uint64"],
)
def test_values_that_hardly_differ_and_large_ones_have_figures(
    tensor: Tensor, tmp_path: Path
) -> None:
    figures = figures_of(tmp_path, tensor)
    assert sum(figures.histogram) in (0, 2)
    assert figures.maximum == max(tensor.tolist())


def test_packed_elements_have_no_figures(tmp_path: Path) -> None:
    tensor = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    assert statistics(saved(tmp_path, tensor)) is None


@pytest.mark.filterwarnings("error")
def test_numbers_too_large_to_be_squared_warn_nobody(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, torch.tensor([1e308, -1e308, 1e308], dtype=torch.float64))
    assert (figures.maximum, figures.deviation) == (1e308, math.inf)


@pytest.mark.parametrize("span", [5e-324, 1e-310, 2.2e-308])
def test_values_that_lie_less_than_a_normal_number_apart_have_a_histogram(
    span: float, tmp_path: Path
) -> None:
    figures = figures_of(tmp_path, torch.tensor([0.0, span], dtype=torch.float64))
    assert (figures.minimum, figures.maximum) == (0.0, span)
    assert sum(figures.histogram) == 2
