"""The zip that `torch.save` writes since 1.6: `data.pkl` and one record per storage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ckptool.errors import ArchiveError
from ckptool.formats.archive import Archive, read_record
from ckptool.formats.archive_writer import ALIGNMENT, Record, write_archive
from ckptool.formats.container import Container, FileFacts, crc_state
from ckptool.formats.content import Content, EditedTree, NewStorage, Piece, Rewrite
from ckptool.formats.storages import StorageTable
from ckptool.pickling.limits import Limits
from ckptool.pickling.reader import read_pickle
from ckptool.pickling.writer import write_pickle
from ckptool.sources import Extent, FileSource
from ckptool.tensors.lowering import lower
from ckptool.tensors.rebuild import REBUILD_CALLS
from ckptool.tensors.refs import ByteOrder

__all__ = [
    "PICKLE",
    "encode_torch_zip",
    "read_byteorder",
    "read_torch_zip",
    "write_torch_zip",
]

PICKLE = "data.pkl"
_STORAGES = "data/"
_BYTEORDER = "byteorder"
_ALIGNMENT = ".storage_alignment"
_SERIALIZATION_ID = ".data/serialization_id"
_OWN_RECORDS = frozenset(
    {PICKLE, _BYTEORDER, "version", ".format_version", _ALIGNMENT, _SERIALIZATION_ID, ""}
)
# An extra field has at most so many bytes; torch itself takes powers of two.
_LARGEST_ALIGNMENT = 1 << 15


def read_torch_zip(source: FileSource, archive: Archive, limits: Limits) -> Container:
    """Read a zip checkpoint: its pickle, and where its storages are."""
    byteorder = read_byteorder(archive, limits)
    extents = {
        name.removeprefix(_STORAGES): extent
        for name, extent in (archive.records | archive.rest).items()
        if name.startswith(_STORAGES) and name != _STORAGES
    }
    table = StorageTable(extents, byteorder)
    data = read_record(archive.records[PICKLE], limits, name=PICKLE)
    pickle = read_pickle(data, calls=REBUILD_CALLS, resolve=table.resolver(), limits=limits)
    return Container(
        source=source,
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
        is_whole=pickle.is_whole,
        stray_bytes=archive.stray_bytes,
        damage=archive.damage,
    )


def encode_torch_zip(
    container: Container, edited: EditedTree, _storages: Sequence[NewStorage]
) -> bytes:
    """Return an edited tree as the pickle of a zip checkpoint."""
    extent = container.records[PICKLE]
    return write_pickle(
        edited.tree,
        protocol=container.file.protocol or 0,
        replaced=edited.replaced,
        lower=lower,
        # It was read before, so that no limit is in its way.
        source=read_record(extent, Limits(pickle_bytes=extent.size, inflation=extent.size)),
    )


def write_torch_zip(container: Container, rewrite: Rewrite) -> Iterator[Piece]:
    """Yield the pieces of a zip checkpoint, its records in the order of the one that was read.

    The id of the serialization is left out: torch makes it from the content, by the hashes and the
    order of hash tables of the machine that it runs on.
    """
    stay: dict[str, list[NewStorage]] = defaultdict(list)
    for storage in rewrite.storages:
        stay[storage.old_key].append(storage)
    folder = f"{container.file.archive_name}/"
    records = _records(container, rewrite, stay)
    named = (Record(folder + name, content) for name, content in records)
    return write_archive(named, _alignment(container))


def _records(
    container: Container, rewrite: Rewrite, stay: Mapping[str, list[NewStorage]]
) -> Iterator[Record]:
    for name, extent in container.records.items():
        if name == PICKLE and rewrite.encoded is not None:
            yield Record(name, rewrite.encoded)
        elif name.startswith(_STORAGES) and name != _STORAGES:
            for storage in stay.get(name.removeprefix(_STORAGES), ()):
                yield Record(_STORAGES + storage.key, storage.content)
        elif name != _SERIALIZATION_ID:
            yield Record(name, Content(extent, 0, extent.size))


def _alignment(container: Container) -> int:
    """What the file says that its data is aligned to; files before torch 2.7 do not say."""
    record = container.records.get(_ALIGNMENT)
    text = b"" if record is None else read_record(record, Limits(), most=16)
    said = int(text) if text.isdigit() else 0
    is_possible = 0 < said <= _LARGEST_ALIGNMENT and said.bit_count() == 1
    return said if is_possible else ALIGNMENT


def read_byteorder(archive: Archive, limits: Limits) -> ByteOrder:
    """Return the byte order of the storages; files before 2.1 do not say and are little-endian."""
    record = archive.records.get(_BYTEORDER)
    if record is None:
        return "little"
    match read_record(record, limits, name=_BYTEORDER, most=64):
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
