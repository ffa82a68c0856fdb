"""State that only resuming a training needs, recognised by its shape and, last, by its name."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.modules import mapping_of
from ckptool.pickling.nodes import Node
from ckptool.tensors.refs import TensorRef

__all__ = ["TrainingKind", "training_kind"]

TrainingKind: TypeAlias = Literal["optimizer", "scheduler", "scaler", "rng"]

# The keys that torch 2.13 writes: `Optimizer.state_dict`, `LRScheduler.state_dict`,
# `GradScaler.state_dict`.
_OPTIMIZER_KEYS = {"state", "param_groups"}
_SCALER_KEYS = {"scale", "growth_factor", "backoff_factor", "growth_interval"}
_SCHEDULER_KEYS = ({"last_epoch", "_step_count"}, {"last_epoch", "base_lrs"}, {"_schedulers"})

_RNG_NAME = re.compile(r"(^|_)(rng|random)(_|$)|^(torch|cuda|numpy|python)_rng", re.IGNORECASE)


_RNG_DTYPE = "uint8"


def training_kind(keys: KeyPath, node: Node) -> TrainingKind | None:
    """Return what kind of training state stands at a key path, None for anything else."""
    if type(node) is TensorRef and node.dtype.name != _RNG_DTYPE:
        return None
    mapping = mapping_of(node)
    if mapping is not None:
        if mapping.keys() >= _OPTIMIZER_KEYS:
            return "optimizer"
        if mapping.keys() >= _SCALER_KEYS:
            return "scaler"
        if any(expected <= mapping.keys() for expected in _SCHEDULER_KEYS):
            return "scheduler"
    if keys and isinstance(keys[-1], str) and _RNG_NAME.search(keys[-1]) and _is_rng(node, mapping):
        return "rng"
    return None


def _is_rng(node: Node, mapping: dict[Node, Node] | None) -> bool:
    """Whether a value under such a name can be a generator's state, and not weights."""
    if type(node) is TensorRef:
        return node.dtype.name == _RNG_DTYPE and len(node.shape) == 1
    if mapping is not None:
        return all(
            type(value) is not TensorRef or _is_rng(value, None) for value in mapping.values()
        )
    return True
