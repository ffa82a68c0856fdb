"""One step down the tree: what a container holds, and by which keys."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from typing import Final, TypeAlias

from ckptool.checkpoint.keypath import ObjectKey
from ckptool.pickling.literals import BUILTINS, literal
from ckptool.pickling.nodes import Global, Node, Opaque, attributes_in, children
from ckptool.tensors.arrays import read_array
from ckptool.tensors.refs import TensorRef

__all__ = [
    "Descent",
    "Held",
    "attributes_of",
    "by_key",
    "key_at",
    "mapping_of",
    "sequence_of",
    "set_items",
]

Held: TypeAlias = list[tuple[Hashable, Node]]
"""What a container holds, each by the key that leads to it."""

_SCALARS: Final = frozenset({bool, int, float, str, bytes, bytearray, type(None)})
_PLAIN_KEYS: Final = frozenset({str, int, float, bool, bytes, type(None), Global})
_DEFAULTDICT: Final = Global("collections", "defaultdict")
_MAPPINGS: Final = frozenset(
    {_DEFAULTDICT, Global("collections", "OrderedDict"), Global("collections", "Counter")}
)


def mapping_of(node: Node) -> dict[Node, Node] | None:
    """The items of a dict, or of an object that is one (OrderedDict, defaultdict, ...)."""
    if type(node) is dict:
        return node
    if type(node) is not Opaque:
        return None
    if node.type not in _MAPPINGS:
        return node.keyed
    # The first argument of a defaultdict is what it calls for a missing key.
    args = node.args[1:] if node.type == _DEFAULTDICT else node.args
    made_from = _items_of_call(args) if args else {}
    if not made_from:
        return made_from if made_from is None else node.keyed or {}
    return made_from | (node.keyed or {})


def _items_of_call(args: tuple[Node, ...]) -> dict[Node, Node] | None:
    """What a mapping was made from; Python 2 gave an OrderedDict its items as a list of pairs.

    None for arguments that no such mapping takes.
    """
    if type(args[0]) is dict:
        return args[0]
    pairs = sequence_of(args[0])
    if pairs is None or not all(
        type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) in _PLAIN_KEYS
        for pair in pairs
    ):
        return None
    return dict(pairs)


def sequence_of(node: Node) -> list[Node] | tuple[Node, ...] | None:
    """The items of a list or tuple, or of an object that is a list of something."""
    if type(node) is list or type(node) is tuple:
        return node
    if type(node) is Opaque and node.listed is not None:
        return node.listed
    return None


def set_items(node: Node) -> Collection[Node] | None:
    """The items of a set or frozenset, which protocols below 4 write as a call with a list."""
    if type(node) is not Opaque or node.type is None or node.has_state:
        return None
    if node.type.module not in BUILTINS or node.type.name not in ("set", "frozenset"):
        return None
    match node.args:
        case ():
            return node.added or []
        case (list() as items,):
            return items
    return None


def attributes_of(node: Node) -> dict[Node, Node]:
    """An object's attributes by name."""
    return attributes_in(node.state) if type(node) is Opaque else {}


class Descent:
    """Tells containers from leaves. A leaf is shown whole, a container is walked into.

    Dicts and lists of more than scalars are containers, and so is any set or object with a tensor
    in it.
    It remembers what it found, so that it looks at each node once.
    """

    __slots__ = ("_holds", "_scalar_lists")

    def __init__(self) -> None:
        self._holds: dict[int, bool] = {}
        self._scalar_lists: set[int] = set()

    def into(self, node: Node) -> Held | None:
        """Return what a container holds, in the order of the pickle; None for a leaf."""
        kind = type(node)
        if kind in _SCALARS or kind is TensorRef:
            return None
        if kind is Opaque:
            return self._into_object(node)
        if kind is dict:
            return by_key(node) or None
        if kind is list or kind is tuple:
            return self._by_index(node) or None
        return None

    def _into_object(self, node: Opaque) -> Held | None:
        """Items by key or index; attributes and arguments only where they hold tensors."""
        if read_array(node) is not None or literal(node) is not node:
            return None
        if set_items(node) is not None and not self._holds_tensors(node):
            return None
        items, others = self._items(node)
        parts = _parts(node) if self._holds_tensors(node) else {}
        if items:
            # What else it has goes under names of its own, where no item can be in its way.
            held = ((label, part) for label, part in parts.items() if self._holds_any(part))
            return [*items, *others, *held]
        return [pair for part in parts.values() for pair in _by_either(part)] or None

    def _items(self, node: Opaque) -> tuple[Held, Held]:
        """The items by key or index; those by index apart where they would be taken for keys."""
        mapping = mapping_of(node)
        listed = [("__listed__", node.listed), ("__added__", node.added)]
        if mapping:
            return by_key(mapping), [(label, group) for label, group in listed if group]
        if node.listed and node.added:
            return list(enumerate(node.listed)), [("__added__", node.added)]
        return self._by_index(node.listed or node.added or ()), []

    def _holds_any(self, part: Node) -> bool:
        return any(self._holds_tensors(child) for child in children(part))

    def _by_index(self, items: Collection[Node]) -> Held:
        if id(items) in self._scalar_lists:
            return []
        if _SCALARS.issuperset(map(type, items)):
            self._scalar_lists.add(id(items))
            return []
        return list(enumerate(items))

    def _holds_tensors(self, node: Node) -> bool:
        """Whether a tensor is somewhere below a node of the tree, or is the node.

        The way back up a cycle does not count: what is found there is found from above.
        """
        if type(node) is TensorRef or type(node) in _SCALARS:
            return type(node) is TensorRef
        if id(node) in self._holds:
            return self._holds[id(node)]
        self._holds[id(node)] = False
        path = [(node, children(node))]
        while path:
            for child in path[-1][1]:
                if type(child) is TensorRef or self._holds.get(id(child)):
                    self._holds.update((id(above), True) for above, _ in path)
                    return True
                if type(child) not in _SCALARS and id(child) not in self._holds:
                    self._holds[id(child)] = False
                    path.append((child, children(child)))
                    break
            else:
                path.pop()
        return False


def by_key(mapping: dict[Node, Node]) -> Held:
    """Return what a mapping holds, in its order."""
    return [
        (key if type(key) is str else key_at(key, index), value)
        for index, (key, value) in enumerate(mapping.items())
    ]


def _by_either(part: Node) -> Iterator[tuple[Hashable, Node]]:
    yield from by_key(part) if type(part) is dict else enumerate(part)


def _parts(node: Opaque) -> dict[str, Node]:
    """Everything that an object has besides items, by a name that says what it is."""
    attributes = attributes_of(node)
    if node.has_state and not attributes:
        attributes = {"__setstate__": node.state}
    # A mapping's arguments are its items; the class of an object can be its first argument.
    args = () if node.type in _MAPPINGS else node.args
    parts: dict[str, Node] = {
        "__args__": args[1:] if args and args[0] is node.type else args,
        "__kwargs__": node.kwargs or {},
        "__dict__": attributes,
    }
    if type(node.callee) is Opaque:
        parts["__callee__"] = {"__callee__": node.callee}
    return parts


def key_at(key: Node, index: int) -> Hashable:
    """Return a key as the pickle means it; an object among the keys is told by its place."""
    if type(value := literal(key)) in _PLAIN_KEYS or (
        type(value) is tuple and all(type(part) in _PLAIN_KEYS for part in value)
    ):
        plain: Hashable = value
        return plain
    if type(key) is Opaque:
        return ObjectKey("object" if key.type is None else str(key.type), index)
    return ObjectKey("tensor" if type(key) is TensorRef else type(key).__name__, index)
