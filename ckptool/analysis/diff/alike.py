"""Which of several prefixes it is, where the names alone do not tell: what stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ckptool.analysis.diff.equality import are_same_bytes
from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.overview import Contents
from ckptool.analysis.progress import UNWATCHED
from ckptool.classification.reconcile import Prefixes
from ckptool.tensors.refs import Strided, TensorRef

__all__ = ["most_alike"]

# Enough to tell a copy from an average; small tensors are often zeros or ones in both.
_LOOKED_AT: Final = 8
_LARGEST: Final = 1 << 22


def most_alike(a: Contents, b: Contents, prefixes: Sequence[Prefixes]) -> Prefixes:
    """Return the prefixes without which most of a few large tensors are the same bytes."""
    return max(prefixes, key=lambda found: _same(_tensors(a, found.a), _tensors(b, found.b)))


def _tensors(contents: Contents, prefix: str) -> dict[str, TensorRef]:
    return {
        one.name.removeprefix(prefix): one.entry.tensor
        for one in contents.entries
        if one.name is not None and one.entry.tensor is not None
    }


def _same(a: dict[str, TensorRef], b: dict[str, TensorRef]) -> int:
    pairs = [TensorPair(tensor, b[name]) for name, tensor in a.items() if name in b]
    pairs = [pair for pair in pairs if _can_be_compared(pair)]
    pairs.sort(key=lambda pair: -pair.nbytes)
    return sum(are_same_bytes(pairs[:_LOOKED_AT], UNWATCHED))


def _can_be_compared(pair: TensorPair) -> bool:
    is_alike = pair.a.dtype is pair.b.dtype and pair.a.shape == pair.b.shape
    is_strided = isinstance(pair.a.data, Strided) and isinstance(pair.b.data, Strided)
    return is_alike and is_strided and pair.nbytes <= _LARGEST
