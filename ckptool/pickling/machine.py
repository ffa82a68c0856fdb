"""The unpickling machine: its state, and how its handlers take bytes out of the stream.

A handler takes the machine and the position behind the opcode and returns the position behind its
argument. None of them imports, looks up or calls anything that the stream names. What a stream may
not do raises one of the built-in exceptions in `MISUSE`, or EOFError where the stream breaks off,
with the length that it should have, if that is known; the reader gives them their offset.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ckptool.errors import LimitExceededError
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global, Node, Opaque

__all__ = [
    "MISUSE",
    "UINT32",
    "Handler",
    "Interpreter",
    "Machine",
    "Table",
    "integer",
    "line_at",
    "pop_mark",
    "take",
    "unsigned",
]

Interpreter: TypeAlias = Callable[[Opaque], Node]
"""Reads a call that a format understands into a node of its own, or gives the call back."""

MISUSE: Final = (IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)

UINT32: Final = struct.Struct("<I").unpack_from


@dataclass(slots=True)
class Machine:
    """The machine's state; `metastack` holds the stacks below the open marks.

    `discarded` is what POP took away, by identity, and `has_overwritten` says that a key was given
    twice: the tree may know nothing of what is lost then. `large_keys` are numbers among the keys
    that can be made to have one hash.
    """

    data: bytes
    limits: Limits
    calls: Mapping[Node, Interpreter]
    resolve: Callable[[Node], Node]
    stack: list[Node] = field(default_factory=list)
    metastack: list[list[Node]] = field(default_factory=list)
    memo: dict[int, Node] = field(default_factory=dict)
    globals: dict[Global, Global] = field(default_factory=dict)
    discarded: dict[int, Node] = field(default_factory=dict)
    has_overwritten: bool = False
    large_keys: int = 0
    protocol: int = 0


Handler: TypeAlias = Callable[[Machine, int], int]

Table: TypeAlias = dict[str, tuple[bytes, Handler]]
"""Opcodes by their names in the standard library's `pickletools`, each with its byte."""


def take(machine: Machine, start: int, end: int) -> bytes:
    """Return the stream's bytes of a string; EOFError where it ends before that."""
    if end > len(machine.data):
        raise EOFError(end)
    if end - start > machine.limits.string_bytes:
        raise LimitExceededError(
            "bytes in one string",
            allowed=machine.limits.string_bytes,
            actual=end - start,
            option="string-bytes",
        )
    return machine.data[start:end]


def line_at(machine: Machine, at: int) -> tuple[bytes, int]:
    """Return a line, and the position behind its end."""
    end = machine.data.find(b"\n", at)
    if end < 0:
        raise EOFError
    return take(machine, at, end), end + 1


def unsigned(machine: Machine, at: int, width: int) -> int:
    """Return a little-endian count of so many bytes."""
    if at + width > len(machine.data):
        raise EOFError
    return int.from_bytes(machine.data[at : at + width], "little")


def integer(machine: Machine, start: int, end: int) -> int:
    """Return a little-endian integer in two's complement."""
    if end > len(machine.data):
        raise EOFError(end)
    if end - start > machine.limits.integer_bytes:
        raise LimitExceededError(
            "bytes in one integer",
            allowed=machine.limits.integer_bytes,
            actual=end - start,
            option="integer-bytes",
        )
    return int.from_bytes(take(machine, start, end), "little", signed=True)


def pop_mark(machine: Machine) -> list[Node]:
    """Take everything above the last mark off the stack, and the mark with it."""
    items = machine.stack
    machine.stack = machine.metastack.pop()
    return items
