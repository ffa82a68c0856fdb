"""The working state of a strict load: what a module is given, and what is found on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ckptool.spec.model_spec import Setting, TensorSpec
from ckptool.tensors.refs import TensorRef

__all__ = [
    "Given",
    "LoadError",
    "LoadResult",
    "LoadRule",
    "ModuleLoad",
    "Settings",
]

Settings: TypeAlias = Mapping[str, Setting]


@dataclass(slots=True)
class Given:
    """A value of the state_dict: `name` is its key in the file, None where a hook made it.

    `shape` is None for what is no tensor.
    """

    name: str | None
    shape: tuple[int, ...] | None
    tensor: TensorRef | None = None


class LoadError(NamedTuple):
    """What torch objects to besides names and shapes, and which name of the state_dict it is about.

    The name is None where it is about none, or about all.
    """

    name: str | None
    problem: str


@dataclass(slots=True)
class LoadResult:
    """What a load finds, in the order in which torch would.

    `errors` are what else fails. `doubts` are sentences on what may fail and cannot be told,
    `unknown` are those on code that takes part and is not known. `renamed` is by name in the file:
    the names of the model's tensors that took something under another one.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shape: list[str] = field(default_factory=list)
    errors: list[LoadError] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ModuleLoad:
    """One module that is about to load.

    `prefix` is its path with a dot. `state` is by whole key: all that begins with the prefix.
    `tensors` are the module's own, by their own names. `is_strict` is what the module is told; a
    class can keep that from its base.
    """

    prefix: str
    metadata: Mapping[str, object]
    tensors: Mapping[str, TensorSpec]
    state: dict[str, Given]
    shapes: dict[str, tuple[int, ...]]
    result: LoadResult
    is_strict: bool = True

    def given(self, name: str) -> Given | None:
        """What the state_dict has under a name of the module's own."""
        return self.state.get(self.prefix + name)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """The shape that one of its tensors has by now, None where it has none or none is told."""
        tensor = self.tensors[name]
        first = tensor.tied_to or self.prefix + name
        return self.shapes.get(first, tensor.shape)

    def resize(self, name: str, shape: tuple[int, ...]) -> None:
        """Give one of its tensors, if it has it, another shape."""
        tensor = self.tensors.get(name)
        if tensor is not None:
            self.shapes[tensor.tied_to or self.prefix + name] = shape

    def add(self, name: str, shape: tuple[int, ...]) -> None:
        """Put a new tensor into the state_dict."""
        self.state[self.prefix + name] = Given(None, shape)

    def move(self, name: str, to: str) -> None:
        """Put what is under one name under another."""
        self.state[self.prefix + to] = self.state.pop(self.prefix + name)

    def miss(self, name: str) -> None:
        """Report a name as missing, where the module is strict."""
        if self.is_strict:
            self.result.missing.append(self.prefix + name)

    def fail(self, problem: str, name: str | None = None) -> None:
        """Report that torch raises an error; `name` is the module's own for what it is about."""
        whole = None if name is None else self.prefix + name
        self.result.errors.append(LoadError(whole, problem))


@dataclass(frozen=True, slots=True)
class LoadRule:
    """What a method or hook of torch's does: `settings` are the attributes that it looks at.

    A method is one that stands for `_load_from_state_dict`, with those of its base classes that it
    calls in turn.
    """

    apply: Callable[[ModuleLoad, Settings], None]
    settings: tuple[str, ...] = ()
    is_method: bool = False
    renames: bool = False
