"""The opcodes of globals, objects and persistent ids: names and parts, never the things."""

from __future__ import annotations

from typing import Final

from ckptool.pickling.machine import Handler, Machine, Table, line_at, pop_mark, unsigned
from ckptool.pickling.nodes import ExtensionCode, Global, Node, Opaque

__all__ = ["OBJECTS", "Stopped", "intern", "receiver"]


class Stopped(Exception):  # noqa: N818 - it is no error
    """The pickle is complete."""


def intern(machine: Machine, reference: Global) -> Global:
    """Return the one global of that name, so that the pickle's names are known at its end."""
    return machine.globals.setdefault(reference, reference)


def receiver(target: Node) -> Opaque:
    """The object that items or a state are for.

    A tensor takes none: they would change its elements, or put others in their place.
    """
    if type(target) is not Opaque or target.construction == "frozenset":
        raise TypeError(f"does not fit a {type(target).__name__}")
    return target


def _global(machine: Machine, at: int) -> int:
    module, at = line_at(machine, at)
    name, at = line_at(machine, at)
    machine.stack.append(intern(machine, Global(module.decode(), name.decode())))
    return at


def _stack_global(machine: Machine, at: int) -> int:
    name = machine.stack.pop()
    module = machine.stack[-1]
    if type(name) is not str or type(module) is not str:
        raise TypeError("names a global by something other than two strings")
    machine.stack[-1] = intern(machine, Global(module, name))
    return at


def _extension(width: int) -> Handler:
    def handler(machine: Machine, at: int) -> int:
        machine.stack.append(ExtensionCode(unsigned(machine, at, width)))
        return at + width

    return handler


def _reduce(machine: Machine, at: int) -> int:
    args = machine.stack.pop()
    callee = machine.stack[-1]
    if type(args) is not tuple:
        # TorchScript writes a member of an enum as a call of its class with the bare value.
        if type(callee) is not Global or not callee.module.startswith("__torch__"):
            raise TypeError(f"calls with a {type(args).__name__} in place of a tuple of arguments")
        args = (args,)
    node = Opaque(callee, args)
    # No other node is ever hashed here: a hostile one could take forever.
    interpret = machine.calls.get(callee) if type(callee) is Global else None
    machine.stack[-1] = node if interpret is None else interpret(node)
    return at


def _newobj(machine: Machine, at: int) -> int:
    args = machine.stack.pop()
    callee = machine.stack[-1]
    if type(args) is not tuple:
        raise TypeError(f"makes an object from a {type(args).__name__} in place of a tuple")
    machine.stack[-1] = Opaque(callee, args, "newobj")
    return at


def _newobj_ex(machine: Machine, at: int) -> int:
    kwargs = machine.stack.pop()
    args = machine.stack.pop()
    callee = machine.stack[-1]
    if type(args) is not tuple or type(kwargs) is not dict:
        raise TypeError("makes an object from something other than a tuple and a dict")
    machine.stack[-1] = Opaque(callee, args, "newobj_ex", kwargs)
    return at


def _inst(machine: Machine, at: int) -> int:
    args = tuple(pop_mark(machine))
    at = _global(machine, at)
    machine.stack[-1] = Opaque(machine.stack[-1], args, "inst")
    return at


def _obj(machine: Machine, at: int) -> int:
    callee, *args = pop_mark(machine)
    machine.stack.append(Opaque(callee, tuple(args), "obj"))
    return at


def _build(machine: Machine, at: int) -> int:
    state = machine.stack.pop()
    opaque = receiver(machine.stack[-1])
    if opaque.has_state:
        raise ValueError("gives an object a second state")
    opaque.state = state
    opaque.has_state = True
    return at


def _persid(machine: Machine, at: int) -> int:
    line, at = line_at(machine, at)
    machine.stack.append(machine.resolve(line.decode("ascii")))
    return at


def _binpersid(machine: Machine, at: int) -> int:
    machine.stack[-1] = machine.resolve(machine.stack[-1])
    return at


def _stop(_machine: Machine, _at: int) -> int:
    raise Stopped


OBJECTS: Final[Table] = {
    "STOP": (b".", _stop),
    "PERSID": (b"P", _persid),
    "BINPERSID": (b"Q", _binpersid),
    "REDUCE": (b"R", _reduce),
    "BUILD": (b"b", _build),
    "GLOBAL": (b"c", _global),
    "INST": (b"i", _inst),
    "OBJ": (b"o", _obj),
    "NEWOBJ": (b"\x81", _newobj),
    "EXT1": (b"\x82", _extension(1)),
    "EXT2": (b"\x83", _extension(2)),
    "EXT4": (b"\x84", _extension(4)),
    "NEWOBJ_EX": (b"\x92", _newobj_ex),
    "STACK_GLOBAL": (b"\x93", _stack_global),
}
