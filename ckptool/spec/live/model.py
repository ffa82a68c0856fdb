"""A live model: its spec, and torch's own answer to a strict load on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ckptool.checkpoint.state_dict import StateDict
from ckptool.errors import SpecError
from ckptool.spec.live.construct import (
    as_construction,
    construct,
    copy_on_meta,
    move_to_meta,
    paths_of_instances,
)
from ckptool.spec.live.describe import describe
from ckptool.spec.live.initial import content_of, is_plain
from ckptool.spec.live.meta_load import load, without_data
from ckptool.spec.live.user_code import find, running_user_code
from ckptool.spec.model_spec import ModelSpec
from ckptool.spec.strict_load import FrozenModel, StrictLoad
from ckptool.spec.target import Target

__all__ = ["LiveModel", "LiveSource", "model_of_object", "model_of_target"]

LiveSource: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A model of this process, or what builds one."""


@dataclass(frozen=True, slots=True, eq=False)
class LiveModel:
    """A model that torch built; `module` is on the meta device.

    `build` makes it anew, None where it is an instance that was there already.
    """

    spec: ModelSpec
    module: nn.Module
    build: Callable[[], Any] | None = None

    def initial_content(self, names: Collection[str], seed: int | None) -> Mapping[str, bytes]:
        """See `Model.initial_content`: the model is constructed once more."""
        if self.build is None or not names:
            return {}
        with running_user_code(self.spec.source), torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            module = construct(self.build).module
        buffers = dict(module.named_buffers(remove_duplicate=False))
        return {
            name: content_of(buffers[name])
            for name in names
            if name in buffers and is_plain(buffers[name])
        }

    def strict_load(self, state: StateDict) -> StrictLoad:
        """See `Model.strict_load`: torch is asked, with tensors that have no data.

        Where it cannot be, the names are those of the spec, and the answer is that it cannot be
        told.
        """
        given, unlike = without_data(state, self.spec)
        module = _fresh(self.module)
        by_spec = FrozenModel(self.spec).strict_load(state)
        if not _is_on_meta(module):
            place = "not all of the model's tensors can be put on the meta device"
            return replace(by_spec, is_ok=None, why_unknown=place)
        answer = load(module, given)
        if answer.failure is not None:
            failure = f"loading tensors without data failed: {answer.failure}"
            return replace(by_spec, is_ok=None, why_unknown=failure)
        # Those of the file were not handed over.
        taken = self.spec.extra_states & state.tensors.keys()
        missing = tuple(name for name in answer.missing if name not in taken)
        shape = (*answer.shape, *(name for name in by_spec.shape if name in unlike))
        errors = (*answer.errors, *(error for error in by_spec.errors if error.name in unlike))
        is_ok: bool | None = not (missing or answer.unexpected or shape or errors)
        why = None
        if is_ok and unlike and by_spec.is_ok is not True:
            # What torch was not asked about, the rules for it can still leave open.
            is_ok, why = None, by_spec.why_unknown or f"torch cannot be asked about {min(unlike)!r}"
        return StrictLoad(is_ok, missing, answer.unexpected, shape, errors, why)


def model_of_target(target: Target, source: str) -> LiveModel:
    """Import the user's code and build the model that it names.

    Raises SpecError with the user's own error and its line.
    """
    found = find(target)
    if isinstance(found, nn.Module):
        if target.args is not None:
            raise SpecError(f"{target.name} is a model already", hint="leave out the parentheses")
        return _of_instance(found, source)
    if not callable(found):
        raise SpecError(f"{source} is of type {type(found).__name__}: no model, and not callable")
    args, kwargs = target.args or (), target.kwargs or {}
    try:
        return _of_factory(lambda: found(*args, **kwargs), source)
    except SpecError as error:
        if target.args is None and isinstance(error.__cause__, TypeError):
            error.hint = f"arguments go behind the name, as in '{source}(10, name=5)'"
        raise


def model_of_object(given: LiveSource) -> LiveModel:
    """Return the model that an object of this process is, or builds when it is called."""
    source = getattr(given, "__qualname__", type(given).__qualname__)
    if isinstance(given, nn.Module):
        return _of_instance(given, source)
    return _of_factory(given, source)


def _of_instance(module: nn.Module, source: str) -> LiveModel:
    # What a user's class overrides runs here too.
    with running_user_code(source):
        spec = describe(source, "instance", as_construction(module))
        return LiveModel(spec, copy_on_meta(module))


def _of_factory(build: Callable[[], Any], source: str) -> LiveModel:
    with running_user_code(source):
        with torch.random.fork_rng(devices=[]):
            built, again = construct(build), construct(build)
        spec = describe(source, "constructed", built, again)
        if paths_of_instances(built, again):
            return LiveModel(spec, copy_on_meta(again.module), build)
        move_to_meta(again.module)
    return LiveModel(spec, again.module, build)


def _fresh(module: nn.Module) -> nn.Module:
    """A copy, since a load can change a model: lazy parameters take the shapes that they get."""
    try:
        return copy_on_meta(module)
    # What a model has among its attributes can refuse to be copied in any way.
    except Exception:  # noqa: BLE001
        return module


def _is_on_meta(module: nn.Module) -> bool:
    return all(
        tensor.is_meta
        for tensor in (*module.parameters(), *module.buffers())
        if not is_lazy(tensor)
    )
