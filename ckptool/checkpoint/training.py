"""State that only resuming a training needs, recognised by its shape and, last, by its name."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from ckptool.checkpoint.containers import attributes_of, mapping_of
from ckptool.checkpoint.keypath import KeyPath
from ckptool.pickling.nodes import Node
from ckptool.tensors.dtypes import BYTES
from ckptool.tensors.refs import TensorRef

__all__ = ["RNG_DTYPE", "TrainingKind", "training_kind"]

TrainingKind: TypeAlias = Literal["optimizer", "scheduler", "scaler", "rng"]

# The keys that torch 2.13 writes: `Optimizer.state_dict`, `LRScheduler.state_dict`,
# `GradScaler.state_dict`.
_OPTIMIZER_KEYS = {"state", "param_groups"}
_SCALER_KEYS = {"scale", "growth_factor", "backoff_factor", "growth_interval"}
_SCHEDULER_KEYS = (
    {"last_epoch", "_step_count"},
    {"last_epoch", "base_lrs"},
    {"num_bad_epochs", "patience"},
    {"_schedulers"},
)
# The generators by what they belong to, as transformers' Trainer saves them.
_RNG_KEYS = {"python", "numpy", "cpu"}

_RNG_NAME = re.compile(
    r"(^|_)(rng|random|manual_seed)(_|$)|^(torch|cuda|numpy|python)_rng", re.IGNORECASE
)
RNG_DTYPE: Final = BYTES
"""What torch keeps the state of its generators in."""


def training_kind(keys: KeyPath, node: Node) -> TrainingKind | None:
    """Return what kind of training state stands at a key path, None for anything else."""
    if type(node) is TensorRef and node.dtype is not RNG_DTYPE:
        return None
    # An optimizer or scheduler that was pickled itself has the same facts as attributes.
    mapping = mapping_of(node) or attributes_of(node)
    if mapping:
        if mapping.keys() >= _OPTIMIZER_KEYS:
            return "optimizer"
        if mapping.keys() >= _SCALER_KEYS:
            return "scaler"
        if any(expected <= mapping.keys() for expected in _SCHEDULER_KEYS):
            return "scheduler"
        if mapping.keys() >= _RNG_KEYS and _is_rng(node, mapping):
            return "rng"
    if keys and isinstance(keys[-1], str) and _RNG_NAME.search(keys[-1]) and _is_rng(node, mapping):
        return "rng"
    return None


def _is_rng(node: Node, mapping: dict[Node, Node]) -> bool:
    """Whether a value under such a name can be a generator's state, and not weights."""
    if type(node) is TensorRef:
        return node.dtype is RNG_DTYPE and len(node.shape) == 1
    return all(type(value) is not TensorRef or _is_rng(value, {}) for value in mapping.values())
