"""What goes, is renamed or takes another's place, made into a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.roots import shortened
from ckptool.edit.averages import average_names, average_roots
from ckptool.edit.metadata import FLAG_NOTE, edited_metadata, emptied_modules
from ckptool.edit.plan import Changed, Left, Plan, Removed, make_plan
from ckptool.edit.storages import compact
from ckptool.edit.targets import Targets
from ckptool.edit.tree import TreeEdit
from ckptool.errors import EntryNotFoundError
from ckptool.formats.content import EditedTree
from ckptool.pickling.nodes import Node
from ckptool.tensors.refs import TensorRef, storages_of

__all__ = ["Removal", "plan_removal"]

_COUNTER: Final = "num_batches_tracked"
_KEPT: Final = "are both kept; --ema use or --ema drop keeps one"


@dataclass(slots=True)
class Removal:
    """What operations come to, by key path.

    `renamed` gives a new last key, for the loss of `prefix`; `taken` puts another entry's tensor in
    a place. `unmet` is what was asked for and is not there, with `hints` for it.
    """

    gone: dict[KeyPath, None] = field(default_factory=dict)
    renamed: dict[KeyPath, str] = field(default_factory=dict)
    taken: dict[KeyPath, Entry] = field(default_factory=dict)
    prefix: str = ""
    has_chosen_weights: bool = False
    left: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def is_gone(self, keys: KeyPath) -> bool:
        """Whether what stands at a key path goes, by itself or with what it is in."""
        return any(keys[:n] in self.gone for n in range(len(keys) + 1))

    def outermost(self) -> list[KeyPath]:
        """Return what goes by itself."""
        return [keys for keys in self.gone if not keys or not self.is_gone(keys[:-1])]


def plan_removal(targets: Targets, removal: Removal, *, extract: bool) -> Plan:
    """Make a plan; with `extract` the root alone becomes the file.

    Raises EntryNotFoundError where nothing would be another.
    """
    above = targets.require_root().keys if extract else ()
    if extract and not above:
        removal.unmet.append("a root below the top")
    if not (removal.gone or removal.renamed or above):
        raise EntryNotFoundError(" nor ".join(removal.unmet), hint="; ".join(removal.hints) or None)
    checkpoint = targets.checkpoint
    gone = removal.outermost()
    edit = TreeEdit(checkpoint.container.tree)
    _apply(edit, targets, removal, gone)
    notes = [*removal.notes, *_edit_metadata(edit, targets, removal)]
    notes += [f"nothing matches {wanted}" for wanted in removal.unmet]
    notes += [] if removal.has_chosen_weights else _two_sets(targets, removal)
    tree, replaced = edit.node_at(above), edit.replaced()
    kept = compact(checkpoint.container, EditedTree(tree, replaced))
    if above:
        gone = [*_outside(targets, above), *(k for k in gone if k[: len(above)] == above)]
    return make_plan(
        "strip",
        checkpoint,
        kept.storages,
        EditedTree(tree, {**replaced, **kept.moved}),
        removed=_removed(targets, removal, gone),
        changed=list(_changed(targets, removal, kept.moved)),
        left=removal.left,
        notes=notes,
    )


def _apply(edit: TreeEdit, targets: Targets, removal: Removal, gone: Sequence[KeyPath]) -> None:
    for keys in gone:
        edit.drop(keys)
    for keys, entry in removal.taken.items():
        edit.exchange(keys, entry.node)
    is_pairs = targets.root is not None and targets.root.pairs is not None
    for keys, name in removal.renamed.items():
        if is_pairs:
            _, tensor = edit.node_at(keys)
            edit.exchange(keys, (name, tensor))
        else:
            edit.rename(keys, name)


# Metadata --------------------------------------------------------------------------------------


def _edit_metadata(edit: TreeEdit, targets: Targets, removal: Removal) -> Iterator[str]:
    """Let `_metadata` follow the names, drop the flag of a load with `assign=True`, and say so."""
    flagged = []
    for root in targets.checkpoint.roots:
        if removal.is_gone(root.keys):
            continue
        modules: set[str] = set()
        prefix = ""
        if root is targets.root and targets.has_looked_inside:
            names = targets.names()
            stay = {name for name, keys in names.items() if not removal.is_gone(keys)}
            modules, prefix = emptied_modules(root, names, stay), removal.prefix
            yield from _counters_missed(names, stay)
        metadata, is_flagged = edited_metadata(root, modules, prefix)
        if metadata is not None:
            edit.set_attribute(root.node, "_metadata", metadata)
        if is_flagged:
            flagged.append(root.path or "/")
    if flagged:
        yield f"{FLAG_NOTE}: {shortened(flagged)}"


def _counters_missed(names: Mapping[str, KeyPath], stay: set[str]) -> Iterator[str]:
    """Say where a strict load will miss a counter, since its module says that it counts."""
    for name in names:
        module, _, leaf = name.rpartition(".")
        if leaf == _COUNTER and name not in stay and f"{module}.running_mean" in stay:
            yield f"{name} goes, and by the version of its module a strict load expects it"


# What it comes to ------------------------------------------------------------------------------


def _outside(targets: Targets, above: KeyPath) -> list[KeyPath]:
    """The outermost parts that are not below a key path."""
    found: dict[KeyPath, None] = {}
    for entry in targets.checkpoint.entries:
        keys = entry.keys
        if keys[: len(above)] != above:
            split = next(n for n, key in enumerate(above) if keys[n : n + 1] != (key,))
            found[keys[: split + 1]] = None
    return list(found)


def _removed(targets: Targets, removal: Removal, gone: Sequence[KeyPath]) -> list[Removed]:
    """What goes, each part with the tensors below it; what an EMA takes the place of, too."""
    below: dict[KeyPath, dict[int, TensorRef]] = {keys: {} for keys in (*gone, *removal.taken)}
    for entry in targets.checkpoint.entries:
        if entry.tensor is not None:
            for n in range(len(entry.keys) + 1):
                if entry.keys[:n] in below:
                    below[entry.keys[:n]][id(entry.node)] = entry.tensor
    moved = {entry.keys for entry in removal.taken.values()}
    return [
        Removed(display(keys), len(tensors), sum(one.nbytes for one in tensors.values()))
        for keys, tensors in below.items()
        if keys not in moved
    ]


def _changed(targets: Targets, removal: Removal, moved: Mapping[int, Node]) -> Iterator[Changed]:
    depth = 0 if targets.root is None else len(targets.root.keys)
    for keys, name in removal.renamed.items():
        yield Changed(display(keys), "renamed", name)
    for keys, entry in removal.taken.items():
        yield Changed(entry.path, "renamed", display(keys[depth:]))
    for entry in targets.checkpoint.entries:
        tensor = moved.get(id(entry.node))
        if tensor is not None and not removal.is_gone(entry.keys):
            nbytes = sum(storage.nbytes for storage in storages_of(tensor))
            yield Changed(entry.path, "compacted", f"{nbytes} bytes")


def _two_sets(targets: Targets, removal: Removal) -> Iterator[str]:
    """Say that the weights and an EMA of them are both kept."""
    for keys, (_, raw) in average_roots(targets.checkpoint).items():
        if not removal.is_gone(keys) and not removal.is_gone(raw.keys):
            yield f"{raw.path or '/'} and {display(keys)}, its EMA, {_KEPT}"
    tensors = targets.root_tensors()
    found = average_names({name: entry.node for name, entry in tensors.items()})
    averages = [] if found is None else [name for name in found.raw if name in tensors]
    if averages and not any(removal.is_gone(tensors[name].keys) for name in averages):
        yield f"the weights in the root and their EMA ({averages[0]}, ...) {_KEPT}"
