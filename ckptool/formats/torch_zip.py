"""The zip that `torch.save` writes since 1.6: `data.pkl` and one record per storage."""

from __future__ import annotations

from collections.abc import Mapping

from ckptool.errors import ArchiveError
from ckptool.formats.archive import Archive, read_record
from ckptool.formats.container import Container, FileFacts, crc_state
from ckptool.formats.storages import StorageTable
from ckptool.pickling.limits import Limits
from ckptool.pickling.reader import read_pickle
from ckptool.sources import Extent, FileSource
from ckptool.tensors.rebuild import REBUILD_CALLS
from ckptool.tensors.refs import ByteOrder

__all__ = ["PICKLE", "read_byteorder", "read_torch_zip"]

PICKLE = "data.pkl"
_STORAGES = "data/"
_BYTEORDER = "byteorder"
_OWN_RECORDS = frozenset(
    {PICKLE, _BYTEORDER, "version", ".format_version", ".storage_alignment",
     ".data/serialization_id", ""}
)  # fmt: skip


def read_torch_zip(source: FileSource, archive: Archive, limits: Limits) -> Container:
    """Read a zip checkpoint: its pickle, and where its storages are."""
    byteorder = read_byteorder(archive, limits)
    extents = {
        name.removeprefix(_STORAGES): extent
        for name, extent in archive.records.items()
        if name.startswith(_STORAGES) and name != _STORAGES
    }
    table = StorageTable(extents, byteorder)
    data = read_record(archive.records[PICKLE], limits)
    pickle = read_pickle(data, calls=REBUILD_CALLS, resolve=table.resolver(), limits=limits)
    return Container(
        format="torch-zip",
        file=FileFacts(
            source.path,
            source.size,
            pickle.protocol,
            byteorder,
            archive.name,
            crc_state(list(archive.records.values())),
        ),
        tree=pickle.tree,
        tree_bytes=pickle.size,
        extents=extents,
        records=archive.records,
        referenced=frozenset(table.declared),
        globals=pickle.globals,
        warnings=(
            *archive.warnings,
            *_warn_of_compressed(extents),
            *_warn_of_others(archive),
            *_warn_of_rest(data, pickle.size),
        ),
    )


def read_byteorder(archive: Archive, limits: Limits) -> ByteOrder:
    """Return the byte order of the storages; files before 2.1 do not say and are little-endian."""
    record = archive.records.get(_BYTEORDER)
    if record is None:
        return "little"
    match read_record(record, limits, most=64):
        case b"little":
            return "little"
        case b"big":
            return "big"
        case other:
            raise ArchiveError(f"names byte order {other!r}", record=_BYTEORDER)


def _warn_of_compressed(extents: Mapping[str, Extent]) -> tuple[str, ...]:
    compressed = [key for key, extent in extents.items() if extent.is_deflated]
    if not compressed:
        return ()
    return (
        f"storages are compressed ({len(compressed):,} of {len(extents):,}): "
        "torch.load(mmap=True) gives wrong numbers for such a file",
    )


def _warn_of_others(archive: Archive) -> tuple[str, ...]:
    others = [
        name
        for name in archive.records
        if name not in _OWN_RECORDS and not name.startswith(_STORAGES) and not name.endswith("/")
    ]
    if not others:
        return ()
    return (f"records that torch.load does not read: {', '.join(others)}",)


def _warn_of_rest(data: bytes, size: int) -> tuple[str, ...]:
    if size == len(data):
        return ()
    return (f"{len(data) - size:,} bytes follow the end of the pickle in {PICKLE}",)
