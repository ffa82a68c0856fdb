"""What changed, in one line that a person would write."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ckptool.analysis.diff.result import METADATA, Change, LeafDiff, TensorDiff

__all__ = ["Facts", "state"]

_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")
_NAMED: Final = 3
_IDENTICAL: Final = "identical"
_DEEPEST_MODULE: Final = 12


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All that was compared.

    `prefixes` are what was taken from the names of A and of B. `is_filtered` says that only
    some tensors were asked for.
    """

    entries: Sequence[TensorDiff]
    leaves: Sequence[LeafDiff]
    prefixes: tuple[str, str]
    is_quick: bool
    is_filtered: bool

    def of(self, *changes: Change) -> list[TensorDiff]:
        """Return the tensors with these changes."""
        return [one for one in self.entries if one.change in changes]

    def leaves_of(self, *changes: Change) -> list[LeafDiff]:
        """Return the leaves with these changes."""
        return [leaf for leaf in self.leaves if leaf.change in changes]


def state(facts: Facts) -> str:
    """Say what changed from A to B, by the first rule that has a word for it."""
    said = next(said for rule in _RULES if (said := rule(facts)) is not None)
    prefixes = [
        f"the prefix {prefix!r} of {side}"
        for side, prefix in zip("AB", facts.prefixes, strict=True)
        if prefix
    ]
    if prefixes:
        but = " but for" if said == _IDENTICAL else ", apart from"
        said += f"{but} {_listed(prefixes)}"
    said = _joined(
        said,
        *_reservations(facts),
        _not_finite(facts, "NaN", "nan"),
        _not_finite(facts, "infinity", "inf"),
    )
    return f"{said} ({_tensors(len(facts.entries))} asked for)" if facts.is_filtered else said


def _reservations(facts: Facts) -> Iterator[str]:
    """In what way `same` is not the same to the bit, where not everything is the same."""
    if _nothing(facts) is not None:
        return
    verdicts = Counter(one.verdict for one in facts.of("same"))
    if verdicts["close"]:
        yield f"{_tensors(verdicts['close'])} within the tolerance"
    if verdicts["equal-values"]:
        yield f"signs of zeros in {_tensors(verdicts['equal-values'])}"
    if facts.is_quick:
        yield "as far as recorded CRCs and sizes tell"


def _not_finite(facts: Facts, what: str, figure: str) -> str:
    """Where numbers became what none should be."""
    where = []
    for one in facts.of("changed"):
        before, after = getattr(one.figures, figure)
        if (after or 0) > (before or 0):
            where.append(one.label)
    return f"{what} appeared in {_listed(where)}" if where else ""


# Rules, the plainest first ---------------------------------------------------------------------


def _nothing(facts: Facts) -> str | None:
    if facts.of("changed", "added", "removed", "moved") or facts.leaves_of(*_DIFFERENT):
        return None
    verdicts = {one.verdict for one in facts.entries}
    if "close" in verdicts:
        return "the same within the tolerance"
    if "equal-values" in verdicts:
        return "identical but for the signs of zeros"
    return "identical as far as recorded CRCs and sizes tell" if facts.is_quick else _IDENTICAL


def _leaves_alone(facts: Facts) -> str | None:
    if facts.of("changed", "added", "removed", "moved"):
        return None
    leaves = facts.leaves_of(*_DIFFERENT)
    if all(leaf.part == METADATA for leaf in leaves):
        return "only metadata differs"
    changed, others = facts.leaves_of("changed"), facts.leaves_of("added", "removed")
    if changed and not others and len(changed) <= _NAMED:
        return f"only {_with_verb([leaf.path for leaf in changed])}"
    same = f"all {_tensors(len(facts.entries))} the same" if facts.entries else ""
    return _joined(same, _about_leaves(facts))


def _renamed(facts: Facts) -> str | None:
    if facts.of("changed", "added", "removed"):
        return None
    moved = _tensors(len(facts.of("moved")))
    return _joined(f"all values are the same; {moved} moved", _about_leaves(facts))


def _one_of_the_other(facts: Facts) -> str | None:
    """B is A, or A is B, without a part of it or cast."""
    return _is_the_other(facts, "B", "A", "removed") or _is_the_other(facts, "A", "B", "added")


