"""Models of timm with random weights, each made small enough for a test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from torch import nn

from tests.truth.torchvision_import import make_torchvision_importable

__all__ = ["TIMM_MODELS"]

Settings = Mapping[str, Any]

_VIT: Final = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}
_WINDOWS: Final = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "num_classes": 5,
}
_RESNET: Final = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "num_classes": 5}

_NAMES: Final[dict[str, tuple[str, Settings]]] = {
    "timm-vit": ("vit_tiny_patch16_224", _VIT),
    "timm-vit-relpos": ("vit_relpos_small_patch16_224", _VIT),
    "timm-beit": ("beit_base_patch16_224", _VIT),
    "timm-eva": ("eva02_tiny_patch14_224", _VIT),
    "timm-cait": ("cait_xxs24_224", _VIT),
    "timm-xcit": ("xcit_nano_12_p16_224", _VIT),
    "timm-convit": ("convit_tiny", {**_VIT, "local_up_to_layer": 1}),
    "timm-swin": ("swin_tiny_patch4_window7_224", _WINDOWS),
    "timm-swin-v2": ("swinv2_tiny_window8_256", _WINDOWS),
    "timm-resnet": ("resnet18", _RESNET),
    "timm-resnet-blur": ("resnetblur50", _RESNET),
    "timm-densenet": (
        "densenet121",
        {"growth_rate": 4, "block_config": (1, 1, 1, 1), "num_classes": 5},
    ),
    "timm-edgenext": (
        "edgenext_xx_small",
        {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_classes": 5},
    ),
    "timm-efficientformer": (
        "efficientformer_l1",
        {"embed_dims": (8, 8, 8, 8), "depths": (1, 1, 1, 2), "num_classes": 5},
    ),
    "timm-efficientvit": (
        "efficientvit_m0",
        {
            "embed_dim": (16, 16, 16),
            "depth": (1, 1, 1),
            "num_heads": (2, 2, 2),
            "key_dim": (4, 4, 4),
            "num_classes": 5,
        },
    ),
    "timm-efficientnet": ("test_efficientnet", {"num_classes": 5}),
    "timm-efficientnet-evonorm": (
        "test_efficientnet",
        {"num_classes": 5, "norm_layer": "evonormb0"},
    ),
    "timm-convnext": ("test_convnext", {"num_classes": 5}),
    "timm-byobnet": ("test_byobnet", {"num_classes": 5}),
    "timm-regnet": ("regnety_002", {"w0": 8, "wa": 8, "wm": 2, "depth": 6, "num_classes": 5}),
    "timm-nfnet": ("test_nfnet", {"num_classes": 5}),
    "timm-mobilenet": ("mobilenetv3_small_050", {"num_classes": 5}),
    "timm-coatnet": ("test_coatnet", {"num_classes": 5}),
    "timm-mambaout": ("test_mambaout", {"num_classes": 5}),
}


def _build(name: str, settings: Settings) -> nn.Module:
    make_torchvision_importable()
    model: nn.Module = importlib.import_module("timm").create_model(name, **settings)
    return model


TIMM_MODELS: Final[dict[str, Callable[[], nn.Module]]] = {
    label: partial(_build, name, settings) for label, (name, settings) in _NAMES.items()
}
