"""The types that say what a model is made of; plain data, with neither torch nor the model's code.

Names are those of `Module.named_parameters` and `named_buffers`: dotted paths of attributes. A
name of a parameter or buffer has no dot of its own, so the owning module is what stands before
the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, TypeAlias

from ckptool.checkpoint.modules import EXTRA_STATE, join
from ckptool.tensors.dtypes import DTYPES

__all__ = [
    "Computed",
    "Content",
    "Fill",
    "InitialValue",
    "LoadHook",
    "ModelSpec",
    "ModuleSpec",
    "Random",
    "Range",
    "TensorSpec",
    "UnknownValue",
]

Setting: TypeAlias = bool | int | str


@dataclass(frozen=True, slots=True)
class Fill:
    """Every element is this one; in a complex tensor there is no imaginary part."""

    value: bool | int | float
    kind: Literal["fill"] = "fill"


@dataclass(frozen=True, slots=True)
class Range:
    """Integers in row-major order: the first is `start`, each next one larger by `step`."""

    start: int
    step: int
    kind: Literal["range"] = "range"


@dataclass(frozen=True, slots=True)
class Content:
    """The elements themselves, in row-major order, little-endian."""

    data: bytes
    kind: Literal["content"] = "content"


@dataclass(frozen=True, slots=True)
class Random:
    """Two constructions of the model gave different elements."""

    kind: Literal["random"] = "random"


@dataclass(frozen=True, slots=True)
class Computed:
    """The constructor gives the same elements each time, too many to be kept here."""

    kind: Literal["computed"] = "computed"


@dataclass(frozen=True, slots=True)
class UnknownValue:
    """Nothing tells; `why` is what stands in the way."""

    why: Literal[
        "made from parameters",
        "not initialised",
        "of an instance",
        "of a saved module",
        "of a kind that is not kept",
    ]
    kind: Literal["unknown"] = "unknown"


InitialValue: TypeAlias = Fill | Range | Content | Random | Computed | UnknownValue
"""What a buffer holds when its model has just been constructed."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A parameter or buffer that the model has.

    `is_persistent` is None where what the spec was made from does not tell (TorchScript); a
    parameter is always saved. `dtype` and `shape` are None where they are only known once the model
    has run or loaded; `shape` alone where it is not one number each, or not told. `tied_to` is the
    first name of the same tensor, None for that name itself. Only buffers have an initial value.
    """

    kind: Literal["parameter", "buffer"]
    is_persistent: bool | None
    dtype: str | None
    shape: tuple[int, ...] | None
    tied_to: str | None = None
    initial: InitialValue | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, 0 where dtype or shape are not known."""
        dtype = DTYPES.get(self.dtype or "")
        return 0 if dtype is None or self.shape is None else dtype.nbytes_of(prod(self.shape))


@dataclass(frozen=True, slots=True)
class LoadHook:
    """Code that takes part in loading: a method that a class overrides, or a registered hook.

    `name` is its module and qualified name; `settings` are the attributes that it looks at, as far
    as ckptool knows the hook.
    """

    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module of the model.

    `type` is the module and qualified name of its class, None where nothing tells. `load_hooks` is
    None where the class may load in a way of its own and nothing tells. `none_tensors` and
    `none_modules` are the names that are registered as None. `has_extra_state` says whether it
    takes an extra state from a state_dict, None where nothing tells.
    """

    type: str | None
    load_hooks: tuple[LoadHook, ...] | None = ()
    has_extra_state: bool | None = False
    none_tensors: tuple[str, ...] = ()
    none_modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is made of, in the order of its `state_dict()`.

    `source` is what the user named. `origin` says what it was made from. `modules` is by path, the
    model itself under the empty one; a module that is registered twice is there twice.
    `torch_version` is that of the torch that built the model, None where none did.
    """

    source: str
    origin: Literal["constructed", "instance", "module", "torchscript", "exported"]
    torch_version: str | None
    tensors: Mapping[str, TensorSpec]
    modules: Mapping[str, ModuleSpec]

    @property
    def extra_states(self) -> frozenset[str]:
        """The names of the extra states that its modules take, as far as that is known."""
        return frozenset(
            join(path, EXTRA_STATE)
            for path, module in self.modules.items()
            if module.has_extra_state
        )
