"""Persistent ids of torch's pickles, read into storages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Global, Node, PersistentId
from ckptool.sources import Extent
from ckptool.tensors.dtypes import DType, dtype_of_storage_class
from ckptool.tensors.refs import ByteOrder, StorageRef

__all__ = ["StorageTable"]


@dataclass(slots=True)
class StorageTable:
    """The storages that the pickles of one container name, by key.

    The same key is the same storage each time. `extents` may be filled after the pickle is read:
    a legacy stream says where its storages are only behind it.
    """

    extents: Mapping[str, Extent]
    byteorder: ByteOrder = "little"
    declared: dict[str, StorageRef] = field(default_factory=dict)
    _dtypes: dict[Global, DType] = field(default_factory=dict)

    def resolver(self, key_of: Callable[[str], str] = str) -> Callable[[Node], PersistentId]:
        """Return a function for `read_pickle`; `key_of` turns a pickle's key into this table's."""

        def resolve(persistent_id: Node) -> PersistentId:
            if (
                type(persistent_id) is tuple
                and len(persistent_id) >= 5
                and persistent_id[0] == "storage"
            ):
                _, storage_class, key, location, numel = persistent_id[:5]
                # torch.package numbers its storages, all others name them.
                if type(key) is int:
                    key = str(key)
                if (
                    type(key) is str
                    and type(numel) is int
                    and type(location) is str
                    and type(storage_class) is Global
                ):
                    storage = self.declare(key_of(key), storage_class, location, numel)
                    return PersistentId(persistent_id, storage)
            return PersistentId(persistent_id)

        return resolve

    def declare(
        self, key: str, storage_class: Global, location: str | None, numel: int
    ) -> StorageRef | None:
        """Return the storage of that key; None where the class is no storage class.

        Raises TensorError where the pickle declares one key twice and differently.
        """
        dtype = self._dtypes.get(storage_class)
        if dtype is None:
            dtype = dtype_of_storage_class(storage_class)
            if dtype is None:
                return None
            self._dtypes[storage_class] = dtype
        if numel < 0:
            return None
        known = self.declared.get(key)
        if known is None:
            known = StorageRef(key, dtype, location, numel, self.byteorder, self.extents)
            self.declared[key] = known
        elif known.dtype is not dtype or known.numel != numel:
            raise TensorError(
                f"storage {key!r} is declared twice: as {known.numel:,} elements of {known.dtype} "
                f"and as {numel:,} of {dtype}",
                storage_key=key,
            )
        return known
