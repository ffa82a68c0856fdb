"""Which bytes of which storage stay, once a tree is edited.

All of a storage that is in use is copied whole. Otherwise each run of bytes that tensors reach,
overlapping ones together, becomes a storage of its own, so that a small view no longer drags a
large storage along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

from ckptool.formats.container import Container
from ckptool.formats.content import Content, EditedTree, NewStorage
from ckptool.pickling.nodes import Node, Opaque, PersistentId, children
from ckptool.sources import Extent
from ckptool.tensors.lowering import in_other_storage, own_part, storage_reference
from ckptool.tensors.refs import (
    Component,
    Components,
    StorageRef,
    Strided,
    TensorRef,
    components,
    storage_in,
)

__all__ = ["Compaction", "compact", "keep_all", "pieced_storages"]


@dataclass(frozen=True, slots=True, eq=False)
class Compaction:
    """The storages that stay, in the order of the file, and the tensors that moved.

    `moved` is by the identity of the tensor in the tree that was read.
    """

    storages: tuple[NewStorage, ...]
    moved: Mapping[int, TensorRef]


class _Use(NamedTuple):
    """A tensor whose call names a storage, and the elements that it takes from it."""

    tensor: TensorRef
    part: TensorRef


def keep_all(container: Container) -> tuple[NewStorage, ...]:
    """Return every storage as it is, those that nothing refers to included."""
    uses = _Uses(EditedTree(container.tree, {}))
    keys = [key for key, _ in _in_file_order(container) if key not in uses.views]
    return tuple(_whole(container, key, uses) for key in keys)


def pieced_storages(container: Container) -> frozenset[str]:
    """Return the keys of storages that are pieces of others, and of those that they are in."""
    if container.format != "torch-legacy":
        return frozenset()
    uses = _Uses(EditedTree(container.tree, {}))
    return frozenset(uses.views | uses.cut_up)


def compact(container: Container, edited: EditedTree) -> Compaction:
    """Keep what an edited tree refers to."""
    uses = _Uses(edited)
    keys = _new_keys(container.extents)
    storages: list[NewStorage] = []
    moved: dict[int, TensorRef] = {}
    for key, extent in _in_file_order(container):
        if key in uses.views:
            continue
        parts = uses.of.get(key, [])
        runs = _runs(parts)
        if key in uses.whole or (parts and runs == [(0, _storage(parts).nbytes)]):
            storages.append(_whole(container, key, uses))
            continue
        for number, (start, end) in enumerate(runs):
            # The first run goes on under the old key.
            new_key = next(keys) if number else key
            content = Content(extent, start, end - start)
            storage = _part_of(_storage(parts), new_key, content)
            storages.append(NewStorage(new_key, key, storage.numel, content))
            for use in parts:
                if _is_in(use, start, end, is_first=not number):
                    moved[id(use.tensor)] = _moved(use, storage, start)
    for tensor in reversed(uses.composed):
        _follow(tensor, moved)
    return Compaction(tuple(storages), moved)


def _in_file_order(container: Container) -> list[tuple[str, Extent]]:
    return sorted(container.extents.items(), key=lambda item: item[1].offset)


def _whole(container: Container, key: str, uses: _Uses) -> NewStorage:
    extent = container.extents[key]
    return NewStorage(key, key, uses.numels.get(key, extent.size), Content(extent, 0, extent.size))


class _Uses:
    """What a tree refers to.

    `of` are the tensors of each storage; those in `whole` stay as they are, whoever uses them.
    `views` are the keys that are pieces of others, as early legacy streams have them, `cut_up`
    those of these others. `composed` are the tensors made of others, each before these.
    """

    def __init__(self, edited: EditedTree) -> None:
        self.of: dict[str, list[_Use]] = defaultdict(list)
        self.whole: set[str] = set()
        self.views: set[str] = set()
        self.cut_up: set[str] = set()
        self.numels: dict[str, int] = {}
        self.composed: list[TensorRef] = []
        by_tensors: set[int] = set()
        for node in _reachable(edited):
            if type(node) is TensorRef:
                part = own_part(node)
                if part is None:
                    self.composed.append(node)
                else:
                    by_tensors.add(id(storage_reference(node)))
                    self._add(_Use(node, part))
            elif type(node) is PersistentId and storage_in(node) is not None:
                self._mention(node, is_alone=id(node) not in by_tensors)

    def _add(self, use: _Use) -> None:
        storage = _strided(use.part).storage
        self.numels.setdefault(storage.key, storage.numel)
        self.of[storage.key].append(use)
        if use.part.dtype.per_item > 1:
            self.whole.add(storage.key)

    def _mention(self, node: PersistentId, *, is_alone: bool) -> None:
        """Look at a reference: one that no tensor makes, or to a piece, keeps a storage whole."""
        _, _, key, _, numel, *view = node.value
        self.numels[str(key)] = numel
        is_view = bool(view) and view[0] is not None
        if is_view:
            self.views.add(node.stands_for.key)
            self.cut_up.add(str(key))
        if is_alone or is_view:
            self.whole.add(str(key))


def _reachable(edited: EditedTree) -> Iterator[Node]:
    """Every node below a tree once, a tensor before what its call is made of."""
    pending: list[Node] = [edited.tree]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        node = edited.replaced.get(id(node), node)
        if id(node) in seen:
            continue
        if type(node) in _WALKED:
            seen.add(id(node))
            yield node
            pending.extend(children(node.node) if type(node) is TensorRef else children(node))


_WALKED = frozenset({dict, list, tuple, Opaque, PersistentId, TensorRef})


# Runs of bytes ---------------------------------------------------------------------------------


def _runs(uses: Sequence[_Use]) -> list[tuple[int, int]]:
    """The runs of bytes that tensors reach, from where to behind where; what touches is one.

    A run begins and ends where any of the dtypes can be counted from. Tensors without elements need
    none, so a storage that has no others becomes empty.
    """
    if not uses:
        return []
    steps = [use.part.dtype.itemsize for use in uses]
    storage = _storage(uses)
    step = max(*steps, storage.dtype.itemsize)
    spans = sorted({span for use in uses if (span := _span(use.part)) is not None})
    runs: list[tuple[int, int]] = []
    for start, end in spans:
        start = start // step * step
        end = min(-(-end // storage.dtype.itemsize) * storage.dtype.itemsize, storage.nbytes)
        if runs and start <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(runs[-1][1], end)
        else:
            runs.append((start, end))
    return runs or [(0, 0)]


def _span(tensor: TensorRef) -> tuple[int, int] | None:
    """From where to behind where a tensor reaches, in bytes; None where it has no elements."""
    data = _strided(tensor)
    size = data.span_bytes(tensor.dtype, tensor.shape)
    start = tensor.dtype.nbytes_of(data.offset)
    return (start, start + size) if size else None


def _is_in(use: _Use, start: int, end: int, *, is_first: bool) -> bool:
    """Whether a tensor is in a run; one without elements goes with the first."""
    span = _span(use.part)
    return is_first if span is None else start <= span[0] < end


def _new_keys(keys: Collection[str]) -> Iterator[str]:
    """Keys that no storage has."""
    return map(str, count(1 + max((int(key) for key in keys if key.isdecimal()), default=-1)))


# Tensors elsewhere -----------------------------------------------------------------------------


def _part_of(storage: StorageRef, key: str, content: Content) -> StorageRef:
    extent = content.extent
    part = Extent(extent.source, extent.offset + content.start, content.size, content.size)
    numel = content.size // storage.dtype.itemsize
    return replace(storage, key=key, numel=numel, extents={key: part})


def _moved(use: _Use, storage: StorageRef, start: int) -> TensorRef:
    """A tensor with its elements in a storage that begins at a byte of the one that it was in."""
    data, tensor = _strided(use.part), use.tensor
    # One without elements may begin anywhere, where there may be nothing any more.
    offset = data.offset - start // use.part.dtype.itemsize if _span(use.part) else 0
    here = replace(use.part, data=data._replace(storage=storage, offset=offset))
    reference = storage_reference(tensor)
    if tensor.node is None or reference is None:
        return here
    kind, cls, old_key, location, _, *rest = reference.value
    key = old_key if storage.key == old_key else storage.key
    new = PersistentId((kind, cls, key, location, storage.numel, *rest), storage)
    node = in_other_storage(tensor.node, new, offset)
    if not isinstance(tensor.data, Components):
        return replace(here, node=node)
    values, *others = tensor.data.parts
    parts = (Component(values.role, replace(here, node=node)), *others)
    return replace(tensor, node=node, data=components(tensor.data.layout, parts))


def _follow(tensor: TensorRef, moved: dict[int, TensorRef]) -> None:
    """Let a tensor that is made of others be where these are: a parameter, a sparse tensor."""
    data = tensor.data
    if isinstance(data, Components):
        parts = tuple(
            Component(part.role, moved.get(id(part.value), part.value)) for part in data.parts
        )
        if any(new.value is not old.value for new, old in zip(parts, data.parts, strict=True)):
            moved[id(tensor)] = replace(tensor, data=components(data.layout, parts))
    elif tensor.node is not None and tensor.node.args:
        inner = moved.get(id(tensor.node.args[0]))
        if inner is not None:
            moved[id(tensor)] = replace(tensor, data=inner.data)


def _storage(uses: Sequence[_Use]) -> StorageRef:
    return _strided(uses[0].part).storage


def _strided(tensor: TensorRef) -> Strided:
    if not isinstance(tensor.data, Strided):
        raise TypeError("only elements in a storage have a place in it")
    return tensor.data
