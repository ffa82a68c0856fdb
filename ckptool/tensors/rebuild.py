"""The calls that make tensors in a pickle, read into `TensorRef` without being made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ckptool.errors import TensorError
from ckptool.pickling.machine import Interpreter
from ckptool.pickling.nodes import Global, Node, Opaque, attributes_in
from ckptool.tensors.arguments import arguments, tensor_in
from ckptool.tensors.composed import (
    rebuild_jagged_tensor,
    rebuild_nested_tensor,
    rebuild_quantized_tensor,
    rebuild_sparse_tensor,
    rebuild_wrapper_subclass,
)
from ckptool.tensors.dense import (
    rebuild_from_cpu_tensor,
    rebuild_from_numpy,
    rebuild_meta_tensor,
    rebuild_tensor,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
)
from ckptool.tensors.refs import Component, NoData, TensorRef, components

__all__ = ["REBUILD_CALLS", "explain", "tensor_attributes"]


def explain(node: Opaque) -> TensorError | None:
    """Why a call that should have made a tensor could not be read; None for any other call."""
    read = _READERS.get(node.callee) if isinstance(node.callee, Global) else None
    if read is None:
        return None
    try:
        read(node)
    except TensorError as error:
        return error
    return None


# Parameters, buffers, subclasses ---------------------------------------------------------------


def _rebuild_parameter(node: Opaque) -> TensorRef:
    tensor, requires_grad, *_ = arguments(node, 3, 4)
    return replace(
        tensor_in(tensor), node=node, requires_grad=requires_grad is True, saved_as="parameter"
    )


def _rebuild_from_type(node: Opaque) -> TensorRef:
    callee, cls, args, state = arguments(node, 4, 4)
    read = _READERS.get(callee) if isinstance(callee, Global) else None
    is_known = read not in (None, _rebuild_from_type)
    if read is None or not is_known or type(args) is not tuple or not isinstance(cls, Global):
        raise TensorError("it is a subclass that is rebuilt in an unknown way")
    inner = read(Opaque(callee, args))
    attributes = attributes_in(state)
    if attributes.get("_is_buffer") is True:
        persistent = attributes.get("persistent")
        return replace(
            inner,
            node=node,
            saved_as="buffer",
            is_persistent=persistent if isinstance(persistent, bool) else None,
        )
    saved_as = inner.saved_as if cls in _PLAIN_TENSORS else cls
    if isinstance(inner.data, NoData) and (parts := _parts(attributes)):
        return replace(inner, node=node, saved_as=saved_as, data=components("subclass", parts))
    return replace(inner, node=node, saved_as=saved_as)


def _parts(attributes: dict[Node, Node]) -> tuple[Component, ...]:
    return tuple(
        Component(name, value)
        for name, value in attributes.items()
        if type(name) is str and type(value) is TensorRef
    )


_PLAIN_TENSORS: Final = frozenset({Global("torch", "Tensor"), Global("torch._tensor", "Tensor")})


# Attributes ------------------------------------------------------------------------------------


def tensor_attributes(tensor: TensorRef) -> dict[Node, Node]:
    """Return what a tensor carries besides its elements, by name.

    Its components are none of it, nor are the two marks of an `nn.Buffer`.
    """
    node = tensor.node
    # The calls that have attributes among their arguments take four at most.
    if node is None or (len(node.args) > _MOST_WITH_STATE and not node.has_state):
        return {}
    if not node.has_state and node.callee not in _WITH_STATE:
        return {}
    state = node.args[3] if len(node.args) == 4 else None
    found = _named(state) | _named(node.state)
    if node.callee in _PARAMETERS and type(node.args[0]) is TensorRef:
        found = tensor_attributes(node.args[0]) | found
    if tensor.saved_as == "buffer":
        found = {name: value for name, value in found.items() if name not in _BUFFER_MARKS}
    if tensor.layout == "jagged":
        return {}  # its components again, and caches of their sizes
    if tensor.layout == "subclass":
        roles = {part.role for part in _parts(found)}
        found = {name: value for name, value in found.items() if name not in roles}
    return found


def _named(state: Node) -> dict[Node, Node]:
    return attributes_in(state) or ({} if state in (None, {}) else {"__setstate__": state})


_MOST_WITH_STATE: Final = 4
_BUFFER_MARKS: Final = frozenset({"_is_buffer", "persistent"})


# The table -------------------------------------------------------------------------------------

_READERS: Final[dict[Node, Callable[[Opaque], TensorRef]]] = {
    Global("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor_v2,
    Global("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_sparse_tensor"): rebuild_sparse_tensor,
    Global("torch._utils", "_rebuild_sparse_csr_tensor"): rebuild_sparse_tensor,
    Global("torch._utils", "_rebuild_qtensor"): rebuild_quantized_tensor,
    Global("torch._utils", "_rebuild_nested_tensor"): rebuild_nested_tensor,
    Global("torch._utils", "_rebuild_meta_tensor_no_storage"): rebuild_meta_tensor,
    Global("torch._utils", "_rebuild_wrapper_subclass"): rebuild_wrapper_subclass,
    Global("torch._utils", "_rebuild_device_tensor_from_numpy"): rebuild_from_numpy,
    Global("torch._utils", "_rebuild_xla_tensor"): rebuild_from_numpy,
    Global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): rebuild_from_cpu_tensor,
    Global("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Global("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    Global("torch.nested._internal.nested_tensor", "_rebuild_njt"): rebuild_jagged_tensor,
}


_PARAMETERS: Final = frozenset(
    callee for callee, read in _READERS.items() if read is _rebuild_parameter
)
_WITH_STATE: Final = _PARAMETERS | frozenset(
    callee for callee, read in _READERS.items() if read is _rebuild_from_type
)


def _interpreter(read: Callable[[Opaque], TensorRef]) -> Interpreter:
    def interpret(node: Opaque) -> Node:
        try:
            return read(node)
        except TensorError:
            # The key path is not known yet: whoever lists the entries asks `explain` and names it.
            return node

    return interpret


REBUILD_CALLS: Final[dict[Node, Interpreter]] = {
    callee: _interpreter(read) for callee, read in _READERS.items()
}
"""For `read_pickle`: which calls make tensors, and how each is read."""
