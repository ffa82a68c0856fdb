"""What the numbers of two tensors come to, piece by piece: counts, and sums over fixed blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckptool.analysis.diff.integers import distances, is_exact_in_float64, unequal
from ckptool.analysis.diff.result import Tolerance
from ckptool.analysis.diff.rounding import NO_CANDIDATES, Candidates, magnitude_of, rounded_to
from ckptool.analysis.diff.steps import BLOCK, STEP, StepBuffers, in_step
from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.progress import Progress

__all__ = ["Buffers", "Exponents", "Job", "Scale", "Tally", "largest", "tally_up"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_ONES: Final = np.ones((BLOCK, 1))


class Scale(NamedTuple):
    """What a quantized integer stands for: `(integer - zero_point) * scale`."""

    scale: float
    zero_point: int


class Exponents(NamedTuple):
    """Powers of two that the numbers of A, of B, and their differences are divided by."""

    a: int
    b: int
    difference: int


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Two tensors of one shape, and what is asked of their numbers.

    `scales` is what they were quantized with, `candidates` are the dtypes that one side may be the
    other rounded to.
    """

    pair: TensorPair
    scales: tuple[Scale, Scale] | None = None
    tolerance: Tolerance | None = None
    candidates: Candidates = NO_CANDIDATES
    exponents: Exponents | None = None


@dataclass(slots=True, eq=False)
class Tally:
    """What was found so far.

    `sums` has a column per block, in the order of the elements: the squares of A, those of B, the
    products of both, the squares of the differences and their magnitudes. Elements that are not
    finite on either side are left out of it, and of `largest` and `finite`. `other_nan` is how many
    of the `changed` are NaN on both sides, `magnitudes` what `magnitude_of` says of what may be
    rounded.
    """

    rounded_to: Candidates = NO_CANDIDATES
    magnitudes: set[float | None] = field(default_factory=set)
    sums: list[Floats] = field(default_factory=list)
    largest: float = 0.0
    changed: int = 0
    other_nan: int = 0
    finite: int = 0
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    is_close: bool = True


class Buffers:
    """What is worked in: a row of numbers for A, and one for B and then the differences."""

    def __init__(self) -> None:
        self.raw = StepBuffers()
        self.numbers = np.empty(2 * STEP)
        self.flags = np.empty(STEP, np.bool_)


def tally_up(job: Job, buffers: Buffers, progress: Progress) -> Tally:
    """Return what the numbers of a pair come to."""
    tally = Tally(job.candidates)
    # Squares of the largest numbers overflow, and are scaled then; a NaN is what is looked for.
    with np.errstate(all="ignore"):
        for raw_a, raw_b in in_step(job.pair, buffers.raw):
            _Step(job, raw_a, raw_b, buffers).add_to(tally)
            progress.advance(raw_a.nbytes + raw_b.nbytes)
    return tally


def largest(job: Job, buffers: Buffers) -> tuple[float, float]:
    """Return the largest magnitude of A, and of B, where both are finite."""
    of_a = of_b = 0.0
    with np.errstate(all="ignore"):
        for raw_a, raw_b in in_step(job.pair, buffers.raw):
            step = _Step(job, raw_a, raw_b, buffers)
            step.set_aside(Tally())
            of_a = max(of_a, float(np.abs(step.a).max()))
            of_b = max(of_b, float(np.abs(step.b).max()))
    return of_a, of_b


