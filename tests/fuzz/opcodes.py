"""Pickle bytes to opcodes and back, without caring whether they make sense."""

from __future__ import annotations

import pickletools
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["ALIKE", "KINDS", "Argument", "argument_of", "split", "split_first", "with_argument"]


class Argument(NamedTuple):
    """What follows an opcode: so many bytes, so many lines, or a count of so many bytes first."""

    fixed: int = 0
    lines: int = 0
    counted: int = 0


def _argument(opcode: pickletools.OpcodeInfo) -> Argument:
    if opcode.arg is None:
        return Argument()
    match opcode.arg.n:
        case pickletools.UP_TO_NEWLINE:
            return Argument(lines=2 if opcode.arg.name.endswith("_pair") else 1)
        case pickletools.TAKEN_FROM_ARGUMENT1:
            return Argument(counted=1)
        case pickletools.TAKEN_FROM_ARGUMENT4 | pickletools.TAKEN_FROM_ARGUMENT4U:
            return Argument(counted=4)
        case pickletools.TAKEN_FROM_ARGUMENT8U:
            return Argument(counted=8)
        case fixed:
            return Argument(fixed=fixed)


KINDS: Final = {ord(one.code): _argument(one) for one in pickletools.opcodes}
ALIKE: Final = {
    kind: tuple(code for code, other in KINDS.items() if other == kind) for kind in KINDS.values()
}
"""The opcodes that take the same kind of argument."""
_STOP: Final = ord(".")


def split_first(data: bytes, at: int = 0) -> tuple[list[bytes], int]:
    """Return the opcodes of the pickle at an offset, with their arguments, and where it ends.

    What is no opcode, or breaks off, is one last piece up to the end.
    """
    opcodes = []
    while at < len(data):
        end = _end(data, at)
        opcodes.append(data[at:end])
        stops = data[at] == _STOP
        at = end
        if stops:
            break
    return opcodes, at


def _end(data: bytes, at: int) -> int:
    kind = KINDS.get(data[at])
    if kind is None:
        return len(data)
    end = at + 1 + kind.fixed
    for _ in range(kind.lines):
        found = data.find(b"\n", end)
        end = len(data) if found < 0 else found + 1
    if kind.counted:
        count = int.from_bytes(data[end : end + kind.counted], "little")
        end += kind.counted + count
    return min(end, len(data))


@lru_cache(maxsize=128)
def split(data: bytes) -> tuple[bytes, ...]:
    """Return the opcodes of a pickle; all that follows its STOP is one more piece."""
    opcodes, end = split_first(data)
    return (*opcodes, data[end:]) if end < len(data) else tuple(opcodes)


def argument_of(opcode: bytes) -> bytes:
    """Return an opcode's argument: of a string its content, of lines these without the last end."""
    kind = KINDS.get(opcode[0], Argument())
    content = opcode[1 + kind.counted :]
    return content.removesuffix(b"\n") if kind.lines else content


def with_argument(opcode: bytes, content: bytes) -> bytes:
    """Return an opcode with another argument, its count or its end of line put right."""
    kind = KINDS.get(opcode[0], Argument())
    if kind.counted:
        count = len(content) & ((1 << (8 * kind.counted)) - 1)
        return opcode[:1] + count.to_bytes(kind.counted, "little") + content
    return opcode[:1] + content + (b"\n" if kind.lines else b"")
