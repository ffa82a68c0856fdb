"""numpy's files of one array: whether it holds objects, which are kept as a pickle.

The header is a Python literal behind its length (`numpy.lib.format`).
"""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Final

from ckptool.sources import Source

__all__ = ["is_npy", "objects_start"]

_MAGIC: Final = re.compile(rb"\x93NUMPY([\x01-\x03])\x00", re.DOTALL)
_MAGIC_BYTES: Final = 8
_LENGTH_ENDS: Final = 12
_LONGEST_HEADER: Final = 1 << 16
_PLAIN: Final = re.compile(r"[<>|=]?[?bBiufcSUV]\d+(\[\w+\])?|[<>|=]?[mM]8(\[\w+\])?")


def is_npy(head: bytes) -> bool:
    """Whether a file begins as numpy writes them."""
    return _MAGIC.match(head) is not None


def objects_start(source: Source) -> int | None:
    """Return where the pickle of an array of objects begins, None in one of plain values.

    A header that cannot be read as numpy reads it may say anything; its array is taken for one of
    objects.
    """
    head = source.read_up_to(0, _LENGTH_ENDS)
    begins = _MAGIC_BYTES + (2 if head[6] == 1 else 4)
    length = int.from_bytes(head[_MAGIC_BYTES:begins], "little")
    header = source.read_up_to(begins, min(length, _LONGEST_HEADER))
    return None if _has_plain_values(header) else begins + length


def _has_plain_values(header: bytes) -> bool:
    try:
        said = literal_eval(header.decode("latin-1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(said, dict) and _is_plain(said.get("descr"))


def _is_plain(kind: object) -> bool:
    """Whether a dtype has no objects in it; one with fields is a list of them."""
    if isinstance(kind, list):
        fields = [field for field in kind if isinstance(field, tuple) and len(field) > 1]
        return len(fields) == len(kind) and all(_is_plain(field[1]) for field in fields)
    return isinstance(kind, str) and _PLAIN.fullmatch(kind) is not None
