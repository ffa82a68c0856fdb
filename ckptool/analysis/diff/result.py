"""What a comparison comes to: a verdict per tensor, the leaves besides, and one statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from ckptool.classification.roles import ClassifiedEntry, Evidence, Role
from ckptool.pickling.nodes import Node

if TYPE_CHECKING:
    from ckptool.analysis.overview import Contents

__all__ = [
    "EQUAL",
    "METADATA",
    "Change",
    "Diff",
    "Figures",
    "LeafDiff",
    "Side",
    "TensorDiff",
    "Tolerance",
    "Values",
    "Verdict",
    "better",
]

Change: TypeAlias = Literal["same", "changed", "added", "removed", "moved"]
Number: TypeAlias = bool | int | float | complex

METADATA: Final = "_metadata"
"""The part that leaves of a state_dict's own `_metadata` belong to."""

Verdict: TypeAlias = Literal[
    "equal", "equal-values", "close", "dtype", "rounded", "changed", "shape"
]


class Tolerance(NamedTuple):
    """Values are close where they differ by no more than `atol + rtol * max(|a|, |b|)`."""

    atol: float
    rtol: float


class Figures(NamedTuple):
    """How far the values of two tensors of one shape are apart.

    `changed_elements` counts those that are another value, or another NaN. The other figures are
    over the pairs in which both are finite, and None where numbers were read and there are none;
    for complex numbers they are magnitudes. `rel_l2` is the norm of B - A over the norm of A,
    `cosine` None where a side is zero. `nan` and `inf` count elements of A and of B; None where
    they were not counted.
    """

    changed_elements: int | None = None
    max_abs: float | None = None
    mean_abs: float | None = None
    rel_l2: float | None = None
    cosine: float | None = None
    nan: tuple[int | None, int | None] = (None, None)
    inf: tuple[int | None, int | None] = (None, None)


class Values(NamedTuple):
    """The verdict on two tensors' values.

    `rounded_to` is the name of a dtype where B is A rounded to it, `a_rounded_to` where A is B.
    `numbers` are those of A and B where each has only one and they differ. `is_against_crc` says
    that the bytes differ though the recorded CRCs do not.
    """

    verdict: Verdict
    figures: Figures = Figures()
    rounded_to: str | None = None
    a_rounded_to: str | None = None
    numbers: tuple[Number, Number] | None = None
    is_against_crc: bool = False


EQUAL: Final = Values("equal", Figures(0, 0.0, 0.0, 0.0))
"""What is the same to the bit: no number is apart, and what they are is not looked at."""


class TensorDiff(NamedTuple):
    """A tensor of A against one of B; the side that lacks it is None.

    `name` is that inside the roots, without the prefixes that were reconciled; it is None outside.
    `label` is how it is shown: the name, or else the key path. Of a tensor that moved both are B's.
    `best` is the side with the better evidence. `part` is what it belongs to outside the root:
    `the optimizer`, `model_ema`.
    """

    label: str
    name: str | None
    best: ClassifiedEntry
    a: ClassifiedEntry | None
    b: ClassifiedEntry | None
    change: Change
    values: Values | None = None
    part: str | None = None

    @property
    def role(self) -> Role:
        """The role by the better evidence."""
        return self.best.role

    @property
    def dtypes(self) -> tuple[str | None, str | None]:
        """The names of both dtypes; None for a side that lacks it."""
        return _dtype(self.a), _dtype(self.b)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the values, None where a side is missing."""
        return None if self.values is None else self.values.verdict

    @property
    def elements(self) -> int | None:
        """How many elements there are; None where the two sides do not have as many."""
        counts = {one.entry.tensor.numel for one in (self.a, self.b) if one and one.entry.tensor}
        return counts.pop() if len(counts) == 1 and self.verdict != "shape" else None

    @property
    def figures(self) -> Figures:
        """The figures, all None where there are none."""
        return Figures() if self.values is None else self.values.figures


def _dtype(one: ClassifiedEntry | None) -> str | None:
    return None if one is None or one.entry.tensor is None else one.entry.tensor.dtype.name


def better(a: ClassifiedEntry | None, b: ClassifiedEntry | None) -> ClassifiedEntry | None:
    """Return the side whose evidence says more of what a tensor is; the same in either order."""
    if a is None or b is None:
        return a or b
    return min(a, b, key=_weight)


_EVIDENCE: Final[tuple[Evidence, ...]] = (
    "spec", "module", "type-tag", "optimizer", "metadata", "name", "none",
)  # fmt: skip


def _weight(one: ClassifiedEntry) -> tuple[int, bool, str, str, str]:
    """The order of verdicts on one tensor, the same whichever side it is on."""
    persistence, use = str(one.is_persistent), str(one.use)
    return _EVIDENCE.index(one.evidence), not one.is_certain, one.role, persistence, use


class LeafDiff(NamedTuple):
    """What is no tensor, in A against B; what a side lacks is None.

    `path` is a name in the roots or a key path. A state_dict's `_metadata` counts as one leaf per
    module.
    """

    path: str
    change: Change
    a: Node
    b: Node
    part: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two checkpoints; `prefix` was taken from its names that begin with it.

    Without one of `other_prefixes` as many names would be the same.
    """

    contents: Contents
    prefix: str
    other_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Diff:
    """What changed from A to B.

    `entries` are in A's order, those that only B has behind them; so are the `leaves`. `statement`
    says it in one line. `warnings` are those of both files, `notes` what is worth knowing of the
    comparison. `is_quick` says that recorded CRCs decided. `unchanged` are the names that should
    have changed and did not, None where none had to.
    """

    a: Side
    b: Side
    entries: tuple[TensorDiff, ...]
    leaves: tuple[LeafDiff, ...]
    statement: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_quick: bool = False
    unchanged: tuple[str, ...] | None = None

    def count(self, change: Change) -> int:
        """Return how many tensors there are of one sort of change."""
        return sum(one.change == change for one in self.entries)

    @property
    def leaves_changed(self) -> int:
        """How many leaves are not the same."""
        return sum(leaf.change != "same" for leaf in self.leaves)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not self.leaves_changed and all(one.change == "same" for one in self.entries)
