"""What the calls that rebuild tensors are given, read one argument at a time."""

from __future__ import annotations

from typing import Final, TypeVar

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.tensors.dtypes import DType, dtype_of_global
from ckptool.tensors.refs import LARGEST_COUNT, MOST_DIMENSIONS, TensorRef

__all__ = ["arguments", "device_in", "dtype_in", "sizes", "tensor_in"]

_T = TypeVar("_T")
_SIZE: Final = Global("torch", "Size")
_DEVICE: Final = Global("torch", "device")


def arguments(node: Opaque, fewest: int, most: int) -> tuple[Node, ...]:
    """Return a call's arguments; raise TensorError where they are fewer or more than it takes."""
    if not fewest <= len(node.args) <= most:
        raise TensorError(f"{node.callee} is called with {len(node.args)} arguments")
    return node.args


def tensor_in(node: Node) -> TensorRef:
    """Return an argument that has to be a tensor, else raise TensorError."""
    return _require(node if type(node) is TensorRef else None, "a part of it is not a tensor")


def dtype_in(node: Node) -> DType:
    """Return an argument that has to be a dtype, else raise TensorError."""
    return _require(dtype_of_global(node), "its dtype is none of torch's")


def _require(found: _T | None, problem: str) -> _T:
    if found is None:
        raise TensorError(problem)
    return found


def device_in(node: Node) -> str | None:
    """Return a pickled `torch.device("cuda", 0)` as torch writes it, `cuda:0`; else None."""
    if type(node) is str:
        return node
    match node:
        case Opaque(callee=callee, args=(str() as name, *rest)) if callee == _DEVICE:
            return ":".join((name, *(str(index) for index in rest if type(index) is int)))
    return None


def sizes(node: Node) -> tuple[int, ...]:
    """Return a shape or strides: a tuple or list of counts, or a `torch.Size` of one."""
    if type(node) is Opaque and node.callee == _SIZE and len(node.args) == 1:
        node = node.args[0]
    if type(node) is list:
        node = tuple(node)
    if type(node) is tuple and len(node) <= MOST_DIMENSIONS:
        for size in node:
            if type(size) is not int or not 0 <= size <= LARGEST_COUNT:
                break
        else:
            return node
    raise TensorError("its shape or strides are not a list of counts")
