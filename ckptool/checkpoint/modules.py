"""Modules that were pickled whole: what their state says of parameters and buffers.

An `nn.Module`'s state has `_parameters`, `_buffers` and `_modules`, and since torch 1.6 the names
in `_non_persistent_buffers_set`. A TorchScript object's state has its attributes under their names;
which is which stands in the code of its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ckptool.formats.container import ModuleAttributes
from ckptool.pickling.nodes import Global, Node, Opaque

__all__ = ["Member", "is_module", "mapping_of", "members", "sequence_of"]

_SCRIPT_PREFIX = "__torch__"
_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, slots=True)
class Member:
    """One attribute of a module, and what the module says it is."""

    name: str
    node: Node
    kind: Literal["parameter", "buffer", "module", "attribute"]
    is_persistent: bool | None = None


def mapping_of(node: Node) -> dict[Node, Node] | None:
    """The items of a dict, or of an object that is one (OrderedDict, defaultdict, ...)."""
    if type(node) is dict:
        return node
    if type(node) is not Opaque:
        return None
    if node.type not in _MAPPINGS:
        return node.keyed
    # The first argument of a defaultdict is what it calls for a missing key.
    args = node.args[1:] if node.type == _DEFAULTDICT else node.args
    made_from = _items_of_call(args) if args else {}
    return None if made_from is None else made_from | (node.keyed or {})


def _items_of_call(args: tuple[Node, ...]) -> dict[Node, Node] | None:
    """What a mapping was made from; Python 2 gave an OrderedDict its items as a list of pairs.

    None for arguments that no such mapping takes.
    """
    if type(args[0]) is dict:
        return args[0]
    pairs = sequence_of(args[0])
    if pairs is None or not all(
        type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) in _PLAIN_KEYS
        for pair in pairs
    ):
        return None
    return dict(pairs)


def sequence_of(node: Node) -> list[Node] | tuple[Node, ...] | None:
    """The items of a list or tuple, or of an object that is a list of something."""
    if type(node) is list or type(node) is tuple:
        return node
    if type(node) is Opaque and node.listed is not None:
        return node.listed
    return None


_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_DEFAULTDICT = Global("collections", "defaultdict")
_MAPPINGS = frozenset(
    {
        _DEFAULTDICT,
        Global("collections", "OrderedDict"),
        Global("collections", "Counter"),
    }
)


def is_module(node: Node) -> bool:
    """Whether a node is an `nn.Module` or a TorchScript object."""
    if type(node) is not Opaque or type(node.state) is not dict:
        return False
    return _is_script(node) or all(mapping_of(node.state.get(part)) is not None for part in _PARTS)


def members(module: Opaque, script_classes: Mapping[Global, ModuleAttributes]) -> Iterator[Member]:
    """Yield what a module holds: parameters, buffers, submodules, then its other attributes."""
    if _is_script(module):
        yield from _script_members(module, script_classes)
        return
    state = module.state
    # Before torch 1.6 there was no such set, and every buffer was persistent.
    transient = _names(state.get("_non_persistent_buffers_set", []))
    for name, node in _items(state["_parameters"]):
        yield Member(name, node, "parameter", True)
    for name, node in _items(state["_buffers"]):
        yield Member(name, node, "buffer", None if transient is None else name not in transient)
    for name, node in _items(state["_modules"]):
        yield Member(name, node, "module")
    for name, node in state.items():
        if name not in _PARTS:
            yield Member(str(name), node, "attribute")


def _script_members(
    module: Opaque, script_classes: Mapping[Global, ModuleAttributes]
) -> Iterator[Member]:
    known = script_classes.get(module.type) if module.type is not None else None
    for key, node in module.state.items():
        name = str(key)
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
    for name, value in (mapping_of(node) or {}).items():
        yield str(name), value


def _names(node: Node) -> frozenset[Node] | None:
    """The names in a set; protocol 2 writes one as the call `set([...])`."""
    if type(node) is Opaque and len(node.args) == 1 and not node.added:
        node = node.args[0]
    if type(node) is set or type(node) is list:
        return frozenset(name for name in node if type(name) is str)
    return None
