"""Zip archives as PyTorch writes them: the directory, and the bytes of one record.

The standard library's `zipfile` is not used: it takes the directory's word where a local header
says otherwise, lets records overlap, and calls an unrecorded CRC a bad one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from ckptool.errors import ArchiveError, LimitExceededError
from ckptool.formats.archive_layout import (
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    DESCRIPTOR_FOLLOWS,
    ENCRYPTED,
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
    STORED,
    ZIP64_EXTRA,
)
from ckptool.formats.container import Damage
from ckptool.pickling.limits import Limits
from ckptool.sources import Extent, Source

__all__ = [
    "Archive",
    "Directory",
    "Header",
    "find_end",
    "in_one_folder",
    "locate_directory",
    "read_archive",
    "read_headers",
    "read_record",
    "zip64_fields",
]

_LONGEST_COMMENT = 0xFFFF
_PAGE = 4096
_LARGEST_OFFSET = (1 << 63) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Archive:
    """The records of an archive by their names inside its top folder, in directory order.

    `name` is that folder, None where the records do not share one; they then have their full
    names. `stray_bytes` stand before the first record or follow the archive. `damage` says where an
    archive breaks off; `rest` is then the record that it does so in, with the bytes that are left.
    """

    name: str | None
    records: dict[str, Extent]
    warnings: tuple[str, ...] = ()
    stray_bytes: int = 0
    damage: Damage | None = None
    rest: dict[str, Extent] = field(default_factory=dict)


class Header(NamedTuple):
    """What the directory says of one record; `offset` is that of its local header."""

    text: str
    name: bytes
    flags: int
    method: int
    crc: int
    stored_size: int
    size: int
    offset: int


class _PageReader:
    """Reads short runs in ascending order, a page at a time: small records share one."""

    __slots__ = ("_page", "_source", "_start")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start = 0
        self._page = b""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, or as many as there are."""
        at = offset - self._start
        if at < 0 or at + length > len(self._page):
            self._page = self._source.read_up_to(offset, max(length, _PAGE))
            self._start, at = offset, 0
        return self._page[at : at + length]


def read_archive(source: Source) -> Archive:
    """Read the directory and hold every local header against it.

    Raises ArchiveError where records disagree with the directory, overlap, or share a name.
    """
    directory = locate_directory(source)
    headers = read_headers(source, directory)
    records: dict[str, Extent] = {}
    names: set[bytes] = set()
    behind = 0
    headers_read = _PageReader(source)
    ordered = sorted(headers, key=attrgetter("offset"))
    for header in ordered:
        name = header.text
        start = _check_local_header(headers_read, header)
        if header.offset < behind:
            raise ArchiveError("overlaps the record before it", record=name, offset=header.offset)
        behind = start + header.stored_size
        # torch takes names that differ in the case of letters for the same.
        if (folded := header.name.lower()) in names:
            raise ArchiveError("is in the archive twice", record=name, offset=header.offset)
        names.add(folded)
        records[name] = Extent(
            source,
            start,
            header.size,
            header.stored_size,
            header.method == DEFLATED,
            # 0 stands for "not recorded" (torch.serialization.set_crc32_options(False)).
            header.crc or (None if header.size else 0),
        )
    if behind > directory.offset:
        raise ArchiveError("the records reach into the directory", offset=directory.offset)
    if ordered != headers:
        records = {header.text: records[header.text] for header in headers}
    warnings = tuple(_warnings(headers, directory))
    stray = directory.behind + min((header.offset for header in headers), default=0)
    return Archive(*in_one_folder(records), warnings, stray)


def read_headers(source: Source, directory: Directory) -> list[Header]:
    """Return what the directory says of its records, before anything is held against it."""
    return _split_headers(source.read(directory.offset, directory.size), directory.records)


def in_one_folder(records: dict[str, Extent]) -> tuple[str | None, dict[str, Extent]]:
    """Return the folder that all records are in, and the records by their names inside it.

    Where they do not share one, None and the records as they are.
    """
    folder = next(iter(records), "").partition("/")[0] + "/"
    if not records or not all(name.startswith(folder) for name in records):
        return None, records
    return folder[:-1], {name[len(folder) :]: extent for name, extent in records.items()}