class _Step:
    """The next numbers of both sides: as they are, and as float64 filled up to whole blocks."""

    __slots__ = ("_flags", "_job", "_raw_a", "_raw_b", "_rows", "_width", "a", "b")

    def __init__(
        self, job: Job, raw_a: NDArray[Any], raw_b: NDArray[Any], buffers: Buffers
    ) -> None:
        self._job, self._raw_a, self._raw_b = job, raw_a, raw_b
        self._width = job.pair.width
        count = raw_a.size
        padded = -(-count // BLOCK) * BLOCK
        self._flags = buffers.flags[:count]
        self._rows = buffers.numbers[: 2 * padded].reshape(2, padded)
        if count < padded:
            self._rows[:, count:] = 0
        self._rows[0, :count] = raw_a
        self._rows[1, :count] = raw_b
        if job.scales is not None:
            for row, scale in zip(self._rows, job.scales, strict=True):
                row[:count] -= scale.zero_point
                row[:count] *= scale.scale
        self.a, self.b = self._rows

    def add_to(self, tally: Tally) -> None:
        """Add what they come to."""
        width = self._width
        differs = self._differs()
        if tally.rounded_to.names:
            self._look_for_rounding(tally)
        tally.finite += self._raw_a.size // width
        squares = _dots(self._rows, self._rows)
        if not math.isfinite(squares.sum()):
            is_nan = np.isnan(self._raw_a) & np.isnan(self._raw_b)
            differs &= ~(is_nan & self._has_same_bits())
            tally.other_nan += _count(differs & is_nan, width)
            self.set_aside(tally)
            squares = _dots(self._rows, self._rows)
        tally.changed += _count(differs, width)
        products = _dots(self.a, self.b)
        limit = None if self._job.tolerance is None else self._limit(self._job.tolerance)
        if self._job.exponents is not None:
            squares, products = self._scaled_sums(self._job.exponents)
        apart = self._subtracted()
        apart = np.abs(apart, out=apart) if width == 1 else _magnitudes(apart)
        if limit is not None:
            tally.is_close &= bool((apart <= limit).all())
        tally.largest = max(tally.largest, float(apart.max()))
        sums = (*squares, products, _dots(apart, apart, width), _totals(apart, width))
        tally.sums.append(np.stack(sums))

    def _look_for_rounding(self, tally: Tally) -> None:
        sides = (self._raw_a, self._raw_b, self.b)
        if tally.rounded_to.is_reverse:
            sides = (self._raw_b, self._raw_a, self.a)
        exact, rounded, numbers = sides
        numbers = numbers[: rounded.size]
        tally.rounded_to = rounded_to(exact, rounded, numbers, tally.rounded_to)
        if tally.rounded_to.names:
            tally.magnitudes.add(magnitude_of(numbers))

    def set_aside(self, tally: Tally) -> None:
        """Count elements that are not finite on either side, and let them be zeros on both."""
        width, a, b = self._width, *self._rows[:2, : self._raw_a.size]
        is_set_aside = ~(np.isfinite(a) & np.isfinite(b))
        if width > 1:
            is_set_aside = is_set_aside.reshape(-1, width).any(axis=1).repeat(width)
        are_alike = (a == b) | (np.isnan(a) & np.isnan(b)) | ~is_set_aside
        tally.is_close &= bool(are_alike.all())
        tally.finite -= _count(is_set_aside, width)
        tally.nan = _added(tally.nan, [_count(np.isnan(side), width) for side in (a, b)])
        tally.inf = _added(tally.inf, [_count(np.isinf(side), width) for side in (a, b)])
        a[is_set_aside] = b[is_set_aside] = 0

    def _differs(self) -> Flags:
        """Which numbers are not the same; no NaN is the same as any."""
        a, b = self._raw_a, self._raw_b
        if self._job.scales is None:
            if not (is_exact_in_float64(a.dtype) and is_exact_in_float64(b.dtype)):
                return unequal(a, b)
            # The other kinds are compared faster as float64 than by themselves.
            if a.dtype == b.dtype and a.dtype.kind in "iuf" and a.itemsize > 2:
                np.not_equal(a, b, out=self._flags)
                return self._flags
        np.not_equal(self.a[: a.size], self.b[: b.size], out=self._flags)
        return self._flags

    def _has_same_bits(self) -> Flags | bool:
        """Which numbers are the same to the bit; those of two dtypes have no bits in common."""
        a, b = self._raw_a, self._raw_b
        if a.dtype != b.dtype:
            return True
        same: Flags = a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")
        return same

    def _subtracted(self) -> Floats:
        """The differences, in the place of the numbers of B."""
        exact = None if self._job.scales else distances(self._raw_a, self._raw_b)
        if exact is not None:
            self.b[: exact.size] = exact
        elif self._job.exponents is None:
            self.b -= self.a
        else:
            # Divided before they are subtracted, where their difference is beyond float64.
            before = max(self._job.exponents.difference, 0)
            np.subtract(np.ldexp(self.b, -before), np.ldexp(self.a, -before), out=self.b)
            np.ldexp(self.b, before - self._job.exponents.difference, out=self.b)
        return self.b

    def _scaled_sums(self, exponents: Exponents) -> tuple[Floats, Floats]:
        """The squares of both sides, and their products, each side in the range asked for."""
        rows = np.stack((np.ldexp(self.a, -exponents.a), np.ldexp(self.b, -exponents.b)))
        return _dots(rows, rows), _dots(*rows)

    def _limit(self, tolerance: Tolerance) -> Floats:
        """How far elements may be apart and still be close."""
        sides = (self.a, self.b)
        if self._width > 1:
            sides = (_magnitudes(self.a), _magnitudes(self.b))
        most: Floats = np.maximum(*map(np.abs, sides))
        return most * tolerance.rtol + tolerance.atol


def _dots(a: Floats, b: Floats, width: int = 1) -> Floats:
    """The sums of products of each block, along the last axis."""
    length = BLOCK // width
    left = a.reshape(*a.shape[:-1], -1, 1, length)
    sums: Floats = left @ b.reshape(*b.shape[:-1], -1, length, 1)
    return sums[..., 0, 0]


def _totals(numbers: Floats, width: int) -> Floats:
    """The sums of each block."""
    length = BLOCK // width
    sums: Floats = numbers.reshape(-1, 1, length) @ _ONES[:length]
    return sums[:, 0, 0]


def _magnitudes(pairs: Floats) -> Floats:
    """The magnitudes of complex numbers."""
    magnitudes: Floats = np.hypot(pairs[0::2], pairs[1::2])
    return magnitudes


def _count(flags: Flags, width: int) -> int:
    """How many elements have a flag, on any of their numbers."""
    return int(np.count_nonzero(flags if width == 1 else flags.reshape(-1, width).any(axis=1)))


def _added(first: tuple[int, int], second: Sequence[int]) -> tuple[int, int]:
    return first[0] + second[0], first[1] + second[1]
