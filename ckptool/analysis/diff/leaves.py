"""What is no tensor, side by side: settings, counters, objects, and the `_metadata` of roots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ckptool.analysis.diff.pairing import Place, Places, pair_up
from ckptool.analysis.diff.result import METADATA, Change, LeafDiff
from ckptool.analysis.diff.sameness import Sameness
from ckptool.checkpoint.entries import Cycle, Entry
from ckptool.checkpoint.keypath import ObjectKey, display
from ckptool.checkpoint.modules import is_module, join
from ckptool.checkpoint.roots import Root
from ckptool.pickling.nodes import Node

__all__ = ["compare_leaves", "compare_metadata", "note_on_keys"]

# safetensors has strings of its own beside the tensors, and no place for anything else.
_SAFETENSORS: Final = "safetensors"
_STRINGS: Final = "__metadata__"


class _Leaf(NamedTuple):
    """A leaf, and what it is compared by."""

    node: Node
    meaning: Node
    part: str | None = None


def compare_leaves(a: Places, b: Places) -> Iterator[LeafDiff]:
    """Yield every leaf of two files, in A's order; what only B has comes behind it."""
    formats = {places.checkpoint.format for places in (a, b)}
    with_strings = formats == {_SAFETENSORS} or _SAFETENSORS not in formats
    sameness = _sameness(a, b)
    for place, left, right in pair_up(_leaves(a, with_strings), _leaves(b, with_strings)):
        yield _compared(place.label, left, right, sameness)


def note_on_keys(a: Places, b: Places) -> Iterator[str]:
    """Yield what is not compared of keys."""
    entries = (entry for places in (a, b) for entry in places.checkpoint.entries)
    if any(type(key) is ObjectKey for entry in entries for key in entry.keys):
        yield "keys that are objects were compared by their type and place alone"


def _sameness(a: Places, b: Places) -> Sameness:
    return Sameness(sum(places.checkpoint.container.tree_bytes for places in (a, b)))


def _compared(path: str, a: _Leaf | None, b: _Leaf | None, sameness: Sameness) -> LeafDiff:
    if a is None or b is None:
        change: Change = "added" if a is None else "removed"
        one = a or b
        return LeafDiff(path, change, a and a.node, b and b.node, one and one.part)
    is_same = sameness.holds(a.meaning, b.meaning)
    return LeafDiff(path, "same" if is_same else "changed", a.node, b.node, a.part)


def _leaves(places: Places, with_strings: bool) -> Iterator[tuple[Place, _Leaf]]:
    is_safetensors = places.checkpoint.format == _SAFETENSORS
    for entry in places.checkpoint.entries:
        if not places.has(entry):
            continue
        if entry.tensor is not None or (
            is_safetensors and not with_strings and entry.keys[:1] == (_STRINGS,)
        ):
            continue
        place = places.of(entry, places.checkpoint.name_of(entry))
        yield place, _Leaf(entry.node, _meaning(entry), places.part_of(entry, place))


def _meaning(entry: Entry) -> Node:
    """The node; of a cycle, how far up it leads, since the way down can begin elsewhere."""
    if isinstance(entry.node, Cycle):
        return "cycle", len(entry.keys) - len(entry.node.keys)
    return entry.node


# _metadata -------------------------------------------------------------------------------------


def compare_metadata(a: Places, b: Places) -> tuple[list[LeafDiff], list[str]]:
    """Return the `_metadata` of roots that both files have, and notes on what was not compared.

    It is one leaf per module; where only one root has any, that is one leaf.
    """
    leaves: list[LeafDiff] = []
    notes: list[str] = []
    sameness = _sameness(a, b)
    for place, root_a, root_b in pair_up(_roots(a), _roots(b)):
        if root_a is None or root_b is None:
            continue
        tables = _tables(a, root_a), _tables(b, root_b)
        without = [
            side
            for side, places, root in (("A", a, root_a), ("B", b, root_b))
            if not _can_have_metadata(places, root)
        ]
        if without:
            if any(tables):
                other = "B" if without == ["A"] else "A"
                notes.append(
                    f"{without[0]} has no place for _metadata; that of {other} was not compared"
                )
        elif all(tables):
            leaves += [
                _compared(display((*place.keys, module)), left, right, sameness)
                for module, left, right in pair_up(tables[0].items(), tables[1].items())
            ]
        elif any(tables):
            whole = _whole(a, root_a), _whole(b, root_b)
            leaves.append(_compared(display(place.keys), *whole, sameness))
    return leaves, notes


def _roots(places: Places) -> Iterator[tuple[Place, Root]]:
    chosen = places.checkpoint.root
    for root in places.checkpoint.roots:
        if root is chosen:
            yield Place("state_dict", (METADATA,)), root
        elif root.keys != places.other_root:
            yield Place("file", (*root.keys, METADATA)), root


def _can_have_metadata(places: Places, root: Root) -> bool:
    return places.checkpoint.format != _SAFETENSORS and not is_module(root.node)


def _tables(places: Places, root: Root) -> dict[str, _Leaf]:
    """What a root says of each module, by the module's path without the prefix of the file.

    What it says of the wrappers that the prefix leads through is left out, as their names are.
    """
    prefix = places.prefix if root is places.checkpoint.root else ""
    tables: dict[str, _Leaf] = {}
    for path, table in places.checkpoint.metadata_of(root).items():
        if not isinstance(path, str):
            continue
        begin = join(path, "")
        if begin.startswith(prefix):
            tables[path[len(prefix) :]] = _Leaf(table, table, METADATA)
        elif not prefix.startswith(begin):
            tables[path] = _Leaf(table, table, METADATA)
    return tables


def _whole(places: Places, root: Root) -> _Leaf | None:
    metadata = places.checkpoint.metadata_of(root)
    return _Leaf(metadata, metadata, METADATA) if metadata else None
