"""Tensors under another name: what only one side has, with the content of what only the other has.

Content is looked at only where both sides have a tensor of one dtype and shape.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Final

from ckptool.analysis.diff.equality import record_of
from ckptool.analysis.diff.result import EQUAL, TensorDiff, better
from ckptool.analysis.fingerprint import hash_entries
from ckptool.analysis.progress import Progress
from ckptool.classification.roles import ClassifiedEntry

__all__ = ["find_moved"]

# In dotted parts; two names that end alike for longer are no more alike.
_LONGEST_ENDING: Final = 8


def find_moved(
    entries: Sequence[TensorDiff], is_quick: bool, progress: Progress
) -> list[TensorDiff]:
    """Return the entries with what was removed and added under another name as one that moved.

    Where several have the same content, those whose names end alike belong together. With
    `is_quick` a recorded CRC stands for the content.
    """
    removed = [one for one in entries if one.change == "removed"]
    added = [one for one in entries if one.change == "added"]
    removed, added = _in_common(removed, added, _facts)
    contents = _contents([*removed, *added], is_quick, progress)
    removed, added = _in_common(removed, added, lambda one: contents[id(one)])
    moved = {
        id(gone): come._replace(
            best=better(gone.a, come.b) or come.best, a=gone.a, change="moved", values=EQUAL
        )
        for gone, come in _matches(removed, added, contents)
    }
    arrived = {id(one.b) for one in moved.values()}
    return [
        moved.get(id(one), one)
        for one in entries
        if one.change != "added" or id(one.b) not in arrived
    ]


def _in_common(
    removed: Sequence[TensorDiff],
    added: Sequence[TensorDiff],
    key: Callable[[TensorDiff], Hashable],
) -> tuple[list[TensorDiff], list[TensorDiff]]:
    """Keep what has a counterpart by this key on the other side."""
    keys = {key(one) for one in removed} & {key(one) for one in added}
    return [one for one in removed if key(one) in keys], [one for one in added if key(one) in keys]


def _facts(one: TensorDiff) -> Hashable:
    tensor = one.best.entry.tensor
    # Without elements nothing tells one from another.
    if tensor is None or not tensor.nbytes:
        return id(one)
    return tensor.dtype.name, tensor.layout, tensor.shape


def _contents(
    entries: Sequence[TensorDiff], is_quick: bool, progress: Progress
) -> dict[int, Hashable]:
    """What each tensor holds, by the id of its entry; what has no values is like nothing else."""
    sides = {id(one): one.best for one in entries}
    if is_quick:
        records = {place: _recorded(side) for place, side in sides.items()}
        if None not in records.values():
            return records
    hashes = hash_entries(list(sides.values()), progress)
    return {place: hashes[id(side)] or place for place, side in sides.items()}


def _recorded(side: ClassifiedEntry) -> Hashable:
    record = None if side.entry.tensor is None else record_of(side.entry.tensor)
    return (record.content, record.layout) if record is not None and record.is_whole else None


def _matches(
    removed: Sequence[TensorDiff], added: Sequence[TensorDiff], contents: Mapping[int, Hashable]
) -> Iterator[tuple[TensorDiff, TensorDiff]]:
    """Pair what has the same content, the names with the longest common ending first."""
    counts = [Counter(contents[id(one)] for one in side) for side in (removed, added)]
    only = {content for content, count in counts[0].items() if count == counts[1][content] == 1}
    by_content = {contents[id(one)]: one for one in added}
    for one in removed:
        if contents[id(one)] in only:
            yield one, by_content[contents[id(one)]]
    removed, added = (
        [one for one in side if contents[id(one)] not in only] for side in (removed, added)
    )
    left = {id(one): one for one in added}
    names = {id(one): one.label.split(".") for one in [*removed, *added]}
    for length in range(_LONGEST_ENDING, -1, -1):

        def key(one: TensorDiff, length: int = length) -> Hashable:
            name = names[id(one)]
            return contents[id(one)], tuple(name[max(0, len(name) - length) :])

        waiting: dict[Hashable, deque[TensorDiff]] = defaultdict(deque)
        for one in left.values():
            waiting[key(one)].append(one)
        unmatched = []
        for one in removed:
            if waiting[key(one)]:
                match = waiting[key(one)].popleft()
                del left[id(match)]
                yield one, match
            else:
                unmatched.append(one)
        removed = unmatched
