"""How far work that reads values is, for whoever watches it."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["UNWATCHED", "Progress"]


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
