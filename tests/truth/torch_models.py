"""Models made of torch's own layers: all kinds of parameters, buffers, and ways to load them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune

__all__ = ["SAVED_FROM", "TORCH_MODELS"]


def _normalisations() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm3d(4, affine=False),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.InstanceNorm3d(4, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.LayerNorm([3, 4]),
        nn.RMSNorm(4),
        nn.LocalResponseNorm(2),
        nn.CrossMapLRN2d(2),
    )


def _untracked_normalisations() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm(4, elementwise_affine=False),
        nn.LayerNorm(4, bias=False),
        nn.GroupNorm(2, 4, affine=False),
        nn.Linear(4, 2, bias=False),
    )


def _recurrent() -> nn.Module:
    return nn.ModuleDict(
        {
            "rnn": nn.RNN(3, 4, num_layers=2),
            "lstm": nn.LSTM(3, 4, bidirectional=True, proj_size=2),
            "gru": nn.GRU(3, 4, bias=False),
            "lstm_cell": nn.LSTMCell(3, 4),
            "gru_cell": nn.GRUCell(3, 4),
        }
    )


def _attention() -> nn.Module:
    return nn.ModuleDict(
        {
            "plain": nn.MultiheadAttention(8, 2),
            "with_bias": nn.MultiheadAttention(8, 2, add_bias_kv=True),
            "of_other_widths": nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False),
        }
    )


def _transformer() -> nn.Module:
    return nn.Transformer(8, 2, 1, 1, dim_feedforward=16, batch_first=True)


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.Conv2d(2, 4, 3, groups=2),
        nn.ConvTranspose2d(2, 4, 3, bias=False),
        nn.Conv3d(1, 2, 3),
        nn.Bilinear(2, 3, 4),
        nn.PReLU(4),
    )


def _parametrized() -> nn.Module:
    return nn.ModuleDict(
        {
            "weight_norm": parametrizations.weight_norm(nn.Linear(3, 4)),
            "spectral_norm": parametrizations.spectral_norm(nn.Linear(3, 4)),
            "spectral_norm_of_a_convolution": parametrizations.spectral_norm(nn.Conv1d(2, 3, 3)),
            "orthogonal": parametrizations.orthogonal(nn.Linear(4, 4)),
            "several": parametrizations.spectral_norm(
                parametrizations.weight_norm(nn.Linear(3, 4)), "bias"
            ),
        }
    )


def _old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))


def _old_spectral_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            nn.utils.spectral_norm(nn.Linear(3, 4)), nn.utils.spectral_norm(nn.Conv1d(4, 2, 3))
        )


def _pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    torch.manual_seed(0)
    prune.l1_unstructured(model[0], "weight", amount=3)  # type: ignore[no-untyped-call]
    prune.random_unstructured(model[1], "bias", amount=1)  # type: ignore[no-untyped-call]
    return model


class _Lazy(nn.Module):
    """Layers that learn their shapes from their first input."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.LazyConv1d(4, 3)
        self.norm = nn.LazyBatchNorm1d()
        self.linear = nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.linear(self.norm(self.convolution(x)))
        return output


def _lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _Lazy()


def _lazy_after_a_run() -> nn.Module:
    model = _lazy()
    model(torch.zeros(2, 3, 8))
    return model


class _Containers(nn.Module):
    """Parameters in lists and dicts, some of them frozen or empty."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = nn.ParameterList([torch.zeros(2), torch.zeros(3, 2)])
        self.named = nn.ParameterDict({"left": torch.zeros(2), "right": torch.zeros(0, 4)})
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.ModuleDict({"deep": nn.Linear(2, 3)})])
        self.frozen = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.scalar = nn.Parameter(torch.tensor(1.0))
        self.plain = torch.zeros(2)


def _embeddings() -> nn.Module:
    return nn.ModuleDict(
        {
            "embedding": nn.Embedding(10, 4, padding_idx=0),
            "bag": nn.EmbeddingBag(10, 4),
            "softmax": nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 10]),
            "pool": nn.FractionalMaxPool2d(2, output_size=2, _random_samples=torch.zeros(1, 1, 2)),
        }
    )


def _losses() -> nn.Module:
    weight = torch.ones(3)
    return nn.ModuleDict(
        {
            "classes": nn.CrossEntropyLoss(weight=weight),
            "binary": nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)),
            "unweighted": nn.NLLLoss(),
            "head": nn.Linear(4, 3),
        }
    )


def _observers() -> nn.Module:
    kinds = (
        quantization.MinMaxObserver,
        quantization.MovingAverageMinMaxObserver,
        quantization.PerChannelMinMaxObserver,
        quantization.HistogramObserver,
        quantization.PlaceholderObserver,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(*(kind() for kind in kinds), nn.Linear(2, 3))


def _fake_quantizers() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.ModuleDict(
            {
                "plain": quantization.FakeQuantize(),  # type: ignore[no-untyped-call]
                "fused": quantization.FusedMovingAvgObsFakeQuantize(),
                "per_channel": quantization.default_per_channel_weight_fake_quant(),
                "linear": nn.Linear(2, 3),
            }
        )


class _WithExtraState(nn.Module):
    """What `get_extra_state` gives is saved; here plain data and a tensor."""

    def __init__(self, extra: object) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.extra = extra

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


def _extra_states() -> nn.Module:
    return nn.ModuleDict(
        {"data": _WithExtraState({"step": 3}), "tensor": _WithExtraState(torch.zeros(2))}
    )


class _Nothing(nn.Module):
    """Names that are registered, with nothing behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", None)
        self.register_buffer("table", None, persistent=False)
        self.register_parameter("bias", None)
        self.register_module("head", None)
        self.body = nn.Linear(2, 3)


