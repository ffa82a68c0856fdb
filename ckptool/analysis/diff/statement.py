"""What changed, in one line that a person would write."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ckptool.analysis.diff.result import METADATA, Change, LeafDiff, TensorDiff

__all__ = ["Facts", "state"]

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All that was compared; `prefix` is what was taken from names, empty where nothing was."""

    entries: Sequence[TensorDiff]
    leaves: Sequence[LeafDiff]
    prefix: str
    is_quick: bool

    def of(self, *changes: Change) -> list[TensorDiff]:
        """Return the tensors with these changes."""
        return [one for one in self.entries if one.change in changes]

    def leaves_of(self, *changes: Change) -> list[LeafDiff]:
        """Return the leaves with these changes."""
        return [leaf for leaf in self.leaves if leaf.change in changes]


def state(facts: Facts) -> str:
    """Say what changed from A to B, by the first rule that has a word for it."""
    return next(said for rule in _RULES if (said := rule(facts)) is not None)


# Rules, the plainest first ---------------------------------------------------------------------


def _nothing(facts: Facts) -> str | None:
    if facts.of("changed", "added", "removed", "moved") or facts.leaves_of(*_DIFFERENT):
        return None
    verdicts = {one.verdict for one in facts.entries}
    if "close" in verdicts:
        return "the same within the tolerance"
    if "equal-values" in verdicts:
        return "identical but for the signs of zeros"
    if facts.is_quick:
        return "identical as far as recorded CRCs and sizes tell"
    return f"identical but for the prefix {facts.prefix!r}" if facts.prefix else "identical"


def _leaves_alone(facts: Facts) -> str | None:
    if facts.of("changed", "added", "removed", "moved"):
        return None
    leaves = facts.leaves_of(*_DIFFERENT)
    if all(leaf.part == METADATA for leaf in leaves):
        return "only metadata differs"
    changed, others = facts.leaves_of("changed"), facts.leaves_of("added", "removed")
    if changed and not others and len(changed) <= _NAMED:
        names = _listed([leaf.path for leaf in changed])
        return f"only {names} {'differs' if len(changed) == 1 else 'differ'}"
    return _joined(f"all {_tensors(len(facts.entries))} the same", _about_leaves(facts))


def _one_of_the_other(facts: Facts) -> str | None:
    """B is A, or A is B, without a part of it, cast, or with other names."""
    changed, added, removed = facts.of("changed"), facts.of("added"), facts.of("removed")
    cast = _cast(facts, changed)
    if (changed and not cast) or (added and removed) or (changed and added):
        return None
    if not changed and not added and not removed:
        moved = facts.of("moved")
        said = f"all values are the same; {_tensors(len(moved))} moved"
        return _joined(said, _about_leaves(facts))
    larger, smaller = ("B", "A") if added else ("A", "B")
    gone: Change = "added" if added else "removed"
    # What only the larger file has besides tensors went with them.
    parts = _parts_of(facts, gone)
    without = f" without {_listed(parts)}" if parts else ""
    moved_too = f", {_tensors(len(facts.of('moved')))} moved" if facts.of("moved") else ""
    whole = f"{smaller} is {larger}{without}{',' if without and cast else ''}{cast}{moved_too}"
    return _joined(whole, _about_leaves(facts, but=gone if parts else None))


def _one_sort(facts: Facts) -> str | None:
    """Only one sort of tensors changed, and there are others."""
    changed = facts.of("changed")
    if not changed or facts.of("added", "removed", "moved"):
        return None
    for is_of_sort, name in _SORTS:
        if all(map(is_of_sort, changed)) and not all(map(is_of_sort, facts.entries)):
            return _joined(f"only {name}", _about_leaves(facts))
    if len(changed) == 1 and len(facts.entries) > 1:
        return _joined(f"only {changed[0].label} differs", _about_leaves(facts))
    return None


