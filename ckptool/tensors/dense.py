"""Calls that make a tensor in a storage of its own, or in none.

The argument lists are those of `torch/_utils.py` in torch 2.13, older forms included.
"""

from __future__ import annotations

from dataclasses import replace

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Node, Opaque, PersistentId
from ckptool.tensors.arguments import arguments, device_in, dtype_in, sizes, tensor_in
from ckptool.tensors.arrays import read_array
from ckptool.tensors.dtypes import DTYPES, DType
from ckptool.tensors.refs import (
    LARGEST_COUNT,
    NoData,
    StorageRef,
    Strided,
    TensorRef,
    checked_shape,
)

__all__ = [
    "rebuild_from_cpu_tensor",
    "rebuild_from_numpy",
    "rebuild_meta_tensor",
    "rebuild_tensor",
    "rebuild_tensor_v2",
    "rebuild_tensor_v3",
    "strided",
]


def rebuild_tensor(node: Opaque) -> TensorRef:
    storage, offset, shape, stride = arguments(node, 4, 4)
    return strided(node, storage, offset, shape, stride)


def rebuild_tensor_v2(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, requires_grad, _hooks, *metadata = arguments(node, 6, 7)
    return strided(node, storage, offset, shape, stride, requires_grad, None, *metadata)


def rebuild_tensor_v3(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, requires_grad, _hooks, dtype, *metadata = arguments(node, 7, 8)
    return strided(node, storage, offset, shape, stride, requires_grad, dtype_in(dtype), *metadata)


def strided(
    node: Opaque,
    storage: Node,
    offset: Node,
    shape: Node,
    stride: Node,
    requires_grad: Node = False,
    dtype: DType | None = None,
    metadata: Node = None,
) -> TensorRef:
    """Return elements of one storage, checked as far as no storage is needed for it."""
    if type(storage) is PersistentId:
        storage = storage.stands_for
        if storage is None:
            raise TensorError("its storage is kept outside of this pickle")
    if type(storage) is not StorageRef:
        raise TensorError("its first argument is not a storage")
    if type(offset) is not int or not 0 <= offset <= LARGEST_COUNT:
        raise TensorError("its offset is not a count")
    shape, stride = checked_shape(sizes(shape)), sizes(stride)
    if len(shape) != len(stride):
        raise TensorError(f"it has {len(shape)} dimensions and {len(stride)} strides")
    dtype = dtype or storage.dtype
    if storage.location == "meta":
        return TensorRef(dtype, shape, requires_grad is True, NoData(stride), node)
    bits = _bits(dtype, metadata) if type(metadata) is dict else ()
    data = Strided(storage, offset, stride, *bits)
    return TensorRef(dtype, shape, requires_grad is True, data, node)


def _bits(dtype: DType, metadata: dict[Node, Node]) -> tuple[bool, bool]:
    """The conjugate and the negative bit, as `torch._utils.set_tensor_metadata` gets them."""
    is_conjugate, is_negative = metadata.get("conj") is True, metadata.get("neg") is True
    if (is_conjugate and dtype.kind != "complex") or (is_negative and dtype.kind == "bool"):
        raise TensorError(f"it has a conjugate or negative bit, which {dtype} has not")
    return is_conjugate, is_negative


def rebuild_meta_tensor(node: Opaque) -> TensorRef:
    dtype, shape, stride, requires_grad = arguments(node, 4, 4)
    return TensorRef(
        dtype_in(dtype),
        checked_shape(sizes(shape)),
        requires_grad is True,
        NoData(sizes(stride)),
        node,
    )


def rebuild_from_cpu_tensor(node: Opaque) -> TensorRef:
    tensor, _, device, requires_grad = arguments(node, 4, 4)
    return replace(
        tensor_in(tensor), node=node, device=device_in(device), requires_grad=requires_grad is True
    )


def rebuild_from_numpy(node: Opaque) -> TensorRef:
    array, dtype_name, device, requires_grad = arguments(node, 4, 4)
    found = read_array(array)
    if found is None:
        raise TensorError("its first argument is not a numpy array of numbers")
    wanted = dtype_in(dtype_name)
    if found.dtype == "float32" and wanted is DTYPES["bfloat16"]:
        # numpy has no bfloat16, so torch writes such tensors widened: the upper halves are they.
        found = found.upper_halves()
    elif found.dtype != wanted.name:
        raise TensorError(f"its numpy array holds {found.dtype}, not {wanted}")
    storage = found.storage(wanted, device_in(device))
    data = Strided(storage, 0, found.stride)
    return TensorRef(wanted, found.shape, requires_grad is True, data, node)