def _is_the_other(facts: Facts, one: str, other: str, gone: Change) -> str | None:
    changed, extra = facts.of("changed"), facts.of("added" if gone == "removed" else "removed")
    cast = _cast(changed, facts, is_reverse=one == "A")
    if extra or (changed and not cast):
        return None
    parts = _parts_of(facts, gone)
    differences = [
        f" without {_listed(parts)}" if parts else "",
        f" {cast}" if cast else "",
        f" with {_tensors(len(facts.of('moved')))} moved" if facts.of("moved") else "",
    ]
    said = f"{one} is {other}{','.join(part for part in differences if part)}"
    # What else only the larger file has went with these parts.
    return _joined(said, _about_leaves(facts, but=gone if parts else None))


def _one_sort(facts: Facts) -> str | None:
    """Only one sort of tensors changed, and there are others."""
    changed = facts.of("changed")
    if not changed or facts.of("added", "removed", "moved"):
        return None
    only = [
        name
        for is_of_sort, name in _SORTS
        if all(map(is_of_sort, changed)) and not all(map(is_of_sort, facts.entries))
    ]
    if not only and len(changed) == 1 and len(facts.entries) > 1:
        only = [changed[0].label]
    if not only:
        return None
    paths = [leaf.path for leaf in facts.leaves_of("changed") if leaf.part != METADATA]
    if len(paths) < _NAMED and len(paths) == len(facts.leaves_of(*_DIFFERENT)):
        return f"only {_with_verb([only[0], *paths])}"
    return _joined(f"only {_with_verb(only[:1])}", _about_leaves(facts))


def _in_numbers(facts: Facts) -> str | None:
    same = facts.of("same")
    cast = [one for one in facts.of("changed") if _cast_of(one) is not None]
    changed = [one for one in facts.of("changed") if _cast_of(one) is None]
    both = len(changed) + len(same) + len(cast)
    casts = Counter(map(_cast_of, cast))
    said = [f"{count:,} of {_tensors(both)} {how}" for how, count in casts.items()]
    where = _whereabouts(changed, [*same, *cast])
    counts = [
        f"{len(found):,} {change}"
        for change in ("added", "removed", "moved")
        if (found := facts.of(change))
    ]
    if not both:
        said.append(f"no {'name' if facts.of('moved') else 'tensor'} is in both")
    elif not changed and not casts:
        counts.append(f"the other {_tensors(both)} unchanged")
    elif casts:
        said.append(f"{len(changed):,} changed" if changed else "")
        said.append(where)
    elif not same:
        said.append(f"all {_tensors(both)} changed" if both > 1 else f"{changed[0].label} changed")
    else:
        said += [f"{len(same):,} of {_tensors(both)} unchanged", where]
    return _joined(*said, *counts, _about_leaves(facts))


def _whereabouts(changed: Sequence[TensorDiff], others: Sequence[TensorDiff]) -> str:
    """Where the changes are: in a few modules, or in some sorts of tensors and elsewhere."""
    if modules := _modules_of(changed, others):
        return f"all changes under {_listed(modules)}"
    sorts = [
        name
        for is_of_sort, name in _PLAIN_SORTS
        if any(map(is_of_sort, changed)) and not any(map(is_of_sort, others))
    ]
    told = [is_of for is_of, name in _PLAIN_SORTS if name in sorts]
    rest = [one for one in changed if not any(is_of(one) for is_of in told)]
    if not sorts:
        return ""
    if rest:
        modules = _modules_of(rest, others)
        where = f" under {_listed(modules)}" if modules else ""
        sorts.append(f"{_counted(len(rest), 'tensor' if where else 'other tensor')}{where}")
    return _with_verb(sorts)


_DIFFERENT: Final[tuple[Change, ...]] = ("changed", "added", "removed")
_RULES: Final[tuple[Callable[[Facts], str | None], ...]] = (
    _nothing,
    _leaves_alone,
    _renamed,
    _one_of_the_other,
    _one_sort,
    _in_numbers,
)


def _is_statistic(one: TensorDiff) -> bool:
    return one.role == "buffer" and one.label.rpartition(".")[2] in _STATISTICS


