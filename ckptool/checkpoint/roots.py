"""Which subtree of a checkpoint is the state_dict: candidates, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptool.checkpoint.containers import Descent, Held, attributes_of, sequence_of
from ckptool.checkpoint.keypath import KeyPath, display, display_key
from ckptool.checkpoint.modules import is_extra_state, is_module
from ckptool.checkpoint.training import RNG_DTYPE, TrainingKind, training_kind
from ckptool.errors import EntryNotFoundError
from ckptool.pickling.nodes import Node
from ckptool.tensors.refs import TensorRef

__all__ = ["Root", "Survey", "TrainingState", "choose_root", "find_root", "shortened", "survey"]

# Where frameworks keep them: state_dict, model_state_dict, model, model_ema, net, netG, module.
_STATE_DICT_NAME = re.compile(
    r"(^|_)(state_dict|model|net|network|module|weights|params|parameters)(_|$)|^ema(_|$)",
    re.IGNORECASE,
)
_SUGGESTED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """A subtree that can be a state_dict: `tensors` directly below it, or a whole module.

    In a list of `(name, tensor)` pairs the tensors have the names that stand beside them.
    """

    keys: KeyPath
    node: Node
    tensors: int
    pairs: Sequence[tuple[str, TensorRef]] | None = None

    @property
    def path(self) -> str:
        """The key path as it is shown; the top of the file is the empty path."""
        return display(self.keys)

    @property
    def is_named_as_state_dict(self) -> bool:
        """Whether its key is one that frameworks keep state_dicts under."""
        key = next((key for key in reversed(self.keys) if isinstance(key, str)), "")
        return _STATE_DICT_NAME.search(key) is not None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingState:
    """A subtree that only resuming a training needs."""

    keys: KeyPath
    kind: TrainingKind
    node: Node

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
        """Return the training state that a key path leads into, the innermost."""
        for length in range(len(keys), -1, -1):
            state = self.training.get(keys[:length])
            if state is not None:
                return state
        return None


def survey(tree: Node) -> Survey:
    """Find the candidates for the root, and the training state that is none.

    A node that several paths lead to is looked into once, and is a candidate under each of them.
    """
    roots: dict[KeyPath, Root] = {}
    training: dict[KeyPath, TrainingState] = {}
    descent = Descent()
    # With the nodes themselves, so that no later one can have the identity of one that is gone.
    seen: dict[int, tuple[Node, Root | None]] = {}
    pending: list[tuple[KeyPath, Node]] = [((), tree)]
    while pending:
        keys, node = pending.pop()
        kind = training_kind(keys, node)
        if kind is not None:
            training[keys] = TrainingState(keys, kind, node)
            # A scheduler that was pickled itself has its optimizer with it.
            optimizer = attributes_of(node).get("optimizer")
            if training_kind((), optimizer) == "optimizer":
                pending.append(((*keys, "optimizer"), optimizer))
            continue
        if id(node) not in seen:
            held = descent.into(node) or []
            seen[id(node)] = node, _root(node, held, keys)
            if not is_module(node) and not _is_pairs(node):
                pending.extend(
                    ((*keys, key), value)
                    for key, value in reversed(held)
                    if not _is_plain_tensor(value) and not is_extra_state(key)
                )
        _, known = seen[id(node)]
        if known is not None:
            roots[keys] = replace(known, keys=keys)
    return Survey(roots, training)


def _root(node: Node, held: Held, keys: KeyPath) -> Root | None:
    """The node as a candidate: a module, tensors directly below it, or a tensor that is all."""
    if is_module(node) or (type(node) is TensorRef and not keys):
        return Root(keys, node, 1)
    if _is_pairs(node):
        pairs = sequence_of(node) or ()
        return Root(keys, node, len(pairs), pairs)
    own = sum(
        1
        for key, value in held
        if _is_plain_tensor(value)
        or (type(value) is TensorRef and training_kind((*keys, key), value) is None)
    )
    return Root(keys, node, own) if own else None


def _is_plain_tensor(node: Node) -> bool:
    """Whether a node is a tensor that can only be one of a state_dict, whatever its name."""
    return type(node) is TensorRef and node.dtype is not RNG_DTYPE


def _is_pairs(node: Node) -> bool:
    """Whether a list holds `(name, tensor)` pairs, as `list(state_dict.items())` does."""
    items = sequence_of(node)
    if not items:
        return False
    return all(
        type(item) is tuple
        and len(item) == 2
        and type(item[0]) is str
        and type(item[1]) is TensorRef
        for item in items
    )


def choose_root(roots: Collection[Root]) -> Root | None:
    """Return the root that stands out, None where two fit equally well.

    One under a name that frameworks keep state_dicts under goes before others; without any such
    name the top of the file does, if it holds at least as many tensors as any other.
    """
    named = [root for root in roots if root.is_named_as_state_dict]
    pool = named or list(roots)
    if len({id(root.node) for root in pool}) == 1:
        return pool[0]
    most = max((root.tensors for root in pool), default=0)
    return next((root for root in pool if not root.keys and root.tensors == most), None)


def find_root(tree: Node, path: str) -> Root:
    """Return the subtree at a displayed path (`/` is the top).

    Raises EntryNotFoundError where there is none, where it is a leaf, or where two keys are shown
    alike.
    """
    descent = Descent()
    keys: KeyPath = ()
    node = tree
    for part in _split(path):
        held = [] if is_module(node) else descent.into(node) or []
        below = [(key, value) for key, value in held if display_key(key) == part]
        if len(below) != 1:
            candidates = [display((*keys, key)) for key, _ in held]
            why = "it has no keys" if not held else f"there are: {shortened(candidates)}"
            if below:
                why = "several keys are shown like that"
            raise EntryNotFoundError(f"the root {path!r}", candidates=candidates, hint=why)
        [(key, node)] = below
        keys = (*keys, key)
    held = descent.into(node) or []
    if keys and not held and not is_module(node):
        raise EntryNotFoundError(
            f"the root {path!r}", hint="that is a leaf, nothing that holds tensors"
        )
    return _root(node, held, keys) or Root(keys, node, 0)


def shortened(paths: Sequence[str]) -> str:
    """Return the first paths, and how many there are besides."""
    more = f" and {len(paths) - _SUGGESTED:,} more" if len(paths) > _SUGGESTED else ""
    return f"{', '.join(path or '/' for path in paths[:_SUGGESTED])}{more}"


def _split(path: str) -> list[str]:
    """The keys of a displayed path, without what escapes a `/` or `\\` inside them."""
    if path in ("", "/"):
        return []
    parts = [""]
    characters = iter(path)
    for character in characters:
        if character == "/":
            parts.append("")
        else:
            parts[-1] += next(characters, "") if character == "\\" else character
    return parts
