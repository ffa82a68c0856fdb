"""torchvision without its operators: timm and transformers need its Python part only.

They are compiled for one build of torch and do not load beside another. The import of torchvision
then fails at the operators for which it has a fallback on the meta device, because nothing has
declared them.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Final

import torch

__all__ = ["make_torchvision_importable"]

_WITH_A_FALLBACK: Final = ("nms", "qnms")
_SIGNATURE: Final = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def make_torchvision_importable() -> torch.library.Library | None:
    """Declare what torchvision lacks; what a library declares is gone when the library is."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _WITH_A_FALLBACK:
            library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
        return library
    return None
