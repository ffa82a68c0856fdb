"""All that `inspect` says of a checkpoint, and the part of it that `list` says, as results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.analysis.selection import select
from ckptool.analysis.sizes import Sizes, Total, measure, measure_roots, ties
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.globals import is_known_global
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.classify import classify
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry
from ckptool.errors import about
from ckptool.pickling.nodes import Global

if TYPE_CHECKING:
    from ckptool.classification.matching import ModelMatch
    from ckptool.spec.strict_load import Model

__all__ = ["Contents", "Overview", "list_contents", "overview"]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The tensors of a checkpoint that were asked for, with what they are.

    `absent` are the names that a model has and the root has not, as far as they were asked for;
    `match` is how the whole root stands to the model, None without one. `hashes` is by the id of a
    `ClassifiedEntry`, empty unless they were asked for. `fingerprint` is over the root, and None
    too where no root is chosen or a filter leaves some of it out.
    """

    checkpoint: Checkpoint
    entries: tuple[ClassifiedEntry, ...]
    hashes: Mapping[int, str | None]
    fingerprint: str | None
    absent: tuple[AbsentTensor, ...] = ()
    match: ModelMatch | None = None


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
    model: Model | None = None,
    patterns: Sequence[str] = (),
    roles: Sequence[str] = (),
    sort: Literal["file", "name", "bytes"] = "file",
    with_hashes: bool = False,
    progress: Progress = UNWATCHED,
) -> Contents:
    """Classify a checkpoint's tensors and keep those that are asked for.

    With a `model` its names say what they are. `sort` orders them by path, or by bytes with the
    largest first.
    """
    hashes: dict[int, str | None] = {}
    whole = None
    classification = classify(checkpoint, model)
    classified, absent = classification.entries, classification.absent
    checkpoint = classification.checkpoint
    with about(checkpoint.path):
        named: list[ClassifiedEntry | AbsentTensor] = [*classified, *absent]
        selected = select(named, patterns, roles)
        kept = tuple(one for one in selected if isinstance(one, ClassifiedEntry))
        absent = tuple(one for one in selected if isinstance(one, AbsentTensor))
        if with_hashes:
            from ckptool.analysis.fingerprint import fingerprint, hash_entries

            hashes = hash_entries(kept, progress)
            if checkpoint.root is not None and len(kept) == len(classified):
                whole = fingerprint(kept, hashes)
    if sort == "name":
        kept = tuple(sorted(kept, key=lambda one: one.entry.path))
    elif sort == "bytes":
        kept = tuple(sorted(kept, key=lambda one: -one.nbytes))
    return Contents(checkpoint, kept, hashes, whole, absent, classification.match)


def overview(contents: Contents) -> Overview:
    """Measure a checkpoint's contents."""
    return Overview(
        contents,
        measure(contents.checkpoint, contents.entries, contents.absent),
        measure_roots(contents.checkpoint),
        ties(contents.checkpoint.entries),
    )
