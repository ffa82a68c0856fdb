"""Work on numbers in several processes.

numpy lets the interpreter lock go in every call and takes it again after it. With calls of a few
microseconds, threads wait for each other as long as they save; processes do not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ckptool.analysis.progress import Progress

__all__ = ["can_fork", "divided"]

Item = TypeVar("Item")


def can_fork() -> bool:
    """Whether this process can be doubled: a lock that another thread holds would stay locked."""
    return sys.platform == "linux" and threading.active_count() == 1


def divided(
    work: Callable[[Sequence[Item], Progress], Sequence[Any]],
    items: Sequence[Item],
    processes: int,
    progress: Progress,
) -> list[Any]:
    """Do work on shares of the items side by side; return the results in the items' order.

    Results from other processes come as JSON has them. What fails in one of these is done here
    again, and fails here. `progress` hears of one share as if the others were as far.
    """
    shares = [items[start::processes] for start in range(processes)]
    children: list[_Child] = []
    try:
        for share in shares[1:]:
            with suppress(OSError):  # no more processes, or no more open files
                children.append(_Child(work, share))
        answers = {id(child.share): child.answer for child in children}
        done = [work(shares[0], _Share(progress, processes))]
        for share in shares[1:]:
            answer = answers[id(share)]() if id(share) in answers else None
            done.append(work(share, progress) if answer is None else answer)
    finally:
        for child in children:
            child.end()
    return [done[index % processes][index // processes] for index in range(len(items))]


class _Child:
    """A copy of this process that works, answers through a pipe, and is gone."""

    def __init__(
        self, work: Callable[[Sequence[Item], Progress], Sequence[Any]], share: Sequence[Item]
    ) -> None:
        self.share = share
        self._pipe, into = os.pipe()
        parent = os.getpid()
        # An interrupt between the fork and the first line of the child would let it go on as us.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with warnings.catch_warnings():
                # Python counts the threads that linear algebra libraries start and leave idle.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
            if self._pid == 0:
                _work_and_exit(partial(work, share, _Orphan(parent)), into)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(into)

    def answer(self) -> Any:
        """Wait for the result; None where there is none."""
        with open(self._pipe, "rb", closefd=False) as pipe:
            written = pipe.read()
        try:
            return json.loads(written)
        except ValueError:
            return None

    def end(self) -> None:
        """Leave nothing behind, whether it has answered or not."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._pipe)


class _Orphan:
    """The progress of a child: it leaves when its parent has left."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def expect(self, nbytes: int) -> None:
        """Nobody watches."""

    def advance(self, nbytes: int) -> None:  # noqa: ARG002 - what counts is that it is called
        if os.getppid() != self._parent:
            os._exit(1)


class _Share:
    """Tells of one share of the work as if it were all of it."""

    def __init__(self, progress: Progress, shares: int) -> None:
        self._progress, self._shares = progress, shares

    def expect(self, nbytes: int) -> None:
        self._progress.expect(nbytes * self._shares)

    def advance(self, nbytes: int) -> None:
        self._progress.advance(nbytes * self._shares)


def _work_and_exit(work: Callable[[], Sequence[Any]], into: int) -> None:
    """Write the result and leave at once: what else this process holds is its parent's to end."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with open(into, "w", encoding="ascii") as pipe:
            json.dump(work(), pipe)
        code = 0
    finally:
        os._exit(code)
