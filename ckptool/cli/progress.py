"""A bar or a line on stderr for work that takes longer than a second, where that is a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ckptool.render.escape import visible

if TYPE_CHECKING:
    import rich.progress

__all__ = ["ProgressBar", "waiting"]

_SECONDS_BEFORE: Final = 1.0
_SECONDS_BETWEEN: Final = 0.1


class ProgressBar:
    """Shows how many bytes were read of how many; it is gone when the work is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._expected = 0
        self._done = 0
        self._bar: rich.progress.Progress | None = None
        self._shown = 0.0
        self._is_wanted = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, nbytes: int) -> None:
        """See `analysis.progress.Progress`."""
        self._expected += nbytes

    def advance(self, nbytes: int) -> None:
        """See `analysis.progress.Progress`."""
        with self._lock:
            self._done += nbytes
            if self._bar is None:
                if not self._is_wanted or time.monotonic() - self._start < _SECONDS_BEFORE:
                    return
                self._bar = _start_bar(self._expected)
            self._bar.update(self._bar.task_ids[0], completed=self._done, total=self._expected)
            if time.monotonic() - self._shown > _SECONDS_BETWEEN:
                self._shown = time.monotonic()
                self._bar.refresh()


def _start_bar(nbytes: int) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # A thread that draws would keep the work from being divided among processes.
        auto_refresh=False,
    )
    bar.add_task("", total=nbytes)
    bar.start()
    return bar


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is being done, while it is, where nobody knows how much of it there is."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    status = Console(stderr=True).status(Text(visible(what)))
    timer = threading.Timer(_SECONDS_BEFORE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        status.stop()
