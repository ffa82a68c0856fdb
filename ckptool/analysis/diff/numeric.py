"""How far the values of two tensors are apart, in float64.

Sums of blocks are combined with `math.fsum`, so that no figure depends on what is read at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from ckptool.analysis.diff.result import Figures, Tolerance
from ckptool.analysis.diff.rounding import candidates_for
from ckptool.analysis.diff.tally import Buffers, Exponents, Job, Scale, Tally, largest, tally_up
from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.processes import can_fork, divided
from ckptool.analysis.progress import Progress

__all__ = ["Comparison", "Measured", "Scale", "measure"]

# Another process is there and gone in the time that some megabytes take.
_WORTH_A_PROCESS: Final = 1 << 27
# Memory does not give more of them numbers fast enough.
_MOST_PROCESSES: Final = 8
# Numbers whose squares add up to less than that, or to more than float64 has, are scaled.
_LEAST: Final = 1e-250


class Comparison(NamedTuple):
    """Two tensors of one shape that are not the same bytes; `scales` where they are quantized."""

    pair: TensorPair
    scales: tuple[Scale, Scale] | None = None


class Measured(NamedTuple):
    """What two tensors come to.

    B is A rounded to the dtype `rounded_to`, or where `is_reverse`, A is B; None for neither.
    """

    figures: Figures
    is_close: bool
    rounded_to: str | None
    is_reverse: bool


def measure(
    comparisons: Sequence[Comparison],
    tolerance: Tolerance | None,
    progress: Progress,
    processes: int = 1,
) -> list[Measured]:
    """Measure pairs of tensors, in several processes where it is much and that can be.

    What both sides repeat alike is read once, and counted as often as it stands there.
    """
    nbytes = sum(comparison.pair.nbytes for comparison in comparisons)
    processes = min(processes, len(comparisons), _MOST_PROCESSES)
    if processes < 2 or nbytes < _WORTH_A_PROCESS or not can_fork():
        return _measure(comparisons, tolerance, progress)

    def work(share: Sequence[Comparison], progress: Progress) -> list[Measured]:
        return _measure(share, tolerance, progress)

    return [_from_json(found) for found in divided(work, comparisons, processes, progress)]


def _measure(
    comparisons: Sequence[Comparison], tolerance: Tolerance | None, progress: Progress
) -> list[Measured]:
    reduced = [comparison.pair.without_repetition() for comparison in comparisons]
    progress.expect(sum(pair.nbytes for pair, _ in reduced))
    buffers = Buffers()
    measured = []
    for (pair, times), comparison in zip(reduced, comparisons, strict=True):
        candidates = candidates_for(pair.a.dtype, pair.b.dtype)
        job = Job(pair, comparison.scales, tolerance, candidates)
        tally = tally_up(job, buffers, progress)
        if _is_outside(job, tally):
            job = _scaled(job, tally, buffers)
            progress.expect(pair.nbytes)
            tally = replace(tally_up(job, buffers, progress), is_close=tally.is_close)
        measured.append(_measured(job, tally, times))
    return measured


def _from_json(found: Sequence[Any]) -> Measured:
    """A result as it was, out of lists where it comes from another process."""
    figures, *rest = found
    *others, nan, inf = figures
    known = Figures(*others)._replace(nan=tuple(nan), inf=tuple(inf))
    return Measured(known, *rest)


def _is_outside(job: Job, tally: Tally) -> bool:
    """Whether squares of the numbers left the range of float64."""
    can_be = any(tensor.dtype.name in ("float64", "complex128") for tensor in job.pair)
    if not tally.sums or not (can_be or job.scales):
        return False
    with np.errstate(all="ignore"):
        totals = np.concatenate(tally.sums, axis=1).sum(axis=1).tolist()
    of_a, of_b, _, of_differences, _ = totals
    if not math.isfinite(of_a + of_b + of_differences):
        return True
    return min(of_a, of_b) < _LEAST or (of_differences < _LEAST and tally.changed > 0)


def _scaled(job: Job, tally: Tally, buffers: Buffers) -> Job:
    """The same job with its numbers brought to magnitudes around one."""
    of_a, of_b = (math.frexp(number)[1] for number in largest(job, buffers))
    is_in_range = math.isfinite(tally.largest)
    of_difference = math.frexp(tally.largest)[1] if is_in_range else max(of_a, of_b) + 1
    return replace(job, tolerance=None, exponents=Exponents(of_a, of_b, of_difference))


def _measured(job: Job, tally: Tally, times: int) -> Measured:
    figures = Figures(
        tally.changed * times,
        nan=(tally.nan[0] * times, tally.nan[1] * times),
        inf=(tally.inf[0] * times, tally.inf[1] * times),
    )
    if tally.finite:
        rows = np.concatenate(tally.sums, axis=1).tolist()
        of_a, of_b, products, of_differences, total = map(math.fsum, rows)
        norm_a, norm_b, norm = map(math.sqrt, (of_a, of_b, of_differences))
        exponents = job.exponents or Exponents(0, 0, 0)
        cosine = products / (norm_a * norm_b) if norm_a and norm_b else None
        figures = figures._replace(
            max_abs=_times_power(tally.largest, exponents.difference),
            mean_abs=_times_power(total / tally.finite, exponents.difference),
            rel_l2=_relative(norm, norm_a, exponents.difference - exponents.a),
            cosine=None if cosine is None else max(-1.0, min(1.0, cosine)),
        )
    # In a narrower dtype values are rounded, whatever they are.
    is_told = job.pair.a.dtype is not job.pair.b.dtype or (
        tally.changed > tally.other_nan and (None in tally.magnitudes or len(tally.magnitudes) > 1)
    )
    names = tally.rounded_to.names if is_told else ()
    rounded_to = names[0] if names else None
    return Measured(figures, tally.is_close, rounded_to, tally.rounded_to.is_reverse)


def _relative(norm: float, norm_a: float, exponent: int) -> float:
    if not norm:
        return 0.0
    return _times_power(norm / norm_a, exponent) if norm_a else math.inf


def _times_power(number: float, exponent: int) -> float:
    try:
        return math.ldexp(number, exponent)
    except OverflowError:
        return math.inf
