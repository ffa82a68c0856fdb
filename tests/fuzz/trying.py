"""One file run through the steps within bounds: how each ended, or a finding."""

from __future__ import annotations

import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from ckptool.errors import CkptoolError
from ckptool.render.json import dumps, error_document
from tests.fuzz.files import write
from tests.fuzz.steps import Step

__all__ = ["Bounds", "Fault", "TooSlowError", "bound_memory", "peak_memory", "try_file", "try_step"]

_PACKAGE = "ckptool"
_UNTIL_KILLED = 15


class Bounds(NamedTuple):
    """What one step may take: seconds of CPU, bytes by which the process may grow.

    A step should be far below these: they are for what hangs, on machines of any speed.
    """

    seconds: float = 5.0
    growth: int = 256 << 20


class Fault(NamedTuple):
    """A step that ended as none may; `key` is the same for two that have one cause, as a guess."""

    step: str
    exception: str
    place: str
    trace: str

    @property
    def key(self) -> tuple[str, str]:
        # A run that is too slow is stopped anywhere.
        return (self.exception, self.step if self.exception == "slow" else self.place)


class TooSlowError(BaseException):
    """Raised by a timer in whatever runs for too long; no `except Exception` swallows it."""


def try_file(
    path: Path, data: bytes, steps: Sequence[Step], bounds: Bounds
) -> tuple[str, list[Fault]]:
    """Run the steps on a file with this content; say how the first ended, and what went wrong."""
    write(path, data)
    outcome, faults = "", []
    for step in steps:
        ended = try_step(path, step, bounds)
        if isinstance(ended, Fault):
            faults.append(ended)
        outcome = outcome or (ended.exception if isinstance(ended, Fault) else ended)
    return outcome, faults


def try_step(path: Path, step: Step, bounds: Bounds) -> str | Fault:
    """Run one step: `result`, the class of the CkptoolError it raised, or a fault."""
    memory, started = peak_memory(), time.process_time()
    try:
        with _timer(bounds.seconds):
            outcome = _outcome(path, step.run)
    except TooSlowError as error:
        return _fault(step, error, "slow")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return _fault(step, error, type(error).__name__)
    if (taken := time.process_time() - started) > bounds.seconds:
        return Fault(step.name, "slow", step.name, f"{taken:.1f} s in code that cannot be stopped")
    if (growth := peak_memory() - memory) > bounds.growth:
        return Fault(step.name, "memory", step.name, f"{growth >> 20} MiB more than before")
    return outcome


def _outcome(path: Path, run: Callable[[Path], object]) -> str:
    try:
        run(path)
    except CkptoolError as error:
        # Whoever gets it will show it, and say which file it is about.
        if error.path != path:
            raise AssertionError(f"the error names the path {error.path}") from error
        str(error)
        str(error.hint)
        repr(vars(error))
        dumps(error_document(error))
        return error.kind
    return "result"


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    # Where a function in C never comes back to be stopped, this one ends the process.
    signal.setitimer(signal.ITIMER_VIRTUAL, _UNTIL_KILLED * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _fault(step: Step, error: BaseException, exception: str) -> Fault:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if f"/{_PACKAGE}/" in frame.filename] or list(frames)
    last = inside[-1]
    file = last.filename.rpartition(f"/{_PACKAGE}/")[2] or last.filename
    text = "".join(traceback.format_exception(error, limit=-8))
    error.__traceback__ = None
    return Fault(step.name, exception, f"{file} {last.name}", text[-4000:])


def peak_memory() -> int:
    """Return the most that this process has had in memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bound_memory(headroom: int) -> None:
    """Let this process have only so many bytes more of memory than now; a MemoryError follows."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere there is no telling what it has
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (now + headroom, hard))
