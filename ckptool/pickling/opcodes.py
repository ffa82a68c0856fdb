"""What each pickle opcode does to the machine that reads it: one small function per opcode.

A handler takes the machine and the position behind the opcode and returns the position behind its
argument. None of them imports, looks up or calls anything that the stream names. What a stream may
not do raises one of the built-in exceptions in `MISUSE`, or EOFError where the stream breaks off;
the reader gives them their offset. The opcodes are those of PEP 3154 and PEP 574, as documented in
the standard library's `pickletools`.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ckptool.errors import LimitExceededError
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Node,
    Opaque,
    OutOfBandBuffer,
)

__all__ = ["HANDLERS", "MISUSE", "NAMES", "Interpreter", "Machine", "Stopped"]

Interpreter = Callable[[Opaque], Node]
"""Reads a call that a format understands into a node of its own, or gives the call back."""

MISUSE: Final = (IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)

HIGHEST_PROTOCOL: Final = 5

_FLOAT = struct.Struct(">d").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_PLAIN_KEYS = frozenset({str, int, float, bool, bytes, type(None)})
_KEY_TUPLE_ITEMS = 64


@dataclass(slots=True)
class Machine:
    """The unpickling machine's state; `metastack` holds the stacks below the open marks."""

    data: bytes
    limits: Limits
    calls: Mapping[Node, Interpreter]
    resolve: Callable[[Node], Node]
    stack: list[Node] = field(default_factory=list)
    metastack: list[list[Node]] = field(default_factory=list)
    memo: dict[int, Node] = field(default_factory=dict)
    globals: dict[Global, Global] = field(default_factory=dict)
    protocol: int = 0


Handler = Callable[[Machine, int], int]


class Stopped(Exception):  # noqa: N818 - it is no error
    """The pickle is complete."""


# Bytes, lines and integers out of the stream ---------------------------------------------------


def _take(machine: Machine, start: int, end: int) -> bytes:
    if end - start > machine.limits.string_bytes:
        raise LimitExceededError(
            "bytes in one string", allowed=machine.limits.string_bytes, actual=end - start
        )
    if end > len(machine.data):
        raise EOFError
    return machine.data[start:end]


def _line(machine: Machine, at: int) -> tuple[bytes, int]:
    end = machine.data.find(b"\n", at)
    if end < 0:
        raise EOFError
    return _take(machine, at, end), end + 1


def _unsigned(machine: Machine, at: int, width: int) -> int:
    if at + width > len(machine.data):
        raise EOFError
    return int.from_bytes(machine.data[at : at + width], "little")


def _integer(machine: Machine, start: int, end: int) -> int:
    if end - start > machine.limits.integer_bytes:
        raise LimitExceededError(
            "bytes in one integer", allowed=machine.limits.integer_bytes, actual=end - start
        )
    return int.from_bytes(_take(machine, start, end), "little", signed=True)


def _text_or_bytes(raw: bytes) -> str | bytes:
    # Python 2 wrote text and bytes alike; what is not text stays the bytes that it is.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


# Stack, memo and framing -----------------------------------------------------------------------


def _mark(machine: Machine, at: int) -> int:
    machine.metastack.append(machine.stack)
    machine.stack = []
    return at


def _pop_mark(machine: Machine) -> list[Node]:
    items = machine.stack
    machine.stack = machine.metastack.pop()
    return items


def _pop(machine: Machine, at: int) -> int:
    if machine.stack:
        machine.stack.pop()
    else:
        _pop_mark(machine)
    return at


def _pop_to_mark(machine: Machine, at: int) -> int:
    _pop_mark(machine)
    return at


def _dup(machine: Machine, at: int) -> int:
    machine.stack.append(machine.stack[-1])
    return at


