"""What the file itself says of its tensors, without a model.

Each rule looks at one kind of evidence; the first that has a word decides, strongest first in
`_RULES`. Nothing said is the role `tensor` with evidence `none`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ckptool.checkpoint.containers import attributes_of, mapping_of, sequence_of
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.modules import EXTRA_STATE, is_extra_state
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.classification.names import is_named_like_a_buffer
from ckptool.classification.roles import ClassifiedEntry, Evidence, Role, Use
from ckptool.classification.use import use_of
from ckptool.pickling.nodes import Node
from ckptool.tensors.refs import TensorRef

__all__ = ["classify_by_evidence", "extra_state_of"]

_STATISTICS = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_NORMALISATION = (*_STATISTICS, _COUNTER)
# torch.nn.modules.batchnorm: since version 2 the counter is part of the state.
_COUNTED_SINCE_VERSION = 2
_WITHOUT_A_ROLE: Final = ("bool", "int", "uint")


class Verdict(NamedTuple):
    """One rule's word on one entry."""

    role: Role
    evidence: Evidence
    is_certain: bool
    is_persistent: bool | None = None


class _Name(NamedTuple):
    """A name inside the root: the module's path, and the module's own name for the tensor."""

    whole: str
    module: str
    leaf: str


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """What the rules know besides the entry: the names of its root and their metadata."""

    names: Mapping[str, TensorRef]
    metadata: Mapping[str, Node]
    optimized: frozenset[str]


_UNKNOWN: Final = Verdict("tensor", "none", False)

Rule = Callable[[Entry, _Name, _Scope], Verdict | None]


def classify_by_evidence(checkpoint: Checkpoint) -> tuple[ClassifiedEntry, ...]:
    """Say of every tensor and extra state of a checkpoint what it is, in file order."""
    located = [
        (entry, checkpoint.locate(entry))
        for entry in checkpoint.entries
        if type(entry.node) is TensorRef or extra_state_of(entry) is not None
    ]
    names: dict[KeyPath, dict[str, TensorRef]] = defaultdict(dict)
    for entry, place in located:
        if place is not None and type(entry.node) is TensorRef:
            names[place[0].keys][place[1]] = entry.node
    optimizers = _optimizers(checkpoint)
    scopes = {
        root.keys: _scope(checkpoint, root, names.get(root.keys, {}), optimizers)
        for root in checkpoint.roots
    }
    return tuple(_classified(checkpoint, entry, place, scopes) for entry, place in located)


def extra_state_of(entry: Entry) -> KeyPath | None:
    """Return the key path of the extra state that an entry is, or is part of."""
    for index, key in enumerate(entry.keys):
        if is_extra_state(key):
            return entry.keys[: index + 1]
    return None


def _classified(
    checkpoint: Checkpoint,
    entry: Entry,
    place: tuple[Root, str] | None,
    scopes: Mapping[KeyPath, _Scope],
) -> ClassifiedEntry:
    name, scope = ("", _NOWHERE) if place is None else (place[1], scopes[place[0].keys])
    shown = name if place is not None and checkpoint.is_chosen(place[0]) else None
    if checkpoint.survey.training:
        state = checkpoint.training_of(entry)
        if state is not None and state.kind == "optimizer":
            return ClassifiedEntry(entry, shown, "optimizer", "optimizer", True)
    parts = _split(name)
    for rule in _RULES if place is not None else _RULES_ANYWHERE:
        verdict = rule(entry, parts, scope)
        if verdict is not None:
            return ClassifiedEntry(entry, shown, *verdict, _use(name, entry.tensor, verdict))
    return ClassifiedEntry(entry, shown, *_UNKNOWN)


# The rules -------------------------------------------------------------------------------------


def _by_module(entry: Entry, _name: _Name, _scope: _Scope) -> Verdict | None:
    """A module that was saved whole keeps its parameters and buffers apart."""
    if entry.member is None or entry.module_type is None:
        return None
    if entry.member == "attribute":
        return Verdict("tensor", "module", True)
    persistent = entry.is_persistent if entry.member == "buffer" else None
    return Verdict(entry.member, "module", True, persistent)


def _by_type_tag(entry: Entry, _name: _Name, _scope: _Scope) -> Verdict | None:
    """An `nn.Buffer` saved as such is one; a Parameter may have been registered as a buffer."""
    tensor = entry.tensor
    if tensor is None:
        return None
    if tensor.saved_as == "buffer":
        return Verdict("buffer", "type-tag", True, tensor.is_persistent)
    if tensor.saved_as == "parameter":
        return Verdict("parameter", "type-tag", False)
    return None


def _by_extra_state(entry: Entry, name: _Name, _scope: _Scope) -> Verdict | None:
    """`Module.state_dict` puts what `get_extra_state` gives under a name of its own."""
    if EXTRA_STATE not in name.whole or extra_state_of(entry) is None:
        return None
    return Verdict("extra-state", "name", False)


def _by_metadata(_entry: Entry, name: _Name, scope: _Scope) -> Verdict | None:
    """The versions of modules: a normalisation that counts batches has version 2 or later."""
    if (
        not scope.metadata
        or name.leaf not in _NORMALISATION
        or not _has_statistics(name.module, scope)
    ):
        return None
    facts = mapping_of(scope.metadata.get(name.module)) or {}
    version = facts.get("version")
    if isinstance(version, int) and version >= _COUNTED_SINCE_VERSION:
        return Verdict("buffer", "metadata", False, True)
    return None


