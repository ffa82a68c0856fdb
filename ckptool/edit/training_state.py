"""What only resuming a training needs: by its shape, and by the names that frameworks give it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ckptool.checkpoint.containers import Descent
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.tensors.refs import TensorRef

__all__ = ["TrainingPart", "training_parts"]

_NAMES: Final = re.compile(
    "|".join(
        (
            r"(last_)?optim(izer)?s?(_states?|_state_dicts?|_history)?",  # fairseq: last_, _history
            r"(lr_|param_)?schedulers?(_states?|_state_dicts?)?",  # mmengine: param_schedulers
            r"lr_scheduler_states",
            r"(grad_|amp_|loss_)?scalers?(_states?|_state_dicts?)?",  # timm: amp_scaler
            r"(native_)?amp(_scaling_state)?",  # apex, Lightning
            r"MixedPrecision(Plugin)?",  # Lightning
            r"callbacks",
            r"loops",
            r"message_hub",  # mmengine
            r"rng(_states?)?|random_states?|random_rng_state",
            r"(train_)?data_?loaders?(_states?|_state_dicts?)?|sampler(_state)?",
            r"train(ing)?_iterator|iterator_state",
        )
    )
)


class TrainingPart(NamedTuple):
    """A part that only resuming needs; `weights` are state_dicts inside of it."""

    keys: KeyPath
    weights: tuple[Root, ...]


def training_parts(checkpoint: Checkpoint) -> list[TrainingPart]:
    """Return the parts of a checkpoint that only resuming needs, in file order.

    What holds nothing else goes as a whole: a list of optimizers, say.
    """
    states = {state.keys for state in checkpoint.training}
    known = states | {keys for keys in _top_keys(checkpoint) if _is_named(checkpoint, keys)}
    above = {keys[:n] for keys in known for n in range(1, len(keys))}
    holds_more: set[KeyPath] = set()
    order: dict[KeyPath, None] = {}
    for entry in checkpoint.entries:
        prefixes = [entry.keys[:n] for n in range(1, len(entry.keys) + 1)]
        order.update((keys, None) for keys in prefixes if keys in known or keys in above)
        if not any(keys in known for keys in prefixes):
            holds_more.update(keys for keys in prefixes if keys in above)
    whole = {keys: None for keys in order if keys not in holds_more}
    outermost = [keys for keys in whole if not any(keys[:n] in whole for n in range(1, len(keys)))]
    return [TrainingPart(keys, tuple(_weights(checkpoint, keys))) for keys in outermost]


def _top_keys(checkpoint: Checkpoint) -> Iterable[KeyPath]:
    held = Descent().into(checkpoint.container.tree) or ()
    return ((key,) for key, node in held if node is not None and type(node) is not TensorRef)


def _is_named(checkpoint: Checkpoint, keys: KeyPath) -> bool:
    key = keys[-1]
    is_chosen = checkpoint.root is not None and checkpoint.root.keys[: len(keys)] == keys
    return isinstance(key, str) and _NAMES.fullmatch(key) is not None and not is_chosen


def _weights(checkpoint: Checkpoint, keys: KeyPath) -> Iterator[Root]:
    for root in checkpoint.roots:
        if root.keys[: len(keys)] == keys and root.is_named_as_state_dict:
            yield root
