"""Tensors as the calls that they were read from, the inverse of `rebuild`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.pickling.nodes import Global, Node, Opaque, PersistentId
from ckptool.tensors.refs import Components, Strided, TensorRef

__all__ = ["in_other_storage", "lower", "own_part", "storage_reference"]

# The calls whose first two arguments are a storage and an offset in it.
_ON_A_STORAGE: Final = frozenset(
    Global("torch._utils", name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
)
# The calls that hand their third argument to such a one, which is their first.
_FROM_TYPE: Final = frozenset(
    {
        Global("torch._tensor", "_rebuild_from_type"),
        Global("torch._tensor", "_rebuild_from_type_v2"),
        Global("torch.tensor", "_rebuild_from_type"),
    }
)


def lower(node: Node) -> Node:
    """Return the call that a tensor was read from."""
    if type(node) is TensorRef and node.node is not None:
        return node.node
    raise TypeError(f"a {type(node).__name__} is no part of a pickle")


def own_part(tensor: TensorRef) -> TensorRef | None:
    """Return the elements that a tensor's own call takes from a storage.

    They are all of a plain tensor and the values of a quantized one. None for a tensor that is made
    of others, which have calls of their own, and for one that has no elements in a storage.
    """
    if tensor.node is not None and _arguments(tensor.node) is None:
        return None
    if isinstance(tensor.data, Components):
        values = tensor.data.parts[0].value
        return values if isinstance(values, TensorRef) else None
    return tensor if isinstance(tensor.data, Strided) else None


def storage_reference(tensor: TensorRef) -> PersistentId | None:
    """Return the reference to a storage among the arguments of a tensor's own call."""
    args = None if tensor.node is None else _arguments(tensor.node)
    return None if args is None else args[0]


def in_other_storage(call: Opaque, storage: PersistentId, offset: int) -> Opaque:
    """Return a tensor's call with another storage and offset, in elements; all else stays."""
    if call.callee in _ON_A_STORAGE:
        return replace(call, args=(storage, offset, *call.args[2:]))
    function, cls, args, state = call.args
    return replace(call, args=(function, cls, (storage, offset, *args[2:]), state))


def _arguments(call: Opaque) -> tuple[Node, ...] | None:
    """The arguments with the storage; None where the call names none."""
    args: Node = call.args
    if call.callee in _FROM_TYPE and args[0] in _ON_A_STORAGE:
        args = args[2]
    elif call.callee not in _ON_A_STORAGE:
        return None
    return args if type(args[0]) is PersistentId else None
