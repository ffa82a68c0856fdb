"""Transformers of the usual shape, as large as the ones in use: for `ckptool spec`."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["seven_billion", "seventy_billion"]


class Block(nn.Module):
    """One layer: attention, a gated feed-forward part, two norms, and a table that is not saved."""

    inverse_frequencies: torch.Tensor

    def __init__(self, width: int, inner: int, key_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, key_width, bias=False)
        self.value = nn.Linear(width, key_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        frequencies = 1 / 10_000 ** (torch.arange(0, 128, 2) / 128)
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)


class Transformer(nn.Module):
    """An embedding, layers, and a head."""

    def __init__(self, width: int, inner: int, key_width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(32_000, width)
        self.layers = nn.ModuleList([Block(width, inner, key_width) for _ in range(layers)])
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, 32_000, bias=False)


def seven_billion() -> nn.Module:
    """As large as the smaller models that people train."""
    return Transformer(4_096, 11_008, 4_096, 32)


def seventy_billion() -> nn.Module:
    """More than the memory of most machines."""
    return Transformer(8_192, 28_672, 1_024, 80)