def read_record(
    extent: Extent, limits: Limits, *, name: str | None = None, most: int | None = None
) -> bytes:
    """Return a record's content, inflated where it is deflated, its CRC checked where recorded.

    `most` bounds the size in bytes, by default to that of a pickle. `name` is for the error.
    """
    option, allowed = ("pickle-bytes", limits.pickle_bytes) if most is None else (None, most)
    if extent.size > allowed:
        raise LimitExceededError(
            "bytes in one record", allowed=allowed, actual=extent.size, option=option
        )
    data = extent.source.read(extent.offset, extent.stored_size)
    if extent.is_deflated:
        data = _inflate(data, extent, limits, name)
    if extent.crc is not None and zlib.crc32(data) != extent.crc:
        raise ArchiveError(
            "its bytes do not have the CRC that is recorded", record=name, offset=extent.offset
        )
    return data


def _inflate(data: bytes, extent: Extent, limits: Limits, name: str | None) -> bytes:
    if extent.size > limits.inflation * extent.stored_size + 1024:
        raise LimitExceededError(
            "bytes per deflated byte",
            allowed=limits.inflation,
            actual=extent.size // max(1, extent.stored_size),
            option="inflation",
        )
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(data, extent.size + 1)
    except zlib.error as error:
        raise ArchiveError(
            f"cannot be inflated: {error}", record=name, offset=extent.offset
        ) from error
    if len(content) != extent.size:
        raise ArchiveError(
            "inflates to another size than is recorded", record=name, offset=extent.offset
        )
    return content


def find_end(source: Source) -> int | None:
    """Return the offset of the end record, None in a file that is cut short.

    It is the last one there is, as torch's own reader takes it.
    """
    length = min(source.size, END.size + _LONGEST_COMMENT)
    tail = source.read(source.size - length, length)
    at = tail.rfind(END_MAGIC, 0, len(tail) - END.size + len(END_MAGIC))
    return None if at < 0 else source.size - length + at


class Directory(NamedTuple):
    """Where the directory is, and where the end records begin and end.

    `behind` are the bytes that follow the archive and its comment.
    """

    offset: int
    size: int
    records: int
    ends_from: int
    ends_to: int
    behind: int


def locate_directory(source: Source) -> Directory:
    """Return where the end records say that the directory is; raise ArchiveError where they lie."""
    end = find_end(source)
    if end is None:
        raise ArchiveError("the directory at its end is not there")
    (_, disk, start_disk, _, count, size, offset, comment) = END.unpack(source.read(end, END.size))
    if (disk, start_disk) not in ((0, 0), (IN_EXTRA_16, IN_EXTRA_16)):
        raise ArchiveError("the archive is split over several files", offset=end)
    ends_from = end
    if end >= LOCATOR64.size:
        magic, _, end64, _ = LOCATOR64.unpack(source.read(end - LOCATOR64.size, LOCATOR64.size))
        if magic == LOCATOR64_MAGIC:
            *_, count64, size64, offset64 = _read_end64(source, end64)
            ends_from = end64
            _agree("number of records", count, count64, IN_EXTRA_16)
            _agree("size of the directory", size, size64, IN_EXTRA_32)
            _agree("offset of the directory", offset, offset64, IN_EXTRA_32)
            count, size, offset = count64, size64, offset64
    if offset + size > end:
        raise ArchiveError("the directory does not end before its end record", offset=end)
    behind = max(0, source.size - end - END.size - comment)
    return Directory(offset, size, count, ends_from, end + END.size, behind)


def _read_end64(source: Source, offset: int) -> tuple[int, ...]:
    if offset + END64.size > source.size:
        raise ArchiveError("the ZIP64 end record is not in the file", offset=offset)
    magic, *fields = END64.unpack(source.read(offset, END64.size))
    if magic != END64_MAGIC:
        raise ArchiveError("the ZIP64 end record is not where it should be", offset=offset)
    return tuple(fields)


