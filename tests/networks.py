"""A network for TorchScript, which cannot read annotations that are kept as text."""

import torch
from torch import nn

__all__ = ["Net"]


class Net(nn.Module):
    """All that a module can hold: submodules in a list, buffers that are saved and that are not."""

    scale: torch.Tensor
    cache: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.norms = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("cache", torch.zeros(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        for norm in self.norms:
            x = norm(x)
        return x * self.scale + self.cache.sum()
