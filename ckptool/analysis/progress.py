"""Work that reads values: done side by side, and watched by whoever wants to know how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

__all__ = ["UNWATCHED", "Progress", "side_by_side"]

_BATCHES: Final = 1_000

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
    items = list(items)
    watched = _Interruptible(progress)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Handing over one at a time would cost more than many a small tensor does.
        size = 1 + len(items) // _BATCHES
        batches = [items[at : at + size] for at in range(0, len(items), size)]
        try:
            done = pool.map(lambda batch: [work(item, watched) for item in batch], batches)
            return [result for batch in done for result in batch]
        finally:
            watched.is_stopped = True


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
