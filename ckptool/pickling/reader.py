"""Pickle bytes to an inert tree.

Nothing that the stream names is imported or called: there is no way from a name in the stream to a
Python object other than the tables that the caller hands in, and those hold functions that only
build nodes.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

from ckptool.errors import CkptoolError, LimitExceededError, PickleStreamError
from ckptool.pickling.limits import Limits
from ckptool.pickling.machine import MISUSE, Interpreter, Machine
from ckptool.pickling.nodes import Global, Node, PersistentId, check_depth, children
from ckptool.pickling.objects import Stopped
from ckptool.pickling.opcodes import HANDLERS, NAMES

__all__ = ["Pickle", "collection_paused", "failure", "read_pickle"]

# The memo is measured once in so many opcodes: at every PUT it would cost a tenth of the time.
_OPCODES_BETWEEN_CHECKS = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Pickle:
    """One pickle: its tree, its protocol, the globals it names, and where the stream ended.

    `is_whole` says that the tree has all that the pickle makes: one can also make an object and
    throw it away, for what its call does.
    """

    tree: Node
    protocol: int
    globals: tuple[Global, ...]
    size: int
    is_whole: bool


def read_pickle(
    data: bytes,
    *,
    calls: Mapping[Node, Interpreter] | None = None,
    resolve: Callable[[Node], Node] = PersistentId,
    limits: Limits | None = None,
) -> Pickle:
    """Read the pickle that `data` begins with; what follows its STOP is left alone.

    `calls` maps a global to the function that reads a call of it; `resolve` reads a persistent
    id. Raises PickleStreamError, with `breaks_off` set where the data ends too early, and
    LimitExceededError.
    """
    limits = limits or Limits()
    machine = Machine(data, limits, calls or {}, resolve)
    with collection_paused():
        size = _run(machine)
    if not machine.stack:
        raise PickleStreamError("leaves no value behind", offset=size - 1, opcode="STOP")
    tree = machine.stack[-1]
    check_depth(tree, limits.depth)
    return Pickle(tree, machine.protocol, tuple(machine.globals), size, _is_whole(machine))


def _is_whole(machine: Machine) -> bool:
    """Whether nothing was made and left out of the tree.

    Picklers throw away what they made for a tuple that holds itself, the items of which are known.
    """
    behind = (machine.stack[:-1], *machine.metastack)
    rest = [*machine.discarded.values(), *chain.from_iterable(behind)]
    made = [node for node in rest if type(node) not in _NAMES_AND_NUMBERS]
    if not made or machine.has_overwritten:
        return not machine.has_overwritten
    kept = _reachable(machine.stack[-1])
    return all(id(node) in kept for node in made)


def _reachable(tree: Node) -> set[int]:
    """The identities of a tree's nodes, and of what a format's own nodes were read from."""
    found: set[int] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if id(node) not in found:
            found.add(id(node))
            pending.extend(children(getattr(node, "node", node)))
    return found


_NAMES_AND_NUMBERS = frozenset({type(None), bool, int, float, str, bytes, Global})


def _run(machine: Machine) -> int:
    """Read up to STOP and return the position behind it."""
    data, limits, handlers = machine.data, machine.limits, HANDLERS
    at = 0
    for start in range(0, limits.opcodes, _OPCODES_BETWEEN_CHECKS):
        try:
            for _ in range(min(_OPCODES_BETWEEN_CHECKS, limits.opcodes - start)):
                at = handlers[data[at]](machine, at + 1)
        except Stopped:
            _check_memo(machine)
            return at + 1
        except (EOFError, *MISUSE) as error:
            raise failure(error, machine, at) from error
        _check_memo(machine)
    raise LimitExceededError(
        "opcodes", allowed=limits.opcodes, actual=limits.opcodes + 1, option="opcodes"
    )


def _check_memo(machine: Machine) -> None:
    allowed, actual = machine.limits.memo, len(machine.memo)
    if actual > allowed:
        raise LimitExceededError("memo entries", allowed=allowed, actual=actual, option="memo")


def failure(error: Exception, machine: Machine, offset: int) -> CkptoolError:
    """Return the error for what the opcode at an offset raised: one of `MISUSE`, or EOFError."""
    if isinstance(error, CkptoolError):
        return error
    data = machine.data
    if offset + 1 >= len(data) or isinstance(error, (EOFError, struct.error)):
        wanted = error.args[0] if isinstance(error, EOFError) and error.args else len(data) + 1
        return PickleStreamError("breaks off", offset=len(data), breaks_off=True, wanted=wanted)
    if isinstance(error, KeyError):
        problem = f"refers to memo entry {error.args[0]}, which was never made"
    elif isinstance(error, IndexError):
        problem = "takes more from the stack than is there"
    else:
        problem = str(error)
    return PickleStreamError(problem, offset=offset, opcode=NAMES.get(data[offset]))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let no garbage be collected meanwhile."""
    # A reader only ever adds objects; letting the collector look through them all again and again
    # would more than double the time for a large pickle.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
