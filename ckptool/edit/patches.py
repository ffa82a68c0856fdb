"""Other elements in the places of tensors, as bytes of their storage; all between them stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptool.edit.initial import NoValueError
from ckptool.sources import read_content
from ckptool.tensors.refs import NoData, Strided, TensorRef
from ckptool.values import is_row_major

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NewElements", "are_apart", "check_place", "patches_of", "span_of"]

_LARGEST_SPAN: Final = 1 << 30


class NewElements(NamedTuple):
    """A tensor in a storage, and the elements that it is to have."""

    tensor: TensorRef
    elements: NDArray[Any]


def span_of(tensor: TensorRef) -> tuple[int, int]:
    """Return from where to behind where a tensor reaches in its storage, in bytes."""
    data = _strided(tensor)
    start = tensor.dtype.nbytes_of(data.offset)
    return start, start + data.span_bytes(tensor.dtype, tensor.shape)


def check_place(new: NewElements) -> None:
    """Raise NoValueError where a tensor's place cannot hold these elements."""
    import numpy as np

    tensor, elements = new
    data = _strided(tensor)
    if data.is_conjugate or data.is_negative:
        raise NoValueError("it is a conjugate or negative view")
    if not tensor.nbytes or is_row_major(tensor.shape, data.stride):
        return
    start, end = span_of(tensor)
    if not _is_countable(tensor, end - start):
        raise NoValueError("its elements lie too far apart, or over each other too often")
    # One number throughout can be in the same place many times.
    if any(elements.strides):
        used = np.zeros(end - start, np.uint8)
        _bytes_in(used, start, tensor)[...] = 1
        if np.count_nonzero(used) < tensor.nbytes:
            raise NoValueError("some of its elements are one, and would have to differ")


def are_apart(tensor: TensorRef, other: TensorRef) -> bool:
    """Whether no byte of a tensor is also the other's, in the storage that both are in."""
    import numpy as np

    (start, end), (other_start, other_end) = span_of(tensor), span_of(other)
    if other_end <= start or end <= other_start:
        return True
    low, high = min(start, other_start), max(end, other_end)
    if not (_is_countable(tensor, high - low) and _is_countable(other, high - low)):
        return False
    used = np.zeros(high - low, np.uint8)
    _bytes_in(used, low, tensor)[...] = 1
    return not _bytes_in(used, low, other).any()


def patches_of(new: Sequence[NewElements]) -> Iterator[tuple[int, bytes]]:
    """Yield where in their storage tensors are, and the bytes there with their new elements.

    Tensors whose bytes lie between each other's come as one patch.
    """
    group: list[NewElements] = []
    behind = 0
    for one in sorted(new, key=lambda one: span_of(one.tensor)):
        start, end = span_of(one.tensor)
        if group and start >= behind:
            yield _patch(group)
            group = []
        group.append(one)
        behind = max(behind, end)
    if group:
        yield _patch(group)


def _patch(group: Sequence[NewElements]) -> tuple[int, bytes]:
    import numpy as np

    first = group[0].tensor
    start, data = span_of(first)[0], _strided(first)
    if len(group) == 1 and is_row_major(first.shape, data.stride):
        return start, np.ascontiguousarray(_stored(group[0])).tobytes()
    end = max(span_of(one.tensor)[1] for one in group)
    extent = data.storage.extent
    kept = b"" if extent is None else b"".join(read_content(extent, start, end - start))
    patched = np.frombuffer(bytearray(kept), np.uint8)
    for one in group:
        place = _bytes_in(patched, start, one.tensor)
        once = tuple(slice(0, 1 if step == 0 else None) for step in _strided(one.tensor).stride)
        raw = np.ascontiguousarray(_stored(one)[once])
        place[...] = raw.view(np.uint8).reshape(place.shape)
    return start, patched.tobytes()


def _stored(new: NewElements) -> NDArray[Any]:
    is_big = _strided(new.tensor).storage.byteorder == "big"
    return new.elements.byteswap() if is_big and new.elements.itemsize > 1 else new.elements


def _bytes_in(buffer: NDArray[Any], low: int, tensor: TensorRef) -> NDArray[Any]:
    """The bytes of a tensor's elements, in a buffer that begins at a byte of its storage.

    Elements that a stride of 0 repeats are there once.
    """
    import numpy as np

    data, itemsize = _strided(tensor), tensor.dtype.itemsize
    strides = (*(step * itemsize for step in data.stride), 1)
    offset = tensor.dtype.nbytes_of(data.offset) - low
    shape = (*_once(tensor), itemsize)
    return np.ndarray(shape, np.uint8, buffer.data, offset, strides)


def _once(tensor: TensorRef) -> tuple[int, ...]:
    """A tensor's shape without what a stride of 0 repeats."""
    sizes = zip(tensor.shape, _strided(tensor).stride, strict=True)
    return tuple(min(size, 1) if step == 0 else size for size, step in sizes)


def _is_countable(tensor: TensorRef, span: int) -> bool:
    """Whether its bytes can be marked one by one in a stretch of the storage."""
    return max(span, prod(_once(tensor)) * tensor.dtype.itemsize) <= _LARGEST_SPAN


def _strided(tensor: TensorRef) -> Strided:
    if isinstance(tensor.data, NoData):
        raise NoValueError("it was saved from the meta device and has no values")
    if not isinstance(tensor.data, Strided):
        raise NoValueError(f"it is {tensor.layout}")
    return tensor.data
