"""The architectures of the truth suite: models with random weights, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from tests.truth.timm_models import TIMM_MODELS
from tests.truth.torch_models import SAVED_FROM, TORCH_MODELS
from tests.truth.transformers_models import TRANSFORMERS_MODELS

__all__ = ["ARCHITECTURES", "build", "build_saved"]

ARCHITECTURES: Final[dict[str, Callable[[], nn.Module]]] = {
    **TORCH_MODELS,
    **TRANSFORMERS_MODELS,
    **TIMM_MODELS,
}


def build(name: str) -> nn.Module:
    """Build an architecture; the same weights each time."""
    torch.manual_seed(0)
    return ARCHITECTURES[name]()


def build_saved(name: str) -> nn.Module:
    """Build the model whose state_dict is saved; the architecture itself but for lazy layers."""
    torch.manual_seed(0)
    return SAVED_FROM.get(name, ARCHITECTURES[name])()
