"""The names of two files against each other: the prefix that wrappers left on one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from ckptool.classification.align import LEAST_SHARE, endings_of, prefix_pairs

__all__ = ["Prefixes", "Shapes", "reconcile"]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The names of tensors with their shapes."""


class Prefixes(NamedTuple):
    """What goes from the names of either file that begin with it."""

    a: str = ""
    b: str = ""


def reconcile(a: Shapes, b: Shapes) -> list[Prefixes]:
    """Find the prefixes without which most names of two files are the same.

    Those that make two names of one file the same are none, nor are those that match no more names
    than are the same already, or names of other shapes. Where several are equally good, all of
    them are returned. The answer is the same, turned round, for the files in the other order.
    """
    as_is = a.keys() & b.keys()
    if len(as_is) in (len(a), len(b)):
        return [Prefixes()]
    # One order for both ways round, so that the same candidates are looked at.
    if sorted(b) < sorted(a):
        return [Prefixes(*reversed(found)) for found in reconcile(b, a)]
    best = [Prefixes()]
    most = sum(a[name] == b[name] for name in as_is), len(as_is)
    for pair in prefix_pairs(sorted(a), endings_of(sorted(b))):
        # Another part in the place of one is another module, unless both are wrappers' attributes
        # and no name is the same as it is.
        if all(pair) and (as_is or not all(map(_is_of_wrappers, pair))):
            continue
        shorter_a, shorter_b = _without(pair[0], a), _without(pair[1], b)
        if len(shorter_a) < len(a) or len(shorter_b) < len(b):
            continue
        matched = shorter_a.keys() & shorter_b.keys()
        found = sum(shorter_a[name] == shorter_b[name] for name in matched), len(matched)
        if found[0] < LEAST_SHARE * min(len(a), len(b)) or found[1] <= len(as_is):
            continue
        if found > most:
            best, most = [Prefixes(*pair)], found
        elif found == most:
            best.append(Prefixes(*pair))
    return best


_WRAPPERS: Final = frozenset(
    {
        "module",  # DistributedDataParallel, DataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",  # Lightning Fabric
        "model",
        "net",
        "network",
    }
)


def _is_of_wrappers(prefix: str) -> bool:
    return _WRAPPERS.issuperset(prefix.removesuffix(".").split("."))


def _without(prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}
