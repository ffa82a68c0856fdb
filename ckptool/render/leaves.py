"""Leaves that are no tensors, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from ckptool.checkpoint.entries import Cycle
from ckptool.checkpoint.keypath import display, display_key
from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Node,
    Opaque,
    OutOfBandBuffer,
    PersistentId,
)
from ckptool.tensors.arrays import ArrayValue, read_array
from ckptool.tensors.refs import StorageRef, TensorRef

__all__ = ["leaf_type", "plain"]

_ARRAY_VALUES: Final = 1_000


def leaf_type(node: Node) -> str:
    """Return Python's name for a leaf's type, or the global of an opaque object."""
    array = read_array(node)
    if array is not None:
        return "numpy.ndarray" if array.shape else f"numpy.{array.dtype}"
    if isinstance(node, Opaque):
        return "opaque" if node.type is None else str(node.type)
    if isinstance(node, StorageRef):
        return "storage"
    return _NODE_TYPES.get(type(node), type(node).__name__)


_NODE_TYPES: Final = {
    Global: "global",
    PersistentId: "persistent-id",
    ExtensionCode: "extension",
    OutOfBandBuffer: "out-of-band-buffer",
    Cycle: "cycle",
}


def plain(node: Node, above: frozenset[int] = frozenset()) -> Any:
    """Return a node as dicts, lists and scalars that strict JSON has.

    Bytes become hexadecimal text; objects become their parts by name. A place that leads back
    to a container above it becomes `{"cycle": true}`. The depth is that which the reader allows.
    """
    if node is None or isinstance(node, str | bool):
        return node
    if isinstance(node, int | float):
        return _number(node)
    if isinstance(node, complex):
        return [_number(node.real), _number(node.imag)]
    if isinstance(node, bytes | bytearray):
        return node.hex()
    if id(node) in above:
        return {"cycle": True}
    return _compound(node, above | {id(node)})


def _number(node: int | float) -> Any:
    if isinstance(node, float) and not math.isfinite(node):
        return "NaN" if math.isnan(node) else "Infinity" if node > 0 else "-Infinity"
    return node


def _compound(node: Node, above: frozenset[int]) -> Any:
    array = read_array(node)
    if array is not None:
        return _array(array)
    if type(node) is dict:
        return {display_key(key): plain(value, above) for key, value in node.items()}
    if type(node) is list or type(node) is tuple or type(node) is set:
        return [plain(item, above) for item in node]
    if isinstance(node, Opaque):
        return _opaque(node, above)
    return plain(_PARTS[type(node)](node), above)


_PARTS: Final[dict[type, Callable[[Node], Node]]] = {
    Global: str,
    PersistentId: lambda node: node.value,
    ExtensionCode: lambda node: node.code,
    OutOfBandBuffer: lambda _node: None,
    Cycle: lambda node: display(node.keys),
    StorageRef: lambda node: {"key": node.key, "dtype": str(node.dtype), "bytes": node.nbytes},
    TensorRef: lambda node: {"dtype": str(node.dtype), "shape": list(node.shape)},
}
"""The nodes that are one thing, as the plain data that says it."""


def _array(array: ArrayValue) -> dict[str, Any]:
    count = len(array.data or b"")
    values = array.values() if array.shape == () or count <= 8 * _ARRAY_VALUES else None
    return {"dtype": array.dtype, "shape": list(array.shape), "values": plain(values)}


def _opaque(node: Opaque, above: frozenset[int]) -> Any:
    """An object whose only part is a state shows that state; others show their parts by name."""
    parts: dict[str, Any] = {
        "args": list(node.args) or None,
        "kwargs": node.kwargs,
        "state": node.state if node.has_state else None,
        "keyed": node.keyed,
        "listed": node.listed,
        "added": node.added,
    }
    if node.type is not None and node.args and node.args[0] is node.type:
        parts["args"] = list(node.args[1:]) or None
    given = {name: part for name, part in parts.items() if part is not None}
    if list(given) == ["state"]:
        return plain(given["state"], above)
    return {name: plain(part, above) for name, part in given.items()}
