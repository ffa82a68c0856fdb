"""`_metadata`, the versions of modules, when entries of its state_dict go or get other names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from ckptool.checkpoint.containers import mapping_of
from ckptool.checkpoint.roots import Root
from ckptool.pickling.nodes import Node, Opaque

__all__ = ["FLAG_NOTE", "edited_metadata", "emptied_modules"]

FLAG_NOTE: Final = "the flag that load_state_dict(assign=True) leaves in _metadata was dropped"

_METADATA: Final = "_metadata"
# `load_state_dict(assign=True)` puts it into the caller's own metadata (pytorch/pytorch#188166).
_ASSIGN_FLAG: Final = "assign_to_params_buffers"


def edited_metadata(
    root: Root, gone: Collection[str], prefix: str
) -> tuple[Mapping[str, Node] | None, bool]:
    """Return a state_dict's `_metadata` as it is to be, None where it stays; and if a flag went.

    Modules in `gone` lose their line; those below `prefix` get a shorter name, and the wrappers
    that it is made of go. The flag that `assign=True` leaves in any of them goes too.
    """
    table = _table(root)
    if table is None:
        return None, False
    items: dict[Node, Node] = {}
    is_flagged = False
    for path, facts in table.items():
        new = _renamed(path, prefix, table)
        if new is None or path in gone:
            continue
        known = mapping_of(facts)
        if known is not None and _ASSIGN_FLAG in known:
            is_flagged = True
            facts = _with_items(facts, {k: v for k, v in known.items() if k != _ASSIGN_FLAG})
        items[new] = facts
    if items == table and list(items) == list(table) and not is_flagged:
        return None, False
    return _with_items(root.node.state[_METADATA], items), is_flagged


def emptied_modules(root: Root, names: Iterable[str], stay: Iterable[str]) -> set[str]:
    """Return the modules that have a line and all of whose names go."""
    table = _table(root) or {}
    return _holding(names, table) - _holding(stay, table)


def _holding(names: Iterable[str], table: Mapping[Node, Node]) -> set[str]:
    """The modules with a line that names lie in."""
    return {name[:at] for name in names for at in _dots(name) if name[:at] in table}


def _dots(name: str) -> Iterator[int]:
    at = name.find(".")
    while at >= 0:
        yield at
        at = name.find(".", at + 1)


def _table(root: Root) -> dict[Node, Node] | None:
    node = root.node
    if type(node) is not Opaque or type(node.state) is not dict:
        return None
    return mapping_of(node.state.get(_METADATA))


def _renamed(path: Node, prefix: str, table: Mapping[Node, Node]) -> Node | None:
    """A module's path without the prefix; None for a wrapper that is one of its parts."""
    if type(path) is not str or not prefix:
        return path
    inside = f"{path}." if path else ""
    if inside.startswith(prefix):
        return inside[len(prefix) :].removesuffix(".")
    is_wrapper = prefix.startswith(inside) and prefix.removesuffix(".") in table
    return None if is_wrapper else path


def _with_items(node: Node, items: dict[Node, Node]) -> Node:
    """The same mapping with other items."""
    if type(node) is Opaque:
        return replace(node, args=(), keyed=items)
    return items
