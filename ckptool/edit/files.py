"""The calls that change a file system, and a file that grows by copies the kernel makes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptool.sources import FileSource

if TYPE_CHECKING:
    from ckptool.analysis.progress import Progress
    from ckptool.formats.content import Piece
    from ckptool.sources import Source

__all__ = ["Files", "OutputFile"]

_BUFFERED: Final = 1 << 20
_COPIED_BY_KERNEL: Final = 1 << 16
"""Below this, a call of its own costs more than copying through memory."""
_STEP: Final = 1 << 24
_FLUSHED: Final = 1 << 25
# What a kernel says that cannot copy between two files in this way.
_NOT_HERE: Final = {
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF,
    errno.ETXTBSY, errno.ENOTSOCK,
}  # fmt: skip


class Files:
    """Every call by which an edit changes a file system.

    They are methods of an object that is handed in, so that tests can watch each of them and make
    it fail.
    """

    def create(self, path: Path) -> int:
        """Make a file that is not there yet, for its owner alone; return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write at the end; return how many bytes were taken."""
        return os.write(descriptor, data)

    def copy_file_range(self, source: int, descriptor: int, offset: int, size: int) -> int:
        """Let the kernel copy within or between file systems, sharing blocks where it can."""
        return os.copy_file_range(source, descriptor, size, offset)

    def sendfile(self, source: int, descriptor: int, offset: int, size: int) -> int:
        """Let the kernel copy, where it can only do that."""
        return os.sendfile(descriptor, source, offset, size)

    def begin_to_flush(self, descriptor: int, offset: int, size: int) -> None:
        """Let the disk have a part soon, so that there is less to wait for in the end."""
        if hasattr(os, "posix_fadvise"):
            # Linux begins to write what it is told is not needed; it does not wait for it.
            with suppress(OSError):
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)

    def set_mode(self, descriptor: int, mode: int) -> None:
        """Set the mode bits."""
        os.fchmod(descriptor, mode)

    def sync(self, descriptor: int) -> None:
        """Wait until the disk has it."""
        os.fsync(descriptor)

    def replace(self, path: Path, target: Path) -> None:
        """Give a file another name; what had it before is gone in the same moment."""
        os.replace(path, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def sync_folder(self, path: Path) -> None:
        """Wait until the disk has the names in a folder, where a file system can do that."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


class OutputFile:
    """A new file that pieces are put into, one behind the other."""

    def __init__(self, files: Files, descriptor: int, progress: Progress) -> None:
        self._files = files
        self._descriptor = descriptor
        self._progress = progress
        self._held = bytearray()
        self._written = self._flushed = 0
        self._ways: list[Callable[[int, int, int, int], int]] = [
            getattr(files, name) for name in ("copy_file_range", "sendfile") if hasattr(os, name)
        ]

    def put(self, piece: Piece) -> None:
        """Put a piece behind what is there."""
        if isinstance(piece, bytes):
            self._put_bytes(piece)
        elif isinstance(piece, tuple):
            self._put_copy(*piece)
        else:
            for chunk in piece.chunks():
                self._put_bytes(chunk)

    def finish(self, mode: int) -> None:
        """Write what is held back, and wait until the disk has all of it."""
        self._flush()
        self._files.set_mode(self._descriptor, mode)
        self._files.sync(self._descriptor)

    def _put_bytes(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        with memoryview(bytes(self._held)) as data:
            done = 0
            while done < len(data):
                count = self._files.write(self._descriptor, data[done:])
                if not count:
                    raise OSError(errno.EIO, "nothing more can be written")
                done += count
        self._advance(len(self._held))
        self._held.clear()

    def _put_copy(self, source: Source, offset: int, size: int) -> None:
        end = offset + size
        if size >= _COPIED_BY_KERNEL and isinstance(source, FileSource):
            self._flush()
            while offset < end and self._ways:
                offset += self._copied_by_kernel(source.fd, offset, min(_STEP, end - offset))
        while offset < end:
            step = min(_BUFFERED, end - offset)
            # Reading says what is wrong where the source ends too early.
            self._put_bytes(source.read(offset, step))
            offset += step

    def _copied_by_kernel(self, source: int, offset: int, size: int) -> int:
        """Return how many bytes the kernel copied; a way that copies none is not tried again."""
        count = 0
        try:
            count = self._ways[0](source, self._descriptor, offset, size)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
        if not count:
            del self._ways[0]
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        self._written += count
        behind = self._written - self._flushed
        if behind >= _FLUSHED:
            self._files.begin_to_flush(self._descriptor, self._flushed, behind)
            self._flushed = self._written
        self._progress.advance(count)
