"""Single entries in full: a tensor with its values and figures, or a leaf that is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptool.analysis.excerpt import Excerpt, excerpt
from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.analysis.selection import find_entries
from ckptool.analysis.statistics import Statistics, statistics
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.evidence import classify_by_evidence
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import about
from ckptool.tensors.refs import Strided

__all__ = ["Detail", "details"]


@dataclass(frozen=True, slots=True, eq=False)
class Detail:
    """One entry in full. `classified` is None for leaves that are no tensors.

    `statistics` and `excerpt` are None where there are none: for leaves, on the meta device, and
    for tensors made of several components.
    """

    entry: Entry
    classified: ClassifiedEntry | None = None
    statistics: Statistics | None = None
    excerpt: Excerpt | None = None


def details(
    checkpoint: Checkpoint, names: Sequence[str], progress: Progress = UNWATCHED
) -> tuple[Detail, ...]:
    """Return the entries that names, paths or patterns mean, each once, in the order asked for.

    Raises EntryNotFoundError for one that nothing answers to.
    """
    classified = {id(one.entry): one for one in classify_by_evidence(checkpoint)}
    by_name: dict[str, list[Entry]] = {}
    for entry in checkpoint.entries:
        for name in {entry.path or "/", checkpoint.name_of(entry) or entry.path or "/"}:
            by_name.setdefault(name, []).append(entry)
    with about(checkpoint.path):
        wanted = {
            id(entry): entry
            for name in names
            for found in find_entries(list(by_name), name)
            for entry in by_name[found]
        }
        return tuple(
            _detail(entry, classified.get(id(entry)), progress) for entry in wanted.values()
        )


def _detail(entry: Entry, classified: ClassifiedEntry | None, progress: Progress) -> Detail:
    tensor = entry.tensor
    if tensor is None or not isinstance(tensor.data, Strided):
        return Detail(entry, classified)
    return Detail(entry, classified, statistics(tensor, progress), excerpt(tensor))
