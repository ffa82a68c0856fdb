"""Pairs of tensors, saved in two files and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ckptool import TensorDiff, diff, open_checkpoint
from tests import oracle

__all__ = [
    "NUMBERS",
    "compare",
    "compare_all",
    "compare_files",
    "compare_saved",
    "of_dtype",
]

NUMBERS: Final = [name for name in oracle.PLAIN_DTYPES if not name.startswith(("float4", "bits"))]
"""The dtypes whose elements are one number each."""


def compare(folder: Path, a: Tensor, b: Tensor, **options: Any) -> TensorDiff:
    """Save each in a file of its own, and say what the comparison comes to."""
    return compare_all(folder, {"t": (a, b)}, **options)["t"]


def compare_all(
    folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], **options: Any
) -> dict[str, TensorDiff]:
    """Compare many pairs in one run, by their names."""
    for name, side in zip(("a.pt", "b.pt"), zip(*pairs.values(), strict=True), strict=True):
        torch.save(dict(zip(pairs, side, strict=True)), folder / name)
    return compare_saved(folder / "a.pt", folder / "b.pt", **options)


def compare_files(folder: Path, a: bytes, b: bytes, **options: Any) -> TensorDiff:
    """Compare two files that hold one tensor `t` each."""
    (folder / "a").write_bytes(a)
    (folder / "b").write_bytes(b)
    return compare_saved(folder / "a", folder / "b", **options)["t"]


def compare_saved(a: Path, b: Path, **options: Any) -> dict[str, TensorDiff]:
    with open_checkpoint(a) as first, open_checkpoint(b) as second:
        return {one.label: one for one in diff(first, second, **options).entries}


def of_dtype(name: str, numbers: list[float]) -> Tensor:
    """A tensor of any dtype; the packed ones take the numbers as their bytes."""
    dtype = getattr(torch, name)
    if name in NUMBERS:
        return torch.tensor(numbers, dtype=torch.float64).to(dtype)
    return torch.tensor(numbers).to(torch.uint16 if name == "bits16" else torch.uint8).view(dtype)
