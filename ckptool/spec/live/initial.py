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

__all__ = ["content_of", "initial_value", "is_plain"]

_KEPT_BYTES: Final = 1 << 16
_NOT_KEPT: Final = UnknownValue("of a kind that is not kept")
_INTEGERS: Final = frozenset(
    {torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
)
"""What torch counts in; it does nothing with integers of fewer bits."""


def initial_value(buffer: Tensor, again: Tensor | None) -> InitialValue:
    """Say what a buffer holds; `again` is that of a second construction, None where it has none."""
    if is_lazy(buffer):
        return UnknownValue("not initialised")
    if buffer.is_meta:
        return UnknownValue("made from parameters")
    if again is None:
        return Random()
    if not (is_plain(buffer) and is_plain(again)):
        return _NOT_KEPT
    if (buffer.shape, buffer.dtype) != (again.shape, again.dtype):
        return Random()
    if buffer.stride() != again.stride():
        # Each is then repeated by its strides in a way of its own.
        return _NOT_KEPT
    stored = _stored(buffer)
    if not torch.equal(_bits(stored), _bits(_stored(again))):
        return Random()
    return _even_value(buffer, stored) or _content(buffer)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is elements in a storage: not sparse, quantized, nested, or a wrapper."""
    is_dense = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested)
    is_own = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    return is_dense and is_own and not tensor.is_meta and not is_lazy(tensor)


def _stored(tensor: Tensor) -> Tensor:
    """The elements in a row, without those that strides repeat: never more than are stored.

    Where strides let rows overlap it is the stretch of the storage that they are taken from.
    """
    tensor = tensor.detach()
    for dim, step in enumerate(tensor.stride()):
        if step == 0:
            tensor = tensor.narrow(dim, 0, min(tensor.shape[dim], 1))
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    if tensor.numel() > max(last + 1, 0):
        tensor = tensor.as_strided((last + 1,), (1,))
    return tensor.reshape(-1)


def _even_value(buffer: Tensor, stored: Tensor) -> Fill | Range | None:
    """One element throughout, or integers that rise evenly; None for anything else."""
    if not stored.numel():
        return None
    bits = _bits(stored).reshape(stored.numel(), -1)
    if bool((bits == bits[0]).all()):
        value = _number(stored[0])
        return None if value is None else Fill(value)
    is_each_once = stored.numel() == buffer.numel()
    return _range(stored) if is_each_once and stored.dtype in _INTEGERS else None


def _number(element: Tensor) -> bool | int | float | None:
    """An element as a number; None for a complex one, and where torch has none for a dtype."""
    try:
        value = element.item()
    except NotImplementedError:
        return None
    return None if isinstance(value, complex) else value


def _range(stored: Tensor) -> Range | None:
    steps = stored.to(torch.int64).diff()
    start, end, step = (int(one.item()) for one in (stored[0], stored[-1], steps[0]))
    # Steps that are too long for 64 bits come out as others.
    is_even = bool((steps == step).all()) and start + step * len(steps) == end
    return Range(start, step) if is_even else None


def _content(buffer: Tensor) -> Content | Computed:
    # In Python's integers: a tensor that is repeated often has more bytes than torch can count.
    is_small = buffer.numel() * buffer.element_size() <= _KEPT_BYTES
    return Content(content_of(buffer)) if is_small else Computed()


def content_of(buffer: Tensor) -> bytes:
    """Return a buffer's elements in row-major order."""
    return bytes(_bits(buffer.detach()).cpu().numpy())


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of the elements, so that NaN is equal to itself and -0.0 is not 0.0."""
    flat = tensor.resolve_conj().resolve_neg().reshape(-1).contiguous()
    # A single element keeps a longer stride, with which it cannot be viewed as bytes.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8)
