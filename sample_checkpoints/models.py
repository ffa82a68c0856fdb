"""The models behind the sample checkpoints: each has another mix of parameters and buffers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MyModel(nn.Module):
    """All three kinds side by side; `temp_buffer` is not saved."""

    weight: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    temp_buffer: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(hidden_size, input_size))
        self.register_buffer("running_mean", torch.zeros(hidden_size))
        self.register_buffer("running_var", torch.ones(hidden_size))
        self.register_buffer("temp_buffer", torch.tensor([1.0, 2.0, 3.0]), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs @ self.weight.T
        return (hidden - self.running_mean) / (self.running_var + 1e-5).sqrt()


class BufferClassModel(nn.Module):
    """Buffers assigned as `nn.Buffer`, without `register_buffer`; one of them without data."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.saved = nn.Buffer(torch.tensor([1.0, 2.0, 3.0]))
        self.not_saved = nn.Buffer(torch.tensor([4.0, 5.0, 6.0]), persistent=False)
        self.empty = nn.Buffer()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight + self.saved - self.not_saved


class SimpleModel(nn.Module):
    """Buffers only; `count` is a plain tensor attribute, no buffer, and never saved."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.0]))
        self.register_buffer("std", torch.tensor([1.0]))
        self.count = torch.tensor([0.0])

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std


class CustomBatchNorm(nn.Module):
    """Batch statistics by hand: the names are those of BatchNorm, the module type is not."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            mean, variance = inputs.mean(0).detach(), inputs.var(0).detach()
            # Assigning a tensor to a buffer's name replaces the buffer.
            self.running_mean = torch.lerp(self.running_mean, mean, self.momentum)
            self.running_var = torch.lerp(self.running_var, variance, self.momentum)
            self.num_batches_tracked = self.num_batches_tracked + 1
        else:
            mean, variance = self.running_mean, self.running_var
        return (inputs - mean) / (variance + 1e-5).sqrt() * self.weight + self.bias


class TransformerModel(nn.Module):
    """A sinusoidal position table: saved, although it could be computed again."""

    pe: Tensor

    def __init__(self, d_model: int, max_len: int) -> None:
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        rate = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        table = torch.zeros(1, max_len, d_model)
        table[0, :, 0::2] = torch.sin(position * rate)
        table[0, :, 1::2] = torch.cos(position * rate)
        self.register_buffer("pe", table)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.pe[:, : inputs.shape[1]]


class BufferExample(nn.Module):
    """A buffer is persistent unless it says otherwise."""

    important_stats: Tensor
    temp_cache: Tensor
    default_buffer: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("important_stats", torch.tensor([1.0, 2.0, 3.0]), persistent=True)
        self.register_buffer("temp_cache", torch.zeros(10, 10), persistent=False)
        self.register_buffer("default_buffer", torch.ones(5))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class MaskedLayer(nn.Module):
    """A weight under a fixed mask: the lower triangle."""

    mask: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, size))
        self.register_buffer("mask", torch.tril(torch.ones(size, size)))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ (self.weight * self.mask).T


class LookupTable(nn.Module):
    """Look-up tables, one of them of integers."""

    frequency: Tensor
    pos_indices: Tensor

    def __init__(self, vocab: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab, dim))
        self.register_buffer("frequency", torch.full((vocab,), 1 / vocab))
        self.register_buffer("pos_indices", torch.arange(vocab))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding[tokens] * self.frequency[tokens].unsqueeze(-1)


def bare_module() -> nn.Module:
    """A module without a class of its own, given one buffer."""
    module = nn.Module()
    module.register_buffer("my_buffer", torch.tensor([1.0, 2.0, 3.0]))
    return module


class BufferOperations(nn.Module):
    """A buffer that is updated in place, and put back to zero."""

    stats: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stats", torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        self.stats.add_(inputs.detach().sum(0))
        return inputs

    def reset(self) -> None:
        """Forget what was summed."""
        self.stats.zero_()
