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
    if buffer.layout is not torch.strided or buffer.is_quantized or buffer.is_nested:
        return UnknownValue("of a kind that is not kept")
    try:
        return _strided_value(buffer.detach(), again.detach())
    except (RuntimeError, NotImplementedError, TypeError):
        # torch does next to nothing with packed and with some narrow dtypes.
        return UnknownValue("of a kind that is not kept")


def _strided_value(buffer: Tensor, again: Tensor) -> InitialValue:
    if not _is_same(buffer, again):
        return Random()
    once = _kept_once(buffer).reshape(-1)
    if once.numel() and not once.is_complex():
        if _is_filled(once):
            return Fill(once[0].item())
        if once.numel() == buffer.numel() and (step := _step(once)) is not None:
            return Range(int(once[0]), step)
    return Content(_bytes(buffer)) if buffer.nbytes <= _KEPT_BYTES else Computed()


def _kept_once(tensor: Tensor) -> Tensor:
    """A view without the repetitions that `expand` makes, which would be copied otherwise."""
    for dim, step in enumerate(tensor.stride()):
        if step == 0 and tensor.shape[dim] > 1:
            # `narrow` would keep the stride of zero, which no other dtype can look through.
            tensor = tensor.select(dim, 0).unsqueeze(dim)
    return tensor


def _is_same(buffer: Tensor, again: Tensor) -> bool:
    is_alike = buffer.shape == again.shape and buffer.dtype == again.dtype
    is_alike = is_alike and buffer.stride() == again.stride()
    return is_alike and torch.equal(_bits(_kept_once(buffer)), _bits(_kept_once(again)))


def _is_filled(flat: Tensor) -> bool:
    bits = _bits(flat).reshape(flat.numel(), -1)
    return bool((bits == bits[0]).all())


def _step(flat: Tensor) -> int | None:
    """The step of integers that rise evenly, None for anything else."""
    if flat.is_floating_point() or flat.dtype is torch.bool or flat.numel() < 2:
        return None
    steps = flat.to(torch.int64).diff()
    return int(steps[0]) if bool((steps == steps[0]).all()) else None


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of the elements, so that NaN is equal to itself and -0.0 is not 0.0."""
    return tensor.resolve_conj().resolve_neg().reshape(-1).contiguous().view(torch.uint8)


def _bytes(tensor: Tensor) -> bytes:
    return bytes(_bits(tensor).numpy())
