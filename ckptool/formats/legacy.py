"""The stream that `torch.save` wrote before 1.6: five pickles in a row, then the storages.

The pickles are a magic number, the protocol version, system information, the object, and the
list of storage keys; each storage then is an 8-byte count of elements and its raw bytes, both
little-endian on every machine (`torch/csrc/generic/serialization.cpp`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ckptool.errors import ArchiveError, LimitExceededError, PickleStreamError
from ckptool.formats.container import Container, Damage, FileFacts
from ckptool.formats.content import EditedTree, NewStorage, Piece, Rewrite, piece_of
from ckptool.formats.storages import StorageTable
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global, Node, PersistentId
from ckptool.pickling.reader import Pickle, read_pickle
from ckptool.pickling.writer import write_pickle
from ckptool.sources import Extent, FileSource, Source
from ckptool.tensors.lowering import lower
from ckptool.tensors.rebuild import REBUILD_CALLS
from ckptool.tensors.refs import StorageRef, storage_in

__all__ = [
    "MAGIC_NUMBER",
    "LegacyStream",
    "encode_legacy",
    "read_legacy",
    "read_stream",
    "starts_as_legacy",
    "write_legacy",
]

MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_COUNT_BYTES = 8
_FIRST_WINDOW = 1 << 16
_WINDOW_GROWTH = 16


@dataclass(frozen=True, slots=True, eq=False)
class LegacyStream:
    """A legacy stream's object and where its storages are."""

    pickle: Pickle
    extents: dict[str, Extent]
    stray_bytes: int
    damage: Damage | None


def starts_as_legacy(source: Source, limits: Limits) -> bool:
    """Whether the first pickle is the magic number, in whatever protocol it is written."""
    try:
        first = read_pickle(source.read_up_to(0, 64), limits=limits)
    except (PickleStreamError, LimitExceededError):
        return False
    return bool(first.tree == MAGIC_NUMBER)


def read_legacy(source: FileSource, limits: Limits) -> Container:
    """Read a legacy checkpoint."""
    stream = read_stream(source, limits)
    return Container(
        source=source,
        format="torch-legacy",
        file=FileFacts(source.path, source.size, stream.pickle.protocol, "little"),
        tree=stream.pickle.tree,
        tree_bytes=stream.pickle.size,
        extents=stream.extents,
        referenced=frozenset(stream.extents),
        globals=stream.pickle.globals,
        warnings=_warn_of_rest(stream.stray_bytes),
        is_whole=stream.pickle.is_whole,
        stray_bytes=stream.stray_bytes,
        damage=stream.damage,
    )


def encode_legacy(
    container: Container, edited: EditedTree, _storages: Sequence[NewStorage]
) -> bytes:
    """Return an edited tree as the fourth pickle of a legacy stream."""
    start = _start_of_object(container.source, Limits())
    return write_pickle(
        edited.tree,
        protocol=container.file.protocol or 0,
        replaced=edited.replaced,
        lower=lower,
        source=container.source.read(start, container.tree_bytes),
    )


def write_legacy(container: Container, rewrite: Rewrite) -> Iterator[Piece]:
    """Yield the pieces of a legacy checkpoint: its pickles, then each storage behind its count."""
    source, limits = container.source, Limits()
    start = _start_of_object(source, limits)
    end = start + container.tree_bytes
    yield source.read(0, start)
    yield source.read(start, end - start) if rewrite.encoded is None else rewrite.encoded
    keys = _read_pickle_at(source, end, limits)
    wanted = [storage.key for storage in rewrite.storages]
    if wanted == keys.tree:
        yield source.read(end, keys.size)
    else:
        yield write_pickle(wanted, protocol=keys.protocol)
    for storage in rewrite.storages:
        yield storage.numel.to_bytes(_COUNT_BYTES, "little")
        yield piece_of(storage.content)


def read_stream(source: Source, limits: Limits) -> LegacyStream:
    """Read the five pickles and the counts of the storages behind them."""
    at = _start_of_object(source, limits)
    extents: dict[str, Extent] = {}
    table = StorageTable(extents)
    views: list[_View] = []
    pickle = _read_pickle_at(source, at, limits, _resolver(table, views))
    at += pickle.size
    keys = _read_pickle_at(source, at, limits)
    if type(keys.tree) is not list or not all(type(key) is str for key in keys.tree):
        raise ArchiveError("the list of storage keys is not a list of strings", offset=at)
    at += keys.size
    end, inside = _locate_storages(source, at, keys.tree, table.declared, extents)
    for view in views:
        root = extents.get(view.root.key)
        if root is not None:
            extents[view.key] = view.extent(root)
    stray = max(0, source.size - end)
    return LegacyStream(pickle, extents, stray, _damage(source, end, inside))


