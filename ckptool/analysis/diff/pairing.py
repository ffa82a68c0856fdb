"""Which entry of A is held against which of B: by name inside the roots, by key path outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.modules import is_module
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root, shortened
from ckptool.checkpoint.state_dict import StateDict, state_dict_of, state_dicts_of
from ckptool.checkpoint.training import TrainingKind
from ckptool.classification.align import LEAST_SHARE
from ckptool.classification.reconcile import Shapes, reconcile
from ckptool.errors import AmbiguousRootError, about

__all__ = ["Place", "Places", "choose_roots", "pair_up"]


class Place(NamedTuple):
    """Where something stands, in terms that two files share.

    `keys` begin in the state_dict, at the key path of the root, or at the top of the file.
    """

    begin: Literal["state_dict", "root", "file"]
    keys: KeyPath

    @property
    def name(self) -> str:
        """How it is shown: a name in the state_dict as it is, anything else as a key path."""
        return str(self.keys[0]) if self.begin == "state_dict" else display(self.keys)

    @property
    def label(self) -> str:
        """The name as it is shown; the top of the file has none."""
        return self.name or "/"


@dataclass(frozen=True, slots=True)
class Places:
    """Tells where the entries of one file stand; `prefix` goes from the names that begin with it.

    Without a root every entry is known by its key path. `other_root` is the key path of the other
    file's root where it is another one: what this file has there has no counterpart, and is left
    out.
    """

    checkpoint: Checkpoint
    prefix: str
    other_root: KeyPath | None = None

    def has(self, entry: Entry) -> bool:
        """Whether an entry is compared."""
        other = self.other_root
        return other is None or entry.keys[: len(other)] != other

    def of(self, entry: Entry, name: str | None) -> Place:
        """Return the place of an entry, which has this name in the root."""
        root = self.checkpoint.root
        if root is None:
            return Place("file", entry.keys)
        if name is not None:
            return Place("state_dict", (name.removeprefix(self.prefix),))
        if root.keys and entry.keys[: len(root.keys)] == root.keys:
            return Place("root", entry.keys[len(root.keys) :])
        return Place("file", entry.keys)

    @property
    def left_out(self) -> str | None:
        """The path of the root that is left out, None where this file has no such root."""
        root = (
            None if self.other_root is None else self.checkpoint.survey.roots.get(self.other_root)
        )
        return None if root is None else root.path

    def part_of(self, entry: Entry, place: Place) -> str | None:
        """Return what an entry belongs to outside the root, in words; None for one inside."""
        if place.begin == "state_dict":
            return None
        if entry.member == "attribute":
            return "attributes of modules"
        state = self.checkpoint.training_of(entry)
        return _TRAINING[state.kind] if state is not None else display(place.keys[:1])


_TRAINING: Final[dict[TrainingKind, str]] = {
    "optimizer": "the optimizer",
    "scheduler": "the scheduler",
    "scaler": "the gradient scaler",
    "rng": "the random generator state",
}

Where = TypeVar("Where")
Item = TypeVar("Item")


def pair_up(
    a: Iterable[tuple[Where, Item]], b: Iterable[tuple[Where, Item]]
) -> list[tuple[Where, Item | None, Item | None]]:
    """Pair what stands in the same place, in A's order; what only B has comes behind it.

    Where one file has several things in one place, the first is held against the first.
    """
    left: dict[Where, list[Item]] = defaultdict(list)
    for place, item in b:
        left[place].append(item)
    for items in left.values():
        items.reverse()
    pairs: list[tuple[Where, Item | None, Item | None]] = []
    for place, item in a:
        others = left.get(place)
        pairs.append((place, item, others.pop() if others else None))
    pairs += [(place, None, item) for place, items in left.items() for item in reversed(items)]
    return pairs


# Roots -----------------------------------------------------------------------------------------


def choose_roots(a: Checkpoint, b: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Return both with a root, where one can be chosen: in doubt, the one most like the other's.

    Of several that are, it is the one under the same key path. Where several fit in both, none is
    chosen in either, and all stands under its key path. Raises AmbiguousRootError where two are
    equally like the other file's.
    """
    if a.root is None and b.root is not None:
        return _fitted(a, b, b.root, "--root-a"), b
    if b.root is None and a.root is not None:
        return a, _fitted(b, a, a.root, "--root-b")
    return a, b


def _shapes_of(state: StateDict) -> Shapes:
    return {name: tensor.shape for name, tensor in state.tensors.items() if tensor is not None}


def _fitted(checkpoint: Checkpoint, other: Checkpoint, like: Root, option: str) -> Checkpoint:
    if not checkpoint.roots:
        return checkpoint
    wanted = _shapes_of(state_dict_of(other, like))
    # What has only a few of the names is not looked at: there can be any number of such.
    large = [
        root
        for root in checkpoint.roots
        if is_module(root.node) or root.tensors >= LEAST_SHARE * len(wanted)
    ]
    likeness = dict.fromkeys((root.keys for root in checkpoint.roots), 0)
    for root, state in state_dicts_of(checkpoint, large):
        likeness[root.keys] = _likeness(_shapes_of(state), wanted)
    most = max(likeness.values())
    best = [root for root in checkpoint.roots if likeness[root.keys] == most]
    best = [root for root in best if root.keys == like.keys] or best
    if len({id(root.node) for root in best}) > 1:
        paths = [root.path for root in best]
        hint = f"choose one with {option}: {shortened(paths)}"
        with about(checkpoint.path):
            raise AmbiguousRootError("fit the other file equally well", roots=paths, hint=hint)
    return checkpoint.with_root(best[0])


def _likeness(found: Shapes, wanted: Shapes) -> int:
    """How many names two state_dicts share, whatever prefix is before them."""
    prefixes = reconcile(found, wanted)[0]
    names = {name.removeprefix(prefixes.a) for name in found}
    return len(names & {name.removeprefix(prefixes.b) for name in wanted})