def _put(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.memo[int(line)] = machine.stack[-1]
    return at


def _binput(machine: Machine, at: int) -> int:
    machine.memo[machine.data[at]] = machine.stack[-1]
    return at + 1


def _long_binput(machine: Machine, at: int) -> int:
    machine.memo[_UINT32(machine.data, at)[0]] = machine.stack[-1]
    return at + 4


def _memoize(machine: Machine, at: int) -> int:
    machine.memo[len(machine.memo)] = machine.stack[-1]
    return at


def _get(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.stack.append(machine.memo[int(line)])
    return at


def _binget(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[machine.data[at]])
    return at + 1


def _long_binget(machine: Machine, at: int) -> int:
    machine.stack.append(machine.memo[_UINT32(machine.data, at)[0]])
    return at + 4


def _proto(machine: Machine, at: int) -> int:
    machine.protocol = machine.data[at]
    if machine.protocol > HIGHEST_PROTOCOL:
        raise ValueError(f"names protocol {machine.protocol}; the highest is {HIGHEST_PROTOCOL}")
    return at + 1


def _frame(machine: Machine, at: int) -> int:
    if at + 8 + _unsigned(machine, at, 8) > len(machine.data):
        raise EOFError
    return at + 8


# Scalars ---------------------------------------------------------------------------------------


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
    line, at = _line(machine, at)
    # Protocol 0 has no opcode for booleans and writes them as these two integers.
    machine.stack.append(line == b"01" if line in (b"00", b"01") else int(line))
    return at


def _long(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.stack.append(int(line.removesuffix(b"L")))
    return at


def _binint(machine: Machine, at: int) -> int:
    machine.stack.append(_integer(machine, at, at + 4))
    return at + 4


def _binint1(machine: Machine, at: int) -> int:
    machine.stack.append(machine.data[at])
    return at + 1


def _binint2(machine: Machine, at: int) -> int:
    machine.stack.append(_unsigned(machine, at, 2))
    return at + 2


def _long1(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(_integer(machine, at + 1, end))
    return end


def _long4(machine: Machine, at: int) -> int:
    end = at + 4 + _unsigned(machine, at, 4)
    machine.stack.append(_integer(machine, at + 4, end))
    return end


def _float(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.stack.append(float(line))
    return at


def _binfloat(machine: Machine, at: int) -> int:
    machine.stack.append(_FLOAT(_take(machine, at, at + 8))[0])
    return at + 8


def _binunicode(machine: Machine, at: int) -> int:
    end: int = at + 4 + _UINT32(machine.data, at)[0]
    machine.stack.append(_take(machine, at + 4, end).decode("utf-8", "surrogatepass"))
    return end


def _short_binunicode(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(_take(machine, at + 1, end).decode("utf-8", "surrogatepass"))
    return end


def _binunicode8(machine: Machine, at: int) -> int:
    end = at + 8 + _unsigned(machine, at, 8)
    machine.stack.append(_take(machine, at + 8, end).decode("utf-8", "surrogatepass"))
    return end


def _unicode(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.stack.append(line.decode("raw-unicode-escape"))
    return at


def _string(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1] != line[0]:
        raise ValueError("has no quotes around its text")
    machine.stack.append(_text_or_bytes(codecs.escape_decode(line[1:-1])[0]))
    return at


def _binstring(machine: Machine, at: int) -> int:
    end = at + 4 + _unsigned(machine, at, 4)
    machine.stack.append(_text_or_bytes(_take(machine, at + 4, end)))
    return end


def _short_binstring(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(_text_or_bytes(_take(machine, at + 1, end)))
    return end


def _binbytes(machine: Machine, at: int) -> int:
    end = at + 4 + _unsigned(machine, at, 4)
    machine.stack.append(_take(machine, at + 4, end))
    return end


def _short_binbytes(machine: Machine, at: int) -> int:
    end = at + 1 + machine.data[at]
    machine.stack.append(_take(machine, at + 1, end))
    return end


def _binbytes8(machine: Machine, at: int) -> int:
    end = at + 8 + _unsigned(machine, at, 8)
    machine.stack.append(_take(machine, at + 8, end))
    return end


def _bytearray8(machine: Machine, at: int) -> int:
    end = at + 8 + _unsigned(machine, at, 8)
    machine.stack.append(bytearray(_take(machine, at + 8, end)))
    return end


def _next_buffer(machine: Machine, at: int) -> int:
    machine.stack.append(OutOfBandBuffer())
    return at


def _readonly_buffer(machine: Machine, at: int) -> int:
    if type(machine.stack[-1]) is not OutOfBandBuffer:
        raise TypeError("stands behind something other than a buffer")
    machine.stack[-1] = OutOfBandBuffer(is_readonly=True)
    return at


# Containers ------------------------------------------------------------------------------------


def _empty_tuple(machine: Machine, at: int) -> int:
    machine.stack.append(())
    return at


def _tuple1(machine: Machine, at: int) -> int:
    stack = machine.stack
    stack[-1] = (stack[-1],)
    return at


def _tuple2(machine: Machine, at: int) -> int:
    second = machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], second)
    return at


def _tuple3(machine: Machine, at: int) -> int:
    third = machine.stack.pop()
    second = machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], second, third)
    return at


def _tuple(machine: Machine, at: int) -> int:
    items = machine.stack
    machine.stack = machine.metastack.pop()
    machine.stack.append(tuple(items))
    return at


def _empty_list(machine: Machine, at: int) -> int:
    machine.stack.append([])
    return at


def _list(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    machine.stack.append(items)
    return at


def _append(machine: Machine, at: int) -> int:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])
    return at


def _appends(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    _extend(machine.stack[-1], items)
    return at


def _extend(target: Node, items: list[Node]) -> None:
    if type(target) is list:
        target.extend(items)
        return
    opaque = _receiver(target)
    if opaque.listed is None:
        opaque.listed = []
    opaque.listed.extend(items)


def _empty_dict(machine: Machine, at: int) -> int:
    machine.stack.append({})
    return at


def _dict(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    machine.stack.append({})
    _update(machine.stack[-1], items)
    return at


def _setitem(machine: Machine, at: int) -> int:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _update(machine.stack[-1], [key, value])
    return at


def _setitems(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    _update(machine.stack[-1], items)
    return at


def _update(target: Node, items: list[Node]) -> None:
    if len(items) % 2:
        raise ValueError("is given a key without a value")
    keys = items[::2]
    for key in keys:
        if type(key) not in _PLAIN_KEYS:
            _require_key(key)
    if type(target) is not dict:
        opaque = _receiver(target)
        if opaque.keyed is None:
            opaque.keyed = {}
        target = opaque.keyed
    target.update(zip(keys, items[1::2], strict=True))


def _empty_set(machine: Machine, at: int) -> int:
    machine.stack.append(set())
    return at


def _additems(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    target = machine.stack[-1]
    for item in items:
        _require_key(item)
    if type(target) is set:
        target.update(items)
    else:
        opaque = _receiver(target)
        if opaque.added is None:
            opaque.added = []
        opaque.added.extend(items)
    return at


def _frozenset(machine: Machine, at: int) -> int:
    items = _pop_mark(machine)
    callee = _intern(machine, Global("builtins", "frozenset"))
    machine.stack.append(Opaque(callee, (), "frozenset", added=items))
    return at


def _require_key(key: Node) -> None:
    # Hashing a tuple recurses in C and visits shared items again and again, so a hostile one is
    # measured before it is hashed.
    left = _KEY_TUPLE_ITEMS
    pending = [key]
    while pending:
        part = pending.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"is given a key of more than {_KEY_TUPLE_ITEMS} items")
        if type(part) is tuple:
            pending.extend(part)
        elif part.__hash__ is None:
            raise TypeError(f"is given a {type(part).__name__} as a key")


def _receiver(target: Node) -> Opaque:
    """The object that items or a state are for: an opaque one, or the call behind a tensor."""
    opaque = target if type(target) is Opaque else getattr(target, "node", None)
    if type(opaque) is not Opaque:
        raise TypeError(f"does not fit a {type(target).__name__}")
    return opaque


# Globals and objects ---------------------------------------------------------------------------


def _intern(machine: Machine, reference: Global) -> Global:
    return machine.globals.setdefault(reference, reference)


def _global(machine: Machine, at: int) -> int:
    module, at = _line(machine, at)
    name, at = _line(machine, at)
    machine.stack.append(_intern(machine, Global(module.decode(), name.decode())))
    return at


def _stack_global(machine: Machine, at: int) -> int:
    name = machine.stack.pop()
    module = machine.stack[-1]
    if type(name) is not str or type(module) is not str:
        raise TypeError("names a global by something other than two strings")
    machine.stack[-1] = _intern(machine, Global(module, name))
    return at


def _extension(width: int) -> Handler:
    def handler(machine: Machine, at: int) -> int:
        machine.stack.append(ExtensionCode(_unsigned(machine, at, width)))
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
    args = tuple(_pop_mark(machine))
    at = _global(machine, at)
    machine.stack[-1] = Opaque(machine.stack[-1], args, "inst")
    return at


def _obj(machine: Machine, at: int) -> int:
    callee, *args = _pop_mark(machine)
    machine.stack.append(Opaque(callee, tuple(args), "obj"))
    return at


def _build(machine: Machine, at: int) -> int:
    state = machine.stack.pop()
    opaque = _receiver(machine.stack[-1])
    if opaque.has_state:
        raise ValueError("gives an object a second state")
    opaque.state = state
    opaque.has_state = True
    return at


def _persid(machine: Machine, at: int) -> int:
    line, at = _line(machine, at)
    machine.stack.append(machine.resolve(line.decode("ascii")))
    return at


def _binpersid(machine: Machine, at: int) -> int:
    machine.stack[-1] = machine.resolve(machine.stack[-1])
    return at


def _stop(_machine: Machine, _at: int) -> int:
    raise Stopped


def _unknown(machine: Machine, at: int) -> int:
    raise ValueError(f"no opcode begins with byte 0x{machine.data[at - 1]:02x}")


_OPCODES: Final[dict[str, tuple[bytes, Handler]]] = {
    "MARK": (b"(", _mark),
    "STOP": (b".", _stop),
    "POP": (b"0", _pop),
    "POP_MARK": (b"1", _pop_to_mark),
    "DUP": (b"2", _dup),
    "FLOAT": (b"F", _float),
    "INT": (b"I", _int),
    "BININT": (b"J", _binint),
    "BININT1": (b"K", _binint1),
    "BININT2": (b"M", _binint2),
    "LONG": (b"L", _long),
    "NONE": (b"N", _none),
    "PERSID": (b"P", _persid),
    "BINPERSID": (b"Q", _binpersid),
    "REDUCE": (b"R", _reduce),
    "STRING": (b"S", _string),
    "BINSTRING": (b"T", _binstring),
    "SHORT_BINSTRING": (b"U", _short_binstring),
    "UNICODE": (b"V", _unicode),
    "BINUNICODE": (b"X", _binunicode),
    "APPEND": (b"a", _append),
    "BUILD": (b"b", _build),
    "GLOBAL": (b"c", _global),
    "DICT": (b"d", _dict),
    "EMPTY_DICT": (b"}", _empty_dict),
    "APPENDS": (b"e", _appends),
    "GET": (b"g", _get),
    "BINGET": (b"h", _binget),
    "INST": (b"i", _inst),
    "LONG_BINGET": (b"j", _long_binget),
    "LIST": (b"l", _list),
    "EMPTY_LIST": (b"]", _empty_list),
    "OBJ": (b"o", _obj),
    "PUT": (b"p", _put),
    "BINPUT": (b"q", _binput),
    "LONG_BINPUT": (b"r", _long_binput),
    "SETITEM": (b"s", _setitem),
    "TUPLE": (b"t", _tuple),
    "EMPTY_TUPLE": (b")", _empty_tuple),
    "SETITEMS": (b"u", _setitems),
    "BINFLOAT": (b"G", _binfloat),
    "PROTO": (b"\x80", _proto),
    "NEWOBJ": (b"\x81", _newobj),
    "EXT1": (b"\x82", _extension(1)),
    "EXT2": (b"\x83", _extension(2)),
    "EXT4": (b"\x84", _extension(4)),
    "TUPLE1": (b"\x85", _tuple1),
    "TUPLE2": (b"\x86", _tuple2),
    "TUPLE3": (b"\x87", _tuple3),
    "NEWTRUE": (b"\x88", _true),
    "NEWFALSE": (b"\x89", _false),
    "LONG1": (b"\x8a", _long1),
    "LONG4": (b"\x8b", _long4),
    "BINBYTES": (b"B", _binbytes),
    "SHORT_BINBYTES": (b"C", _short_binbytes),
    "SHORT_BINUNICODE": (b"\x8c", _short_binunicode),
    "BINUNICODE8": (b"\x8d", _binunicode8),
    "BINBYTES8": (b"\x8e", _binbytes8),
    "EMPTY_SET": (b"\x8f", _empty_set),
    "ADDITEMS": (b"\x90", _additems),
    "FROZENSET": (b"\x91", _frozenset),
    "NEWOBJ_EX": (b"\x92", _newobj_ex),
    "STACK_GLOBAL": (b"\x93", _stack_global),
    "MEMOIZE": (b"\x94", _memoize),
    "FRAME": (b"\x95", _frame),
    "BYTEARRAY8": (b"\x96", _bytearray8),
    "NEXT_BUFFER": (b"\x97", _next_buffer),
    "READONLY_BUFFER": (b"\x98", _readonly_buffer),
}

HANDLERS: Final[list[Handler]] = [_unknown] * 256
for _code, _handler in _OPCODES.values():
    HANDLERS[_code[0]] = _handler

NAMES: Final[dict[int, str]] = {code[0]: name for name, (code, _) in _OPCODES.items()}
