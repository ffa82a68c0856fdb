"""Modules that were pickled whole: what their state says of parameters and buffers.

An `nn.Module`'s state has `_parameters`, `_buffers` and `_modules`, and since torch 1.6 the names
in `_non_persistent_buffers_set`. A TorchScript object's state has its attributes under their names;
which is which stands in the code of its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ckptool.checkpoint.containers import attributes_of, key_at, mapping_of, set_items
from ckptool.checkpoint.keypath import display_key
from ckptool.formats.container import ModuleAttributes
from ckptool.pickling.nodes import Global, Node, Opaque

__all__ = [
    "EXTRA_STATE",
    "Member",
    "is_extra_state",
    "is_module",
    "join",
    "members",
    "module_state",
]

_SCRIPT_PREFIX = "__torch__"
_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, slots=True)
class Member:
    """One attribute of a module, and what the module says it is."""

    name: str
    node: Node
    kind: Literal["parameter", "buffer", "module", "attribute"]
    is_persistent: bool | None = None


EXTRA_STATE = "_extra_state"
"""The name under which a module's `state_dict()` puts what `get_extra_state` gives."""


def join(path: str, name: str) -> str:
    """Return the whole name of what a module has; the model itself has the empty path."""
    return f"{path}.{name}" if path else name


def is_extra_state(key: object) -> bool:
    """Whether a key is that of a module's extra state."""
    return type(key) is str and (key == EXTRA_STATE or key.endswith(f".{EXTRA_STATE}"))


def is_module(node: Node) -> bool:
    """Whether a node is an `nn.Module` or a TorchScript object."""
    if type(node) is not Opaque:
        return False
    if _is_script(node):
        return type(node.state) is dict
    return all(mapping_of(module_state(node).get(part)) is not None for part in _PARTS)


def module_state(module: Opaque) -> dict[Node, Node]:
    """A module's attributes; `torch.fx` hands them to the call that makes the module anew."""
    if not module.has_state and module.args and type(module.args[0]) is dict:
        return module.args[0]
    return attributes_of(module)


def members(module: Opaque, script_classes: Mapping[Global, ModuleAttributes]) -> Iterator[Member]:
    """Yield what a module holds: parameters, buffers, submodules, then its other attributes."""
    if _is_script(module):
        yield from _script_members(module, script_classes)
        return
    state = module_state(module)
    # Before torch 1.6 there was no such set, and every buffer was persistent.
    transient = _names(state.get("_non_persistent_buffers_set", []))
    for name, node in _items(state["_parameters"]):
        yield Member(name, node, "parameter", True)
    for name, node in _items(state["_buffers"]):
        yield Member(name, node, "buffer", None if transient is None else name not in transient)
    for name, node in _items(state["_modules"]):
        yield Member(name, node, "module")
    for name, node in _items(state):
        if name not in _PARTS:
            yield Member(name, node, "attribute")


def _script_members(
    module: Opaque, script_classes: Mapping[Global, ModuleAttributes]
) -> Iterator[Member]:
    known = script_classes.get(module.type) if module.type is not None else None
    for name, node in _items(module.state):
        if is_module(node):
            yield Member(name, node, "module")
        elif known is not None and name in known.parameters:
            yield Member(name, node, "parameter", True)
        elif known is not None and name in known.buffers:
            yield Member(name, node, "buffer")
        else:
            yield Member(name, node, "attribute")


def _is_script(node: Opaque) -> bool:
    return node.type is not None and node.type.module.partition(".")[0] == _SCRIPT_PREFIX


def _items(node: Node) -> Iterator[tuple[str, Node]]:
    for index, (name, value) in enumerate((mapping_of(node) or {}).items()):
        yield display_key(key_at(name, index)), value


def _names(node: Node) -> frozenset[Node] | None:
    """The names in a set, or in the list that a file before torch 1.6 stands for."""
    items = node if type(node) is list else set_items(node)
    return None if items is None else frozenset(name for name in items if type(name) is str)
