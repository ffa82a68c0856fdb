"""Whether two inert values are the same: by what they hold, however a pickle writes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator
from typing import Final, TypeAlias

from ckptool.analysis.diff.equality import is_same_stream
from ckptool.checkpoint.containers import by_key, mapping_of, set_items
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
from ckptool.sources import read_content
from ckptool.tensors.arrays import ArrayValue, read_array
from ckptool.tensors.refs import StorageRef, TensorRef, storage_in

__all__ = ["Sameness"]

_STEPS: Final = 1_000_000
_BYTES_OF_A_STEP: Final = 1_000
# What two plain values cost.
_CHEAP: Final = 2
# Behind so many the cheap ones are remembered too: there may be a cycle of them.
_MANY_STEPS: Final = 10_000
_SIZED: Final = frozenset({list, tuple, dict})
# Of tuples in sets; with sharing, more of either could be more than there is time for.
_LEVELS: Final = 2
_WIDTH: Final = 100
_SCALARS: Final = frozenset({bool, int, str, bytes, bytearray, type(None), ExtensionCode})

_Parts: TypeAlias = list[Node]


class Sameness:
    """Compares values, each pair of nodes once.

    Two nodes are the same where nothing that can be reached from them differs; a shared object and
    a cycle are no trouble then. Numbers of another type are another value, NaN is itself, the order
    of keys does not matter. `nbytes` is what the values were read from, by which the steps are
    bounded that may be taken; LimitExceededError where they are more.
    """

    __slots__ = ("_kept", "_most", "_same", "_steps", "_told")

    def __init__(self, nbytes: int = 0) -> None:
        # Nodes taken to be the same, as a forest: whoever has the same top is. With so many nodes
        # there are no more steps than that, however many pairs of them could be reached.
        self._same: dict[int, int] = {}
        self._told: dict[tuple[int, int], bool] = {}
        self._kept: list[Node] = []
        self._steps, self._most = 0, _STEPS + 4 * nbytes

    def holds(self, a: Node, b: Node) -> bool:
        """Whether two values are the same."""
        # One object can stand in many places.
        pair = id(a), id(b)
        if pair not in self._told:
            self._kept += (a, b)
            self._told[pair] = self._holds(a, b)
        return self._told[pair]

    def _holds(self, a: Node, b: Node) -> bool:
        pending = [(a, b)]
        while pending:
            a, b = pending.pop()
            if a is b or self._top(id(a)) == self._top(id(b)):
                continue
            cost = _cost(a) + _cost(b)
            self._steps += cost
            if self._steps > self._most:
                raise LimitExceededError(
                    "steps of comparing", allowed=self._most, actual=self._steps
                )
            tag, parts = _opened(a)
            other_tag, other_parts = _opened(b)
            if tag != other_tag or len(parts) != len(other_parts) or not _has_same_bytes(a, b):
                # What was taken to be the same on the way was not shown to be.
                self._same.clear()
                return False
            if cost > _CHEAP or self._steps > _MANY_STEPS:
                self._kept += (a, b)
                self._same[self._top(id(a))] = self._top(id(b))
            pending.extend(zip(parts, other_parts, strict=True))
        return True

    def _top(self, node: int) -> int:
        """What stands for a node and all that are taken to be the same."""
        while (above := self._same.get(node, node)) != node:
            # Half the way for whoever comes next.
            self._same[node] = self._same.get(above, above)
            node = above
        return node


def _cost(node: Node) -> int:
    """About how much there is to look at in a node itself."""
    kind = type(node)
    if kind is Opaque:
        parts = (node.args, node.keyed, node.listed, node.added, *node.args[:1], node.state)
        return 1 + sum(len(part) for part in parts if type(part) in _SIZED)
    if kind in _SIZED:
        return 1 + len(node)
    storage = storage_in(node)
    if storage is not None:
        return 1 + storage.nbytes // _BYTES_OF_A_STEP
    return 1 + len(node) // _BYTES_OF_A_STEP if kind in (str, bytes, bytearray) else 1


def _has_same_bytes(a: Node, b: Node) -> bool:
    """Whether two storages hold the same; anything else is compared by its parts."""
    storage, other = storage_in(a), storage_in(b)
    if storage is None or other is None:
        return True
    return is_same_stream(_content(storage), _content(other))


def _content(storage: StorageRef) -> Iterator[bytes]:
    return iter(()) if storage.extent is None else read_content(storage.extent)


def _opened(node: Node) -> tuple[Hashable, _Parts]:
    """A node as what can be compared at once, and the parts that are to be compared in turn."""
    node = literal(node)
    kind = type(node)
    if kind is Global:
        return _spelled(node), []
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
        return _object(node) if array is None or array.data is None else _array(array)
    return _reference(node)


def _spelled(name: Global) -> Global:
    """A global as Python 3 calls it: protocols below 3 write the names of Python 2."""
    if name.module in BUILTINS:
        return Global("builtins", _PYTHON_3.get(name.name, name.name))
    return Global("copyreg", name.name) if name.module == "copy_reg" else name


_PYTHON_3: Final = {"long": "int", "unicode": "str", "xrange": "range"}


def _mapping(kind: Hashable, mapping: dict[Node, Node]) -> tuple[Hashable, _Parts]:
    held = [(type(key).__name__, repr(key), value) for key, value in by_key(mapping)]
    held.sort(key=lambda item: item[:2])
    # Keys that are objects are compared like values, in the order of the file.
    objects = [key for key in mapping if type(key) is Opaque]
    values = [value for *_, value in held]
    return (kind, *((name, key) for name, key, _ in held)), [*objects, *values]


def _set(items: Collection[Node]) -> tuple[Hashable, _Parts]:
    """A set, which has no order; one of other things than plain values has that of the file."""
    frozen = [_frozen(item, _LEVELS) for item in items]
    if None in frozen:
        return ("set of objects",), list(items)
    return ("set", frozenset(frozen)), []


def _frozen(node: Node, levels: int) -> Hashable:
    """A plain value, or a tuple of such, as something that a set can hold; None for others."""
    tag, parts = _opened(node)
    if not parts:
        return tag
    if type(node) is not tuple or not levels or len(parts) > _WIDTH:
        return None
    frozen = tuple(_frozen(part, levels - 1) for part in parts)
    return None if None in frozen else frozen


def _array(array: ArrayValue) -> tuple[Hashable, _Parts]:
    values = array.values()
    if values is None:
        # Text and the like: as it is kept.
        return ("array", array.dtype, array.shape, array.byteorder, array.data), []
    tags = [_opened(value)[0] for value in values]
    return ("array", array.dtype, array.shape, array.is_fortran, *tags), []


def _object(node: Opaque) -> tuple[Hashable, _Parts]:
    """An object by its class, arguments and state; one that is a mapping by its items too."""
    mapping = mapping_of(node)
    args = node.args[1:] if node.args and node.args[0] is node.type else node.args
    rest = [node.kwargs, node.state, node.listed, node.added]
    if mapping and node.type is not None:
        tag, values = _mapping(_spelled(node.type), mapping)
        return tag, [*rest, *values]
    if node.type is None:
        return (Opaque, node.has_state), [node.callee, *args, *rest]
    return (Opaque, _spelled(node.type), node.has_state), [*args, *rest]


def _reference(node: Node) -> tuple[Hashable, _Parts]:
    """What stands for something that is kept elsewhere, or by another name."""
    storage = storage_in(node)
    if storage is not None:
        return (StorageRef, storage.dtype.name, storage.numel), []
    if type(node) is PersistentId:
        return (PersistentId,), [node.value]
    if type(node) is OutOfBandBuffer:
        return (OutOfBandBuffer, node.is_readonly), []
    if type(node) is TensorRef:
        # An object with a tensor in it is walked into, and the tensor compared by itself.
        return (TensorRef, node.dtype.name, node.shape), []
    return (type(node), str(node)), []
