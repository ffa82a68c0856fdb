"""Whether two inert values are the same: by what they hold, however a pickle writes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator
from typing import Final, TypeAlias

from ckptool.analysis.diff.equality import is_same_stream
from ckptool.checkpoint.containers import by_key, mapping_of, set_items
from ckptool.errors import LimitExceededError
from ckptool.pickling.literals import literal
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
from ckptool.values import read_content

__all__ = ["Sameness"]

_STEPS: Final = 5_000_000
_SCALARS: Final = frozenset({bool, int, str, bytes, bytearray, type(None), Global, ExtensionCode})

_Parts: TypeAlias = list[Node]


class Sameness:
    """Compares values, each pair of nodes once.

    Two nodes are the same where nothing that can be reached from them differs; a shared object and
    a cycle are no trouble then. Numbers of another type are another value, NaN is itself, the order
    of keys does not matter. Raises LimitExceededError for values that are compared without end.
    """

    __slots__ = ("_same", "_steps")

    def __init__(self) -> None:
        # Nodes taken to be the same, as a forest: whoever has the same top is. With so many nodes
        # there are no more steps than that, however many pairs of them could be reached.
        self._same: dict[int, int] = {}
        self._steps = 0

    def holds(self, a: Node, b: Node) -> bool:
        """Whether two values are the same."""
        pending = [(a, b)]
        while pending:
            a, b = pending.pop()
            self._steps += 1
            if self._steps > _STEPS:
                raise LimitExceededError("steps of comparing", allowed=_STEPS, actual=self._steps)
            tag, parts = _opened(a)
            other_tag, other_parts = _opened(b)
            if tag != other_tag or len(parts) != len(other_parts) or not _has_same_bytes(a, b):
                # What was taken to be the same on the way was not shown to be.
                self._same.clear()
                return False
            if parts and self._join(id(a), id(b)):
                pending.extend(zip(parts, other_parts, strict=True))
        return True

    def _join(self, a: int, b: int) -> bool:
        """Take two nodes to be the same; say whether they were not taken for it before."""
        a, b = self._top(a), self._top(b)
        self._same[a] = b
        return a != b

    def _top(self, node: int) -> int:
        above = self._same.setdefault(node, node)
        while above != node:
            # Half the way for whoever comes next.
            self._same[node] = self._same[above]
            node, above = above, self._same[above]
        return node


def _has_same_bytes(a: Node, b: Node) -> bool:
    """Whether two storages hold the same; anything else is compared by its parts."""
    if type(a) is not StorageRef or type(b) is not StorageRef:
        return True
    return is_same_stream(_content(a), _content(b))


def _content(storage: StorageRef) -> Iterator[bytes]:
    return iter(()) if storage.extent is None else read_content(storage.extent)


def _opened(node: Node) -> tuple[Hashable, _Parts]:
    """A node as what can be compared at once, and the parts that are to be compared in turn."""
    node = literal(node)
    kind = type(node)
    if kind in _SCALARS:
        return (kind, bytes(node) if kind is bytearray else node), []
    if kind is float:
        return (kind, "NaN" if math.isnan(node) else node), []
    if kind is complex:
        return (kind, *(_opened(part)[0] for part in (node.real, node.imag))), []
    if kind is list or kind is tuple:
        return (kind,), list(node)
    if kind is dict:
        return _mapping(dict, node)
    items = set_items(node)
    if items is not None:
        return _set(items)
    if kind is Opaque:
        array = read_array(node)
        return _array(array) if array is not None and array.data is not None else _object(node)
    return _reference(node)


def _mapping(kind: Hashable, mapping: dict[Node, Node]) -> tuple[Hashable, _Parts]:
    held = sorted((type(key).__name__, repr(key), value) for key, value in by_key(mapping))
    return (kind, *((name, key) for name, key, _ in held)), [value for *_, value in held]


def _set(items: Collection[Node]) -> tuple[Hashable, _Parts]:
    opened = [_opened(item) for item in items]
    if any(parts for _, parts in opened):
        return ("set of objects",), list(items)
    return ("set", frozenset(tag for tag, _ in opened)), []


def _array(array: ArrayValue) -> tuple[Hashable, _Parts]:
    values = [_opened(value)[0] for value in array.values() or ()]
    return ("array", array.dtype, array.shape, array.is_fortran, *values), []


def _object(node: Opaque) -> tuple[Hashable, _Parts]:
    """An object by its class, arguments and state; one that is a mapping by its items too."""
    mapping = mapping_of(node)
    args = node.args[1:] if node.args and node.args[0] is node.type else node.args
    rest = [node.kwargs, node.state, node.listed, node.added]
    if mapping and node.type is not None:
        tag, values = _mapping(node.type, mapping)
        return tag, [*rest, *values]
    callee = [] if node.type is not None else [node.callee]
    return (Opaque, node.type, node.has_state), [*callee, *args, *rest]


def _reference(node: Node) -> tuple[Hashable, _Parts]:
    """What stands for something that is kept elsewhere, or by another name."""
    if type(node) is PersistentId:
        return (PersistentId,), [node.value]
    if type(node) is OutOfBandBuffer:
        return (OutOfBandBuffer, node.is_readonly), []
    if type(node) is StorageRef:
        return (StorageRef, node.dtype.name, node.numel), []
    if type(node) is TensorRef:
        return (TensorRef, node.dtype.name, node.shape), []
    return (type(node), str(node)), []
