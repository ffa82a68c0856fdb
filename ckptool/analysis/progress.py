"""Work that reads values: done side by side, and watched by whoever wants to know how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TypeVar

__all__ = ["UNWATCHED", "Progress", "side_by_side"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Progress(Protocol):
    """Hears of bytes; threads may call it side by side."""

    def expect(self, nbytes: int) -> None:
        """Hear that so many bytes more are going to be read."""

    def advance(self, nbytes: int) -> None:
        """Hear that so many bytes more have been read."""


class _Unwatched:
    def expect(self, nbytes: int) -> None:
        """Nobody watches."""

    def advance(self, nbytes: int) -> None:
        """Nobody watches."""


UNWATCHED: Final[Progress] = _Unwatched()


def side_by_side(
    work: Callable[[Item, Progress], Result], items: Iterable[Item], progress: Progress
) -> list[Result]:
    """Do the same work on many items in threads; return the results in the items' order.

    Reading, hashing and numpy leave the interpreter lock alone. When one fails, or the user
    interrupts, the others end at their next chunk.
    """
    watched = _Interruptible(progress)
    pending: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    for numbered in enumerate(items):
        pending.put(numbered)
    results: dict[int, Result] = {}

    def run() -> None:
        # Handing every item to a thread on its own would cost more than many a small tensor does.
        with suppress(Empty):
            while True:
                index, item = pending.get_nowait()
                results[index] = work(item, watched)

    threads = min(os.cpu_count() or 1, pending.qsize())
    with ThreadPoolExecutor(threads or 1) as pool:
        try:
            ended, _ = wait([pool.submit(run) for _ in range(threads)], None, FIRST_EXCEPTION)
            for one in ended:
                one.result()
        finally:
            watched.is_stopped = True
    return [results[index] for index in range(len(results))]


class _Interruptible:
    """Ends the work of the other threads when this one was interrupted or failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.is_stopped = False

    def expect(self, nbytes: int) -> None:
        self._progress.expect(nbytes)

    def advance(self, nbytes: int) -> None:
        if self.is_stopped:
            raise CancelledError
        self._progress.advance(nbytes)
