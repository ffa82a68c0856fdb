"""Whether the bytes hold together: recorded CRCs, sizes, and tensors inside their storages."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckptool.analysis.findings import Finding
from ckptool.analysis.progress import Progress, side_by_side
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import ArchiveError
from ckptool.sources import Extent, read_content
from ckptool.tensors.refs import storages_of

__all__ = ["Records", "check_records", "defect_findings"]


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a file that have content: how many there are, were read, and were right."""

    total: int
    read: int
    right: int


def defect_findings(
    checkpoint: Checkpoint, entries: Iterable[ClassifiedEntry]
) -> Iterator[Finding]:
    """Yield where the file breaks off, and tensors that have no bytes, or not all of them."""
    damage = checkpoint.container.damage
    if damage is not None:
        yield Finding("integrity", "cut-short", damage.record or "/", None, damage.what)
    asked_for = {id(one.entry): one for one in entries}
    for entry, error in checkpoint.defects:
        one = asked_for.get(id(entry))
        if one is not None and error.code is not None:
            yield Finding("integrity", error.code, entry.path or "/", one.name, error.problem)


def check_records(
    checkpoint: Checkpoint,
    entries: Sequence[ClassifiedEntry],
    progress: Progress,
    *,
    is_whole: bool,
) -> tuple[Records, list[Finding]]:
    """Read every record whose CRC is recorded; return the tensors of those that differ.

    Unless `is_whole`, only records under the given entries are read.
    """
    users: dict[int, list[ClassifiedEntry]] = defaultdict(list)
    for one in entries:
        tensor = one.entry.tensor
        for storage in storages_of(tensor) if tensor is not None else ():
            if storage.extent is not None:
                users[storage.extent.offset].append(one)
    records = {name: extent for name, extent in checkpoint.container.records.items() if extent.size}
    read = {
        name: extent
        for name, extent in records.items()
        if extent.crc is not None and (is_whole or extent.offset in users)
    }
    progress.expect(sum(extent.size for extent in read.values()))
    broken = [
        name
        for name, is_broken in zip(
            read, side_by_side(_is_broken, read.values(), progress), strict=True
        )
        if is_broken
    ]
    findings = [
        finding for name in broken for finding in _findings(name, users.get(read[name].offset, ()))
    ]
    return Records(len(records), len(read), len(read) - len(broken)), findings


def _findings(record: str, users: Sequence[ClassifiedEntry]) -> Iterator[Finding]:
    detail = f"record {record} does not have the CRC that is recorded"
    if not users:
        yield Finding("integrity", "crc", record, None, detail)
    for one in {id(one): one for one in users}.values():
        yield Finding("integrity", "crc", one.entry.path or "/", one.name, detail)


def _is_broken(extent: Extent, progress: Progress) -> bool:
    crc = 0
    try:
        for chunk in read_content(extent):
            crc = zlib.crc32(chunk, crc)
            progress.advance(len(chunk))
    except ArchiveError:  # it cannot even be inflated
        return True
    return crc != extent.crc
