"""A model built without its parameters' memory: each goes to the meta device when registered.

Buffers keep their values, so that a model of any size costs what its largest layer does, and
constructors that look at values work.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ckptool.errors import SpecError

__all__ = ["Construction", "construct", "copy_on_meta", "move_to_meta"]

# torch's wordings where a tensor has no data: "... cannot be called on meta tensors", "Cannot copy
# out of meta tensor", and when data is assigned to a parameter, "incompatible tensor type".
_REFUSAL: Final = re.compile(r"\bmeta\b|incompatible tensor type", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Construction:
    """A model whose parameters are on the meta device.

    `has_moved` says that some were put there on the way; without that a buffer on the meta device
    is there because its constructor wants it so.
    """

    module: nn.Module
    has_moved: bool


def construct(build: Callable[[], Any]) -> Construction:
    """Build a model with its parameters on the meta device.

    A constructor that needs the values of its parameters gets them: it is run again without the
    detour. What the constructor raises is passed on.
    """
    watch = _Watch()
    try:
        with _parameters_on_meta() as moved, watch, warnings.catch_warnings():
            # A constructor can load weights; that they go nowhere here is no news to its user.
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            module = _checked(build())
    except Exception:
        if not watch.has_refused:
            raise
    # Also where the constructor caught the refusal itself, and went on with another model.
    if watch.has_refused:
        module = _checked(build())
        move_to_meta(module, with_buffers=False)
        return Construction(module, False)
    return Construction(module, moved.count > 0)


def move_to_meta(module: nn.Module, *, with_buffers: bool = True) -> None:
    """Put a model's parameters, and its buffers too, on the meta device; ties stay ties."""
    moved: WeakIdKeyDictionary = WeakIdKeyDictionary()
    for part in module.modules():
        for table in (part._parameters, part._buffers) if with_buffers else (part._parameters,):
            for name, tensor in table.items():
                if tensor is not None:
                    if tensor not in moved:
                        moved[tensor] = _on_meta(tensor)
                    table[name] = moved[tensor]


def copy_on_meta(module: nn.Module) -> nn.Module:
    """Copy a model to the meta device; it stays as it is, and its data is not copied."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        # Old weight_norm keeps a tensor that it computes as a plain attribute.
        attributes = (value for value in vars(part).values() if isinstance(value, Tensor))
        for tensor in (*part._parameters.values(), *part._buffers.values(), *attributes):
            if tensor is not None:
                memo[id(tensor)] = _on_meta(tensor)
    return copy.deepcopy(module, memo)


@dataclass(slots=True)
class _Moved:
    """How many parameters were moved to the meta device."""

    count: int = 0


@contextmanager
def _parameters_on_meta() -> Iterator[_Moved]:
    register = nn.Module.register_parameter
    # The same parameter again, registered in a second place, is the same one on the meta device.
    moved: WeakIdKeyDictionary = WeakIdKeyDictionary()
    own: WeakIdKeyDictionary = WeakIdKeyDictionary()
    seen = _Moved()

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is None or parameter in own:
            return
        if parameter.is_meta and not is_lazy(parameter):
            return
        if parameter not in moved:
            moved[parameter] = _on_meta(parameter)
            own[moved[parameter]] = True
            seen.count += 1
        module._parameters[name] = moved[parameter]

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _on_meta(tensor: Tensor) -> Tensor:
    """The same tensor without data: its class, dtype, shape and attributes.

    The tensor itself where its layout has no form on the meta device, as quantized ones have none.
    """
    if is_lazy(tensor):
        dtype = tensor.data.dtype
        lazy: Any = type(tensor)
        uninitialised: Tensor = lazy(requires_grad=tensor.requires_grad, device="meta", dtype=dtype)
        return uninitialised
    data = tensor.detach()
    try:
        on_meta = data if data.is_meta else torch.empty_like(data, device="meta")
    except (RuntimeError, NotImplementedError):
        return tensor
    if isinstance(tensor, nn.Parameter):
        on_meta = nn.Parameter(on_meta, tensor.requires_grad)
        if type(tensor) is not nn.Parameter:
            on_meta.__class__ = type(tensor)
    on_meta.__dict__.update(tensor.__dict__)
    return on_meta


def _checked(module: Any) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise SpecError(f"it gives an object of type {type(module).__name__}, no torch.nn.Module")
    return module


class _Watch(TorchFunctionMode):
    """Sees whether torch refuses something because a tensor has no data."""

    has_refused = False

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch's, and look at what it raises."""
        try:
            return func(*args, **(kwargs or {}))
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            self.has_refused |= _REFUSAL.search(str(error)) is not None
            raise
