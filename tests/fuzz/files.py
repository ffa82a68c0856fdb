"""One file in memory that is written again and again, for what reads by path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["memory_folder", "write"]

_SHARED_MEMORY: Final = Path("/dev/shm")


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a new folder that is kept in memory where the system has such, and remove it."""
    above = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ckptool-fuzz-", dir=above) as name:
        yield Path(name)


def write(path: Path, data: bytes) -> None:
    """Write a file as it should be then, whatever was in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
