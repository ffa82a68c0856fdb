"""Two checkpoints into a `Diff`: structure and values in one pass, whatever their formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ckptool.analysis.diff.alike import most_alike
from ckptool.analysis.diff.leaves import compare_leaves, compare_metadata, note_on_keys
from ckptool.analysis.diff.moved import find_moved
from ckptool.analysis.diff.pairing import Places, choose_roots, pair_up
from ckptool.analysis.diff.result import (
    Change,
    Diff,
    LeafDiff,
    Side,
    TensorDiff,
    Tolerance,
    Verdict,
    better,
)
from ckptool.analysis.diff.statement import Facts, state
from ckptool.analysis.diff.tensors import compare_tensors
from ckptool.analysis.overview import Contents, list_contents
from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.analysis.selection import check_patterns, name_matcher, select
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import shortened
from ckptool.classification.reconcile import Prefixes, Shapes, reconcile

if TYPE_CHECKING:
    from ckptool.spec.strict_load import Model

__all__ = ["diff"]

_QUICK: Final = "recorded CRCs and sizes decided wherever they tell; values were not read there"
_SAME: Final[tuple[Verdict, ...]] = ("equal", "equal-values", "close")


def diff(
    a: Checkpoint,
    b: Checkpoint,
    *,
    model: Model | None = None,
    patterns: Sequence[str] = (),
    roles: Sequence[str] = (),
    atol: float = 0.0,
    rtol: float = 0.0,
    exact_names: bool = False,
    quick: bool = False,
    must_change: Sequence[str] = (),
    processes: int = 1,
    progress: Progress = UNWATCHED,
) -> Diff:
    """Say what changed from A to B.

        >>> from ckptool import diff, open_checkpoint
        >>> with open_checkpoint("base.pt") as a, open_checkpoint("tuned.pt") as b:
        ...     print(diff(a, b).statement)

    Tensors are the same where their bytes are; only what differs is measured. `patterns` and
    `roles` say which tensors it is about, and that nothing else is compared. Values that differ by
    no more than `atol + rtol * max(|a|, |b|)` are close. With `quick`, recorded CRCs and sizes
    decide wherever they tell. A common prefix of names is reconciled unless `exact_names` is set.
    `must_change` are patterns of names that should not be the same. With more than one of
    `processes`, numbers of large files are measured in copies of this one (on Linux, and only while
    it has a single thread).

    Raises EntryNotFoundError for a pattern or role that nothing answers to, AmbiguousRootError
    where several roots of one file are equally like the other.
    """
    sides = _sides(a, b, model, exact_names)
    places = _places(*sides)
    paired = select(list(_paired(sides, places)), patterns, roles)
    check_patterns(must_change, [one.name for one in paired if one.name is not None])
    tolerance = Tolerance(atol, rtol) if atol or rtol else None
    located = find_moved(paired, quick, progress)
    entries = tuple(_with_values(located, tolerance, quick, processes, progress))
    against_crc = [one.label for one in entries if one.values and one.values.is_against_crc]
    leaves: list[LeafDiff] = []
    notes = [*([_QUICK] if quick else []), *_foreign(sides), *_other_prefixes(sides)]
    notes += _left_out(*places)
    if not patterns and not roles:
        leaves += compare_leaves(*places)
        metadata, more = compare_metadata(*places)
        leaves += metadata
        notes += [*more, *note_on_keys(*places)]
    prefixes = sides[0].prefix, sides[1].prefix
    facts = Facts(entries, leaves, prefixes, quick, is_filtered=bool(patterns or roles))
    return Diff(
        *sides,
        entries,
        tuple(leaves),
        state(facts),
        tuple(_warnings(sides, against_crc)),
        tuple(notes),
        quick,
        tuple(_unchanged(entries, must_change)) if must_change else None,
    )


def _sides(
    a: Checkpoint, b: Checkpoint, model: Model | None, exact_names: bool
) -> tuple[Side, Side]:
    """List both, with roots that go together and the prefixes between their names."""
    if model is None:
        a, b = choose_roots(a, b)
    # With a model, it is the model that says which root is meant.
    left, right = list_contents(a, model=model), list_contents(b, model=model)
    a, b = left.checkpoint, right.checkpoint
    prefixes = [Prefixes()]
    if a.root is not None and b.root is not None and not exact_names:
        prefixes = reconcile(_shapes(left), _shapes(right))
    of_a, of_b = prefixes[0] if len(prefixes) == 1 else most_alike(left, right, prefixes)
    others = [found for found in prefixes if found != (of_a, of_b)]
    return (
        Side(left, of_a, tuple(found.a for found in others if found.a != of_a)),
        Side(right, of_b, tuple(found.b for found in others if found.b != of_b)),
    )


def _places(a: Side, b: Side) -> tuple[Places, Places]:
    """What stands where in both; in each file, what is the root in the other is left out."""
    roots = [side.contents.checkpoint.root for side in (a, b)]
    of_a, of_b = ((() if root is None else root.keys) for root in roots)
    shared = min(len(of_a), len(of_b))
    if of_a[:shared] == of_b[:shared]:
        # One is in the other, or the top of the file.
        return Places(a.contents.checkpoint, a.prefix), Places(b.contents.checkpoint, b.prefix)
    return (
        Places(a.contents.checkpoint, a.prefix, of_b),
        Places(b.contents.checkpoint, b.prefix, of_a),
    )


def _other_prefixes(sides: Sequence[Side]) -> Iterator[str]:
    for label, side in zip("AB", sides, strict=True):
        for prefix in side.other_prefixes:
            yield f"as many names of {label} are the same without {prefix!r}"


def _left_out(a: Places, b: Places) -> Iterator[str]:
    left_out = [
        f"{path} of {side}" for side, path in (("A", a.left_out), ("B", b.left_out)) if path
    ]
    if left_out:
        yield f"{' and '.join(left_out)} {'was' if len(left_out) == 1 else 'were'} not compared"


def _foreign(sides: Sequence[Side]) -> Iterator[str]:
    """Yield which file has nothing of the model that its tensors were held against."""
    for label, side in zip("AB", sides, strict=True):
        match = side.contents.match
        if match is not None and not match.alignment.matched:
            yield f"no name of {label} is in the model {match.model.spec.source}"


def _shapes(contents: Contents) -> Shapes:
    return {
        one.name: one.entry.tensor.shape
        for one in contents.entries
        if one.name is not None and one.entry.tensor is not None
    }


def _paired(sides: Sequence[Side], places: Sequence[Places]) -> Iterator[TensorDiff]:
    """Hold the tensors of both against each other; what is in both has no verdict yet."""
    tensors = [
        [
            (place.of(one.entry, one.name), one)
            for one in side.contents.entries
            if one.entry.tensor is not None and place.has(one.entry)
        ]
        for side, place in zip(sides, places, strict=True)
    ]
    for place, a, b in pair_up(*tensors):
        best = better(a, b)
        if best is None:
            continue
        name = place.name if place.begin == "state_dict" else best.name
        change: Change = "added" if a is None else "removed" if b is None else "same"
        part = places[0 if best is a else 1].part_of(best.entry, place)
        yield TensorDiff(place.label, name, best, a, b, change, part=part)


def _with_values(
    entries: Sequence[TensorDiff],
    tolerance: Tolerance | None,
    quick: bool,
    processes: int,
    progress: Progress,
) -> Iterator[TensorDiff]:
    """Give what is in both files a verdict on its values."""
    pairs = [
        (one.a.entry.node, one.b.entry.node)
        for one in entries
        if one.change == "same" and one.a is not None and one.b is not None
    ]
    verdicts = iter(compare_tensors(pairs, tolerance, quick, progress, processes))
    for one in entries:
        if one.change != "same":
            yield one
            continue
        values = next(verdicts)
        is_same = values.verdict in _SAME
        yield one._replace(values=values, change="same" if is_same else "changed")


def _warnings(sides: Sequence[Side], against_crc: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the files themselves."""
    if against_crc:
        yield (
            f"the bytes of {shortened(against_crc)} differ though the recorded CRCs do not: one "
            "file is damaged; ckptool check tells which"
        )
    for side in sides:
        checkpoint = side.contents.checkpoint
        yield from (f"{checkpoint.path}: {warning}" for warning in checkpoint.container.warnings)


def _unchanged(entries: Sequence[TensorDiff], patterns: Sequence[str]) -> Iterator[str]:
    """Yield what should have other values and has the same: moved, cast or rounded at most."""
    is_wanted = name_matcher(patterns)
    for one in entries:
        is_kept = one.change in ("same", "moved") or one.verdict in ("dtype", "rounded")
        # Of what moved either name can be meant.
        names = {one.name, one.a.name if one.a is not None else None}
        if is_kept and any(name is not None and is_wanted(name) for name in names):
            yield one.label
