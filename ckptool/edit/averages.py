"""EMA weights: a moving average of the weights, as a state_dict of its own or among the others.

Among the others they are told by their names: `model_ema.` and the name without its dots
(LitEma of Stable Diffusion), the same with its dots, or `ema_` and the name with `_` for its dots
(EMAHook of mmcv).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ckptool.checkpoint.containers import by_key, mapping_of
from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.tensors.refs import TensorRef

__all__ = ["AverageNames", "average_names", "average_roots"]

_EMA: Final = re.compile(r"(^|_)ema(_|$)", re.IGNORECASE)
_LEAST_SHARED: Final = 1 / 2
_WRAPPER: Final = "module."


# State_dicts of their own ----------------------------------------------------------------------


def average_roots(checkpoint: Checkpoint) -> dict[KeyPath, tuple[Root, Root]]:
    """Return EMA state_dicts beside those that they average: by the EMA's path, both.

    The path is that of the outermost part that is called so.
    """
    averages = {root.keys: root for root in checkpoint.roots if _is_average(root.keys)}
    others = [root for root in checkpoint.roots if root.keys not in averages]
    pairs: dict[KeyPath, tuple[Root, Root]] = {}
    for average in averages.values():
        names = _names(average)
        shared = {id(other): len(names & _names(other)) for other in others}
        raw = max(others, key=lambda other: shared[id(other)], default=None)
        if raw is not None and shared[id(raw)] >= max(1, _LEAST_SHARED * len(names)):
            pairs[_outermost(average.keys)] = average, raw
    return pairs


def _is_average(keys: KeyPath) -> bool:
    return any(isinstance(key, str) and _EMA.search(key) for key in keys)


def _outermost(keys: KeyPath) -> KeyPath:
    return next(keys[: n + 1] for n, key in enumerate(keys) if _is_average((key,)))


def _names(root: Root) -> set[str]:
    if root.pairs is not None:
        return {name.removeprefix(_WRAPPER) for name, _ in root.pairs}
    return {
        key.removeprefix(_WRAPPER)
        for key, _ in by_key(mapping_of(root.node) or {})
        if isinstance(key, str)
    }


# Names among the others ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AverageNames:
    """The EMA names in one state_dict.

    `raw` says for each the name that it averages; `others` are counters and the like that stand
    with them. `is_swapped` is true of names in mmcv's form: its hook exchanges both when it saves.
    """

    raw: Mapping[str, str]
    others: tuple[str, ...]
    is_swapped: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        """Every name that is there for the EMA."""
        return (*self.raw, *self.others)


def average_names(tensors: Mapping[str, TensorRef]) -> AverageNames | None:
    """Find the EMA names among those of a state_dict; None where there are none."""
    if not any("ema" in name.lower() for name in tensors):
        return None
    for prefix in dict.fromkeys(_prefixes(tensors)):
        inside = [name for name in tensors if name.startswith(prefix)]
        rest = [name for name in tensors if not name.startswith(prefix)]
        raw = dict(_matched(prefix, inside, rest, tensors))
        if raw:
            others = tuple(name for name in inside if name not in raw)
            return AverageNames(raw, others)
    swapped = {f"ema_{name.replace('.', '_')}": name for name in tensors}
    raw = {name: swapped[name] for name in tensors if name in swapped}
    return AverageNames(raw, (), is_swapped=True) if raw else None


def _prefixes(names: Collection[str]) -> Iterator[str]:
    """The parts of names that are called after an EMA, with all before them."""
    for name in names:
        parts = name.split(".")[:-1]
        for n, part in enumerate(parts):
            if _EMA.search(part):
                yield ".".join(parts[: n + 1]) + "."
                break


def _matched(
    prefix: str, inside: Collection[str], rest: Collection[str], tensors: Mapping[str, TensorRef]
) -> Iterator[tuple[str, str]]:
    """Yield each EMA name with the one that it averages: as it is spelled, or without its dots."""
    *above, part = prefix.removesuffix(".").split(".")
    model = _EMA.sub(lambda match: "_" if all(match.groups()) else "", part)
    bases = {".".join([*above, model]) + "." if model else "".join(f"{one}." for one in above), ""}
    known: dict[str, str] = {}
    for base in sorted(bases):
        for name in rest:
            if name.startswith(base):
                short = name[len(base) :]
                known[short] = known[_WRAPPER + short] = known[short.replace(".", "")] = name
    for name in inside:
        raw = known.get(name[len(prefix) :])
        if raw is not None and tensors[raw].shape == tensors[name].shape:
            yield name, raw
