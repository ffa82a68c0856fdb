"""Signals that come while a file is written: acted upon between two steps, not in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ckptool.analysis.progress import Progress

__all__ = ["Terminated", "interruptible"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_SIGNAL: Final = 128
"""Shells say that a signal ended a program by this number and the signal's."""


class Terminated(BaseException):
    """Another program, or the end of the session, asks to end; `code` is the exit code for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = _BY_SIGNAL + number


class _Interruptible:
    """Tells how far work is, and ends it at the next step after a signal came."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._came: int | None = None

    def expect(self, nbytes: int) -> None:
        """See `analysis.progress.Progress`."""
        self._progress.expect(nbytes)

    def advance(self, nbytes: int) -> None:
        """See `analysis.progress.Progress`."""
        self._progress.advance(nbytes)
        self.act()

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal."""
        self._came = self._came or number

    def act(self) -> None:
        """Raise what a signal stands for, if one came."""
        came, self._came = self._came, None
        if came == signal.SIGINT:
            raise KeyboardInterrupt
        if came is not None:
            raise Terminated(came)


@contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Hand out a progress that ends the work between two steps when a signal came.

    An exception in the middle of making a file would leave it behind. A signal that came after the
    last step is acted upon at the end.
    """
    watched = _Interruptible(progress)
    if threading.current_thread() is not threading.main_thread():
        # Only there can signals be heard.
        yield watched
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, watched.hear)
    try:
        yield watched
    finally:
        for number in heard:
            signal.signal(number, before[number])
    watched.act()
