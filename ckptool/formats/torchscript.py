"""TorchScript archives: `data.pkl`, `constants.pkl`, the code, and `bytecode.pkl` in lite ones.

The pickles give the modules' attributes; which of them are parameters and which buffers stands in
the code of each class, as `__parameters__ = ["weight", ]` and `__buffers__ = [...]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from ckptool.formats.archive import Archive, read_record
from ckptool.formats.container import Container, FileFacts, ModuleAttributes, crc_state
from ckptool.formats.storages import StorageTable
from ckptool.formats.torch_zip import PICKLE, read_byteorder
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.pickling.reader import Pickle, read_pickle
from ckptool.sources import FileSource
from ckptool.tensors.rebuild import REBUILD_CALLS

__all__ = ["is_torchscript", "read_torchscript"]

_PICKLES = ".pkl"
_CODE = "code/"
# The inputs that a module was traced with are kept without their bytes.
_TRACED_INPUTS = "traced_inputs.pkl"
_NO_STORAGES = (_CODE, "extra/", ".data/", "traced_inputs/")
_MANY_SOURCE_BYTES = 1 << 26

_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  .*\n?|\n)*)", re.MULTILINE)
_PARAMETERS = re.compile(r"^  __parameters__ = \[(.*?)\]", re.MULTILINE)
_BUFFERS = re.compile(r"^  __buffers__ = \[(.*?)\]", re.MULTILINE)
_NAME = re.compile(r'"(\w+)"')


def is_torchscript(archive: Archive) -> bool:
    """Whether an archive with a `data.pkl` was written by `torch.jit.save`."""
    return "constants.pkl" in archive.records or "bytecode.pkl" in archive.records


def read_torchscript(source: FileSource, archive: Archive, limits: Limits) -> Container:
    """Read the modules of an archive, and beside them the constants of its code."""
    extents = {
        name: extent
        for name, extent in (archive.records | archive.rest).items()
        if "/" in name and not name.startswith(_NO_STORAGES)
    }
    byteorder = read_byteorder(archive, limits)
    table = StorageTable(extents, byteorder)
    pickles: dict[str, Pickle] = {}
    for name, extent in archive.records.items():
        if name.endswith(_PICKLES) and "/" not in name and name != _TRACED_INPUTS:
            pickles[name] = read_pickle(
                read_record(extent, limits, name=name),
                calls={**REBUILD_CALLS, **_TYPED_LISTS},
                resolve=table.resolver(_key_in(name.removesuffix(_PICKLES))),
                limits=limits,
            )
    return Container(
        source=source,
        format="torchscript",
        file=FileFacts(
            source.path,
            source.size,
            pickles[PICKLE].protocol,
            byteorder,
            archive.name,
            crc_state(list(archive.records.values())),
        ),
        tree=pickles[PICKLE].tree,
        tree_bytes=sum(pickle.size for pickle in pickles.values()),
        beside={
            name: pickle.tree
            for name, pickle in pickles.items()
            if name != PICKLE and pickle.tree not in ((), None)
        },
        extents=extents,
        records=archive.records,
        referenced=frozenset(table.declared),
        globals=tuple(
            dict.fromkeys(name for pickle in pickles.values() for name in pickle.globals)
        ),
        script_classes=dict(_read_classes(archive, limits)),
        warnings=archive.warnings,
        damage=archive.damage,
    )


def _key_in(folder: str) -> Callable[[str], str]:
    # Each pickle counts its storages anew, in the folder of its name.
    return lambda key: f"{folder}/{key}"


def _first_argument(node: Opaque) -> Node:
    return node.args[0] if node.args else node


_TYPED_LISTS: Final = {
    Global("torch.jit._pickle", name): _first_argument
    for name in (
        "build_intlist",
        "build_doublelist",
        "build_boollist",
        "build_tensorlist",
        "restore_type_tag",
    )
}
"""Calls that hand their list through and only give it a static type."""


def _read_classes(archive: Archive, limits: Limits) -> Iterator[tuple[Global, ModuleAttributes]]:
    left = _MANY_SOURCE_BYTES
    for name, extent in archive.records.items():
        if not name.startswith(_CODE) or not name.endswith(".py"):
            continue
        module = name.removeprefix(_CODE).removesuffix(".py").replace("/", ".")
        source = read_record(extent, limits, name=name, most=left).decode("utf-8", "replace")
        left -= len(source)
        for match in _CLASS.finditer(source):
            body = match[2]
            yield (
                Global(module, match[1]),
                ModuleAttributes(_names(_PARAMETERS, body), _names(_BUFFERS, body)),
            )


def _names(pattern: re.Pattern[str], body: str) -> frozenset[str]:
    found = pattern.search(body)
    return frozenset(_NAME.findall(found[1])) if found else frozenset()