def _by_statistics(entry: Entry, name: _Name, scope: _Scope) -> Verdict | None:
    """Mean and variance under one module, or a 0-d integer counter, are normalisation state."""
    if name.leaf in _STATISTICS and _has_statistics(name.module, scope):
        return Verdict("buffer", "name", False, True)
    if name.leaf == _COUNTER and entry.tensor is not None and entry.tensor.shape == ():
        return Verdict("buffer", "name", False, True)
    return None


def _by_name(entry: Entry, name: _Name, scope: _Scope) -> Verdict | None:
    """Names that modules give to buffers."""
    tensor = entry.tensor
    if tensor is not None and is_named_like_a_buffer(
        name.module, name.leaf, tensor.shape, scope.names
    ):
        return Verdict("buffer", "name", False, True)
    return None


def _by_dtype(entry: Entry, _name: _Name, _scope: _Scope) -> Verdict | None:
    """Integers and booleans have no gradients, so hardly a parameter has such a dtype."""
    tensor = entry.tensor
    if tensor is not None and tensor.dtype.kind in _WITHOUT_A_ROLE:
        return Verdict("buffer", "name", False, True)
    return None


def _by_optimizer(_entry: Entry, name: _Name, scope: _Scope) -> Verdict | None:
    """What an optimizer of the same file updates is a parameter."""
    return Verdict("parameter", "optimizer", False) if name.whole in scope.optimized else None


_RULES: Final[tuple[Rule, ...]] = (
    _by_module,
    _by_type_tag,
    _by_extra_state,
    _by_optimizer,
    _by_metadata,
    _by_statistics,
    _by_name,
    _by_dtype,
)
_RULES_ANYWHERE: Final[tuple[Rule, ...]] = (_by_module, _by_type_tag)
"""Those that need no state_dict around the entry."""


# What the rules know ---------------------------------------------------------------------------

_NOWHERE = _Scope({}, {}, frozenset())


@dataclass(frozen=True, slots=True, eq=False)
class _Optimizer:
    """What an optimizer says of its parameters: their names, or the shapes of their state.

    A shape is None where a parameter has no state, or one of several shapes.
    """

    names: frozenset[str]
    shapes: tuple[tuple[int, ...] | None, ...]


def _optimizers(checkpoint: Checkpoint) -> list[_Optimizer]:
    return [
        _optimizer(mapping_of(state.node) or attributes_of(state.node))
        for state in checkpoint.training
        if state.kind == "optimizer"
    ]


def _optimizer(kept: Mapping[Node, Node]) -> _Optimizer:
    """Read an optimizer; `param_names` is there if it was built from `named_parameters()`."""
    groups = [mapping_of(group) or {} for group in sequence_of(kept.get("param_groups")) or ()]
    names = (name for group in groups for name in sequence_of(group.get("param_names")) or ())
    updated = (one for group in groups for one in sequence_of(group.get("params")) or ())
    state = mapping_of(kept.get("state")) or {}
    return _Optimizer(
        frozenset(name for name in names if type(name) is str),
        # An optimizer that was pickled itself has the parameters, its state_dict their numbers.
        tuple(
            one.shape if type(one) is TensorRef else _shape_of_state(state.get(one))
            for one in updated
            if type(one) is TensorRef or type(one) is int
        ),
    )


def _scope(
    checkpoint: Checkpoint,
    root: Root,
    names: Mapping[str, TensorRef],
    optimizers: Sequence[_Optimizer],
) -> _Scope:
    scope = _Scope(names, checkpoint.metadata_of(root), frozenset())
    if not optimizers:
        return scope
    rest = {
        name: tensor.shape
        for name, tensor in names.items()
        if not any(rule(Entry((), tensor), _split(name), scope) for rule in _BUFFER_RULES)
    }
    found: set[str] = set()
    for optimizer in optimizers:
        if optimizer.names:
            found |= optimizer.names & names.keys()
        elif len(optimizer.shapes) == len(rest):
            found |= _aligned(optimizer, rest)
    return replace(scope, optimized=frozenset(found))


def _aligned(optimizer: _Optimizer, rest: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Names found by shape, among as many tensors that no other rule calls a buffer.

    In the order of the model their shapes are those of the optimizer's state one by one; in the
    order of parameter groups they are the same shapes all together.
    """
    pairs = list(zip(rest.items(), optimizer.shapes, strict=True))
    if all(kept in (None, shape) for (_, shape), kept in pairs):
        # A parameter without state has never been updated; nothing tells that it is one.
        return {name for (name, _), kept in pairs if kept is not None}
    return set(rest) if Counter(optimizer.shapes) == Counter(rest.values()) else set()


def _shape_of_state(state: Node) -> tuple[int, ...] | None:
    """The one shape that the moments of a parameter have; 0-d ones count its steps."""
    moments = mapping_of(state) or {}
    shapes = {
        moment.shape for moment in moments.values() if type(moment) is TensorRef and moment.shape
    }
    return shapes.pop() if len(shapes) == 1 else None


_BUFFER_RULES: Final[tuple[Rule, ...]] = (_by_metadata, _by_statistics, _by_name, _by_dtype)


def _has_statistics(module: str, scope: _Scope) -> bool:
    mean, variance = (
        scope.names.get(f"{module}.{leaf}" if module else leaf) for leaf in _STATISTICS
    )
    return mean is not None and variance is not None and mean.shape == variance.shape


def _split(name: str) -> _Name:
    module, _, leaf = name.rpartition(".")
    return _Name(name, module, leaf)


def _use(name: str, tensor: TensorRef | None, verdict: Verdict) -> Use | None:
    if verdict.role != "buffer" or tensor is None:
        return None
    return use_of(name, tensor.dtype.name, tensor.shape, None, None)
