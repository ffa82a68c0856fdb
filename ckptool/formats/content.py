"""What a format writes: pieces of a file, most of them copied from the file that was read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ckptool.pickling.nodes import Node
from ckptool.sources import Extent, Source, read_content

__all__ = [
    "Content",
    "Copy",
    "EditedTree",
    "Fresh",
    "NewStorage",
    "Piece",
    "Rewrite",
    "joined",
    "piece_of",
    "size_of",
]


class Copy(NamedTuple):
    """Bytes to be copied as they are; `offset` and `size` are in bytes."""

    source: Source
    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A run of what an extent holds, with other bytes in some places.

    `start` and `size` are in bytes of the extent's content. Each patch is the bytes that go to a
    place counted from the run's start; they come in order and do not overlap.
    """

    extent: Extent
    start: int
    size: int
    patches: tuple[tuple[int, bytes], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is the extent as it is."""
        return not self.patches and (self.start, self.size) == (0, self.extent.size)

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes."""
        patches = list(reversed(self.patches))
        at = 0
        for chunk in read_content(self.extent, self.start, self.size):
            end = at + len(chunk)
            while patches and patches[-1][0] < end:
                place, data = patches.pop()
                inside = data[: end - place]
                chunk = chunk[: place - at] + inside + chunk[place - at + len(inside) :]
                if len(inside) < len(data):
                    patches.append((end, data[len(inside) :]))
            yield chunk
            at = end


class Fresh:
    """Content that is written anew: `crc` is that of the chunks so far."""

    __slots__ = ("_content", "crc", "size")

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size
        self.crc = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes."""
        for chunk in self._content.chunks():
            self.crc = zlib.crc32(chunk, self.crc)
            yield chunk


Piece: TypeAlias = bytes | Copy | Fresh
"""A part of a file that is to be written. What comes behind a `Fresh` one may depend on it, and is
right only after its chunks were taken."""


def size_of(piece: Piece) -> int:
    """Return the bytes of a piece."""
    return len(piece) if isinstance(piece, bytes) else piece.size


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces with copies made one where their source has between them what is written there.

    Most records of an edited archive come behind the same header as before, so that the kernel can
    copy many of them at a time.
    """
    run: Copy | None = None
    between = b""
    for piece in pieces:
        if run is not None and isinstance(piece, bytes):
            between += piece
        elif run is not None and isinstance(piece, Copy) and _follows(run, between, piece):
            run = run._replace(size=run.size + len(between) + piece.size)
            between = b""
        else:
            yield from (part for part in (run, between) if part)
            run, between = (piece, b"") if isinstance(piece, Copy) else (None, b"")
            if run is None:
                yield piece
    yield from (part for part in (run, between) if part)


def _follows(run: Copy, between: bytes, piece: Copy) -> bool:
    end = run.offset + run.size
    is_next = piece.source is run.source and piece.offset == end + len(between)
    return is_next and run.source.read(end, len(between)) == between


def piece_of(content: Content) -> Copy | Fresh:
    """Return content that lies in its file as it is as a copy, any other as what is made anew."""
    extent = content.extent
    if content.patches or extent.is_deflated:
        return Fresh(content)
    return Copy(extent.source, extent.offset + content.start, content.size)


@dataclass(frozen=True, slots=True, eq=False)
class NewStorage:
    """A storage as it is to be written: `key` is what it is called, `old_key` what it is made from.

    `numel` is in elements of the dtype that the pickle declares.
    """

    key: str
    old_key: str
    numel: int
    content: Content


@dataclass(frozen=True, slots=True, eq=False)
class EditedTree:
    """A tree with what `replaced` says, by the identity of a node, in its place."""

    tree: Node
    replaced: Mapping[int, Node]

    @property
    def top(self) -> Node:
        """The node at its top."""
        return self.replaced.get(id(self.tree), self.tree)


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """What a container is to hold when it is written anew.

    `encoded` is its tree as the format writes it, None where it stays as it is. `storages` are all
    that stay, in the order of the file.
    """

    encoded: bytes | None
    storages: Sequence[NewStorage]
