"""A model built without its parameters' memory: each goes to the meta device when registered.

Buffers keep their values, so that a model of any size costs what its largest layer does, and
constructors that look at values work.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ckptool.errors import SpecError

__all__ = [
    "Construction",
    "as_construction",
    "construct",
    "copy_on_meta",
    "move_to_meta",
    "paths_of_instances",
]

# torch's wordings where a tensor has no data: "... cannot be called on meta tensors", "Cannot copy
# out of meta tensor", and when data is assigned to a parameter, "incompatible tensor type".
_REFUSAL: Final = re.compile(r"\bmeta\b|incompatible tensor type", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Construction:
    """A model whose parameters are on the meta device.

    `has_moved` says that some were put there on the way; without that a buffer on the meta device
    is there because its constructor wants it so. `parts` are the modules that the constructor gave,
    by their paths, of which `module` can be a copy; those that nobody holds are gone.
    """

    module: nn.Module
    has_moved: bool
    parts: Mapping[str, ReferenceType[nn.Module]]


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
        # It is the constructor's own, unless the detour can have led to it.
        if not watch.has_refused:
            raise
    # Also where the constructor caught the refusal itself, and went on with another model.
    if watch.has_refused:
        module = _checked(build())
        return Construction(_without_parameters(module), False, _parts_of(module))
    return Construction(module, moved.count > 0, _parts_of(module))


def as_construction(module: nn.Module) -> Construction:
    """Return a model that is there already as what its own constructor would have given."""
    return Construction(module, False, _parts_of(module))


def paths_of_instances(built: Construction, again: Construction) -> frozenset[str]:
    """Return the paths of what is the same module in two constructions: neither has made it."""
    found = (
        path
        for path, part in built.parts.items()
        if part() is not None and path in again.parts and part() is again.parts[path]()
    )
    return frozenset(found)


def _parts_of(module: nn.Module) -> dict[str, ReferenceType[nn.Module]]:
    return {path: ref(part) for path, part in module.named_modules(remove_duplicate=False)}


def move_to_meta(module: nn.Module) -> None:
    """Put a model's parameters and buffers on the meta device; ties stay ties."""
    moved: WeakIdKeyDictionary = WeakIdKeyDictionary()
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if tensor not in moved:
                        moved[tensor] = _on_meta(tensor)
                    table[name] = moved[tensor]


def copy_on_meta(module: nn.Module) -> nn.Module:
    """Copy a model to the meta device; it stays as it is, and its data is not copied."""
    return _copied(module, _on_meta)


def _without_parameters(module: nn.Module) -> nn.Module:
    """A copy with the same buffers, and parameters without data; the model where none is to be had.

    The model is not changed: parts of it can be older than it, and belong to someone else.
    """
    try:
        return _copied(module, lambda buffer: buffer)
    # What a model has among its attributes can refuse to be copied in any way.
    except Exception:  # noqa: BLE001
        return module


def _copied(module: nn.Module, buffer_of: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {}
    for part in module.modules():
        # Old weight_norm keeps a tensor that it computes as a plain attribute.
        attributes = (value for value in vars(part).values() if isinstance(value, Tensor))
        for tensor in (*part._parameters.values(), *attributes):
            if tensor is not None:
                memo[id(tensor)] = _on_meta(tensor)
        for buffer in part._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = buffer_of(buffer)
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
    except RuntimeError:
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
