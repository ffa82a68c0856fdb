"""Many mutated files in several processes: chunks of runs, each with its own random numbers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.files import write
from tests.fuzz.minimise import minimise
from tests.fuzz.mutate import mutate
from tests.fuzz.steps import STEPS, Step
from tests.fuzz.trying import Bounds, Fault, bound_memory, peak_memory, try_file, try_step

__all__ = ["CHUNK", "Finding", "Tally", "fuzz", "run_chunk", "smallest"]

CHUNK: Final = 1_000
_HEADROOM: Final = 1 << 30
_MOST_MINIMISED: Final = 25
_MINIMISE_SECONDS: Final = 30.0


@dataclass(slots=True)
class Finding:
    """A file that some step fails on: how to make it again, how it fails, and a smaller one."""

    seed: int
    chunk: int
    run: int
    chain: tuple[str, ...]
    data: bytes
    fault: Fault
    times: int = 1
    minimal: bytes | None = None


@dataclass(slots=True)
class Tally:
    """What came of some runs; findings by what seems to be their cause."""

    runs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    peak: int = 0
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def find(self, finding: Finding) -> None:
        """Count a finding; of those with one cause the first is kept."""
        known = self.findings.get(finding.fault.key)
        if known is None:
            self.findings[finding.fault.key] = finding
            return
        known.times += finding.times
        if (finding.chunk, finding.run) < (known.chunk, known.run):
            finding.times = known.times
            self.findings[finding.fault.key] = finding

    def add(self, other: Tally) -> None:
        """Take another tally's figures into this one."""
        self.runs += other.runs
        self.outcomes += other.outcomes
        self.peak = max(self.peak, other.peak)
        for finding in other.findings.values():
            self.find(finding)


def fuzz(
    folder: Path,
    seed: int,
    runs: int,
    tell: Callable[[Finding], None],
    *,
    seconds: float | None = None,
    processes: int | None = None,
) -> Tally:
    """Run so many mutated files, or as many as there is time for, and make the findings small.

    What is run depends on the seed alone, however many processes there are. Findings are told when
    all is run, and again when they are small.
    """
    tally = Tally()
    until = None if seconds is None else time.monotonic() + seconds
    sizes = (min(CHUNK, runs - start) for start in range(0, runs, CHUNK))
    if until is not None:
        sizes = (CHUNK for _ in count())
    jobs = ((folder, seed, chunk, size) for chunk, size in enumerate(sizes))
    with ProcessPoolExecutor(processes, initializer=bound_memory, initargs=(_HEADROOM,)) as pool:
        try:
            for part in _in_turn(pool, jobs, until):
                tally.add(part)
            for finding in tally.findings.values():
                tell(finding)
            for finding in _minimised(pool, folder, tally):
                tell(finding)
        except BrokenProcessPool:
            for finding in _killed(folder, seed):
                tally.find(finding)
                tell(finding)
    return tally


def _in_turn(
    pool: ProcessPoolExecutor, jobs: Iterator[tuple[Path, int, int, int]], until: float | None
) -> Iterator[Tally]:
    """Yield what came of each job, a few of them waiting at any time."""
    waiting: set[Future[Tally]] = set()
    for job in jobs:
        if until is not None and time.monotonic() > until:
            break
        waiting.add(pool.submit(_chunk_in_worker, *job))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    yield from (future.result() for future in waiting)


def _chunk_in_worker(folder: Path, seed: int, chunk: int, runs: int) -> Tally:
    return run_chunk(_own_file(folder), seed, chunk, runs)


def _own_file(folder: Path) -> Path:
    return folder / f"{os.getpid()}.bin"


def run_chunk(
    path: Path,
    seed: int,
    chunk: int,
    runs: int,
    steps: Sequence[Step] = STEPS,
    bounds: Bounds | None = None,
) -> Tally:
    """Make so many files and run the steps that are due on each."""
    random = Random(f"{seed}/{chunk}")
    bounds = bounds or Bounds()
    tally = Tally()
    for run in range(runs):
        mutated = mutate(random)
        due = [step for step in steps if run % step.every == 0]
        outcome, faults = try_file(path, mutated.data, due, bounds)
        tally.runs += 1
        tally.outcomes[outcome] += 1
        for fault in faults:
            tally.find(Finding(seed, chunk, run, mutated.chain, mutated.data, fault))
    tally.peak = peak_memory()
    return tally


def _minimised(pool: ProcessPoolExecutor, folder: Path, tally: Tally) -> Iterator[Finding]:
    findings = list(tally.findings.values())[:_MOST_MINIMISED]
    small = [pool.submit(_minimise_in_worker, folder, one.data, one.fault) for one in findings]
    for finding, future in zip(findings, small, strict=True):
        finding.minimal = future.result()
        yield finding


def _minimise_in_worker(folder: Path, data: bytes, fault: Fault) -> bytes:
    step = next(step for step in STEPS if step.name == fault.step)
    return smallest(_own_file(folder), data, fault, step, Bounds())


def smallest(path: Path, data: bytes, fault: Fault, step: Step, bounds: Bounds) -> bytes:
    """Return a smaller file on which the step has the same fault."""

    def fails(smaller: bytes) -> bool:
        write(path, smaller)
        ended = try_step(path, step, bounds)
        return isinstance(ended, Fault) and ended.key == fault.key

    return minimise(data, fails, _MINIMISE_SECONDS)


def _killed(folder: Path, seed: int) -> Iterator[Finding]:
    """The files that the processes had at hand when one of them died: one of them did it."""
    for at, path in enumerate(sorted(folder.glob("*.bin"))):
        fault = Fault("any", "killed", str(at), "a process died while it, or another, was run")
        yield Finding(seed, -1, at, (), path.read_bytes(), fault)
