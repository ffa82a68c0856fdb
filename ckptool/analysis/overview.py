"""All that `inspect` says of a checkpoint, and the part of it that `list` says, as results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.analysis.selection import select
from ckptool.analysis.sizes import Sizes, Total, measure, measure_roots, ties
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.globals import is_known_global
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.evidence import classify_by_evidence
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import about
from ckptool.pickling.nodes import Global

__all__ = ["Contents", "Overview", "list_contents", "overview"]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The tensors of a checkpoint that were asked for, with what they are.

    `hashes` is by the id of a `ClassifiedEntry`, empty unless they were asked for. `fingerprint`
    is over the root, and None too where no root is chosen or a filter leaves some of it out.
    """

    checkpoint: Checkpoint
    entries: tuple[ClassifiedEntry, ...]
    hashes: Mapping[int, str | None]
    fingerprint: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """The contents with their sizes: `roots` by key path, `ties` by the id of an `Entry`."""

    contents: Contents
    sizes: Sizes
    roots: Mapping[KeyPath, Total]
    ties: Mapping[int, tuple[Entry, ...]]

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that is looked at."""
        return self.contents.checkpoint

    @property
    def entries(self) -> tuple[ClassifiedEntry, ...]:
        """The tensors that were asked for, with what they are."""
        return self.contents.entries

    @property
    def foreign_globals(self) -> tuple[Global, ...]:
        """The names in the pickles that are not known to stand for plain data."""
        return tuple(name for name in self.checkpoint.globals if not is_known_global(name))


def list_contents(
    checkpoint: Checkpoint,
    *,
    patterns: Sequence[str] = (),
    roles: Sequence[str] = (),
    sort: Literal["file", "name", "bytes"] = "file",
    with_hashes: bool = False,
    progress: Progress = UNWATCHED,
) -> Contents:
    """Classify a checkpoint's tensors and keep those that are asked for.

    `sort` orders them by path, or by bytes with the largest first.
    """
    hashes: dict[int, str | None] = {}
    whole = None
    with about(checkpoint.path):
        classified = classify_by_evidence(checkpoint)
        kept = select(classified, patterns, roles)
        if with_hashes:
            from ckptool.analysis.fingerprint import fingerprint, hash_entries

            hashes = hash_entries(kept, progress)
            if checkpoint.root is not None and len(kept) == len(classified):
                whole = fingerprint(kept, hashes)
    if sort == "name":
        kept = tuple(sorted(kept, key=lambda one: one.entry.path))
    elif sort == "bytes":
        kept = tuple(sorted(kept, key=lambda one: -one.nbytes))
    return Contents(checkpoint, kept, hashes, whole)


def overview(contents: Contents) -> Overview:
    """Measure a checkpoint's contents."""
    return Overview(
        contents,
        measure(contents.checkpoint, contents.entries),
        measure_roots(contents.checkpoint),
        ties(contents.checkpoint.entries),
    )
