"""A tensor's elements, read in bounded memory: through strides, offsets, bits and byte order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptool.errors import CkptoolError, LimitExceededError, TensorError, about
from ckptool.sources import CHUNK_BYTES, read_content
from ckptool.tensors.refs import NoData, Strided, TensorRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ckptool.sources import Extent
    from ckptool.tensors.dtypes import DType

__all__ = [
    "can_be_read_into",
    "has_runs",
    "is_row_major",
    "numpy_dtype",
    "read_bytes",
    "read_elements",
    "read_into",
    "run_of",
    "without_repetition",
]

# A tensor whose elements do not lie one behind the other is gathered: what is held of it, the run
# up to which reading gaps along costs less than another call, and how many times more than its
# elements a longer run may be.
_HELD_BYTES = 1 << 24
_SHORT_RUN_BYTES = 1 << 14
_SPARSEST = 2
_REPEATED_BYTES = 1 << 30

_EXTENSION_FLOATS = frozenset(
    {
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    }
)
_RAW = {
    "qint8": "int8",
    "quint8": "uint8",
    "qint32": "int32",
    "bits16": "uint16",
    # numpy has no half-precision complex: its real and imaginary parts stand side by side.
    "complex32": "float16",
}


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the numpy dtype that a tensor's elements are read as.

    Packed kinds (4-bit floats, integers below 8 bits, quint4x2, ...) are read as the bytes that
    they are packed in, complex32 as pairs of float16.
    """
    import numpy as np

    if dtype.name in _EXTENSION_FLOATS:
        import ml_dtypes

        extension: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.name))
        return extension
    if dtype.name in _RAW:
        return np.dtype(_RAW[dtype.name])
    if dtype.kind in ("quantized", "bits") or dtype.name == "float4_e2m1fn_x2":
        return np.dtype("uint8")
    try:
        return np.dtype(dtype.name)
    except TypeError:
        return np.dtype("int8" if dtype.kind == "int" else "uint8")


def read_elements(tensor: TensorRef) -> Iterator[NDArray[Any]]:
    """Yield a tensor's elements in row-major order as one-dimensional arrays.

    Each array has at most `CHUNK_BYTES` bytes; conjugate and negative bits are resolved. A tensor
    of components has no elements of its own, one on the meta device has none at all: TensorError.
    """
    data = _strided(tensor)
    element = numpy_dtype(tensor.dtype)
    if is_row_major(tensor.shape, data.stride):
        chunks = _from_bytes(tensor, data, element)
    else:
        chunks = _from_strides(tensor, data, element)
    with _about_file_of(data):
        for chunk in chunks:
            yield _resolve(chunk, tensor.dtype, data)


def read_bytes(tensor: TensorRef) -> Iterator[bytes]:
    """Yield the same elements as bytes, little-endian, without gaps.

    What lies in the file like that already is handed through without numpy.
    """
    data = _strided(tensor)
    if _is_as_read(tensor, data) and is_row_major(tensor.shape, data.stride):
        with _about_file_of(data):
            yield from _raw(tensor, data)
        return
    for chunk in read_elements(tensor):
        yield chunk.tobytes()


def can_be_read_into(tensor: TensorRef) -> bool:
    """Whether the file has a tensor's elements as they are, one behind the other."""
    data = tensor.data
    return isinstance(data, Strided) and has_runs(tensor) and _is_as_read(tensor, data)


def read_into(tensor: TensorRef, start: int, into: memoryview) -> None:
    """Fill a buffer with a tensor's elements from the one at `start` on, little-endian.

    Only for a tensor that can be read into a buffer. It is not allocated anew for each chunk, which
    for many of them takes longer than reading.
    """
    data = _strided(tensor)
    extent = data.storage.extent
    if extent is not None:
        offset = extent.offset + (data.offset + start) * tensor.dtype.itemsize
        try:
            extent.source.read_into(offset, into)
        except CkptoolError as error:
            error.path = extent.source.path
            raise


def has_runs(tensor: TensorRef) -> bool:
    """Whether any run of a tensor's elements can be read without the others.

    They lie one behind the other, are not compressed, and none shares a byte with another.
    """
    data = tensor.data
    if not isinstance(data, Strided) or tensor.dtype.per_item > 1:
        return False
    extent = data.storage.extent
    is_plain = extent is None or not extent.is_deflated
    return is_plain and is_row_major(tensor.shape, data.stride)


def run_of(tensor: TensorRef, start: int, stop: int) -> TensorRef:
    """Return the elements from `start` to before `stop`, in row-major order, as a tensor.

    Only for a tensor that has runs.
    """
    data = _strided(tensor)
    moved = data._replace(offset=data.offset + start, stride=(1,))
    return replace(tensor, shape=(stop - start,), data=moved)


