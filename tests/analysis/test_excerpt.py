"""What `show` prints of a tensor's elements, against numpy."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptool import read_elements
from ckptool.analysis import excerpt as excerpt_module
from ckptool.analysis.excerpt import excerpt
from ckptool.render.excerpts import excerpt_text
from ckptool.tensors.refs import TensorRef
from tests.analysis.test_statistics import saved


def shown(folder: Path, tensor: torch.Tensor) -> str:
    found = excerpt(saved(folder, tensor))
    assert found is not None
    return excerpt_text(found)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (10, 10, 10)])
def test_values_are_written_as_numpy_writes_them(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
    expected = np.array2string(tensor.numpy(), separator=", ", max_line_width=100)
    assert shown(tmp_path, tensor) == expected


@pytest.mark.parametrize("shape", [(5000,), (50, 50), (3, 1000), (7, 8, 9, 10)])
def test_large_tensors_show_their_edges(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    expected = np.array2string(tensor.numpy(), separator=", ", threshold=1000, max_line_width=100)
    text = shown(tmp_path, tensor)
    assert re.findall(r"\d+|\.\.\.", text) == re.findall(r"\d+|\.\.\.", expected)


def test_half_complex_numbers_are_shown_as_pairs(tmp_path: Path) -> None:
    tensor = torch.view_as_complex(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half())
    assert shown(tmp_path, tensor) == "[[1., 2.],\n [3., 4.]]"


def test_no_more_is_read_of_a_large_tensor_than_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def read(tensor: TensorRef) -> object:
        asked.append(tensor.numel)
        return read_elements(tensor)

    monkeypatch.setattr(excerpt_module, "read_elements", read)
    tensor = torch.arange(1_000_000).reshape(1000, 1000).t()
    assert shown(tmp_path, tensor).startswith("[[     0,   1000,   2000, ...,")
    assert asked == [1] * 49


def test_a_tensor_of_many_axes_shows_fewer_corners_or_none(tmp_path: Path) -> None:
    found = excerpt(saved(tmp_path, torch.arange(4**7).reshape((4,) * 7)))
    assert found is not None
    assert (found.edge_items, found.elements.shape) == (1, (3,) * 7)
    assert excerpt(saved(tmp_path, torch.zeros(1).expand((7,) * 12))) is None
