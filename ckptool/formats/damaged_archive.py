"""Archives that are not as they were written: cut short, or put behind other bytes.

Without its directory an archive is read from its local headers. torch leaves CRC and sizes out of
these, since it knows them only after the data; they then stand in a descriptor behind it, which has
to be searched for. Nothing is made up for what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ckptool.errors import ArchiveError, CkptoolError
from ckptool.formats.archive import (
    Archive,
    find_end,
    in_one_folder,
    locate_directory,
    read_headers,
    zip64_fields,
)
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
    IN_EXTRA_32,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR64,
    LOCATOR64_MAGIC,
    STORED,
)
from ckptool.formats.container import Damage
from ckptool.sources import Extent, Source

__all__ = ["LocalRecord", "data_start", "find_archive", "read_cut_archive", "walk_records"]

_WINDOW: Final = 1 << 20


def find_archive(source: Source) -> int | None:
    """Return the offset of the first record of the archive that ends a file, None without one.

    Whatever was put before it may have moved all its records, or may be counted in their offsets.
    """
    end = find_end(source)
    if end is None:
        return None
    try:
        headers = read_headers(source, locate_directory(source))
        return min((header.offset for header in headers), default=None)
    except CkptoolError:
        return _moved_archive(source, end)


def _moved_archive(source: Source, end: int) -> int | None:
    try:
        *_, size, offset, _ = END.unpack(source.read(end, END.size))
        if source.read_up_to(max(0, end - LOCATOR64.size), 4) == LOCATOR64_MAGIC:
            end -= LOCATOR64.size + END64.size
            *_, size, offset = END64.unpack(source.read(max(0, end), END64.size))
        start = end - size
        first = CENTRAL.unpack(source.read(max(0, start), CENTRAL.size))
        at: int = first[-1] + start - offset
        return at if source.read(max(0, at), len(LOCAL_MAGIC)) == LOCAL_MAGIC else None
    except CkptoolError:  # whatever ends the file is no archive
        return None


def read_cut_archive(source: Source) -> Archive:
    """Read the records that an archive without its directory still has.

    `damage` says where it breaks off, `rest` what is left of the record that it does so in: that
    extent ends with the file and has no CRC.
    """
    records: list[LocalRecord] = list(walk_records(source))
    end = records[-1].end if records else 0
    is_in_directory = source.read_up_to(end, len(CENTRAL_MAGIC)) == CENTRAL_MAGIC
    what = f"the file ends at byte {source.size:,}"
    place = "inside its directory" if is_in_directory else "between two records"
    damage = Damage(f"{what}, {place}", source.size)
    folder, inside = in_one_folder({record.name: record.extent for record in records})
    rest: dict[str, Extent] = {}
    if records and not records[-1].is_whole:
        last = records[-1].name
        damage = Damage(f"{what}, inside record {last!r}", source.size, last)
        rest = dict([inside.popitem()])
    return Archive(folder, inside, damage=damage, rest=rest)


def data_start(source: Source, at: int) -> int | None:
    """Return where the data behind a local header begins, None where no local header is."""
    header = source.read_up_to(at, LOCAL.size) if at < source.size else b""
    if len(header) < LOCAL.size or not header.startswith(LOCAL_MAGIC):
        return None
    *_, name_length, extra_length = LOCAL.unpack(header)
    start: int = at + LOCAL.size + name_length + extra_length
    return start if start <= source.size else None


class LocalRecord(NamedTuple):
    """A record by its local header alone; `is_whole` says that it ends before the file does."""

    name: str
    extent: Extent
    end: int
    is_whole: bool


def walk_records(source: Source, at: int = 0) -> Iterator[LocalRecord]:
    """Yield the records that follow each other from an offset on, whatever a directory says."""
    while at + LOCAL.size <= source.size:
        found = _read_at(source, at)
        if found is None:
            return
        yield found
        at = found.end


def _read_at(source: Source, at: int) -> LocalRecord | None:
    """The record with its local header at an offset, None where there is none."""
    header = source.read(at, LOCAL.size)
    if not header.startswith(LOCAL_MAGIC):
        return None
    _, _, flags, method, _, _, crc, stored_size, size, name_length, extra_length = LOCAL.unpack(
        header
    )
    if method not in (STORED, DEFLATED):
        return None
    start = at + LOCAL.size + name_length + extra_length
    if start > source.size:
        return None
    raw_name = source.read(at + LOCAL.size, name_length)
    name = raw_name.decode("utf-8", "surrogateescape")
    if IN_EXTRA_32 in (stored_size, size) and not flags & DESCRIPTOR_FOLLOWS:
        extra = source.read(start - extra_length, extra_length)
        try:
            size, stored_size = zip64_fields(raw_name, extra, [size, stored_size])
        except ArchiveError:
            return None
    if flags & DESCRIPTOR_FOLLOWS:
        described = _find_descriptor(source, start)
        if described is None:
            return _rest(source, name, start, method)
        crc, stored_size, size, end = described
    else:
        end = start + stored_size
        if end > source.size:
            return _rest(source, name, start, method)
    known = crc or (None if size else 0)
    extent = Extent(source, start, size, stored_size, method == DEFLATED, known)
    return LocalRecord(name, extent, end, True)


def _rest(source: Source, name: str, start: int, method: int) -> LocalRecord:
    """What is left of a record that the file ends in; of a deflated one nothing can be told."""
    left = source.size - start if method == STORED else 0
    return LocalRecord(name, Extent(source, start, left, left), source.size, False)


def _find_descriptor(source: Source, start: int) -> tuple[int, int, int, int] | None:
    """CRC, sizes, and the end of the descriptor that says how many bytes lie before it."""
    at = start
    overlap = DESCRIPTOR64.size - 1
    while at < source.size:
        window = source.read_up_to(at, _WINDOW + overlap)
        found = window.find(DESCRIPTOR_MAGIC)
        while 0 <= found < _WINDOW:
            for layout in (DESCRIPTOR, DESCRIPTOR64):
                if found + layout.size > len(window):
                    continue
                _, crc, stored_size, size = layout.unpack_from(window, found)
                end = at + found + layout.size
                if stored_size == at + found - start and _goes_on(source, end):
                    return crc, stored_size, size, end
            found = window.find(DESCRIPTOR_MAGIC, found + 1)
        at += _WINDOW
    return None


def _goes_on(source: Source, at: int) -> bool:
    """Whether an archive goes on at an offset, or the file ends there."""
    magic = source.read_up_to(at, len(LOCAL_MAGIC))
    return any(begin.startswith(magic) for begin in (LOCAL_MAGIC, CENTRAL_MAGIC))
