"""All that `inspect` and `list` say of a checkpoint, as one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptool.analysis.selection import select
from ckptool.analysis.sizes import Sizes, measure, ties
from ckptool.checkpoint.globals import is_known_global
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classify.evidence import classify_by_evidence
from ckptool.classify.roles import ClassifiedEntry
from ckptool.pickling.nodes import Global

__all__ = ["Overview", "overview"]


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A checkpoint with the role of every tensor that was asked for.

    `ties` is by the id of an `Entry`; `hashes` by the id of a `ClassifiedEntry`, empty unless
    they were asked for. `fingerprint` is over the root, and None too where no root is chosen or
    a filter leaves some of it out.
    """

    checkpoint: Checkpoint
    entries: tuple[ClassifiedEntry, ...]
    sizes: Sizes
    ties: Mapping[int, tuple[str, ...]]
    hashes: Mapping[int, str | None]
    fingerprint: str | None

    @property
    def foreign_globals(self) -> tuple[Global, ...]:
        """The names in the pickles that are not known to stand for plain data."""
        return tuple(name for name in self.checkpoint.globals if not is_known_global(name))


def overview(
    checkpoint: Checkpoint,
    *,
    patterns: Sequence[str] = (),
    roles: Sequence[str] = (),
    sort: Literal["file", "name", "bytes"] = "file",
    with_hashes: bool = False,
) -> Overview:
    """Classify a checkpoint's tensors, keep those that are asked for, and measure them.

    `sort` orders them by path, or by bytes with the largest first.
    """
    classified = classify_by_evidence(checkpoint)
    kept = select(classified, patterns, roles)
    hashes: dict[int, str | None] = {}
    whole = None
    if with_hashes:
        from ckptool.analysis.fingerprint import fingerprint, hash_tensors

        hashed = [one for one in kept if one.entry.tensor is not None]
        found = hash_tensors(one.entry.tensor for one in hashed if one.entry.tensor is not None)
        hashes = {id(one): digest for one, digest in zip(hashed, found, strict=True)}
        if checkpoint.root is not None and len(kept) == len(classified):
            whole = fingerprint(kept, hashes)
    if sort == "name":
        kept = tuple(sorted(kept, key=lambda one: one.entry.path))
    elif sort == "bytes":
        kept = tuple(sorted(kept, key=lambda one: -one.nbytes))
    return Overview(
        checkpoint,
        kept,
        measure(checkpoint, kept),
        ties(checkpoint.entries),
        hashes,
        whole,
    )
