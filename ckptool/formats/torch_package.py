"""torch.package archives: sources, and pickles under any name that keep storages in `.data/`."""

from __future__ import annotations

from typing import Any

from ckptool.errors import PickleStreamError
from ckptool.formats.archive import Archive, read_record
from ckptool.formats.container import Container, FileFacts, crc_state
from ckptool.formats.storages import StorageTable
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global
from ckptool.pickling.reader import read_pickle
from ckptool.sources import FileSource
from ckptool.tensors.rebuild import REBUILD_CALLS

__all__ = ["is_torch_package", "read_torch_package"]

_HIDDEN = ".data/"
_STORAGE = ".storage"
_BYTEORDER = "byteorder"


def is_torch_package(archive: Archive) -> bool:
    """Whether the archive lists its external modules, as `PackageExporter` does."""
    return f"{_HIDDEN}extern_modules" in archive.records


def read_torch_package(source: FileSource, archive: Archive, limits: Limits) -> Container:
    """Read every pickle of a package; the tree has one branch per pickle, by its record's name."""
    extents = {
        name.removeprefix(_HIDDEN).removesuffix(_STORAGE): extent
        for name, extent in (archive.records | archive.rest).items()
        if name.startswith(_HIDDEN) and name.endswith(_STORAGE)
    }
    table = StorageTable(extents)
    tree: dict[str, Any] = {}
    globals_: dict[Global, None] = {}
    protocol = None
    tree_bytes = 0
    others: list[str] = []
    for name, extent in archive.records.items():
        if name.startswith(_HIDDEN) or name.endswith((".py", "/")) or name == _BYTEORDER:
            continue
        data = read_record(extent, limits, name=name)
        try:
            pickle = read_pickle(
                data,
                calls=REBUILD_CALLS,
                resolve=table.resolver(lambda key: key.removesuffix(_STORAGE)),
                limits=limits,
            )
        except PickleStreamError:
            # Texts and binary resources lie beside the pickles, and nothing tells which is which.
            others.append(name)
            continue
        tree[name] = pickle.tree
        tree_bytes += pickle.size
        globals_.update(dict.fromkeys(pickle.globals))
        protocol = pickle.protocol
    unread = (f"records that are no pickles: {', '.join(others)}",) if others else ()
    return Container(
        source=source,
        format="torch-package",
        file=FileFacts(
            source.path,
            source.size,
            protocol,
            "little",
            archive.name,
            crc_state(list(archive.records.values())),
        ),
        tree=tree,
        tree_bytes=tree_bytes,
        extents=extents,
        records=archive.records,
        referenced=frozenset(table.declared),
        globals=tuple(globals_),
        warnings=(*archive.warnings, *unread),
        damage=archive.damage,
    )
