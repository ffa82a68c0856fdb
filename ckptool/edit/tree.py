"""A tree with parts taken out, renamed or exchanged: new containers in place of those that change.

The tree that was read stays as it is. What is edited is a container, wherever it stands: one that
is in two places of the tree is one object, and stays one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ckptool.checkpoint.containers import (
    Descent,
    attributes_of,
    by_key,
    key_at,
    mapping_of,
    sequence_of,
)
from ckptool.checkpoint.keypath import KeyPath, display, display_key
from ckptool.checkpoint.modules import is_module, members, module_state
from ckptool.errors import EditError
from ckptool.pickling.nodes import Global, Node, Opaque

__all__ = ["TreeEdit"]

_DEFAULTDICT = Global("collections", "defaultdict")
_TABLES = {"parameter": "_parameters", "buffer": "_buffers"}


@dataclass(slots=True)
class _Changes:
    """What changes in one container, by its own keys or places."""

    node: Node
    dropped: set[Hashable] = field(default_factory=set)
    renamed: dict[Hashable, str] = field(default_factory=dict)
    exchanged: dict[Hashable, Node] = field(default_factory=dict)

    def of_mapping(self, items: Mapping[Node, Node]) -> dict[Node, Node]:
        return {
            self.renamed.get(key, key): self.exchanged.get(key, value)
            for key, value in items.items()
            if key not in self.dropped
        }

    def of_sequence(self, items: Iterable[Node]) -> list[Node]:
        return [
            self.exchanged.get(place, node)
            for place, node in enumerate(items)
            if place not in self.dropped
        ]


class _Slot(NamedTuple):
    """Where a container holds something: `table` is a module's own name for one of its parts."""

    holder: Node
    key: Hashable
    table: str | None = None


class TreeEdit:
    """Collects changes by key path, and says what is written in place of which node."""

    def __init__(self, tree: Node) -> None:
        self._descent = Descent()
        self._nodes: dict[KeyPath, Node] = {(): tree}
        self._slots: dict[int, dict[Hashable, _Slot]] = {}
        self._changes: dict[tuple[int, str | None], _Changes] = {}
        self._states: dict[int, tuple[Opaque, dict[Node, Node]]] = {}

    def drop(self, keys: KeyPath) -> None:
        """Take out what stands at a key path."""
        slot = self._slot(keys)
        self._changes_of(slot).dropped.add(slot.key)

    def rename(self, keys: KeyPath, key: str) -> None:
        """Give what stands at a key path another last key."""
        slot = self._slot(keys)
        self._changes_of(slot).renamed[slot.key] = key

    def exchange(self, keys: KeyPath, node: Node) -> None:
        """Put another node where one stands."""
        slot = self._slot(keys)
        self._changes_of(slot).exchanged[slot.key] = node

    def set_attribute(self, node: Opaque, name: str, value: Node) -> None:
        """Give an object another value for an attribute."""
        _, state = self._states.setdefault(id(node), (node, dict(node.state)))
        state[name] = value

    def replaced(self) -> dict[int, Node]:
        """Return what is written in place of which node, by its identity."""
        found: dict[int, Node] = {}
        by_holder: dict[int, dict[str | None, _Changes]] = defaultdict(dict)
        for (holder, table), changes in self._changes.items():
            by_holder[holder][table] = changes
        for holder, tables in by_holder.items():
            node = next(iter(tables.values())).node
            found[holder] = (
                _edited_module(node, tables) if None not in tables else _edited(tables[None])
            )
        for holder, (node, state) in self._states.items():
            found[holder] = replace(found.get(holder, node), state=state)
        return found

    def node_at(self, keys: KeyPath) -> Node:
        """Return what stands at a key path that leads through containers."""
        if keys not in self._nodes:
            above = self.node_at(keys[:-1])
            for key, node in self._descent.into(above) or ():
                self._nodes.setdefault((*keys[:-1], key), node)
        return self._nodes[keys]

    def _changes_of(self, slot: _Slot) -> _Changes:
        return self._changes.setdefault((id(slot.holder), slot.table), _Changes(slot.holder))

    def _slot(self, keys: KeyPath) -> _Slot:
        if not keys:
            raise EditError("it is the whole of the file", key_path="/")
        holder = self.node_at(keys[:-1])
        if id(holder) not in self._slots:
            self._slots[id(holder)] = _slots(holder)
        slot = self._slots[id(holder)].get(keys[-1])
        if slot is None:
            what = holder.type if type(holder) is Opaque else type(holder).__name__
            raise EditError(f"it is a part of a {what}, which stays whole", key_path=display(keys))
        return slot


def _slots(holder: Node) -> dict[Hashable, _Slot]:
    """The places that a container can be edited in, by the keys that lead to them."""
    if is_module(holder):
        return dict(_module_slots(holder, "", frozenset()))
    mapping = mapping_of(holder)
    if mapping:
        pairs = zip(by_key(mapping), mapping, strict=True)
        return {key: _Slot(holder, raw) for (key, _), raw in pairs}
    items = sequence_of(holder)
    if items is not None and type(items) is list:
        return {place: _Slot(holder, place) for place in range(len(items))}
    attributes = attributes_of(holder)
    if attributes and attributes is holder.state:
        pairs = zip(by_key(attributes), attributes, strict=True)
        return {key: _Slot(holder, raw, "") for (key, _), raw in pairs}
    return {}


def _module_slots(
    module: Opaque, prefix: str, above: frozenset[int]
) -> Iterable[tuple[str, _Slot]]:
    """The parameters and buffers of a module and those below it, by dotted names.

    A module that is one of its own is walked into once; `above` are those around it.
    """
    above |= {id(module)}
    state = module_state(module)
    raw = {
        kind: {
            display_key(key_at(key, index)): key
            for index, key in enumerate(mapping_of(state[table]) or {})
        }
        for kind, table in _TABLES.items()
    }
    for member in members(module, {}):
        if member.kind in _TABLES:
            key = raw[member.kind][member.name]
            yield prefix + member.name, _Slot(module, key, _TABLES[member.kind])
        elif is_module(member.node) and id(member.node) not in above:
            yield from _module_slots(member.node, f"{prefix}{member.name}.", above)


def _edited(changes: _Changes) -> Node:
    node = changes.node
    if type(node) is dict:
        return changes.of_mapping(node)
    if type(node) is list:
        return changes.of_sequence(node)
    mapping = mapping_of(node)
    if mapping:
        # What it was made from becomes items that it is given.
        args = node.args[:1] if node.type == _DEFAULTDICT else node.args if _keeps(node) else ()
        return replace(node, args=args, keyed=changes.of_mapping(mapping))
    return replace(node, listed=changes.of_sequence(node.listed))


def _keeps(node: Opaque) -> bool:
    """Whether an object's items are all given to it after it was made from its arguments."""
    return node.keyed is not None and len(mapping_of(node) or ()) == len(node.keyed)


def _edited_module(node: Opaque, tables: Mapping[str | None, _Changes]) -> Opaque:
    """An object with other attributes, or a module with other parameters and buffers."""
    if "" in tables:
        return replace(node, state=tables[""].of_mapping(node.state))
    state = dict(module_state(node))
    for table, changes in tables.items():
        state[table] = _edited(replace(changes, node=state[table]))
    if node.has_state:
        return replace(node, state=state)
    return replace(node, args=(state, *node.args[1:]))
