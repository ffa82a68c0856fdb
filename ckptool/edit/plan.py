"""A plan: operations resolved against a checkpoint, ready to be shown or written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ckptool.checkpoint.entries import Entry, list_entries
from ckptool.checkpoint.opening import Checkpoint
from ckptool.errors import EditError
from ckptool.formats.content import EditedTree, Fresh, NewStorage, Piece, Rewrite, size_of
from ckptool.formats.writers import check_writable, encode_tree, write_container

__all__ = ["Changed", "Left", "Plan", "Removed", "check_editable", "make_plan"]


class Removed(NamedTuple):
    """What goes, with all below it: how many tensors that are, and their bytes."""

    path: str
    tensors: int
    nbytes: int


class Changed(NamedTuple):
    """What stays and is not what it was; `to` is its value, its name, or its storage's bytes."""

    path: str
    what: Literal["reset", "renamed", "compacted"]
    to: str


class Left(NamedTuple):
    """What was asked for and stays as it is."""

    path: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """An edit of a checkpoint, which has to stay open until it is written.

    `entries` are those of the result; `nbytes` is how large its file will be. `fixed` are its
    pieces, None where some of them depend on what is only known when it is written.
    """

    command: Literal["strip", "reset-buffers"]
    checkpoint: Checkpoint
    rewrite: Rewrite
    removed: tuple[Removed, ...]
    changed: tuple[Changed, ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    entries: tuple[Entry, ...]
    nbytes: int
    fixed: tuple[Piece, ...] | None

    @property
    def bytes_before(self) -> int:
        """The size of the file that is edited."""
        return sum(file.nbytes for file in self.checkpoint.files)

    @property
    def kept(self) -> tuple[int, int]:
        """How many tensors stay, and the bytes of all storages that stay."""
        tensors = sum(entry.tensor is not None for entry in self.entries)
        return tensors, sum(storage.content.size for storage in self.rewrite.storages)

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces of the new file, the same ones each time."""
        if self.fixed is not None:
            return iter(self.fixed)
        return write_container(self.checkpoint.container, self.rewrite)


def check_editable(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedFormatError or EditError for what cannot be written as it was."""
    container = checkpoint.container
    check_writable(container)
    if not container.is_whole:
        raise EditError(
            "its pickle makes something and throws it away, which an edit would lose",
            hint="a file that does so was made by hand; look at its globals with `ckptool inspect`",
        )


def make_plan(
    command: Literal["strip", "reset-buffers"],
    checkpoint: Checkpoint,
    storages: Sequence[NewStorage],
    edited: EditedTree | None,
    *,
    removed: Sequence[Removed] = (),
    changed: Sequence[Changed] = (),
    left: Sequence[Left] = (),
    notes: Sequence[str] = (),
) -> Plan:
    """Put a plan together: what the file will hold, and how large it will be.

    `edited` is the tree that is written, None where it stays as it is.
    """
    container = checkpoint.container
    encoded, entries = None, checkpoint.entries
    if edited is not None:
        encoded = encode_tree(container, edited, storages)
        # The tree that was read was bounded, and an edit adds nothing to it.
        listed = list_entries(
            edited.tree, container.script_classes, most=sys.maxsize, replaced=edited.replaced
        )
        entries = tuple(listed)
    rewrite = Rewrite(encoded, storages)
    pieces = tuple(write_container(container, rewrite))
    is_fixed = not any(isinstance(piece, Fresh) for piece in pieces)
    return Plan(
        command,
        checkpoint,
        rewrite,
        tuple(removed),
        tuple(changed),
        tuple(left),
        (*notes, *_left_out(container.stray_bytes)),
        entries,
        sum(map(size_of, pieces)),
        pieces if is_fixed else None,
    )


def _left_out(stray_bytes: int) -> Iterator[str]:
    if stray_bytes:
        yield f"{stray_bytes:,} bytes that belong to no part of the format are left out"
