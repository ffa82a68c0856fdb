"""What every format hands on: the tree, where the storages are, and the container's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ckptool.pickling.nodes import Global, Node
from ckptool.sources import Extent, Source
from ckptool.tensors.refs import ByteOrder

__all__ = [
    "Container",
    "CrcState",
    "Damage",
    "FileFacts",
    "FormatName",
    "ModuleAttributes",
    "crc_state",
]

FormatName: TypeAlias = Literal[
    "torch-zip", "torch-legacy", "torchscript", "torch-package", "pickle", "safetensors"
]
CrcState: TypeAlias = Literal["recorded", "absent", "partly"]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file of a checkpoint; what a format does not have is None."""

    path: Path
    nbytes: int
    protocol: int | None = None
    byteorder: ByteOrder | None = None
    archive_name: str | None = None
    crc: CrcState | None = None


@dataclass(frozen=True, slots=True)
class ModuleAttributes:
    """Which attributes of a TorchScript class are parameters, which buffers."""

    parameters: frozenset[str]
    buffers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file is cut short: in words, in bytes, and in which record, if it is in one."""

    what: str
    offset: int
    record: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """A file read as its format: `tree` in the file's order, `extents` by storage key.

    `tree_bytes` is how many bytes the tree was read from; `is_whole` says that it has all that they
    make. `referenced` are the storage keys that a pickle names. `globals` are the names in the
    pickles, in the order of their first use. `records` are all records of an archive, storages
    among them, by their names. `script_classes` is what the code of a TorchScript archive says of
    its classes, and `beside` holds the trees of its other pickles by their records' names.
    `stray_bytes` belong to no part of the format: they stand before or behind all of it. With
    `damage` the file ends too early, and later storages have fewer bytes than they should, or none.
    """

    source: Source
    format: FormatName
    file: FileFacts
    tree: Node
    tree_bytes: int
    extents: Mapping[str, Extent]
    referenced: frozenset[str]
    globals: tuple[Global, ...] = ()
    records: Mapping[str, Extent] = field(default_factory=dict)
    beside: Mapping[str, Node] = field(default_factory=dict)
    script_classes: Mapping[Global, ModuleAttributes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    is_whole: bool = True
    stray_bytes: int = 0
    damage: Damage | None = None


def crc_state(extents: list[Extent]) -> CrcState:
    """Whether the CRC of records with content is recorded: for all, for some, or for none."""
    recorded = {extent.crc is not None for extent in extents if extent.size}
    if len(recorded) == 2:
        return "partly"
    return "absent" if recorded == {False} else "recorded"
