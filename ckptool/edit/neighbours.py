"""Which tensors of a file have bytes in common."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from ckptool.analysis.sizes import dense_parts
from ckptool.checkpoint.entries import Entry
from ckptool.edit.patches import are_apart, span_of
from ckptool.tensors.refs import Strided, TensorRef

__all__ = ["Neighbours"]


class Neighbours:
    """The tensors of a file by storage, in the order in which they begin."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        by_storage: dict[str, list[tuple[tuple[int, int], TensorRef, Entry]]] = defaultdict(list)
        for entry in entries:
            for part in dense_parts(entry.tensor):
                if isinstance(part.data, Strided) and part.nbytes:
                    by_storage[part.data.storage.key].append((span_of(part), part, entry))
        self._sorted = {
            key: sorted(users, key=lambda user: user[0]) for key, users in by_storage.items()
        }
        self._starts = {k: [user[0][0] for user in users] for k, users in self._sorted.items()}
        self._ends = {
            key: list(accumulate((user[0][1] for user in users), max))
            for key, users in self._sorted.items()
        }

    def of(self, tensor: TensorRef) -> Iterator[Entry]:
        """Yield the entries that have a byte in common with a tensor, itself among them."""
        if not isinstance(tensor.data, Strided) or not tensor.nbytes:
            return
        key = tensor.data.storage.key
        start, end = span_of(tensor)
        at = bisect_left(self._starts[key], end) - 1
        while at >= 0 and self._ends[key][at] > start:
            _, part, entry = self._sorted[key][at]
            if part is tensor or not are_apart(tensor, part):
                yield entry
            at -= 1
