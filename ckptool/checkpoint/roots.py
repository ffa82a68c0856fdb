"""Which subtree of a checkpoint is the state_dict: candidates, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptool.checkpoint.keypath import KeyPath, display, display_key
from ckptool.checkpoint.modules import is_module, mapping_of, sequence_of
from ckptool.checkpoint.training import TrainingKind, training_kind
from ckptool.errors import EntryNotFoundError
from ckptool.pickling.nodes import Node, Opaque
from ckptool.tensors.refs import TensorRef

__all__ = ["Root", "Survey", "TrainingState", "choose_root", "find_root", "survey"]

# Where frameworks keep weights: state_dict, model_state_dict, model, model_ema, net, netG, module.
_WEIGHTS_NAME = re.compile(
    r"(^|_)(state_dict|model|net|network|module|weights|params|parameters)(_|$)|^ema(_|$)",
    re.IGNORECASE,
)
_SUGGESTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """A subtree that can be a state_dict: `tensors` of its own, or a whole module."""

    keys: KeyPath
    node: Node
    tensors: int

    @property
    def path(self) -> str:
        """The key path as it is shown; the top of the file is the empty path."""
        return display(self.keys)

    @property
    def is_named_as_weights(self) -> bool:
        """Whether its key is one that frameworks keep weights under."""
        key = next((key for key in reversed(self.keys) if isinstance(key, str)), "")
        return _WEIGHTS_NAME.search(key) is not None


@dataclass(frozen=True, slots=True)
class TrainingState:
    """A subtree that only resuming a training needs."""

    keys: KeyPath
    kind: TrainingKind

    @property
    def path(self) -> str:
        """The key path as it is shown."""
        return display(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What stands where in a tree: possible roots and training state, both in file order."""

    roots: Mapping[KeyPath, Root]
    training: Mapping[KeyPath, TrainingState]

    def roots_above(self, keys: KeyPath) -> Iterator[Root]:
        """Yield the roots that a key path leads through, the innermost first."""
        for length in range(len(keys), -1, -1):
            root = self.roots.get(keys[:length])
            if root is not None:
                yield root

    def training_above(self, keys: KeyPath) -> TrainingState | None:
        """Return the training state that a key path leads into."""
        for length in range(len(keys) + 1):
            state = self.training.get(keys[:length])
            if state is not None:
                return state
        return None


def survey(tree: Node) -> Survey:
    """Find the candidates for the root, and the training state that is none."""
    roots: dict[KeyPath, Root] = {}
    training: dict[KeyPath, TrainingState] = {}
    seen: set[int] = set()
    pending: list[tuple[KeyPath, Node]] = [((), tree)]
    while pending:
        keys, node = pending.pop()
        kind = training_kind(keys, node)
        if kind is not None:
            training[keys] = TrainingState(keys, kind)
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if is_module(node) or (type(node) is TensorRef and not keys):
            roots[keys] = Root(keys, node, 1)
            continue
        below = _below(node)
        own = sum(
            1
            for key, value in below
            if type(value) is TensorRef and training_kind((*keys, key), value) is None
        )
        if own or _pairs(node):
            roots[keys] = Root(keys, node, own or len(below))
        if not _pairs(node):
            pending.extend(
                ((*keys, key), value)
                for key, value in reversed(below)
                if type(value) is not TensorRef or training_kind((*keys, key), value)
            )
    return Survey(roots, training)


def choose_root(roots: Collection[Root]) -> Root | None:
    """Return the root that stands out, None where two fit equally well.

    One under a name that frameworks keep weights under goes before others; without any such name
    the top of the file does, if it holds at least as many tensors as any other.
    """
    named = [root for root in roots if root.is_named_as_weights]
    pool = named or list(roots)
    if len(pool) == 1:
        return pool[0]
    most = max((root.tensors for root in pool), default=0)
    return next((root for root in pool if not root.keys and root.tensors == most), None)


def find_root(tree: Node, path: str) -> Root:
    """Return the subtree at a displayed path (`/` is the top); raise EntryNotFoundError."""
    keys: KeyPath = ()
    node = tree
    for part in _split(path):
        below = {display_key(key): (key, value) for key, value in _below(node)}
        if part not in below:
            candidates = [display((*keys, key)) for key, _ in below.values()]
            raise EntryNotFoundError(
                f"the root {path!r}", candidates=candidates, hint=_what_there_is(candidates)
            )
        key, node = below[part]
        keys = (*keys, key)
    return Root(keys, node, sum(type(value) is TensorRef for _, value in _below(node)))


def _what_there_is(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SUGGESTED:,} more" if len(paths) > _SUGGESTED else ""
    return f"there are: {', '.join(paths[:_SUGGESTED])}{more}" if paths else "it has no keys"


def _split(path: str) -> list[str]:
    if path in ("", "/"):
        return []
    parts = re.findall(r"((?:[^/\\]|\\.)*)(?:/|$)", path)
    return [re.sub(r"\\(.)", r"\1", part) for part in parts[:-1] or parts]


def _below(node: Node) -> list[tuple[Node, Node]]:
    mapping = mapping_of(node)
    if mapping is not None:
        return list(mapping.items())
    items = sequence_of(node)
    if items is not None:
        return list(enumerate(items))
    if type(node) is Opaque and type(node.state) is dict and not is_module(node):
        return list(node.state.items())
    return []


def _pairs(node: Node) -> bool:
    """Whether a list holds `(name, tensor)` pairs, as `list(state_dict.items())` does."""
    items = sequence_of(node)
    return bool(items) and all(
        type(item) is tuple
        and len(item) == 2
        and type(item[0]) is str
        and type(item[1]) is TensorRef
        for item in items or ()
    )
