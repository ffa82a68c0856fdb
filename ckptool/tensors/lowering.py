"""Tensors as the calls that they were read from, the inverse of `rebuild`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.pickling.nodes import Global, Node, Opaque, PersistentId
from ckptool.tensors.refs import TensorRef

__all__ = ["in_other_storage", "lower"]

# The calls whose first two arguments are a storage and an offset in it.
_ON_A_STORAGE: Final = frozenset(
    Global("torch._utils", name)
    for name in (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_qtensor",
    )
)


def lower(node: Node) -> Node:
    """Return the call that a tensor was read from."""
    if type(node) is TensorRef and node.node is not None:
        return node.node
    raise TypeError(f"a {type(node).__name__} is no part of a pickle")


def in_other_storage(call: Opaque, storage: PersistentId, offset: int) -> Opaque:
    """Return a tensor's call with another storage and offset, in elements; all else stays.

    The call is one that takes a storage itself, or hands its arguments to such a one
    (`_rebuild_from_type`).
    """
    if call.callee in _ON_A_STORAGE:
        return replace(call, args=(storage, offset, *call.args[2:]))
    function, cls, args, state = call.args
    return replace(call, args=(function, cls, (storage, offset, *args[2:]), state))
