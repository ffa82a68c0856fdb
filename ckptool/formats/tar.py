"""Tar archives: the members, as POSIX and its predecessors lay out their headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ckptool.sources import Extent, Source

__all__ = ["is_tar", "tar_members"]

_BLOCK: Final = 512
_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_MAGIC: Final = slice(257, 262)
_BASE_256: Final = 0x80


def is_tar(head: bytes) -> bool:
    """Whether a file begins with the header of a member, as its magic number or its sum says."""
    return head[_MAGIC].startswith(b"ustar") or _has_checksum(head[:_BLOCK])


def tar_members(source: Source) -> Iterator[tuple[str, Extent]]:
    """Yield the members by their names, up to where no header follows."""
    at = 0
    while at < source.size:
        header = source.read_up_to(at, _BLOCK)
        if not _has_checksum(header):
            return
        size = _number(header[_SIZE])
        if size is None:
            return
        at += _BLOCK
        held = min(size, max(0, source.size - at))
        name = header[_NAME].partition(b"\0")[0]
        yield name.decode("utf-8", "replace"), Extent(source, at, held, held)
        at += _BLOCK * -(-size // _BLOCK)


def _has_checksum(header: bytes) -> bool:
    if len(header) < _BLOCK or not header[_NAME].strip(b"\0"):
        return False
    blank = header[: _CHECKSUM.start] + b" " * 8 + header[_CHECKSUM.stop :]
    return _number(header[_CHECKSUM]) == sum(blank)


def _number(raw: bytes) -> int | None:
    """A number in octal digits, or in base 256 where its first bit is set; else None."""
    if raw[0] & _BASE_256:
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b"\0 ")
    is_octal = bool(digits) and all(digit in b"01234567" for digit in digits)
    return int(digits, 8) if is_octal else None
