"""What `load_state_dict(strict=True)` says, from torch itself or worked out from a spec."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ckptool.checkpoint.state_dict import StateDict
from ckptool.spec.computed_load import simulate_load
from ckptool.spec.load_rules import LOAD_RULES
from ckptool.spec.model_spec import ModelSpec
from ckptool.spec.module_load import LoadError, LoadResult

__all__ = ["FrozenModel", "LoadError", "Model", "StrictLoad"]


@dataclass(frozen=True, slots=True)
class StrictLoad:
    """The answer of a strict load.

    `is_ok` is None where it cannot be told, and `why_unknown` then says why. `missing`,
    `unexpected` and `shape` are names as the state_dict has them; `errors` is what else torch
    objects to.
    """

    is_ok: bool | None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    errors: tuple[LoadError, ...] = ()
    why_unknown: str | None = None


class Model(Protocol):
    """A model that checkpoints are matched against."""

    @property
    def spec(self) -> ModelSpec:
        """What it is made of."""

    def strict_load(self, state: StateDict) -> StrictLoad:
        """Say what a strict load of this state_dict into the model would give."""

    def initial_content(self, names: Collection[str], seed: int | None) -> Mapping[str, bytes]:
        """Return what buffers hold after construction that the spec does not hold itself.

        Of these names as many as can be told: their elements in row-major order, little-endian.
        With a seed all random numbers are those behind `torch.manual_seed(seed)`.
        """


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """A model of which there is a spec and nothing else."""

    spec: ModelSpec

    def initial_content(
        self,
        names: Collection[str],  # noqa: ARG002
        seed: int | None,  # noqa: ARG002
    ) -> Mapping[str, bytes]:
        """See `Model.initial_content`: a spec has no more than it says."""
        return {}

    def strict_load(self, state: StateDict) -> StrictLoad:
        """See `Model.strict_load`: worked out as torch 2.13 does it.

        Not known is the answer where code takes part that no rule is about; the names are then
        those that are found without it.
        """
        return _answer(simulate_load(self.spec, state.tensors, state.metadata, LOAD_RULES))


def _answer(result: LoadResult) -> StrictLoad:
    lists = (result.missing, result.unexpected, result.shape, result.errors)
    is_ok: bool | None = not any(lists)
    why = None
    if result.unknown:
        is_ok, why = None, _first_of(result.unknown)
    elif is_ok and result.doubts:
        is_ok, why = None, _first_of(result.doubts)
    missing, unexpected, shape = (_unique(names) for names in lists[:3])
    return StrictLoad(is_ok, missing, unexpected, shape, tuple(dict.fromkeys(result.errors)), why)


def _first_of(reasons: Sequence[str]) -> str:
    others = len(reasons) - 1
    return reasons[0] if not others else f"{reasons[0]}, and {others:,} more"


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Each once: torch names what is missing twice where a class and its base both look."""
    return tuple(dict.fromkeys(names))
