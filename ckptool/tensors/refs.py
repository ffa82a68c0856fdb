"""What a file says of its storages and tensors; no element of theirs is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul
from typing import Final, Literal, NamedTuple, TypeAlias

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Global, Node, Opaque, PersistentId
from ckptool.sources import Extent
from ckptool.tensors.dtypes import DType

__all__ = [
    "LARGEST_COUNT",
    "MOST_DIMENSIONS",
    "ByteOrder",
    "Component",
    "Components",
    "NoData",
    "StorageRef",
    "Strided",
    "TensorRef",
    "check_bounds",
    "checked_shape",
    "components",
    "row_major_stride",
    "storage_in",
    "storages_of",
]

ByteOrder: TypeAlias = Literal["little", "big"]

MOST_DIMENSIONS: Final = 64
"""As many as torch and numpy have."""

LARGEST_COUNT: Final = (1 << 63) - 1
"""Sizes, strides and offsets are 64-bit in torch."""

_MOST_PARTS: Final = 1_000
_MOST_LEVELS: Final = 8


@dataclass(slots=True, eq=False)  # frozen ones take three times as long to make
class StorageRef:
    """Flat bytes under one or more tensors: `numel` elements of `dtype`, saved from `location`.

    `location` is None where the format does not say. `extents` says where the container keeps
    which storage key; a key that is not in it has no bytes in the file.
    """

    key: str
    dtype: DType
    location: str | None
    numel: int
    byteorder: ByteOrder
    extents: Mapping[str, Extent]

    @property
    def nbytes(self) -> int:
        """The size that the pickle declares, in bytes."""
        return self.numel * self.dtype.itemsize

    @property
    def extent(self) -> Extent | None:
        """Where the bytes are, None where the file does not have them."""
        return self.extents.get(self.key)


def storage_in(node: Node) -> StorageRef | None:
    """The storage that a node is, or refers to; None for anything else."""
    if type(node) is PersistentId:
        node = node.stands_for
    return node if type(node) is StorageRef else None


class Strided(NamedTuple):
    """Elements in one storage: `offset` and `stride` count elements of the tensor's dtype.

    A conjugate or negative bit is a view that was saved unresolved: the elements are to be
    conjugated or negated when they are read.
    """

    storage: StorageRef
    offset: int
    stride: tuple[int, ...]
    is_conjugate: bool = False
    is_negative: bool = False

    def span_bytes(self, dtype: DType, shape: tuple[int, ...]) -> int:
        """The bytes from the first element of a shape to behind the last one."""
        if 0 in shape:
            return 0
        span = 1
        for size, step in zip(shape, self.stride, strict=True):
            span += (size - 1) * step
        return dtype.nbytes_of(span)


@dataclass(frozen=True, slots=True, eq=False)
class NoData:
    """A tensor on the meta device: a dtype, a shape and strides, and no elements."""

    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """One part of a tensor that is made of several, by its role (`indices`, `values`, ...).

    A part that is one number (the scale of a tensor quantized as a whole) is a number here.
    """

    role: str
    value: TensorRef | int | float


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """A tensor made of others: sparse, quantized, nested, or a subclass that wraps tensors.

    `count` is how many parts there are with those of its parts, `levels` how deep they go: with
    the same part in many places, both can be far larger than the file.
    """

    layout: str
    parts: tuple[Component, ...]
    count: int
    levels: int


@dataclass(slots=True, eq=False)  # frozen ones take three times as long to make
class TensorRef:
    """A tensor as the file describes it.

    A dimension of -1 is ragged: its sizes are data of a nested tensor. `saved_as` is `tensor`,
    `parameter`, `buffer` or the class of a subclass; `is_persistent` is what a saved `nn.Buffer`
    says of itself. `node` is the call that rebuilds it, None where the format has no calls.
    """

    dtype: DType
    shape: tuple[int, ...]
    requires_grad: bool
    data: Strided | Components | NoData
    node: Opaque | None = None
    saved_as: Literal["tensor", "parameter", "buffer"] | Global = "tensor"
    is_persistent: bool | None = None
    device: str | None = None

    @property
    def numel(self) -> int | None:
        """The number of elements, None where a dimension is ragged."""
        count = 1
        for size in self.shape:
            if size < 0:
                return None
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, of all components together where it has some."""
        data = self.data
        if isinstance(data, Components):
            return sum(
                part.value.nbytes if isinstance(part.value, TensorRef) else 8 for part in data.parts
            )
        return self.dtype.nbytes_of(self.numel or 0)

    @property
    def layout(self) -> str:
        """Torch's name for how the elements are arranged."""
        return self.data.layout if isinstance(self.data, Components) else "strided"

    @property
    def location(self) -> str | None:
        """The device it was saved from."""
        if self.device is not None:
            return self.device
        if isinstance(self.data, NoData):
            return "meta"
        return next((storage.location for storage in storages_of(self)), None)


def components(layout: str, parts: tuple[Component, ...]) -> Components:
    """Return the parts as data; raise TensorError for more or deeper ones than tensors have."""
    below = [
        part.value.data
        for part in parts
        if isinstance(part.value, TensorRef) and isinstance(part.value.data, Components)
    ]
    count = len(parts) + sum(data.count for data in below)
    levels = 1 + max((data.levels for data in below), default=0)
    if count > _MOST_PARTS or levels > _MOST_LEVELS:
        raise TensorError("it is made of too many tensors")
    return Components(layout, parts, count, levels)


def checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape; raise TensorError where it has more dimensions or elements than torch."""
    if len(shape) > MOST_DIMENSIONS or prod(shape) > LARGEST_COUNT:
        raise TensorError("its shape is larger than any tensor's")
    return shape


def row_major_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of elements that lie one behind the other."""
    products = accumulate(reversed(shape[1:]), mul, initial=1)
    return tuple(reversed(list(products))) if shape else ()


def storages_of(tensor: TensorRef) -> tuple[StorageRef, ...]:
    """Return the storages under a tensor and its components, in their order."""
    data = tensor.data
    if isinstance(data, Strided):
        return (data.storage,)
    if isinstance(data, NoData):
        return ()
    return tuple(
        storage
        for part in data.parts
        if isinstance(part.value, TensorRef)
        for storage in storages_of(part.value)
    )


def check_bounds(tensor: TensorRef) -> None:
    """Raise TensorError where a tensor reaches outside its storage, or a storage its record."""
    data = tensor.data
    if isinstance(data, Components):
        for part in data.parts:
            if isinstance(part.value, TensorRef):
                check_bounds(part.value)
    elif isinstance(data, Strided):
        storage, size = data.storage, data.storage.nbytes
        _check_storage(storage, size)
        end = tensor.dtype.nbytes_of(data.offset) + data.span_bytes(tensor.dtype, tensor.shape)
        if end > size and 0 not in tensor.shape:
            raise TensorError(
                f"reaches to byte {end:,} of storage {storage.key!r}, which has {size:,}",
                storage_key=storage.key,
                code="bounds",
            )


def _check_storage(storage: StorageRef, size: int) -> None:
    extent = storage.extents.get(storage.key)
    if extent is None:
        if size:
            raise TensorError(
                f"storage {storage.key!r} is not in the file",
                storage_key=storage.key,
                code="record",
            )
    elif extent.size < size:
        raise TensorError(
            f"storage {storage.key!r} should have {size:,} bytes; the file has {extent.size:,}",
            storage_key=storage.key,
            code="size",
        )
