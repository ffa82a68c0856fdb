"""A root as `load_state_dict` would be given it: names, tensors, and the versions of modules."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ckptool.checkpoint.containers import by_key, mapping_of
from ckptool.checkpoint.keypath import KeyPath, display_key
from ckptool.checkpoint.modules import is_module
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.pickling.nodes import Node
from ckptool.tensors.refs import TensorRef

__all__ = ["Metadata", "StateDict", "key_name", "state_dict_of", "state_dicts_of"]

Metadata: TypeAlias = Mapping[str, Mapping[str, object]]
"""`_metadata` as plain data: per module path its version, and what else the module wrote."""

_SCALARS: Final = (str, bool, int, float, type(None))
# A module's version, and the versions of its hooks by their names: spectral_norm has such.
_METADATA_LEVELS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class StateDict:
    """The keys of a state_dict in file order; a value that is no tensor is None.

    `metadata` is None where the file has none.
    """

    tensors: Mapping[str, TensorRef | None]
    metadata: Metadata | None

    def renamed(self, rename: Callable[[str], str]) -> StateDict:
        """Return it with other names, in its metadata too."""
        return StateDict(
            {rename(name): tensor for name, tensor in self.tensors.items()},
            None
            if self.metadata is None
            else {
                rename(f"{path}." if path else "").removesuffix("."): facts
                for path, facts in self.metadata.items()
            },
        )


def state_dict_of(checkpoint: Checkpoint, root: Root) -> StateDict:
    """Return what a root would be as a state_dict.

    A module that was saved whole stands for what its own `state_dict()` would give: its
    non-persistent buffers are not in it.
    """
    ((_, state),) = state_dicts_of(checkpoint, [root])
    return state


def state_dicts_of(
    checkpoint: Checkpoint, roots: Iterable[Root]
) -> Iterator[tuple[Root, StateDict]]:
    """Yield what each root would be as a state_dict; the entries are looked through once."""
    roots = list(roots)
    members: dict[KeyPath, dict[str, TensorRef | None]] = {
        root.keys: {} for root in roots if is_module(root.node)
    }
    for entry in checkpoint.entries if members else ():
        if entry.member in ("parameter", "buffer") and entry.is_persistent is not False:
            place = checkpoint.locate(entry)
            if place is not None and place[0].keys in members:
                members[place[0].keys][place[1]] = entry.tensor
    for root in roots:
        tensors = members.get(root.keys)
        if tensors is None:
            tensors = dict(_tensors(checkpoint, root))
        yield root, StateDict(tensors, _plain_metadata(checkpoint.metadata_of(root)) or None)


def key_name(key: Hashable) -> str:
    """Return a key as a name; one that is no text, which no model can have, in brackets."""
    return key if isinstance(key, str) else f"[{display_key(key)}]"


def _tensors(checkpoint: Checkpoint, root: Root) -> Iterator[tuple[str, TensorRef | None]]:
    if root.pairs is not None:
        yield from root.pairs
        return
    # What else a safetensors file says of itself, its library does not load.
    is_tensors_only = checkpoint.format == "safetensors"
    for key, node in by_key(mapping_of(root.node) or {}):
        if type(node) is TensorRef:
            yield key_name(key), node
        elif not is_tensors_only:
            yield key_name(key), None


def _plain_metadata(metadata: Mapping[str, Node]) -> Metadata:
    """Keep what is plain data: nothing else of a file is ever handed to a model's code."""
    tables = {path: _plain(facts) for path, facts in metadata.items() if isinstance(path, str)}
    return {path: facts for path, facts in tables.items() if isinstance(facts, dict)}


def _plain(node: Node, levels: int = _METADATA_LEVELS) -> object:
    if isinstance(node, _SCALARS):
        return node
    mapping = mapping_of(node) if levels else None
    if mapping is None:
        return None
    return {
        key: _plain(value, levels - 1)
        for key, value in mapping.items()
        if isinstance(key, _SCALARS)
    }
