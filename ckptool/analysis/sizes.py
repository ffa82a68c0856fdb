"""Bytes: per role, per storage, and what is stored without being used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.evidence import extra_state_of
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry, Status
from ckptool.tensors.refs import Components, Strided, TensorRef, storages_of

__all__ = [
    "Sizes",
    "StorageUse",
    "Total",
    "TotalName",
    "dense_parts",
    "measure",
    "measure_roots",
    "place_of",
    "ties",
]

TotalName: TypeAlias = Literal[
    "parameters",
    "persistent_buffers",
    "non_persistent_buffers",
    "stale_buffers",
    "buffers_of_unknown_persistence",
    "extra_state",
    "unexpected",
    "mismatched",
    "missing_parameters",
    "missing_persistent_buffers",
    "missing_non_persistent_buffers",
    "other_tensors",
]


@dataclass(frozen=True, slots=True)
class Total:
    """How many entries there are of one sort, and their bytes; those of tied ones count once."""

    count: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class StorageUse:
    """One storage: its bytes, those that tensors use, and the paths of these tensors.

    A storage can be referred to and have no paths: a tensor's attribute may hold it.
    """

    key: str
    nbytes: int
    used_bytes: int
    paths: tuple[str, ...]
    is_referenced: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a checkpoint's bytes are for: `totals` inside the root, and all that is outside."""

    totals: Mapping[TotalName, Total]
    outside: Total
    storages: tuple[StorageUse, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all storages."""
        return sum(storage.nbytes for storage in self.storages)

    @property
    def used_bytes(self) -> int:
        """The bytes that some tensor uses."""
        return sum(storage.used_bytes for storage in self.storages)

    @property
    def unreferenced(self) -> tuple[str, ...]:
        """The keys of storages that no tensor refers to."""
        return tuple(storage.key for storage in self.storages if not storage.is_referenced)


def measure(
    checkpoint: Checkpoint,
    classified: Sequence[ClassifiedEntry],
    absent: Sequence[AbsentTensor] = (),
) -> Sizes:
    """Add up the bytes of the entries inside the root per role, and look at all storages.

    What a model has and the root has not counts with the bytes that it has in the model.
    """
    outside = _total(one.entry.tensor for one in classified if one.name is None)
    totals = _totals(classified) | _totals_of_absent(absent)
    return Sizes(totals, outside, tuple(_storages(checkpoint)))


def measure_roots(checkpoint: Checkpoint) -> dict[KeyPath, Total]:
    """Return what each root holds, other roots inside it included, by its key path."""
    below: dict[KeyPath, list[Entry]] = defaultdict(list)
    for entry in checkpoint.entries:
        for root in checkpoint.roots_of(entry):
            below[root.keys].append(entry)
    return {keys: _total(entry.tensor for entry in entries) for keys, entries in below.items()}


def ties(entries: Iterable[Entry]) -> dict[int, tuple[Entry, ...]]:
    """Return, by the id of an entry, all that are tied, itself among them.

    Tied is the same storage, dtype, offset, shape and stride; disjoint slices of one storage are
    not, nor are tensors without elements.
    """
    groups: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.tensor is not None and entry.tensor.nbytes and (place := place_of(entry.tensor)):
            groups[place].append(entry)
    return {
        id(entry): group
        for group in map(tuple, groups.values())
        if len(group) > 1
        for entry in group
    }


def place_of(tensor: TensorRef) -> tuple[object, ...] | None:
    """What makes two tensors one; None for a tensor that is in no storage itself."""
    data = tensor.data
    if not isinstance(data, Strided):
        return None
    # An array inside a pickle is a storage without a key, in a mapping of its own.
    storage = (id(data.storage.extents), data.storage.key)
    return (storage, tensor.dtype, tensor.shape, *data[1:])


_OBJECTIONS: Final[Mapping[Status | None, TotalName]] = {
    "unexpected": "unexpected",
    "mismatched": "mismatched",
    "stale": "stale_buffers",
}


def _total_name(classified: ClassifiedEntry) -> TotalName:
    """Return the total that an entry counts towards; one that a model objects to, only there."""
    if classified.status in _OBJECTIONS:
        return _OBJECTIONS[classified.status]
    if classified.role == "parameter":
        return "parameters"
    if classified.role == "extra-state":
        return "extra_state"
    if classified.role != "buffer":
        return "other_tensors"
    if classified.is_persistent is None:
        return "buffers_of_unknown_persistence"
    return "persistent_buffers" if classified.is_persistent else "non_persistent_buffers"


def _totals(classified: Iterable[ClassifiedEntry]) -> dict[TotalName, Total]:
    groups: dict[TotalName, list[ClassifiedEntry]] = defaultdict(list)
    for one in classified:
        if one.name is not None:
            groups[_total_name(one)].append(one)
    totals = {name: _total(one.entry.tensor for one in group) for name, group in groups.items()}
    if "extra_state" in groups:
        # However many tensors an extra state is made of, it is one.
        whole = {extra_state_of(one.entry) for one in groups["extra_state"]}
        totals["extra_state"] = Total(len(whole), totals["extra_state"].nbytes)
    return totals


def _totals_of_absent(absent: Iterable[AbsentTensor]) -> dict[TotalName, Total]:
    groups: dict[TotalName, list[AbsentTensor]] = defaultdict(list)
    for one in absent:
        if one.status == "not-saved":
            groups["missing_non_persistent_buffers"].append(one)
        elif one.status == "missing" and one.role == "parameter":
            groups["missing_parameters"].append(one)
        elif one.status == "missing" and one.role == "buffer":
            groups["missing_persistent_buffers"].append(one)
    return {
        name: Total(len(group), sum(one.nbytes for one in group)) for name, group in groups.items()
    }


def _total(tensors: Iterable[TensorRef | None]) -> Total:
    count = nbytes = 0
    counted: set[tuple[object, ...]] = set()
    for tensor in tensors:
        count += tensor is not None
        for part in dense_parts(tensor):
            place = place_of(part)
            if place is None or place not in counted:
                nbytes += part.nbytes
            if place is not None:
                counted.add(place)
    return Total(count, nbytes)


def _storages(checkpoint: Checkpoint) -> Iterator[StorageUse]:
    users: dict[str, list[Entry]] = defaultdict(list)
    for entry in checkpoint.entries:
        if entry.tensor is not None:
            # Several components can lie in one storage.
            for key in {storage.key for storage in storages_of(entry.tensor)}:
                users[key].append(entry)
    for key, extent in checkpoint.extents.items():
        entries = users.get(key, [])
        yield StorageUse(
            key,
            extent.size,
            _used_bytes(key, entries, extent.size),
            tuple(entry.path for entry in entries),
            key in checkpoint.container.referenced,
        )


def _used_bytes(key: str, entries: Sequence[Entry], size: int) -> int:
    """The bytes of a storage that tensors use: the union of the runs that they span.

    A tensor with gaps spans more than it uses; the sum of all elements then bounds the union.
    """
    runs: set[tuple[int, int]] = set()
    elements: dict[tuple[object, ...] | None, int] = {}
    for entry in entries:
        for tensor in dense_parts(entry.tensor):
            data = tensor.data
            if isinstance(data, Strided) and data.storage.key == key and tensor.nbytes:
                start = tensor.dtype.nbytes_of(data.offset)
                runs.add((start, start + data.span_bytes(tensor.dtype, tensor.shape)))
                elements[place_of(tensor)] = tensor.nbytes
    union = behind = 0
    for start, end in sorted(runs):
        union += max(0, end - max(start, behind))
        behind = max(behind, end)
    return min(union, sum(elements.values()), size)


def dense_parts(tensor: TensorRef | None) -> Iterator[TensorRef]:
    """Yield the tensors that a tensor is made of, itself where it has no components."""
    if tensor is None:
        return
    if isinstance(tensor.data, Components):
        for part in tensor.data.parts:
            if isinstance(part.value, TensorRef):
                yield from dense_parts(part.value)
    else:
        yield tensor