def _agree(what: str, short: int, long: int, in_extra: int) -> None:
    if short not in (in_extra, long):
        raise ArchiveError(f"the two end records differ in the {what}: {short} and {long}")


def _split_headers(directory: bytes, count: int) -> list[Header]:
    headers = []
    at = 0
    for _ in range(count):
        if at + CENTRAL.size > len(directory):
            raise ArchiveError(f"the directory has fewer records than the {count} it names")
        (magic, _, _, flags, method, _, _, crc, stored_size, size, name_length, extra_length,
         comment_length, _, _, _, offset) = CENTRAL.unpack_from(directory, at)  # fmt: skip
        if magic != CENTRAL_MAGIC:
            raise ArchiveError("the directory breaks off", offset=at)
        at += CENTRAL.size
        name = directory[at : at + name_length]
        if IN_EXTRA_32 in (stored_size, size, offset):
            extra = directory[at + name_length : at + name_length + extra_length]
            size, stored_size, offset = zip64_fields(name, extra, [size, stored_size, offset])
        at += name_length + extra_length + comment_length
        headers.append(Header(_text(name), name, flags, method, crc, stored_size, size, offset))
    if at != len(directory):
        raise ArchiveError(f"the directory has more records than the {count} it names")
    return headers


def zip64_fields(name: bytes, extra: bytes, fields: list[int]) -> list[int]:
    """Return the fields, those that did not fit into 32 bits from the ZIP64 extra field.

    Raises ArchiveError where it does not have them.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == ZIP64_EXTRA:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - at) // 8}Q", extra, at))
            try:
                return [next(wide) if field == IN_EXTRA_32 else field for field in fields]
            except StopIteration:
                break
        at += length
    raise ArchiveError("its ZIP64 sizes are missing", record=_text(name))


def _check_local_header(pages: _PageReader, header: Header) -> int:
    """Return the offset of the record's bytes, after its local header agreed with the directory."""
    name = header.text
    if header.method not in (STORED, DEFLATED):
        raise ArchiveError(
            f"compression method {header.method} is not one torch reads", record=name
        )
    if header.method == STORED and header.stored_size != header.size:
        raise ArchiveError("is stored, but with two different sizes", record=name)
    length = LOCAL.size + len(header.name)
    raw = pages.read(header.offset, length) if header.offset <= _LARGEST_OFFSET else b""
    if len(raw) != length or not raw.startswith(LOCAL_MAGIC):
        raise ArchiveError("its local header is not there", record=name, offset=header.offset)
    (_, _, flags, method, _, _, crc, stored_size, size, name_length, extra_length) = (
        LOCAL.unpack_from(raw)
    )
    if raw[LOCAL.size :] != header.name or name_length != len(header.name):
        raise ArchiveError("its local header has another name", record=name, offset=header.offset)
    start: int = header.offset + length + extra_length
    if IN_EXTRA_32 in (stored_size, size):
        extra = pages.read(header.offset + length, extra_length)
        size, stored_size = zip64_fields(header.name, extra, [size, stored_size])
    local = (crc, stored_size, size)
    # With a descriptor, sizes and CRC may not have been known yet when it was written.
    unknown = (0, IN_EXTRA_32) if flags & DESCRIPTOR_FOLLOWS else ()
    told = (header.crc, header.stored_size, header.size)
    agrees = all(a == b or a in unknown for a, b in zip(local, told, strict=True))
    if method != header.method or not agrees:
        raise ArchiveError(
            "its local header and the directory differ", record=name, offset=header.offset
        )
    return start


def _warnings(headers: list[Header], directory: Directory) -> Iterator[str]:
    if any(header.flags & ENCRYPTED for header in headers):
        yield "records are marked as encrypted; torch ignores the mark, so it is ignored"
    before = min((header.offset for header in headers), default=0)
    if before:
        yield f"{before:,} bytes stand before the archive and belong to none of its records"
    if directory.behind:
        yield f"{directory.behind:,} bytes follow the archive"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
