"""What a buffer holds after construction, from two constructions of its model."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ckptool.spec.model_spec import (
    Computed,
    Content,
    Fill,
    InitialValue,
    Random,
    Range,
    UnknownValue,
)

__all__ = ["initial_value"]

_KEPT_BYTES: Final = 1 << 16


def initial_value(buffer: Tensor, again: Tensor) -> InitialValue:
    """Say what a buffer holds; `again` is the same buffer of a second construction."""
    if is_lazy(buffer):
        return UnknownValue("not initialised")
    if buffer.is_meta:
        return UnknownValue("made from parameters")
    if buffer.layout is not torch.strided or buffer.is_quantized:
        return Computed()
    if not _is_same(buffer, again):
        return Random()
    flat = buffer.detach().resolve_conj().resolve_neg().reshape(-1)
    if flat.numel() and not flat.is_complex():
        if _is_filled(flat):
            return Fill(flat[0].item())
        if (step := _step(flat)) is not None:
            return Range(int(flat[0]), step)
    return Content(_bytes(flat)) if flat.nbytes <= _KEPT_BYTES else Computed()


def _is_same(buffer: Tensor, again: Tensor) -> bool:
    is_alike = buffer.shape == again.shape and buffer.dtype == again.dtype
    return is_alike and torch.equal(_bits(buffer), _bits(again))


def _is_filled(flat: Tensor) -> bool:
    bits = _bits(flat).reshape(flat.numel(), -1)
    return bool((bits == bits[0]).all())


def _step(flat: Tensor) -> int | None:
    """The step of integers that rise evenly, None for anything else."""
    if flat.is_floating_point() or flat.dtype is torch.bool or flat.numel() < 2:
        return None
    try:
        steps = flat.to(torch.int64).diff()
    except RuntimeError:  # integers of fewer than eight bits
        return None
    return int(steps[0]) if bool((steps == steps[0]).all()) else None


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of the elements, so that NaN is equal to itself and -0.0 is not 0.0."""
    return tensor.detach().resolve_conj().resolve_neg().reshape(-1).contiguous().view(torch.uint8)


def _bytes(flat: Tensor) -> bytes:
    return bytes(_bits(flat).numpy())
