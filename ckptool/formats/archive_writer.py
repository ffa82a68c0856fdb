"""Archives as torch's own writer lays them out, record by record.

Every record is followed by a descriptor with its CRC and sizes, its data begins on a multiple of
the alignment, a ZIP64 end record is always there (`caffe2/serialize/inline_container.cc` and its
miniz). Without an edit the bytes of torch's own archives come out again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ckptool.formats.archive_layout import (
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR64,
    DESCRIPTOR_FOLLOWS,
    DESCRIPTOR_MAGIC,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    IN_EXTRA_16,
    IN_EXTRA_32,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR64,
    LOCATOR64_MAGIC,
    NAMES_ARE_UTF8,
    ZIP64_EXTRA,
)
from ckptool.formats.content import Content, Copy, Fresh, Piece, size_of

__all__ = ["ALIGNMENT", "Record", "write_archive"]

ALIGNMENT: Final = 64

_PAGE = 4096
_WORTH_A_PAGE = 1 << 18

_EXTRA_HEADER = 4
# What miniz puts into the ZIP64 end record: 3.0 on Unix, and ZIP64 needed to read it.
_MADE_BY, _NEEDED = 798, 45
_END64_BYTES_BEHIND_SIZE = 44


class Record(NamedTuple):
    """A record's whole name, and what it holds: bytes, or content of the archive that was read."""

    name: str
    content: bytes | Content


class _Facts(NamedTuple):
    """What an archive says of a record, in its headers and in its directory."""

    name: bytes
    method: int
    crc: int
    stored_size: int
    size: int
    offset: int

    @property
    def flags(self) -> int:
        """Nothing follows an empty record; names that are no UTF-8 were kept byte by byte."""
        return NAMES_ARE_UTF8 | (DESCRIPTOR_FOLLOWS if self.stored_size else 0)

    @property
    def wide(self) -> bytes:
        """The extra field for what does not fit into 32 bits, empty where all does."""
        fields = [self.size, self.stored_size] if self.is_large else []
        fields += [self.offset] if self.offset >= IN_EXTRA_32 else []
        if not fields:
            return b""
        return struct.pack(f"<2H{len(fields)}Q", ZIP64_EXTRA, 8 * len(fields), *fields)

    @property
    def is_large(self) -> bool:
        return max(self.size, self.stored_size) >= IN_EXTRA_32


def write_archive(records: Iterable[Record], alignment: int = ALIGNMENT) -> Iterator[Piece]:
    """Yield the pieces of an archive; content that is whole keeps its CRC and compression."""
    directory: list[_Facts] = []
    at = 0
    for name, content in records:
        piece, method, crc, size = _stored(content)
        encoded = name.encode("utf-8", "surrogateescape")
        facts = _Facts(encoded, method, crc, size_of(piece), size, at)
        header = _local_header(facts, alignment, _place_in_page(piece, alignment))
        yield header
        at += len(header)
        if facts.stored_size:
            yield piece
            if isinstance(piece, Fresh):
                facts = facts._replace(crc=piece.crc)
            descriptor = _descriptor(facts)
            yield descriptor
            at += facts.stored_size + len(descriptor)
        directory.append(facts)
    yield _directory(directory, at)


def _stored(content: bytes | Content) -> tuple[Piece, int, int, int]:
    """A record's bytes as they are stored, how they are compressed, their CRC and their size."""
    if isinstance(content, bytes):
        return content, 0, zlib.crc32(content), len(content)
    if not content.is_whole:
        return Fresh(content), 0, 0, content.size
    extent = content.extent
    copy = Copy(extent.source, extent.offset, extent.stored_size)
    # 0 stands for "not recorded", which it stays.
    return copy, DEFLATED if extent.is_deflated else 0, extent.crc or 0, extent.size


def _place_in_page(piece: Piece, alignment: int) -> int | None:
    """Where in a page a copy should begin: where it does in its source.

    Kernels copy whole pages faster, and file systems share them. Small records are not worth it.
    """
    if not isinstance(piece, Copy) or piece.size < _WORTH_A_PAGE or piece.offset % alignment:
        return None
    return piece.offset % _PAGE


def _local_header(facts: _Facts, alignment: int, place: int | None) -> bytes:
    """A record's header, with an extra field that moves its data to the alignment.

    CRC and sizes are zero in it: they stand in the descriptor.
    """
    wide = facts.wide
    behind = facts.offset + LOCAL.size + len(facts.name) + len(wide) + _EXTRA_HEADER
    length = -behind % alignment
    if place is not None:
        length += (place - behind - length) % _PAGE
    extra = wide + b"FB" + length.to_bytes(2, "little") + b"Z" * length
    fixed = LOCAL.pack(
        LOCAL_MAGIC, 0, facts.flags, facts.method, 0, 0, 0, 0, 0, len(facts.name), len(extra)
    )
    return fixed + facts.name + extra


def _descriptor(facts: _Facts) -> bytes:
    layout = DESCRIPTOR64 if facts.wide else DESCRIPTOR
    return layout.pack(DESCRIPTOR_MAGIC, facts.crc, facts.stored_size, facts.size)


def _directory(records: list[_Facts], start: int) -> bytes:
    directory = b"".join(_central(facts) for facts in records)
    count, size = len(records), len(directory)
    end64 = END64.pack(
        END64_MAGIC, _END64_BYTES_BEHIND_SIZE, _MADE_BY, _NEEDED, 0, 0, count, count, size, start
    )
    locator64 = LOCATOR64.pack(LOCATOR64_MAGIC, 0, start + size, 1)
    short = min(count, IN_EXTRA_16)
    shorts = short, short, min(size, IN_EXTRA_32), min(start, IN_EXTRA_32)
    end = END.pack(END_MAGIC, 0, 0, *shorts, 0)
    return directory + end64 + locator64 + end


def _central(facts: _Facts) -> bytes:
    wide = facts.wide
    sizes = [IN_EXTRA_32] * 2 if facts.is_large else [facts.stored_size, facts.size]
    fixed = CENTRAL.pack(
        CENTRAL_MAGIC, 0, 0, facts.flags, facts.method, 0, 0, facts.crc, *sizes,
        len(facts.name), len(wide), 0, 0, 0, 0, min(facts.offset, IN_EXTRA_32),
    )  # fmt: skip
    return fixed + facts.name + wide
