"""Numpy arrays and numpy scalars as pickles hold them, read without numpy.

`numpy.ndarray.__reduce__` gives `_reconstruct(ndarray, (0,), b"b")` and a state of
`(version, shape, dtype, is_fortran, bytes)`; a scalar is `scalar(dtype, bytes)`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from ckptool.pickling.literals import literal
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.sources import BytesSource, Extent
from ckptool.tensors.dtypes import DType
from ckptool.tensors.refs import (
    LARGEST_COUNT,
    MOST_DIMENSIONS,
    ByteOrder,
    StorageRef,
    row_major_stride,
)

__all__ = ["ArrayValue", "read_array"]

# numpy moved its core package in 2.0, so a file has one name or the other.
_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_RECONSTRUCT = frozenset(Global(core, "_reconstruct") for core in _CORES)
_SCALAR = frozenset(Global(core, "scalar") for core in _CORES)
_FROM_BUFFER = frozenset(
    Global(package, "_frombuffer") for package in ("numpy.core.numeric", "numpy._core.numeric")
)
_DTYPE = Global("numpy", "dtype")

_DTYPE_CODES: Final = {
    "b1": ("bool", "?"),
    "i1": ("int8", "b"),
    "i2": ("int16", "h"),
    "i4": ("int32", "i"),
    "i8": ("int64", "q"),
    "u1": ("uint8", "B"),
    "u2": ("uint16", "H"),
    "u4": ("uint32", "I"),
    "u8": ("uint64", "Q"),
    "f2": ("float16", "e"),
    "f4": ("float32", "f"),
    "f8": ("float64", "d"),
    "c8": ("complex64", "2f"),
    "c16": ("complex128", "2d"),
}


@dataclass(frozen=True, slots=True, eq=False)
class ArrayValue:
    """A numpy array, or a numpy scalar as an array without dimensions.

    `dtype` is numpy's name for it, or its code where the elements are no plain numbers; `code` is
    then empty. `data` is None where the elements are objects.
    """

    dtype: str
    code: str
    shape: tuple[int, ...]
    byteorder: ByteOrder
    is_fortran: bool
    data: bytes | None

    @property
    def stride(self) -> tuple[int, ...]:
        """Strides in elements."""
        if self.is_fortran:
            return tuple(reversed(row_major_stride(self.shape[::-1])))
        return row_major_stride(self.shape)

    def values(self) -> list[int | float | bool | complex] | None:
        """Return the elements in the order in which they are kept, None where they are opaque."""
        if self.data is None or not self.code:
            return None
        order = "<" if self.byteorder == "little" else ">"
        numbers = [
            item if len(item) > 1 else item[0]
            for item in struct.iter_unpack(order + self.code, self.data)
        ]
        return [complex(*item) if isinstance(item, tuple) else item for item in numbers]

    def upper_halves(self) -> ArrayValue:
        """Return the upper two bytes of each four: a float32 that was a bfloat16, narrowed."""
        data = bytearray(len(self.data or b"") // 2)
        first = 2 if self.byteorder == "little" else 0
        data[0::2] = (self.data or b"")[first::4]
        data[1::2] = (self.data or b"")[first + 1 :: 4]
        return replace(self, dtype="bfloat16", code="H", data=bytes(data))

    def storage(self, dtype: DType, location: str | None) -> StorageRef:
        """Return the array's bytes as a storage of its own."""
        data = self.data or b""
        extents = {"": Extent(BytesSource(data), 0, len(data), len(data))}
        numel = len(data) // dtype.itemsize
        return StorageRef("", dtype, location, numel, self.byteorder, extents)


def read_array(node: Node) -> ArrayValue | None:
    """Read a numpy array or scalar; None for anything else, broken ones included."""
    if not isinstance(node, Opaque) or not isinstance(node.callee, Global):
        return None
    match node.callee, node.args, node.state:
        case callee, _, (int(), tuple() as shape, dtype, fortran, data) if callee in _RECONSTRUCT:
            return _array(dtype, shape, fortran is True or fortran == 1, data)
        case callee, (dtype, data), _ if callee in _SCALAR:
            return _array(dtype, (), False, data)
        case callee, (data, dtype, tuple() as shape, order), _ if callee in _FROM_BUFFER:
            return _array(dtype, shape, order == "F", data)
    return None


def _array(dtype: Node, shape: Node, is_fortran: bool, data: Node) -> ArrayValue | None:
    described = _dtype(dtype)
    if described is None or len(shape) > MOST_DIMENSIONS:
        return None
    if not all(type(size) is int and 0 <= size <= LARGEST_COUNT for size in shape):
        return None
    code, byteorder = described
    name, letter = _DTYPE_CODES.get(code, (code, ""))
    raw = _bytes(data)
    if raw is None or not letter:
        return ArrayValue(name, "", shape, byteorder, is_fortran, raw)
    if len(raw) != struct.calcsize("<" + letter) * prod(shape):
        return None
    return ArrayValue(name, letter, shape, byteorder, is_fortran, raw)


def _dtype(node: Node) -> tuple[str, ByteOrder] | None:
    if not isinstance(node, Opaque) or node.callee != _DTYPE or not node.args:
        return None
    code = node.args[0]
    if not isinstance(code, str):
        return None
    is_big = type(node.state) is tuple and len(node.state) > 1 and node.state[1] == ">"
    return code, "big" if is_big else "little"


def _bytes(node: Node) -> bytes | None:
    node = literal(node)
    if isinstance(node, str):
        try:
            return node.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return bytes(node) if isinstance(node, bytes | bytearray) else None
