"""The opcodes of the stack, the memo, protocols and frames."""

from __future__ import annotations

from typing import Final

from ckptool.pickling.machine import UINT32, Machine, Table, line_at, pop_mark, unsigned

__all__ = ["STACK"]

_HIGHEST_PROTOCOL = 5


def _mark(machine: Machine, at: int) -> int:
    machine.metastack.append(machine.stack)
    machine.stack = []
    return at


def _pop(machine: Machine, at: int) -> int:
    if machine.stack:
        node = machine.stack.pop()
        machine.discarded[id(node)] = node
    else:
        pop_mark(machine)
    return at


def _pop_to_mark(machine: Machine, at: int) -> int:
    machine.discarded.update((id(node), node) for node in pop_mark(machine))
    return at


def _dup(machine: Machine, at: int) -> int:
    machine.stack.append(machine.stack[-1])
    return at


def _put(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.memo[int(line)] = machine.stack[-1]
    return at


def _binput(machine: Machine, at: int) -> int:
    machine.memo[machine.data[at]] = machine.stack[-1]
    return at + 1


def _long_binput(machine: Machine, at: int) -> int:
    machine.memo[UINT32(machine.data, at)[0]] = machine.stack[-1]
    return at + 4


def _memoize(machine: Machine, at: int) -> int:
    machine.memo[len(machine.memo)] = machine.stack[-1]
    return at


def _get(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.stack.append(machine.memo[int(line)])
    return at


def _binget(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[machine.data[at]])
    return at + 1


def _long_binget(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[UINT32(machine.data, at)[0]])
    return at + 4


def _proto(machine: Machine, at: int) -> int:
    machine.protocol = machine.data[at]
    if machine.protocol > _HIGHEST_PROTOCOL:
        raise ValueError(f"names protocol {machine.protocol}; the highest is {_HIGHEST_PROTOCOL}")
    return at + 1


def _frame(machine: Machine, at: int) -> int:
    end = at + 8 + unsigned(machine, at, 8)
    if end > len(machine.data):
        raise EOFError(end)
    return at + 8


STACK: Final[Table] = {
    "MARK": (b"(", _mark),
    "POP": (b"0", _pop),
    "POP_MARK": (b"1", _pop_to_mark),
    "DUP": (b"2", _dup),
    "GET": (b"g", _get),
    "BINGET": (b"h", _binget),
    "LONG_BINGET": (b"j", _long_binget),
    "PUT": (b"p", _put),
    "BINPUT": (b"q", _binput),
    "LONG_BINPUT": (b"r", _long_binput),
    "PROTO": (b"\x80", _proto),
    "MEMOIZE": (b"\x94", _memoize),
    "FRAME": (b"\x95", _frame),
}
