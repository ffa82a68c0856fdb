"""A live model: its spec, and torch's own answer to a strict load on the meta device."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ckptool.checkpoint.modules import is_extra_state
from ckptool.checkpoint.state_dict import StateDict
from ckptool.errors import SpecError
from ckptool.spec.live.construct import Construction, construct, copy_on_meta, move_to_meta
from ckptool.spec.live.describe import describe
from ckptool.spec.live.user_code import find, running_user_code
from ckptool.spec.model_spec import ModelSpec
from ckptool.spec.strict_load import FrozenModel, StrictLoad
from ckptool.spec.target import Target
from ckptool.tensors.refs import Strided, TensorRef

__all__ = ["LiveModel", "LiveSource", "model_of_object", "model_of_target"]

LiveSource: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A model of this process, or what builds one."""

_SIZE_MISMATCH: Final = re.compile(r"size mismatch for (.+?): copying a param", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class LiveModel:
    """A model that torch built; `module` is on the meta device."""

    spec: ModelSpec
    module: nn.Module

    def strict_load(self, state: StateDict) -> StrictLoad:
        """See `Model.strict_load`: torch is asked, with tensors that have no data.

        An extra state is not handed over, since `set_extra_state` would run on what a file holds;
        whether it is missing or unexpected stands in the spec.
        """
        return _Load(self.spec, _fresh(self.module), state).answer()


def model_of_target(target: Target, source: str) -> LiveModel:
    """Import the user's code and build the model that it names.

    Raises SpecError with the user's own error and its line.
    """
    found = find(target)
    if isinstance(found, nn.Module) and target.args is None:
        return _of_instance(found, source)
    if not callable(found):
        raise SpecError(f"{source} is of type {type(found).__name__}: no model, and not callable")
    args, kwargs = target.args or (), target.kwargs or {}
    try:
        return _of_factory(lambda: found(*args, **kwargs), source)
    except SpecError as error:
        if target.args is None and isinstance(error.__cause__, TypeError):
            error.hint = f"arguments go behind the name: '{source}(10, hidden_size=5)'"
        raise


def model_of_object(given: LiveSource) -> LiveModel:
    """Return the model that an object of this process is, or builds when it is called."""
    source = getattr(given, "__qualname__", type(given).__qualname__)
    if isinstance(given, nn.Module):
        return _of_instance(given, source)
    return _of_factory(given, source)


def _of_instance(module: nn.Module, source: str) -> LiveModel:
    with running_user_code(source):
        on_meta = copy_on_meta(module)
    return LiveModel(describe(source, "instance", Construction(module, False)), on_meta)


def _of_factory(build: Callable[[], Any], source: str) -> LiveModel:
    with running_user_code(source), torch.random.fork_rng(devices=[]):
        built, again = construct(build), construct(build)
    spec = describe(source, "constructed", built, again)
    move_to_meta(again.module)
    return LiveModel(spec, again.module)


def _fresh(module: nn.Module) -> nn.Module:
    """A copy, since a load can change a model: lazy parameters take the shapes that they get."""
    try:
        return copy_on_meta(module)
    # What a model has among its attributes can refuse to be copied in any way.
    except Exception:  # noqa: BLE001
        return module


# A strict load ---------------------------------------------------------------------------------


class _Lists(NamedTuple):
    """The lists that torch collects its answer in."""

    missing: list[str]
    unexpected: list[str]
    errors: list[str]


class _Load:
    """One strict load, watched."""

    def __init__(self, spec: ModelSpec, module: nn.Module, state: StateDict) -> None:
        self._spec = spec
        self._module = module
        self._state = state
        self._lists = _Lists([], [], [])
        self._unlike: list[str] = []

    def answer(self) -> StrictLoad:
        """Let torch load, and read its answer."""
        given = OrderedDict(
            (name, self._without_data(name, tensor))
            for name, tensor in self._state.tensors.items()
            if not is_extra_state(name)
        )
        if self._state.metadata is not None:
            metadata = {path: dict(facts) for path, facts in self._state.metadata.items()}
            given._metadata = metadata  # type: ignore[attr-defined]
        raised = self._load(given)
        missing, unexpected = self._with_extra_states()
        shape, errors = self._split_errors()
        is_ok = not (missing or unexpected or shape or errors)
        why = None
        if raised is not None:
            why = f"the model's own code failed on tensors without data: {raised}"
            by_name = FrozenModel(self._spec).strict_load(self._state)
            return replace(by_name, is_ok=None, why_unknown=why)
        if is_ok and self._unlike:
            why = f"{self._unlike[0]!r} has a layout that no tensor without data has"
        return StrictLoad(None if why else is_ok, missing, unexpected, shape, errors, why)

    def _load(self, given: OrderedDict[str, Tensor | None]) -> str | None:
        """Run the load; return what the user's code raised, None where torch gave its answer."""
        watched = self._module._load_from_state_dict

        def watch(*args: Any) -> None:
            self._lists = _Lists(*args[4:7])
            watched(*args)

        self._module._load_from_state_dict = watch  # type: ignore[method-assign, assignment]
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            try:
                with running_user_code(""):
                    self._module.load_state_dict(given, strict=True)
            except SpecError as error:
                cause = error.__cause__
                if isinstance(cause, RuntimeError) and self._is_told(str(cause)):
                    return None
                return f"{type(cause).__name__}: {cause}"
        return None

    def _is_told(self, message: str) -> bool:
        """Whether an error is the one that torch ends a failed load with."""
        return message.startswith("Error(s) in loading state_dict") and any(self._lists)

    def _with_extra_states(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What torch found missing and unexpected, with the extra states that it never saw."""
        given = {name for name in self._state.tensors if is_extra_state(name)}
        wanted = {
            f"{path}._extra_state" if path else "_extra_state"
            for path, module in self._spec.modules.items()
            if module.has_extra_state
        }
        missing = [name for name in self._lists.missing if name not in given & wanted]
        unexpected = [*self._lists.unexpected, *sorted(given - wanted)]
        return tuple(dict.fromkeys(missing)), tuple(dict.fromkeys(unexpected))

    def _split_errors(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        shape, errors = [], []
        for message in self._lists.errors:
            found = _SIZE_MISMATCH.match(message)
            if found is not None:
                shape.append(found[1])
            elif not message.startswith(("Missing key(s)", "Unexpected key(s)")):
                errors.append(" ".join(message.split()))
        return tuple(dict.fromkeys(shape)), tuple(errors)

    def _without_data(self, name: str, tensor: TensorRef | None) -> Tensor | None:
        """A tensor of the file as one on the meta device; None for what is no tensor."""
        if tensor is None:
            return None
        if not isinstance(tensor.data, Strided) or tensor.dtype.kind in ("quantized", "bits"):
            self._unlike.append(name)
        shape = [max(size, 0) for size in tensor.shape]
        dtype = getattr(torch, tensor.dtype.name, torch.uint8)
        with contextlib.suppress(RuntimeError):
            return torch.empty(shape, dtype=dtype, device="meta")
        return torch.empty(shape, dtype=torch.uint8, device="meta")
