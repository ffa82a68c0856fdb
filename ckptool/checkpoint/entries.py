"""The tree as a flat list of entries, in file order: every tensor, and every leaf that is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ckptool.checkpoint.containers import Descent, Held, by_key
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.modules import is_module, members
from ckptool.errors import LimitExceededError, TensorError
from ckptool.formats.container import ModuleAttributes
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.tensors.rebuild import explain, tensor_attributes
from ckptool.tensors.refs import TensorRef, check_bounds

__all__ = ["Cycle", "Defect", "Entry", "list_entries"]


@dataclass(frozen=True, slots=True)
class Cycle:
    """A place where the tree leads back to one of its own containers, the one at `keys`."""

    keys: KeyPath


class Entry(NamedTuple):
    """One leaf of the tree with its key path.

    Inside a whole module the path ends in a dotted attribute path, as the module's own
    `state_dict()` would say it; `member` is then what the module keeps it as, and `module_type`
    the class of the module that owns it. An attribute, of a module or of a tensor, and all that it
    holds is in no state_dict.
    """

    keys: KeyPath
    node: Node
    member: Literal["parameter", "buffer", "attribute"] | None = None
    is_persistent: bool | None = None
    module_type: Global | None = None

    @property
    def path(self) -> str:
        """The key path as it is shown."""
        return display(self.keys)

    @property
    def tensor(self) -> TensorRef | None:
        """The tensor, None for any other leaf."""
        return self.node if type(self.node) is TensorRef else None


class Defect(NamedTuple):
    """A tensor that the file describes wrongly, with what is wrong."""

    entry: Entry
    error: TensorError


# Long keys around many leaves would make paths of far more than the file has bytes.
_CHARACTERS_OF_A_PATH: Final = 100


@dataclass(slots=True, eq=False)
class _Frame:
    """A container on the way down: its entries to come, and the module that it belongs to."""

    container: Node
    keys: KeyPath
    below: Iterator[Entry]
    prefix: str | None = None
    is_attribute: bool = False


def list_entries(
    tree: Node,
    script_classes: Mapping[Global, ModuleAttributes],
    *,
    most: int,
    above: KeyPath = (),
    defects: list[Defect] | None = None,
    replaced: Mapping[int, Node] | None = None,
    option: str | None = None,
) -> list[Entry]:
    """Return the leaves of a tree in file order, every tensor checked against its storage.

    `above` is the key path of the tree itself. `replaced` says by the identity of a node what
    stands in its place. Raises TensorError with the key path of a tensor that reaches outside its
    storage or cannot be read, and LimitExceededError where sharing makes more than `most` places to
    look at; `option` is what raises that limit. Where `defects` is given, it takes the errors of a
    tensor and its storage instead.
    """
    walk = _Walk(script_classes)
    found: list[Entry] = []
    frames = [_Frame(None, above, iter([Entry(above, tree)]))]
    on_the_way: dict[int, KeyPath] = {}
    looked_at = characters = 0
    while frames:
        frame = frames[-1]
        entry = next(frame.below, None)
        if entry is None:
            frames.pop()
            on_the_way.pop(id(frame.container), None)
            continue
        looked_at += 1
        if looked_at > most:
            raise LimitExceededError("leaves", allowed=most, actual=looked_at, option=option)
        characters += sum(len(key) for key in entry.keys if type(key) is str)
        if characters > _CHARACTERS_OF_A_PATH * most:
            allowed = _CHARACTERS_OF_A_PATH * most
            raise LimitExceededError("characters of paths", allowed=allowed, actual=characters)
        if replaced and id(entry.node) in replaced:
            entry = entry._replace(node=replaced[id(entry.node)])
        node = entry.node
        _check(entry, defects)
        if id(node) in on_the_way:
            entry = entry._replace(node=Cycle(on_the_way[id(node)]))
        elif (inside := walk.into(entry, frame)) is not None:
            frames.append(inside)
            on_the_way[id(node)] = entry.keys
            if type(node) is not TensorRef:
                continue
        found.append(entry)
    return found


def _check(entry: Entry, defects: list[Defect] | None) -> None:
    try:
        if type(entry.node) is TensorRef:
            check_bounds(entry.node)
        elif type(entry.node) is Opaque and (error := explain(entry.node)):
            raise error
    except TensorError as error:
        placed = TensorError(
            error.problem, key_path=entry.path, storage_key=error.storage_key, code=error.code
        )
        if defects is None or error.code is None:
            raise placed from error
        defects.append(Defect(entry, placed))


class _Walk:
    """Which nodes are walked into, and by which keys."""

    __slots__ = ("_descent", "_script_classes")

    def __init__(self, script_classes: Mapping[Global, ModuleAttributes]) -> None:
        self._script_classes = script_classes
        self._descent = Descent()

    def into(self, entry: Entry, frame: _Frame) -> _Frame | None:
        """Return a frame for the entry's node; None where there is nothing below it."""
        node, keys = entry.node, entry.keys
        if type(node) is TensorRef:
            attributes = tensor_attributes(node)
            return self._frame(entry, by_key(attributes), True) if attributes else None
        is_attribute = frame.is_attribute or entry.member == "attribute"
        if is_module(node):
            is_submodule = frame.prefix is not None and entry.member is None
            prefix, base = (f"{keys[-1]}.", keys[:-1]) if is_submodule else ("", keys)
            members_of = self._members(node, base, prefix, is_attribute)
            return _Frame(node, keys, members_of, prefix, is_attribute)
        held = self._descent.into(node)
        return None if held is None else self._frame(entry, held, is_attribute)

    def _frame(self, entry: Entry, held: Held, is_attribute: bool) -> _Frame:
        keys, owner = entry.keys, entry.module_type
        below = (
            Entry((*keys, key), node, "attribute" if is_attribute else None, None, owner)
            for key, node in held
        )
        return _Frame(entry.node, keys, below, is_attribute=is_attribute)

    def _members(
        self, module: Opaque, base: KeyPath, prefix: str, is_attribute: bool
    ) -> Iterator[Entry]:
        for member in members(module, self._script_classes):
            keys = (*base, prefix + member.name)
            if member.kind == "module":
                if member.node is not None:
                    yield Entry(keys, member.node)
            elif is_attribute:
                yield Entry(keys, member.node, "attribute", None, module.type)
            # A buffer or parameter registered as None is a name without a tensor.
            elif member.node is not None or member.kind == "attribute":
                yield Entry(keys, member.node, member.kind, member.is_persistent, module.type)
