"""How a pickle spells what has no parts: numbers, strings, names, references."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

__all__ = ["ATOMS", "LONGEST_REFERENCE", "is_line", "line", "refer", "reference", "spelled"]

LONGEST_REFERENCE: Final = 5
"""How many bytes a reference to the memo has at most."""

_LONGEST_SHORT: Final = 0xFF
_LONGEST: Final = 0xFFFFFFFF

_UINT32: Final = struct.Struct("<I").pack
_UINT64: Final = struct.Struct("<Q").pack
_INT32: Final = struct.Struct("<i").pack
_FLOAT: Final = struct.Struct(">d").pack


def _none(_node: None, _protocol: int) -> bytes:
    return b"N"


def _bool(node: bool, protocol: int) -> bytes:
    if protocol >= 2:
        return b"\x88" if node else b"\x89"
    return b"I01\n" if node else b"I00\n"


def _int(node: int, protocol: int) -> bytes:
    if 0 <= node <= 0xFFFF:
        return b"K%c" % node if node <= 0xFF else b"M" + node.to_bytes(2, "little")
    if -0x80000000 <= node <= 0x7FFFFFFF:
        return b"J" + _INT32(node)
    if protocol < 2:
        return b"L%dL\n" % node
    width = node.bit_length() // 8 + 1
    data = node.to_bytes(width, "little", signed=True)
    if node < 0 and data[-1] == 0xFF and data[-2] & 0x80:
        data = data[:-1]
    if len(data) <= _LONGEST_SHORT:
        return b"\x8a%c" % len(data) + data
    return b"\x8b" + _UINT32(len(data)) + data


def _float(node: float, _protocol: int) -> bytes:
    return b"G" + _FLOAT(node)


ATOMS: Final[dict[type, Callable[[Any, int], bytes]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
}
"""What is never referred to again, but written anew each time."""


def spelled(node: str | bytes, protocol: int) -> tuple[bytes, bytes]:
    """Return the opcode of a string with its count, and its bytes."""
    if isinstance(node, str):
        data = node.encode("utf-8", "surrogatepass")
        return _counted(len(data), b"\x8c" if protocol >= 4 else None, b"X", b"\x8d"), data
    # Before protocol 3 only Python 2 had bytes: its text, where that is no UTF-8.
    is_text = protocol < 3 and not _is_utf8(node)
    codes = (b"U", b"T", b"T") if is_text else (b"C", b"B", b"\x8e")
    return _counted(len(node), *codes), node


def _counted(length: int, short: bytes | None, usual: bytes, long: bytes) -> bytes:
    """The opcode for a string of so many bytes, and its count."""
    if short is not None and length <= _LONGEST_SHORT:
        return short + bytes((length,))
    return usual + _UINT32(length) if length <= _LONGEST else long + _UINT64(length)


def refer(index: int) -> bytes:
    """Return a reference to a memo entry."""
    return b"h%c" % index if index <= _LONGEST_SHORT else b"j" + _UINT32(index)


def reference(data: bytes) -> int:
    """Return the memo entry that the stream refers to, -1 where it does something else."""
    if data[:1] == b"h":
        return data[1]
    return int.from_bytes(data[1:], "little") if data[:1] == b"j" else -1


def line(text: str) -> bytes:
    """Return a name in a line of its own."""
    return text.encode() + b"\n"


def is_line(text: str) -> bool:
    """Whether a name can stand in a line of its own."""
    return "\n" not in text and _is_utf8(text.encode("utf-8", "surrogatepass"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
