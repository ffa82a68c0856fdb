"""Tar archives: the members, as POSIX lays out their headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ckptool.sources import Extent, Source

__all__ = ["is_tar", "tar_members"]

_MAGIC_AT: Final = 257
_BLOCK: Final = 512


def is_tar(head: bytes) -> bool:
    """Whether a file begins with the header of a member."""
    return head[_MAGIC_AT:].startswith(b"ustar")


def tar_members(source: Source) -> Iterator[tuple[str, Extent]]:
    """Yield the members by their names, up to where no header follows."""
    at = 0
    while at < source.size:
        header = source.read_up_to(at, _BLOCK)
        name, octal = header[:100].rstrip(b"\0"), header[124:136].strip(b"\0 ")
        if not name or not re.fullmatch(rb"[0-7]+", octal):
            return
        at += _BLOCK
        size = min(int(octal, 8), max(0, source.size - at))
        yield name.decode("utf-8", "replace"), Extent(source, at, size, size)
        at += _BLOCK * -(-int(octal, 8) // _BLOCK)