_PLAIN_SORTS: Final[tuple[tuple[Callable[[TensorDiff], bool], str], ...]] = (
    (_is_statistic, "BatchNorm statistics"),
    (lambda one: one.role == "optimizer", "the optimizer"),
)
_SORTS: Final[tuple[tuple[Callable[[TensorDiff], bool], str], ...]] = (
    *_PLAIN_SORTS,
    (lambda one: one.role == "buffer", "buffers"),
    (lambda one: one.role == "parameter", "parameters"),
)
_PLURALS: Final = ("BatchNorm statistics", "buffers", "parameters")


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
    if not shown:
        return ""
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last


def _with_verb(names: Sequence[str]) -> str:
    """`epoch differs`, `buffers differ`, `epoch and lr differ`."""
    is_one = len(names) == 1 and names[0] not in _PLURALS
    return f"{_listed(names)} {'differs' if is_one else 'differ'}"


def _cast(changed: Collection[TensorDiff], facts: Facts, is_reverse: bool) -> str:
    """`cast to bfloat16`, where that is all that happened to the values; else nothing.

    Reverse is the way from B to A.
    """
    casts = [_cast_back_of(one) if is_reverse else _cast_of(one) for one in changed]
    if not casts or casts[0] is None or len(set(casts)) > 1:
        return ""
    is_partly = any(_is_float(one) for one in facts.of("same"))
    some = f"with {len(changed):,} of {_tensors(len(facts.entries))} " if is_partly else ""
    return f"{some}{casts[0]}"


def _cast_of(one: TensorDiff) -> str | None:
    """How the values of one tensor were rounded or only stored anew; None for other changes."""
    before, after = one.dtypes
    if one.verdict == "dtype" or (one.values is not None and one.values.rounded_to == after):
        return f"cast to {after}"
    if one.values is not None and one.values.rounded_to is not None and before == after:
        return f"rounded to {one.values.rounded_to}"
    return None


def _cast_back_of(one: TensorDiff) -> str | None:
    back = None if one.values is None else one.values.a_rounded_to
    return None if back is None else f"cast to {back}"


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
    kept = {one.part for one in facts.entries if one.change != gone}
    kept |= {leaf.part for leaf in facts.leaves if leaf.change != gone}
    return inside + [
        f"a part of {part}" if part in kept else part
        for part in parts
        if part is not None and part != METADATA
    ]


def _about_leaves(facts: Facts, but: Change | None = None) -> str:
    """What differs besides the tensors; not what is said already of the larger file."""
    said = []
    for change, one, many in (
        ("changed", "differs", "differ"),
        ("removed", "is only in A", "are only in A"),
        ("added", "is only in B", "are only in B"),
    ):
        leaves = [leaf for leaf in facts.leaves if leaf.change == change and change != but]
        paths = [leaf.path for leaf in leaves if leaf.part != METADATA]
        others = "other values" if facts.entries else "values"
        names = f"{len(paths):,} {others}" if len(paths) > _NAMED else _listed(paths)
        if paths:
            said.append(f"{names} {one if len(paths) == 1 else many}")
    if any(leaf.part == METADATA for leaf in facts.leaves_of(*_DIFFERENT)):
        said.append("metadata differs")
    return _joined(*said)


def _modules_of(changed: Sequence[TensorDiff], others: Sequence[TensorDiff]) -> list[str]:
    """The module that all changes are in, or a few that changed as a whole; else none."""
    paths = [one.label.split(".")[:-1] for one in changed]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    above = ".".join(parts[0] for parts in alike)
    if above and not all(one.label.startswith(f"{above}.") for one in others):
        return [above]
    kept = {module for one in others for module in _modules_above(one.label)}
    modules: dict[str, None] = {}
    for one in changed:
        whole = next((module for module in _modules_above(one.label) if module not in kept), None)
        if whole is None:
            return []
        modules[whole] = None
    return list(modules) if others and len(modules) <= _NAMED else []


def _modules_above(name: str) -> Iterator[str]:
    """The modules that a tensor is in, the outermost first."""
    parts = name.split(".", _DEEPEST_MODULE)
    for length in range(1, len(parts)):
        yield ".".join(parts[:length])
