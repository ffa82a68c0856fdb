"""Whether the bytes hold together: recorded CRCs, sizes, and tensors inside their storages."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ckptool.analysis.findings import Finding
from ckptool.analysis.progress import Progress, side_by_side
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import ArchiveError
from ckptool.sources import Extent
from ckptool.tensors.refs import storages_of
from ckptool.values import read_content

__all__ = ["crc_findings", "defect_findings"]


def defect_findings(
    checkpoint: Checkpoint, entries: Iterable[ClassifiedEntry]
) -> Iterator[Finding]:
    """Yield the tensors that have no bytes, too few, or reach outside of them."""
    names = {one.entry.path: one.name for one in entries}
    for defect in checkpoint.defects:
        path = defect.key_path
        if defect.code is not None and path is not None and path in names:
            yield Finding("integrity", defect.code, path or "/", names[path], defect.problem)


def crc_findings(
    checkpoint: Checkpoint,
    entries: Sequence[ClassifiedEntry],
    progress: Progress,
    *,
    is_whole: bool,
) -> list[Finding]:
    """Read every record whose CRC is recorded; return the tensors of those that differ.

    Unless `is_whole`, only records under the given entries are read.
    """
    users: dict[int, list[ClassifiedEntry]] = defaultdict(list)
    for one in entries:
        tensor = one.entry.tensor
        for storage in storages_of(tensor) if tensor is not None else ():
            if storage.extent is not None:
                users[storage.extent.offset].append(one)
    records = {
        name: extent
        for name, extent in checkpoint.container.records.items()
        if extent.crc is not None and extent.size and (is_whole or extent.offset in users)
    }
    progress.expect(sum(extent.size for extent in records.values()))
    broken = side_by_side(_is_broken, records.values(), progress)
    return [
        finding
        for (name, extent), is_broken in zip(records.items(), broken, strict=True)
        if is_broken
        for finding in _findings(name, users.get(extent.offset, ()))
    ]


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
