"""The numbers of two tensors in step: as many at a time as a thread works on."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.tensors.refs import TensorRef
from ckptool.values import numpy_dtype, read_elements, read_into

__all__ = ["BLOCK", "STEP", "StepBuffers", "in_step"]

BLOCK: Final = 1 << 13
"""Numbers that are added up as one; few enough that no linear algebra library cuts them among
threads of its own."""

STEP: Final = 32 * BLOCK
"""What is worked on at a time, in numbers: what fits the cache, and is worth a call of numpy."""


class StepBuffers:
    """What is read into."""

    def __init__(self) -> None:
        self.a, self.b = (np.empty(8 * STEP, np.uint8) for _ in "ab")


def in_step(pair: TensorPair, buffers: StepBuffers) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the numbers of both tensors, `STEP` at a time; a complex element is two of them.

    The imaginary part of a real number is a zero, where the other side is complex. What is yielded
    is overwritten by what comes next.
    """
    is_complex = pair.width > 1
    if not pair.can_be_read_into:
        yield from zip(*(_steps(tensor, is_complex) for tensor in pair), strict=True)
        return
    numel, step = prod(pair.a.shape), STEP // 2 if is_complex else STEP
    for start in range(0, numel, step):
        stop = min(numel, start + step)
        yield (
            _read(pair.a, start, stop, buffers.a, is_complex),
            _read(pair.b, start, stop, buffers.b, is_complex),
        )


def _read(
    tensor: TensorRef, start: int, stop: int, buffer: NDArray[np.uint8], is_complex: bool
) -> NDArray[Any]:
    raw = buffer[: (stop - start) * tensor.dtype.itemsize]
    read_into(tensor, start, raw.data)
    return _numbers(raw.view(numpy_dtype(tensor.dtype)), tensor, is_complex)


def _steps(tensor: TensorRef, is_complex: bool) -> Iterator[NDArray[Any]]:
    rest: NDArray[Any] | None = None
    for chunk in read_elements(tensor):
        numbers = _numbers(chunk, tensor, is_complex)
        if rest is not None:
            numbers = np.concatenate((rest, numbers))
        whole = numbers.size - numbers.size % STEP
        for start in range(0, whole, STEP):
            yield numbers[start : start + STEP]
        rest = numbers[whole:] if whole < numbers.size else None
    if rest is not None:
        yield rest


def _numbers(chunk: NDArray[Any], tensor: TensorRef, is_complex: bool) -> NDArray[Any]:
    if tensor.dtype.kind == "bool":
        chunk = chunk.view(np.uint8)
    if tensor.dtype.name == "complex32" or not is_complex:
        return chunk
    if tensor.dtype.kind == "complex":
        parts: NDArray[Any] = chunk.view(chunk.real.dtype)
        return parts
    if tensor.dtype.name == "float8_e8m0fnu":
        # It has no zero.
        chunk = chunk.astype(np.float32)
    pairs = np.zeros(2 * chunk.size, chunk.dtype)
    pairs[0::2] = chunk
    return pairs
