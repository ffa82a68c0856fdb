"""Pickle bytes to what running them would import and call, in the order in which it would happen.

The reader gives a tree, or an error where a pickle breaks a rule. But running a pickle does
things on the way: what stands before the broken place has been done by then. So the tracer keeps
what the opcodes did up to there, and goes through the rest for the names in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ckptool.errors import CkptoolError, LimitExceededError
from ckptool.pickling.limits import Limits
from ckptool.pickling.machine import MISUSE, Machine
from ckptool.pickling.nodes import ExtensionCode, Global, Node, Opaque, PersistentId
from ckptool.pickling.objects import Stopped
from ckptool.pickling.opcodes import HANDLERS, NAMES
from ckptool.pickling.reader import collection_paused, failure
from ckptool.pickling.sweep import names_behind

__all__ = ["Call", "Trace", "trace_pickle"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call by the offset of its opcode; `made` has its callee and arguments as nodes."""

    offset: int
    made: Opaque


@dataclass(slots=True)
class Trace:
    """What a pickle names and calls; offsets are in bytes from its start.

    `imports` has each name, or number of a registry, by the offset of its first mention. `stops`
    says that STOP was reached, at `size` bytes. Otherwise `problem` is where it breaks its rules,
    and names behind that are only named: nothing tells what would be done with them. `opcodes` is
    how many were done.
    """

    protocol: int = 0
    size: int = 0
    opcodes: int = 0
    stops: bool = False
    imports: dict[Global | ExtensionCode, int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    problem: CkptoolError | None = None


def trace_pickle(data: bytes, limits: Limits | None = None) -> Trace:
    """Trace the pickle that `data` begins with; what follows its STOP is left alone."""
    limits = limits or Limits()
    trace = Trace()
    machine = Machine(data, limits, {}, PersistentId)
    with collection_paused():
        at = _run(machine, trace)
    trace.protocol = machine.protocol
    trace.size = at
    if not trace.stops:
        for offset, name in names_behind(machine, at):
            trace.imports.setdefault(name, offset)
    return trace


def _run(machine: Machine, trace: Trace) -> int:
    """Do what the opcodes say up to STOP, or to the one that cannot be done; return its offset."""
    data, handlers, limits = machine.data, HANDLERS, machine.limits
    at = 0
    try:
        for trace.opcodes in range(1, limits.opcodes + 1):
            code = data[at]
            after = handlers[code](machine, at + 1)
            if code in _NAMING:
                _note_name(trace, at, code, machine.stack[-1])
            if code in _CALLING:
                trace.calls.append(Call(at, machine.stack[-1]))
            at = after
    except Stopped:
        trace.stops = True
        return at + 1
    except (EOFError, LimitExceededError, *MISUSE) as error:
        trace.problem = failure(error, machine, at)
        return at
    trace.problem = LimitExceededError(
        "opcodes", allowed=limits.opcodes, actual=limits.opcodes + 1, option="opcodes"
    )
    return at


def _note_name(trace: Trace, at: int, code: int, node: Node) -> None:
    named = node.callee if code == _INST else node
    trace.imports.setdefault(named, at)


_BY_NAME: Final = {name: code for code, name in NAMES.items()}
_INST: Final = _BY_NAME["INST"]
_NAMING: Final = frozenset(
    _BY_NAME[name] for name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
)
_CALLING: Final = frozenset(
    _BY_NAME[name] for name in ("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")
)