def _start_of_object(source: Source, limits: Limits) -> int:
    """The offset behind the magic number, the protocol version and the system information."""
    at = 0
    for expected in (MAGIC_NUMBER, _PROTOCOL_VERSION):
        pickle = _read_pickle_at(source, at, limits)
        if pickle.tree != expected:
            raise ArchiveError(f"{expected} should stand in the stream's head", offset=at)
        at += pickle.size
    return at + _read_pickle_at(source, at, limits).size


@dataclass(frozen=True, slots=True)
class _View:
    """A storage that is a part of another: `offset` and `numel` count the root's elements."""

    key: str
    root: StorageRef
    offset: int
    numel: int

    def extent(self, root: Extent) -> Extent:
        itemsize = self.root.dtype.itemsize
        size = max(0, min(self.numel * itemsize, root.size - self.offset * itemsize))
        return Extent(root.source, root.offset + self.offset * itemsize, size, size)


def _resolver(table: StorageTable, views: list[_View]) -> Callable[[Node], Node]:
    resolve_storage = table.resolver()

    def resolve(persistent_id: Node) -> Node:
        match persistent_id:
            case ("module", Global() as cls, *_):
                return PersistentId(persistent_id, stands_for=cls)
            case ("storage", cls, _, _, int(), (str() as key, int() as offset, int() as n)):
                reference = resolve_storage(persistent_id)
                root = storage_in(reference)
                if root is not None and offset >= 0 and n >= 0:
                    views.append(_View(key, root, offset, n))
                    reference.stands_for = table.declare(key, cls, root.location, n)
                return reference
        return resolve_storage(persistent_id)

    return resolve


def _locate_storages(
    source: Source,
    at: int,
    keys: list[str],
    declared: dict[str, StorageRef],
    extents: dict[str, Extent],
) -> tuple[int, str | None]:
    """Fill `extents`; a stream that is cut short leaves later storages out of them.

    Returns where the last storage should end, and the one that the file ends in, if it does.
    """
    inside = None
    for key in keys:
        storage = declared.get(key)
        if storage is None:
            raise ArchiveError("no tensor says what its type is", record=key, offset=at)
        count = source.read_up_to(at, _COUNT_BYTES)
        if len(count) < _COUNT_BYTES:
            inside = inside or key
        elif int.from_bytes(count, "little") != storage.numel:
            raise ArchiveError(
                f"has {int.from_bytes(count, 'little'):,} elements; "
                f"the pickle says {storage.numel:,}",
                record=key,
                offset=at,
            )
        at += _COUNT_BYTES
        size = min(storage.nbytes, source.size - at)
        if size >= 0:
            extents[key] = Extent(source, at, size, size)
        at += storage.nbytes
        if at > source.size:
            inside = inside or key
    return at, inside


def _damage(source: Source, end: int, inside: str | None) -> Damage | None:
    if inside is None:
        return None
    what = (
        f"the file ends at byte {source.size:,}, inside storage {inside!r}, "
        f"{end - source.size:,} bytes too early"
    )
    return Damage(what, source.size, inside)


def _warn_of_rest(stray_bytes: int) -> tuple[str, ...]:
    return (f"{stray_bytes:,} bytes follow the last storage",) if stray_bytes else ()


def _read_pickle_at(
    source: Source,
    at: int,
    limits: Limits,
    resolve: Callable[[Node], Node] = PersistentId,
) -> Pickle:
    """Read the pickle at an offset. Where it ends is not known before, so windows grow."""
    length = _FIRST_WINDOW
    while True:
        asked = min(length, limits.pickle_bytes + 1)
        window = source.read_up_to(at, asked)
        try:
            return read_pickle(window, calls=REBUILD_CALLS, resolve=resolve, limits=limits)
        except PickleStreamError as error:
            if not error.breaks_off or len(window) < asked or error.wanted > source.size - at:
                raise
        if asked > limits.pickle_bytes:
            raise LimitExceededError(
                "bytes in one pickle",
                allowed=limits.pickle_bytes,
                actual=asked,
                option="pickle-bytes",
            )
        length *= _WINDOW_GROWTH
