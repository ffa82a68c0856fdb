"""A tensor of A and one of B, as far as they can be read in step."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import can_be_read_into, has_runs, run_of, without_repetition

__all__ = ["TensorPair"]


class TensorPair(NamedTuple):
    """Two strided tensors of one shape."""

    a: TensorRef
    b: TensorRef

    @property
    def nbytes(self) -> int:
        """The bytes of both."""
        return self.a.nbytes + self.b.nbytes

    @property
    def width(self) -> int:
        """How many real numbers an element is: two where either side is complex."""
        return 2 if "complex" in (self.a.dtype.kind, self.b.dtype.kind) else 1

    @property
    def can_be_read_into(self) -> bool:
        """Whether both files have the elements as they are, one behind the other."""
        return can_be_read_into(self.a) and can_be_read_into(self.b)

    def pieces(self, numel: int) -> Iterator[TensorPair]:
        """Yield runs of at most so many elements; the pair itself where one has no runs."""
        count = prod(self.a.shape)
        if count <= numel or not has_runs(self.a) or not has_runs(self.b):
            yield self
            return
        for start in range(0, count, numel):
            stop = min(count, start + numel)
            yield TensorPair(run_of(self.a, start, stop), run_of(self.b, start, stop))

    def without_repetition(self) -> tuple[TensorPair, int]:
        """Return each element that both repeat alike once, and how many times it stood there."""
        a, b = self.a.data, self.b.data
        if not isinstance(a, Strided) or not isinstance(b, Strided):
            return self, 1
        axes = {
            axis
            for axis, steps in enumerate(zip(a.stride, b.stride, strict=True))
            if steps == (0, 0)
        }
        times = prod(self.a.shape[axis] for axis in axes)
        if times <= 1:
            return self, 1
        return TensorPair(*(without_repetition(tensor, axes) for tensor in self)), times
