"""Leaves that are no tensors, as plain data and as text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ckptool.checkpoint.containers import key_at, set_items
from ckptool.checkpoint.entries import Cycle
from ckptool.checkpoint.keypath import display, display_key
from ckptool.errors import LimitExceededError
from ckptool.pickling.literals import BUILTINS, literal
from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Node,
    Opaque,
    OutOfBandBuffer,
    PersistentId,
)
from ckptool.render.escape import visible
from ckptool.tensors.arrays import ArrayValue, read_array
from ckptool.tensors.refs import StorageRef, TensorRef, storage_in

__all__ = ["Leaves", "Repeats", "leaf_text", "leaf_type", "plain"]

_ARRAY_ELEMENTS: Final = 1_000
# Of what was shown before: with sharing it can be far more than the file has bytes.
_PARTS_SHOWN_AGAIN: Final = 100_000
_CHARACTERS_OF_A_PART: Final = 100
_CHARACTERS_OF_LEAVES: Final = 50_000_000


def leaf_type(node: Node) -> str:
    """Return Python's name for a leaf's type, or the global of an opaque object."""
    array = read_array(node)
    if array is not None:
        return "numpy.ndarray" if array.shape else f"numpy.{array.dtype}"
    node = literal(node)
    if isinstance(node, Opaque):
        if node.type is None:
            return "opaque"
        return node.type.name if node.type.module in BUILTINS else str(node.type)
    if storage_in(node) is not None:
        return "storage"
    return _NODE_TYPES.get(type(node), type(node).__name__)


def leaf_text(node: Node) -> str:
    """Return a leaf on one line: a plain value as Python writes it, others by type and content."""
    if isinstance(node, str):
        return visible(repr(node))
    if node is None or isinstance(node, bool | int | float):
        return repr(node)
    return visible(f"{leaf_type(node)} {json.dumps(plain(node))}")


class Leaves:
    """Shows many leaves: an object that stands in many places is looked at once.

    Raises LimitExceededError where all of them together are more than anybody reads.
    """

    def __init__(self) -> None:
        # With the nodes, so that no other can have the identity of one that is gone.
        self._shown: dict[int, tuple[Node, Any, str]] = {}
        self._written = 0

    def plain(self, node: Node) -> Any:
        """See `plain`."""
        return self._show(node)[1]

    def text(self, node: Node) -> str:
        """See `leaf_text`."""
        return self._show(node)[2]

    def _show(self, node: Node) -> tuple[Node, Any, str]:
        shown = self._shown.get(id(node))
        if shown is None:
            shown = self._shown[id(node)] = (node, plain(node), leaf_text(node))
        self._written += len(shown[2])
        if self._written > _CHARACTERS_OF_LEAVES:
            allowed = _CHARACTERS_OF_LEAVES
            raise LimitExceededError("characters of leaves", allowed=allowed, actual=self._written)
        return shown


_NODE_TYPES: Final = {
    Global: "global",
    PersistentId: "persistent-id",
    ExtensionCode: "extension",
    OutOfBandBuffer: "out-of-band-buffer",
    Cycle: "cycle",
}


# One level of the output: where its parts go, and the parts with their keys, None in a list.
_Parts: TypeAlias = Iterable[tuple[str | None, Node]]


@dataclass(slots=True)
class _Level:
    node: Node
    into: Any
    parts: Iterator[tuple[str | None, Node]]
    is_shown_again: bool = False


@dataclass(slots=True)
class Repeats:
    """What the leaves of one document have shown so far, and how much of it again."""

    # With the nodes, so that no other can have the identity of one that is gone.
    shown: dict[int, Node] = field(default_factory=dict)
    count: int = 0

    def add(self, parts: int) -> None:
        """Count parts that were shown before; raise LimitExceededError where they are too many."""
        self.count += parts
        if self.count > _PARTS_SHOWN_AGAIN:
            raise LimitExceededError(
                "parts of leaves shown again", allowed=_PARTS_SHOWN_AGAIN, actual=self.count
            )


def plain(node: Node, *, whole: bool = False, repeats: Repeats | None = None) -> Any:
    """Return a node as dicts, lists and scalars that strict JSON has.

    Bytes become hexadecimal text; objects become their parts by name. A place that leads back
    to a container above it becomes `{"cycle": true}`. The elements of arrays of more than a
    thousand are left out, and None, unless they are asked for with `whole`. Raises
    LimitExceededError where sharing makes more parts than can be written; `repeats` counts them
    over the leaves of a document.
    """
    repeats = repeats or Repeats()
    top: list[Any] = []
    levels = [_Level(None, top, iter([(None, node)]))]
    above: set[int] = set()
    while levels:
        level = levels[-1]
        key, child = next(level.parts, (None, _END))
        if child is _END:
            levels.pop()
            above.discard(id(level.node))
            continue
        if level.is_shown_again:
            repeats.add(1)
        if isinstance(child, str | bytes | bytearray) and len(child) > _CHARACTERS_OF_A_PART:
            if id(child) in repeats.shown:
                repeats.add(len(child) // _CHARACTERS_OF_A_PART)
            repeats.shown[id(child)] = child
        written: Any = {"cycle": True}
        if id(child) not in above:
            written, parts = _opened(child, whole)
            if parts is not None:
                levels.append(_Level(child, written, iter(parts), id(child) in repeats.shown))
                above.add(id(child))
                repeats.shown[id(child)] = child
        if key is None:
            level.into.append(written)
        else:
            level.into[key] = written
    return top[0]


_END: Final = object()


def _opened(node: Node, whole: bool) -> tuple[Any, _Parts | None]:
    """A node as it is written: a scalar, or an empty container and what goes into it."""
    node = literal(node)
    if node is None or isinstance(node, str | bool | int | float | complex | bytes | bytearray):
        return _scalar(node), None
    array = read_array(node)
    if array is not None:
        return _array(array, whole), None
    if type(node) is dict:
        return _mapping(node)
    if type(node) is list or type(node) is tuple:
        return [], [(None, item) for item in node]
    if isinstance(node, Opaque):
        return _object(node)
    return _opened(_MEANING[type(node)](node), whole)


def _scalar(node: Node) -> Any:
    if isinstance(node, float) and not math.isfinite(node):
        return "NaN" if math.isnan(node) else "Infinity" if node > 0 else "-Infinity"
    if isinstance(node, complex):
        return [_scalar(node.real), _scalar(node.imag)]
    return node.hex() if isinstance(node, bytes | bytearray) else node


_MEANING: Final[dict[type, Callable[[Node], Node]]] = {
    Global: str,
    PersistentId: lambda node: storage_in(node) or node.value,
    ExtensionCode: lambda node: node.code,
    OutOfBandBuffer: lambda _node: None,
    Cycle: lambda node: display(node.keys),
    StorageRef: lambda node: {"key": node.key, "dtype": str(node.dtype), "bytes": node.nbytes},
    TensorRef: lambda node: {"dtype": str(node.dtype), "shape": list(node.shape)},
}
"""The nodes that are one thing, as the plain data that says it."""


def _array(array: ArrayValue, whole: bool) -> dict[str, Any]:
    values = array.values() if whole or math.prod(array.shape) <= _ARRAY_ELEMENTS else None
    written = None if values is None else [_scalar(value) for value in values]
    return {"dtype": array.dtype, "shape": list(array.shape), "values": written}


def _mapping(node: dict[Node, Node]) -> tuple[Any, _Parts]:
    named = [
        (display_key(key_at(key, index)), value) for index, (key, value) in enumerate(node.items())
    ]
    if len({name for name, _ in named}) < len(named):
        # A number and a text can look alike, and JSON keeps one value for a name.
        return [], [(None, pair) for pair in named]
    return {}, named


def _object(node: Opaque) -> tuple[Any, _Parts]:
    """An object whose only part is a state shows that state; others show their parts by name."""
    args = node.args
    if node.type is not None and args and args[0] is node.type:
        args = args[1:]
    items = set_items(node)
    if items is not None:
        return [], [(None, item) for item in items]
    parts: dict[str, Any] = {
        "args": list(args) or None,
        "kwargs": node.kwargs,
        "state": node.state if node.has_state else None,
        "keyed": node.keyed,
        "listed": node.listed,
        "added": node.added,
    }
    given = {name: part for name, part in parts.items() if part is not None}
    if list(given) == ["state"] and type(node.state) is dict:
        return _mapping(node.state)
    return {}, given.items()
