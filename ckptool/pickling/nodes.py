"""The inert tree: what a pickle says, as values that nothing can be called on.

Plain `dict`, `list`, `tuple` and scalars stand for themselves. Everything else that a pickle can
make is one of the nodes below; sets among it, since Python's own have no order of their own.
Identity is meaning: the same object twice in the file is the same object twice in the tree, so
nodes compare by identity (a `Global` is a name and compares by value).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from ckptool.errors import LimitExceededError

__all__ = [
    "Construction",
    "ExtensionCode",
    "Global",
    "Node",
    "Opaque",
    "OutOfBandBuffer",
    "PersistentId",
    "attributes_in",
    "check_depth",
    "children",
]

Node: TypeAlias = Any
"""One value of the tree. The set is open: a format may read a call into a node of its own."""

Construction: TypeAlias = Literal[
    "reduce", "newobj", "newobj_ex", "inst", "obj", "set", "frozenset"
]
"""Which opcode made an opaque object; a writer needs it to make the same again."""


class Global(NamedTuple):
    """A `(module, name)` reference: only a name here, never looked up."""

    module: str
    name: str

    def __eq__(self, other: object) -> bool:
        """A name is not the plain pair of its parts, which can be a key beside it."""
        return type(other) is Global and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return tuple.__hash__(self)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)  # frozen ones take three times as long to make
class PersistentId:
    """A reference to something kept outside the pickle, shown as what it stands for.

    Each mention of a storage is one of its own, with the value that it was written with.
    `stands_for` is None where no format claimed the reference.
    """

    value: Node
    stands_for: Node = None


@dataclass(frozen=True, slots=True)
class ExtensionCode:
    """A global by its number in a registry (`copyreg.add_extension`) outside the file."""

    code: int


@dataclass(frozen=True, slots=True, eq=False)
class OutOfBandBuffer:
    """Bytes that the writer of a protocol 5 pickle handed over by another way."""

    is_readonly: bool = False


@dataclass(slots=True, eq=False)
class Opaque:
    """An object that is shown but not interpreted.

    `callee(*args, **kwargs)` would have made it; `state`, `keyed` (items set by key), `listed`
    (items appended) and `added` (items added to a set) would then have been given to it. A part
    that the pickle does not have is None; `state` has `has_state` beside it, since None is a
    state too.
    """

    callee: Node
    args: tuple[Node, ...]
    construction: Construction = "reduce"
    kwargs: dict[str, Node] | None = None
    state: Node = None
    has_state: bool = False
    keyed: dict[Node, Node] | None = None
    listed: list[Node] | None = None
    added: list[Node] | None = None

    @property
    def type(self) -> Global | None:
        """The class of the object as far as the pickle names it."""
        callee = self.callee
        if isinstance(callee, PersistentId):
            callee = callee.stands_for
        if isinstance(callee, Global) and callee in _NAMED_BY_FIRST_ARGUMENT and self.args:
            callee = self.args[0]
        return callee if isinstance(callee, Global) else None


def attributes_in(state: Node) -> dict[Node, Node]:
    """The attributes by name in the state of an object, those in its slots included.

    A class with slots has a pair as its state: the attributes, or None, and the slots.
    """
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        return {**state[0], **state[1]} if type(state[0]) is dict else state[1]
    return state if type(state) is dict else {}


# The standard library makes plain objects through these; the class is their first argument.
_NAMED_BY_FIRST_ARGUMENT = frozenset(
    {
        Global("copyreg", "_reconstructor"),
        Global("copy_reg", "_reconstructor"),
        Global("copyreg", "__newobj__"),
        Global("copyreg", "__newobj_ex__"),
    }
)


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes directly below `node`, dict keys included, in the order of the pickle."""
    kind = type(node)
    if kind is dict:
        for key, value in node.items():
            yield key
            yield value
    elif kind is list or kind is tuple:
        yield from node
    elif kind is PersistentId:
        yield node.value
    elif kind is Opaque:
        yield node.callee
        yield node.args
        for part in (node.kwargs, node.state, node.listed, node.keyed, node.added):
            if part is not None:
                yield part


_CONTAINERS = frozenset({dict, list, tuple, Opaque, PersistentId})


def check_depth(tree: Node, allowed: int) -> None:
    """Raise LimitExceededError where the tree is nested deeper than `allowed` containers.

    Whoever walks the tree later may then recurse. Each node is measured once, however often it is
    shared; the way back up a cycle does not count.
    """
    heights: dict[int, int] = {}
    path = [(tree, children(tree))]
    heights[id(tree)] = 0
    while path:
        if len(path) > allowed:
            raise LimitExceededError("levels of nesting", allowed=allowed, actual=len(path))
        node, below = path[-1]
        for child in below:
            if type(child) not in _CONTAINERS:
                continue
            if id(child) not in heights:
                heights[id(child)] = 0
                path.append((child, children(child)))
                break
            heights[id(node)] = max(heights[id(node)], heights[id(child)] + 1)
        else:
            path.pop()
            height = heights[id(node)]
            if height + len(path) > allowed:
                raise LimitExceededError(
                    "levels of nesting", allowed=allowed, actual=height + len(path)
                )
            if path:
                parent = id(path[-1][0])
                heights[parent] = max(heights[parent], height + 1)