def _in_numbers(facts: Facts) -> str | None:
    changed, same = facts.of("changed"), facts.of("same")
    both = len(changed) + len(same)
    counts = [
        f"{len(found):,} {change}"
        for change in ("added", "removed", "moved")
        if (found := facts.of(change))
    ]
    if not both:
        said = "no tensor is in both"
    elif not same:
        said = f"all {_tensors(both)} changed" if both > 1 else f"{changed[0].label} changed"
    else:
        said = f"{len(same):,} of {_tensors(both)} unchanged"
        above = _common_module(changed)
        if above and not all(one.label.startswith(f"{above}.") for one in same):
            said += f"; all changes under {above}"
    return _joined(said, *counts, _about_leaves(facts))


_DIFFERENT: Final[tuple[Change, ...]] = ("changed", "added", "removed")
_RULES: Final[tuple[Callable[[Facts], str | None], ...]] = (
    _nothing,
    _leaves_alone,
    _one_of_the_other,
    _one_sort,
    _in_numbers,
)


def _is_statistic(one: TensorDiff) -> bool:
    return one.role == "buffer" and one.label.rpartition(".")[2] in _STATISTICS


_SORTS: Final[tuple[tuple[Callable[[TensorDiff], bool], str], ...]] = (
    (_is_statistic, "BatchNorm statistics differ"),
    (lambda one: one.role == "buffer", "buffers differ"),
    (lambda one: one.role == "parameter", "parameters differ"),
    (lambda one: one.role == "optimizer", "the optimizer differs"),
)


# Words -----------------------------------------------------------------------------------------


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _tensors(count: int) -> str:
    return _counted(count, "tensor")


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 4 more`."""
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED:,} more")
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last


def _cast(facts: Facts, changed: Collection[TensorDiff]) -> str:
    """` cast to bfloat16`, where that is all that happened to the values; else nothing."""
    casts = {_cast_of(one) for one in changed}
    if len(casts) != 1 or None in casts:
        return ""
    (cast,) = casts
    floats = [one for one in facts.of("same") if _is_float(one)]
    some = f" with {len(changed):,} of {_tensors(len(facts.entries))}" if floats else ""
    return f"{some} {cast}"


def _cast_of(one: TensorDiff) -> str | None:
    """How the values of one tensor were rounded or only stored anew; None for other changes."""
    before, after = one.dtypes
    if one.verdict == "dtype" or (one.values is not None and one.values.rounded_to == after):
        return f"cast to {after}"
    if one.values is not None and one.values.rounded_to is not None and before == after:
        return f"rounded to {one.values.rounded_to}"
    return None


def _is_float(one: TensorDiff) -> bool:
    tensor = one.best.entry.tensor
    return tensor is not None and tensor.dtype.kind == "float"


def _parts_of(facts: Facts, gone: Change) -> list[str]:
    """What only one file has, in few words: names in the root, else what it is a part of."""
    tensors = facts.of(gone)
    inside = [one.label for one in tensors if one.part is None]
    if len(inside) > _NAMED:
        roles = {one.role for one in tensors if one.part is None}
        inside = [_counted(len(inside), roles.pop() if len(roles) == 1 else "tensor")]
    leaves = facts.leaves_of(gone)
    inside += [leaf.path for leaf in leaves if leaf.part is None]
    parts = dict.fromkeys([one.part for one in tensors] + [leaf.part for leaf in leaves])
    return inside + [part for part in parts if part is not None and part != METADATA]


def _about_leaves(facts: Facts, but: Change | None = None) -> str:
    """What differs besides the tensors; not what is said already of the larger file."""
    leaves = [
        leaf for leaf in facts.leaves_of(*_DIFFERENT) if leaf.change != but or leaf.part == METADATA
    ]
    paths = [leaf.path for leaf in leaves if leaf.part != METADATA]
    said = []
    if len(paths) > _NAMED:
        said.append(f"{len(paths):,} other values differ")
    elif paths:
        said.append(f"{_listed(paths)} {'differs' if len(paths) == 1 else 'differ'}")
    if len(paths) < len(leaves):
        said.append("metadata differs")
    return "; ".join(said)


def _common_module(changed: Sequence[TensorDiff]) -> str:
    """The module that all changes are in, empty where there is none."""
    modules = [one.label.split(".")[:-1] for one in changed]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*modules, strict=False))
    return ".".join(parts[0] for parts in alike)