class _Tied(nn.Module):
    """One tensor, or one module, under two names."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.again = self.body
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.register_buffer("table", torch.arange(4.0))
        self.register_buffer("same_table", self.table)


class _Buffers(nn.Module):
    """Buffers that are saved and buffers that are not, registered in both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))
        self.kept = nn.Buffer(torch.ones(3))
        self.cache = nn.Buffer(torch.zeros(2, 2), persistent=False)
        self.empty = nn.Buffer(torch.empty(0))
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))
        self.register_buffer("temp_buffer", torch.arange(3.0), persistent=False)
        self.register_buffer("noise", torch.randn(3))
        self.register_buffer("of_the_weight", self.weight.detach().sum(0))
        self.register_buffer("indices", torch.arange(6).view(2, 3))
        self.register_buffer("visible", torch.ones(3, 3, dtype=torch.bool).tril())
        self.register_buffer("phases", torch.polar(torch.ones(3), torch.arange(3.0)))
        self.register_buffer("halved", torch.ones(3, dtype=torch.bfloat16))


class _PositionalEncoding(nn.Module):
    """The table of the tutorial on sequence models, and what rotary embeddings once kept."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        angles = torch.arange(16.0)[:, None] * torch.exp(torch.arange(0, 8, 2) * -1.15)
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        self.register_buffer("pe", table[:, None, :])
        self.rotary_emb = nn.Module()
        self.rotary_emb.register_buffer("inv_freq", torch.ones(4))
        self.rotary_emb.register_buffer("cos_cached", torch.ones(1, 1, 16, 8))
        self.rotary_emb.register_buffer("sin_cached", torch.ones(1, 1, 16, 8))
        self.attn = nn.Module()
        self.attn.c_attn = nn.Linear(8, 24)
        self.attn.register_buffer("bias", torch.ones(16, 16).tril()[None, None])
        self.attn.register_buffer("masked_bias", torch.tensor(-1e4))


class _Normaliser(nn.Module):
    """The mean and deviation of the input, as kept with image and reinforcement models."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))
        self.input = nn.Module()
        self.input.register_buffer("mean", torch.zeros(4))
        self.input.register_buffer("std", torch.ones(4))
        self.observation = nn.Module()
        self.observation.register_buffer("mean", torch.zeros(4))
        self.observation.register_buffer("var", torch.ones(4))
        self.observation.register_buffer("count", torch.tensor(0))
        self.body = nn.Linear(4, 3)


def _averaged() -> nn.Module:
    return torch.optim.swa_utils.AveragedModel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))


def _data_parallel() -> nn.Module:
    return nn.DataParallel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))


TORCH_MODELS: Final[dict[str, Callable[[], nn.Module]]] = {
    "normalisations": _normalisations,
    "untracked normalisations": _untracked_normalisations,
    "recurrent": _recurrent,
    "attention": _attention,
    "transformer": _transformer,
    "convolutions": _convolutions,
    "parametrized": _parametrized,
    "old weight_norm": _old_weight_norm,
    "old spectral_norm": _old_spectral_norm,
    "pruned": _pruned,
    "lazy": _lazy,
    "containers": _Containers,
    "embeddings": _embeddings,
    "losses": _losses,
    "observers": _observers,
    "fake quantizers": _fake_quantizers,
    "extra states": _extra_states,
    "nothing": _Nothing,
    "tied": _Tied,
    "buffers": _Buffers,
    "positional encoding": _PositionalEncoding,
    "normaliser": _Normaliser,
    "averaged": _averaged,
    "data parallel": _data_parallel,
}

SAVED_FROM: Final[dict[str, Callable[[], nn.Module]]] = {"lazy": _lazy_after_a_run}
"""Models whose state_dict is that of another one: a lazy layer has no shapes before it has run."""
