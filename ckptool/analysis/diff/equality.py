"""Whether tensors are the same bytes: read from both files in step, up to the first difference."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from math import prod
from typing import Final, NamedTuple

from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.progress import UNWATCHED, Progress, side_by_side
from ckptool.sources import CHUNK_BYTES
from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import has_runs, read_bytes, read_into

__all__ = ["Record", "are_same_bytes", "is_same_by_record", "is_same_stream", "record_of"]

# What is handed to one thread at a time, and what is looked at before anything else, in elements.
_PIECE: Final = 1 << 22
_BEGINNING: Final = 1 << 10


class _Piece(NamedTuple):
    """A part of the pair at `place`; the parts of one pair can be compared side by side."""

    place: int
    pair: TensorPair


def are_same_bytes(pairs: Sequence[TensorPair], progress: Progress) -> list[bool]:
    """Say of each pair of one dtype whether all bits of all elements are the same."""
    reduced = [pair.without_repetition()[0] for pair in pairs]
    progress.expect(sum(pair.nbytes for pair in reduced))
    pieces = [
        _Piece(place, piece) for place, pair in enumerate(reduced) for piece in pair.pieces(_PIECE)
    ]
    different: set[int] = set()
    buffers = _Buffers()

    def compare(piece: _Piece, progress: Progress) -> None:
        if piece.place in different or not _is_same(piece.pair, buffers, progress):
            different.add(piece.place)

    side_by_side(compare, pieces, progress)
    return [index not in different for index in range(len(pairs))]


class _Buffers(threading.local):
    """What each thread reads into."""

    def __init__(self) -> None:
        self.a, self.b = bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES)


def _is_same(pair: TensorPair, buffers: _Buffers, progress: Progress) -> bool:
    if not pair.can_be_read_into:
        return is_same_stream(read_bytes(pair.a), read_bytes(pair.b), progress)
    itemsize, numel = pair.a.dtype.itemsize, prod(pair.a.shape)
    into_a, into_b = memoryview(buffers.a), memoryview(buffers.b)
    # Most tensors that differ do so from their beginning on, and are not read further here.
    start, count = 0, min(numel, _BEGINNING)
    while start < numel:
        read_into(pair.a, start, into_a[: count * itemsize])
        read_into(pair.b, start, into_b[: count * itemsize])
        progress.advance(2 * count * itemsize)
        # Of all ways to compare parts of two buffers this one copies neither.
        if not buffers.a.startswith(into_b[: count * itemsize]):
            return False
        start += count
        count = min(numel - start, CHUNK_BYTES // itemsize)
    return True


def is_same_stream(a: Iterator[bytes], b: Iterator[bytes], progress: Progress = UNWATCHED) -> bool:
    """Whether two streams are the same bytes, however each of them is cut into chunks."""
    first, second = next(a, b""), next(b, b"")
    while first and second:
        length = min(len(first), len(second))
        progress.advance(2 * length)
        if len(first) == len(second):
            if first != second:
                return False
            first, second = next(a, b""), next(b, b"")
        else:
            if first[:length] != second[:length]:
                return False
            first = first[length:] or next(a, b"")
            second = second[length:] or next(b, b"")
    return first == second


def is_same_by_record(pair: TensorPair) -> bool | None:
    """Say by the recorded CRCs and sizes of two storages whether the tensors in them are the same.

    None where they do not tell: no CRC is recorded, the tensors lie in their storages in different
    ways, or the storages differ and the tensors are only a part of them.
    """
    a, b = (record_of(tensor) for tensor in pair)
    if a is None or b is None or a.layout != b.layout:
        return None
    if a.content == b.content:
        return True
    return False if a.is_whole and b.is_whole else None


class Record(NamedTuple):
    """What is recorded of a storage, and how a tensor lies in it.

    `content` is its CRC and size. `is_whole` says that the tensor is all of it, one element behind
    the other.
    """

    content: tuple[int, int]
    layout: tuple[object, ...]
    is_whole: bool


def record_of(tensor: TensorRef) -> Record | None:
    """Return what is recorded of the storage of a strided tensor, None where no CRC is."""
    data = tensor.data
    extent = data.storage.extent if isinstance(data, Strided) else None
    if not isinstance(data, Strided) or extent is None or extent.crc is None:
        return None
    layout = (tensor.dtype, tensor.shape, *data[1:], data.storage.byteorder)
    is_whole = has_runs(tensor) and tensor.nbytes == extent.size
    return Record((extent.crc, extent.size), layout, is_whole)
