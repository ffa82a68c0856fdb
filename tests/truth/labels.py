"""What ckptool says without a model of files that architectures save, beside the truth."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

from ckptool import classify, open_checkpoint
from tests.truth.architectures import build_saved

__all__ = ["KINDS_OF_FILE", "Label", "labels", "truth_of"]


class Label(NamedTuple):
    """One name of a model: what it is, and what ckptool says it is."""

    name: str
    role: str
    is_persistent: bool | None
    said_role: str
    said_is_persistent: bool | None
    evidence: str
    is_certain: bool

    @property
    def is_right(self) -> bool:
        """Whether all that was said is so; what was left open is not wrong."""
        return self.said_role == self.role and self.said_is_persistent in (None, self.is_persistent)


def _state_dict(model: nn.Module) -> object:
    return model.state_dict()


def _with_variables(model: nn.Module) -> object:
    return model.state_dict(keep_vars=True)


def _whole(model: nn.Module) -> object:
    return model


KINDS_OF_FILE: Final[dict[str, Callable[[nn.Module], object]]] = {
    "state_dict": _state_dict,
    "state_dict with variables": _with_variables,
    "whole module": _whole,
}

_UNSAVEABLE: Final = (pickle.PicklingError, AttributeError, RuntimeError, TypeError)


def labels(name: str, kind: str, folder: Path) -> Iterator[Label]:
    """Save an architecture as one kind of file and yield every name that ckptool finds in it.

    Nothing is yielded where torch cannot save the model so: parametrized modules, hooks that are
    closures.
    """
    model = build_saved(name)
    path = folder / "saved.pt"
    try:
        torch.save(KINDS_OF_FILE[kind](model), path)
    except _UNSAVEABLE:
        return
    truth = truth_of(model)
    with open_checkpoint(path) as checkpoint:
        for entry in classify(checkpoint).entries:
            if entry.name is not None and entry.name in truth:
                yield Label(
                    entry.name,
                    *truth[entry.name],
                    entry.role,
                    entry.is_persistent,
                    entry.evidence,
                    entry.is_certain,
                )


def truth_of(model: nn.Module) -> dict[str, tuple[str, bool | None]]:
    """Role and persistence of every parameter and buffer, from the model itself."""
    found: dict[str, tuple[str, bool | None]] = {
        name: ("parameter", None) for name, _ in model.named_parameters(remove_duplicate=False)
    }
    for path, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module._buffers.items():
            if buffer is not None:
                is_persistent = name not in module._non_persistent_buffers_set
                found[f"{path}.{name}" if path else name] = ("buffer", is_persistent)
    return found
