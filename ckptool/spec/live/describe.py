"""A model that was built, as a `ModelSpec`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from ckptool.checkpoint.modules import join
from ckptool.spec.live.construct import Construction, paths_of_instances
from ckptool.spec.live.initial import initial_value
from ckptool.spec.load_rules import settings_of
from ckptool.spec.model_spec import (
    InitialValue,
    LoadHook,
    ModelSpec,
    ModuleSpec,
    TensorSpec,
    UnknownValue,
)

__all__ = ["describe"]

_LOADS: Final = "_load_from_state_dict"


def describe(
    source: str,
    origin: Literal["constructed", "instance"],
    built: Construction,
    again: Construction | None = None,
) -> ModelSpec:
    """Say what a model is made of.

    `again` is the same model constructed a second time: buffers that differ are random. Of an
    instance, or of a part that is one, no initial value is known: it may have been trained.
    """
    module = built.module
    other = built if again is None else again
    instances = paths_of_instances(built, other)
    others = {one.name: one.tensor for one in _tensors(other.module)}
    tensors: dict[str, TensorSpec] = {}
    first_names: dict[int, str] = {}
    for name, kind, is_persistent, tensor, path in _tensors(module):
        first = first_names.setdefault(id(tensor), name)
        initial: InitialValue | None = None
        if kind == "buffer" and path in instances:
            initial = UnknownValue("of an instance")
        elif kind == "buffer":
            initial = initial_value(tensor, others.get(name))
            if tensor.is_meta and not built.has_moved:
                initial = UnknownValue("not initialised")
        tied_to = None if first == name else first
        tensors[name] = TensorSpec(kind, is_persistent, *_dtype_and_shape(tensor), tied_to, initial)
    modules = {
        path: _module_spec(path, part)
        for path, part in module.named_modules(remove_duplicate=False)
    }
    return ModelSpec(source, origin, torch.__version__, tensors, modules)


def _dtype_and_shape(tensor: Tensor) -> tuple[str | None, tuple[int, ...] | None]:
    """Both None where a tensor is not initialised; no shape where its sizes are ragged."""
    if is_lazy(tensor):
        return None, None
    dtype = str(tensor.dtype).removeprefix("torch.")
    return dtype, None if tensor.is_nested else tuple(int(size) for size in tensor.shape)


class _Named(NamedTuple):
    """A parameter or buffer under one of its names, in the module at a path."""

    name: str
    kind: Literal["parameter", "buffer"]
    is_persistent: bool
    tensor: Tensor
    path: str


def _tensors(module: nn.Module) -> Iterator[_Named]:
    """Every parameter and buffer, in the order of `state_dict()`."""
    for path, part in module.named_modules(remove_duplicate=False):
        for name, parameter in part._parameters.items():
            if parameter is not None:
                yield _Named(join(path, name), "parameter", True, parameter, path)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                is_persistent = name not in part._non_persistent_buffers_set
                yield _Named(join(path, name), "buffer", is_persistent, buffer, path)


def _module_spec(path: str, module: nn.Module) -> ModuleSpec:
    registered: tuple[Mapping[str, object], ...] = (module._parameters, module._buffers)
    return ModuleSpec(
        _qualified(type_before_parametrizations(module)),
        tuple(_load_hooks(path, module)),
        type(module).set_extra_state is not nn.Module.set_extra_state,
        tuple(name for table in registered for name, value in table.items() if value is None),
        tuple(name for name, value in module._modules.items() if value is None),
    )


# How it loads ----------------------------------------------------------------------------------


def _load_hooks(path: str, module: nn.Module) -> Iterator[LoadHook]:
    """Everything that takes part in loading besides `nn.Module` itself."""
    # Only the model itself is ever asked for `load_state_dict`.
    for method in (_LOADS, "load_state_dict") if not path else (_LOADS,):
        override = inspect.getattr_static(module, method)
        if override is not getattr(nn.Module, method):
            yield _hook(override, module)
    for hooks in (module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks):
        for hook in hooks.values():
            yield _hook(getattr(hook, "hook", hook), module)


def _hook(hook: Any, module: nn.Module) -> LoadHook:
    name = _name_of(hook)
    settings = {
        key: _plain(value)
        for key in settings_of(name)
        if (value := _setting(key, hook, module)) is not _NOTHING
    }
    return LoadHook(name, settings)


def _name_of(hook: Any) -> str:
    if isinstance(hook, functools.partial):
        return f"functools.partial({_name_of(hook.func)})"
    return _qualified(hook if hasattr(hook, "__qualname__") else type(hook))


_NOTHING: Final = object()


def _setting(key: str, hook: Any, module: nn.Module) -> Any:
    """One of the values that a hook of torch's looks at: in its closure, itself, or its module."""
    if inspect.isfunction(hook):
        closed = inspect.getclosurevars(hook).nonlocals
        if key in closed:
            return closed[key]
    find: Callable[[Any], Any] = attrgetter(key)
    for owner in (hook, module):
        with contextlib.suppress(AttributeError):
            return find(owner)
    return _NOTHING


def _plain(value: Any) -> bool | int | str:
    return value if isinstance(value, bool | int | str) else str(value)


def _qualified(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"
