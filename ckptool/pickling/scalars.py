"""The opcodes of numbers, text and bytes."""

from __future__ import annotations

import codecs
import re
import struct
from typing import Final

from ckptool.pickling.machine import UINT32, Machine, Table, integer, line_at, take, unsigned
from ckptool.pickling.nodes import OutOfBandBuffer

__all__ = ["SCALARS"]

_OCTAL = re.compile(rb"\s*[+-]?0[0-7]+\s*")
_FLOAT = struct.Struct(">d").unpack_from


def _text_or_bytes(raw: bytes) -> str | bytes:
    # Python 2 wrote text and bytes alike; what is not text stays the bytes that it is.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _number(line: bytes) -> int:
    """An integer as C reads it: in decimal, or with the prefix of another base."""
    if _OCTAL.fullmatch(line):
        return int(line, 8)
    try:
        return int(line)
    except ValueError:
        return int(line, 0)


def _none(machine: Machine, at: int) -> int:
    machine.stack.append(None)
    return at


def _true(machine: Machine, at: int) -> int:
    machine.stack.append(True)
    return at


def _false(machine: Machine, at: int) -> int:
    machine.stack.append(False)
    return at


def _int(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    # Protocol 0 has no opcode for booleans and writes them as these two integers.
    machine.stack.append(line == b"01" if line in (b"00", b"01") else _number(line))
    return at


def _long(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.stack.append(_number(line.removesuffix(b"L")))
    return at


def _binint(machine: Machine, at: int) -> int:
    machine.stack.append(integer(machine, at, at + 4))
    return at + 4


def _binint1(machine: Machine, at: int) -> int:
    machine.stack.append(machine.data[at])
    return at + 1


def _binint2(machine: Machine, at: int) -> int:
    machine.stack.append(unsigned(machine, at, 2))
    return at + 2


def _long1(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(integer(machine, at + 1, end))
    return end


def _long4(machine: Machine, at: int) -> int:
    end = at + 4 + unsigned(machine, at, 4)
    machine.stack.append(integer(machine, at + 4, end))
    return end


def _float(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.stack.append(float(line))
    return at


def _binfloat(machine: Machine, at: int) -> int:
    machine.stack.append(_FLOAT(take(machine, at, at + 8))[0])
    return at + 8


def _binunicode(machine: Machine, at: int) -> int:
    end: int = at + 4 + UINT32(machine.data, at)[0]
    machine.stack.append(take(machine, at + 4, end).decode("utf-8", "surrogatepass"))
    return end


def _short_binunicode(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(take(machine, at + 1, end).decode("utf-8", "surrogatepass"))
    return end


def _binunicode8(machine: Machine, at: int) -> int:
    end = at + 8 + unsigned(machine, at, 8)
    machine.stack.append(take(machine, at + 8, end).decode("utf-8", "surrogatepass"))
    return end


def _unicode(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.stack.append(line.decode("raw-unicode-escape"))
    return at


def _string(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1] != line[0]:
        raise ValueError("has no quotes around its text")
    machine.stack.append(_text_or_bytes(codecs.escape_decode(line[1:-1])[0]))
    return at


def _binstring(machine: Machine, at: int) -> int:
    end = at + 4 + unsigned(machine, at, 4)
    machine.stack.append(_text_or_bytes(take(machine, at + 4, end)))
    return end


def _short_binstring(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(_text_or_bytes(take(machine, at + 1, end)))
    return end


def _binbytes(machine: Machine, at: int) -> int:
    end = at + 4 + unsigned(machine, at, 4)
    machine.stack.append(take(machine, at + 4, end))
    return end


def _short_binbytes(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(take(machine, at + 1, end))
    return end


def _binbytes8(machine: Machine, at: int) -> int:
    end = at + 8 + unsigned(machine, at, 8)
    machine.stack.append(take(machine, at + 8, end))
    return end


def _bytearray8(machine: Machine, at: int) -> int:
    end = at + 8 + unsigned(machine, at, 8)
    machine.stack.append(bytearray(take(machine, at + 8, end)))
    return end


def _next_buffer(machine: Machine, at: int) -> int:
    machine.stack.append(OutOfBandBuffer())
    return at


def _readonly_buffer(machine: Machine, at: int) -> int:
    if type(machine.stack[-1]) is not OutOfBandBuffer:
        raise TypeError("stands behind something other than a buffer")
    machine.stack[-1] = OutOfBandBuffer(is_readonly=True)
    return at


SCALARS: Final[Table] = {
    "FLOAT": (b"F", _float),
    "INT": (b"I", _int),
    "BININT": (b"J", _binint),
    "BININT1": (b"K", _binint1),
    "BININT2": (b"M", _binint2),
    "LONG": (b"L", _long),
    "NONE": (b"N", _none),
    "STRING": (b"S", _string),
    "BINSTRING": (b"T", _binstring),
    "SHORT_BINSTRING": (b"U", _short_binstring),
    "UNICODE": (b"V", _unicode),
    "BINUNICODE": (b"X", _binunicode),
    "BINFLOAT": (b"G", _binfloat),
    "NEWTRUE": (b"\x88", _true),
    "NEWFALSE": (b"\x89", _false),
    "LONG1": (b"\x8a", _long1),
    "LONG4": (b"\x8b", _long4),
    "BINBYTES": (b"B", _binbytes),
    "SHORT_BINBYTES": (b"C", _short_binbytes),
    "SHORT_BINUNICODE": (b"\x8c", _short_binunicode),
    "BINUNICODE8": (b"\x8d", _binunicode8),
    "BINBYTES8": (b"\x8e", _binbytes8),
    "BYTEARRAY8": (b"\x96", _bytearray8),
    "NEXT_BUFFER": (b"\x97", _next_buffer),
    "READONLY_BUFFER": (b"\x98", _readonly_buffer),
}