def without_repetition(tensor: TensorRef, axes: Collection[int]) -> TensorRef:
    """Return a tensor with one index along axes of which the stride is zero."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(tensor.shape))
    return replace(tensor, shape=shape)


def _strided(tensor: TensorRef) -> Strided:
    if isinstance(tensor.data, Strided):
        return tensor.data
    if isinstance(tensor.data, NoData):
        raise TensorError("it was saved from the meta device and has no values")
    raise TensorError(f"it is {tensor.layout}; its components have the values")


def _is_as_read(tensor: TensorRef, data: Strided) -> bool:
    """Whether elements are what the bytes say: little-endian, and with nothing left to resolve."""
    is_little = data.storage.byteorder == "little" or tensor.dtype.itemsize == 1
    return is_little and not data.is_conjugate and not data.is_negative


def _about_file_of(data: Strided) -> AbstractContextManager[None]:
    """Let errors say which file it is: whoever reads two in step cannot tell."""
    extent = data.storage.extent
    return about(None if extent is None else extent.source.path)


def is_row_major(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements lie one behind the other; strides of single elements do not matter."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _raw(tensor: TensorRef, data: Strided) -> Iterator[bytes]:
    extent = data.storage.extent
    if extent is None or not tensor.nbytes:
        return
    yield from read_content(extent, tensor.dtype.nbytes_of(data.offset), tensor.nbytes)


def _from_bytes(tensor: TensorRef, data: Strided, element: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    import numpy as np

    rest = b""
    for chunk in _raw(tensor, data):
        whole = rest + chunk
        usable = len(whole) - len(whole) % tensor.dtype.itemsize
        rest = whole[usable:]
        array = np.frombuffer(whole[:usable], element)
        yield array if data.storage.byteorder == "little" else array.byteswap()


def _from_strides(
    tensor: TensorRef, data: Strided, element: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    import numpy as np

    extent = data.storage.extent
    if extent is None or 0 in tensor.shape:
        return
    itemsize = tensor.dtype.itemsize
    if tensor.dtype.per_item > 1:
        raise TensorError("several of its elements share a byte, and they do not lie in a row")
    if tensor.nbytes > max(_REPEATED_BYTES, extent.size):
        # With a stride of 0 a few bytes stand for any number of elements.
        raise LimitExceededError(
            "bytes out of a smaller storage", allowed=_REPEATED_BYTES, actual=tensor.nbytes
        )
    step = max(1, CHUNK_BYTES // itemsize)
    for box in _cut(_Box(data.offset, tensor.shape, data.stride, itemsize)):
        elements = _elements_of(extent, box)
        for at in range(0, elements.size, step):
            array = np.ascontiguousarray(elements.flat[at : at + step]).view(element)
            yield array if data.storage.byteorder == "little" else array.byteswap()


class _Box(NamedTuple):
    """A run of indices along each axis; `offset` and `stride` count elements in the storage."""

    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    itemsize: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.itemsize

    @property
    def span(self) -> int:
        """The bytes from its first element to behind its last one."""
        steps = zip(self.shape, self.stride, strict=True)
        return (1 + sum((size - 1) * step for size, step in steps)) * self.itemsize

    def halves(self, axis: int) -> tuple[_Box, _Box]:
        size = self.shape[axis]
        lower, upper = (
            (*self.shape[:axis], part, *self.shape[axis + 1 :])
            for part in (size // 2, size - size // 2)
        )
        middle = self.offset + size // 2 * self.stride[axis]
        return self._replace(shape=lower), self._replace(offset=middle, shape=upper)


def _cut(box: _Box) -> Iterator[_Box]:
    """Cut a box, in row-major order, until each part can be held or lies in a run that can."""
    if box.nbytes <= _HELD_BYTES or box.span <= _HELD_BYTES:
        yield box
        return
    for half in box.halves(next(axis for axis, size in enumerate(box.shape) if size > 1)):
        yield from _cut(half)


def _elements_of(extent: Extent, box: _Box) -> NDArray[np.void]:
    import numpy as np

    if box.span <= _HELD_BYTES:
        return _read_run(extent, box)
    if extent.is_deflated:
        # Its parts can only be reached from its start, so it would be inflated again and again.
        raise LimitExceededError(
            "bytes of a compressed storage at a time", allowed=_HELD_BYTES, actual=box.span
        )
    elements = np.empty(box.shape, np.dtype((np.void, box.itemsize)))
    _gather(extent, box, elements)
    return elements


def _gather(extent: Extent, box: _Box, into: NDArray[np.void]) -> None:
    """Fill an array with the elements of a box, read in runs that are dense or short."""
    if box.span <= max(_SHORT_RUN_BYTES, _SPARSEST * box.nbytes):
        into[...] = _read_run(extent, box)
        return
    axis = max(range(len(box.shape)), key=lambda axis: (box.shape[axis] > 1, box.stride[axis]))
    lower, upper = box.halves(axis)
    at = lower.shape[axis]
    before = (slice(None),) * axis
    _gather(extent, lower, into[(*before, slice(at))])
    _gather(extent, upper, into[(*before, slice(at, None))])


def _read_run(extent: Extent, box: _Box) -> NDArray[np.void]:
    """Read the whole run that a box spans, and view its elements in it."""
    import numpy as np

    raw = b"".join(read_content(extent, box.offset * box.itemsize, box.span))
    steps = [step * box.itemsize for step in box.stride]
    return np.ndarray(box.shape, np.dtype((np.void, box.itemsize)), raw, strides=steps)


def _resolve(chunk: NDArray[Any], dtype: DType, data: Strided) -> NDArray[Any]:
    import numpy as np

    if data.is_conjugate:
        if dtype.name == "complex32":
            chunk = chunk.copy()
            chunk[1::2] = np.negative(chunk[1::2])
        else:
            chunk = np.conjugate(chunk)
    return np.negative(chunk) if data.is_negative else chunk
