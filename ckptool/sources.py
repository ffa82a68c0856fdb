"""Bytes by range: the one place where a checkpoint's bytes are fetched from."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ckptool.errors import ArchiveError, FileKind, InputError, MalformedCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "CHUNK_BYTES",
    "BytesSource",
    "Extent",
    "FileSource",
    "PartSource",
    "Source",
    "read_content",
]

CHUNK_BYTES: Final = 1 << 20
"""How much content is handed out at a time: what is read is still in the cache when used."""


class Source(Protocol):
    """Bytes that can be read by range."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    @property
    def path(self) -> Path | None:
        """The file they are in, None where they are in none of their own."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`; both are in bytes.

        Raises MalformedCheckpointError where the source ends before that.
        """

    def read_up_to(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, or as many as there are."""

    def read_into(self, offset: int, into: memoryview) -> None:
        """Fill a buffer with the bytes from `offset` on.

        Raises MalformedCheckpointError where the source ends before that.
        """


class FileSource:
    """A local file that is read by range.

    It is opened once and held, so that a file replaced meanwhile cannot give half of one
    checkpoint and half of another. `fd` lets the kernel copy from it. A directory can be opened
    too, and says so. Raises InputError for what has no bytes to be read by range.
    """

    __slots__ = ("fd", "is_directory", "path", "size")

    # At the end of the interpreter the module can be gone before the last file is.
    _close = staticmethod(os.close)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        try:
            # Opening a pipe would wait for somebody to write into it.
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            status = os.fstat(self.fd)
        except (OSError, ValueError) as error:
            self.close()
            raise _cannot_open(path, error) from error
        self.size = status.st_size
        self.is_directory = stat.S_ISDIR(status.st_mode)
        if not self.is_directory and not stat.S_ISREG(status.st_mode):
            self.close()
            raise InputError(
                "cannot be read: it is a pipe, a socket or a device",
                path=path,
                hint="copy it into a file first",
                file_kind=FileKind.DEVICE,
            )

    def read(self, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        return _whole(self.read_up_to(offset, length), offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        try:
            data = os.pread(self.fd, length, offset)
            # The kernel may give less at a time than there is, at most 2 GiB.
            while len(data) < length and (
                more := os.pread(self.fd, length - len(data), offset + len(data))
            ):
                data += more
        except (OSError, OverflowError) as error:
            raise InputError(_reason(error), path=self.path) from error
        return data

    def read_into(self, offset: int, into: memoryview) -> None:
        """See `Source.read_into`."""
        done = 0
        try:
            while done < len(into):
                count = os.preadv(self.fd, [into[done:]], offset + done)
                if not count:
                    raise _cut_short(offset, len(into), done)
                done += count
        except (OSError, OverflowError) as error:
            raise InputError(_reason(error), path=self.path) from error

    def close(self) -> None:
        """Give the file descriptor back; closing twice does nothing."""
        if self.fd >= 0:
            self._close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class BytesSource:
    """Bytes that a pickle carried inside itself."""

    __slots__ = ("_data", "path", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.path = None
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        return _whole(self.read_up_to(offset, length), offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        return self._data[offset : offset + length]

    def read_into(self, offset: int, into: memoryview) -> None:
        """See `Source.read_into`."""
        into[:] = self.read(offset, len(into))


class PartSource:
    """A part of another source, as a source of its own: a file inside an archive."""

    __slots__ = ("_offset", "_whole", "path", "size")

    def __init__(self, whole: Source, offset: int, size: int) -> None:
        self._whole = whole
        self._offset = offset
        self.path = whole.path
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """See `Source.read`."""
        return _whole(self.read_up_to(offset, length), offset, length)

    def read_up_to(self, offset: int, length: int) -> bytes:
        """See `Source.read_up_to`."""
        left = max(0, min(length, self.size - offset))
        return self._whole.read_up_to(self._offset + offset, left) if left else b""

    def read_into(self, offset: int, into: memoryview) -> None:
        """See `Source.read_into`."""
        into[:] = self.read(offset, len(into))


class Extent(NamedTuple):
    """Where a run of bytes is kept: `size` bytes of content, `stored_size` bytes at `offset`.

    The two sizes differ only where the content is deflated. `crc` is the recorded CRC-32 of the
    content, None where none was recorded.
    """

    source: Source
    offset: int
    size: int
    stored_size: int
    is_deflated: bool = False
    crc: int | None = None


def read_content(extent: Extent, start: int = 0, size: int | None = None) -> Iterator[bytes]:
    """Yield `size` bytes of an extent's content from `start`, inflated where it is deflated.

    Without a size it is all that follows. They come in chunks.
    """
    size = extent.size - start if size is None else size
    if extent.is_deflated:
        yield from _inflate(extent, start, size)
        return
    for at in range(start, start + size, CHUNK_BYTES):
        yield extent.source.read(extent.offset + at, min(CHUNK_BYTES, start + size - at))


def _inflate(extent: Extent, start: int, size: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    skip, left = start, size
    at, end = extent.offset, extent.offset + extent.stored_size
    pending = b""
    while left > 0:
        if not pending and at < end:
            pending = extent.source.read(at, min(CHUNK_BYTES, end - at))
            at += len(pending)
        try:
            content = inflater.decompress(pending, CHUNK_BYTES)
        except zlib.error as error:
            raise ArchiveError(f"cannot be inflated: {error}", offset=extent.offset) from error
        pending = inflater.unconsumed_tail
        if not content and not pending and at >= end:
            raise ArchiveError("inflates to less than is recorded", offset=extent.offset)
        content, skip = content[skip:], max(0, skip - len(content))
        if content:
            yield content[:left]
            left -= len(content)


def _whole(data: bytes, offset: int, length: int) -> bytes:
    if len(data) != length:
        raise _cut_short(offset, length, len(data))
    return data


def _cut_short(offset: int, length: int, found: int) -> MalformedCheckpointError:
    return MalformedCheckpointError(
        f"cut short: {length:,} bytes should follow byte {offset:,}, {found:,} do"
    )


def _cannot_open(path: Path, error: Exception) -> InputError:
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), FileKind.UNKNOWN)
    # A socket cannot even be opened.
    if isinstance(error, OSError) and error.errno == errno.ENXIO:
        kind = FileKind.DEVICE
    hint = f"close: {', '.join(close)}" if (close := _close_names(path, kind)) else None
    return InputError(_reason(error), path=path, hint=hint, file_kind=kind)


_KINDS: Final = {FileNotFoundError: FileKind.MISSING, PermissionError: FileKind.NO_PERMISSION}


def _close_names(path: Path, kind: FileKind) -> list[str]:
    """The files beside a missing one whose names are much like its own."""
    if kind is not FileKind.MISSING:
        return []
    from difflib import get_close_matches

    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    return [
        str(path.parent / name) for name in get_close_matches(path.name, sorted(names), cutoff=0.7)
    ]


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"cannot be read: {text}"
