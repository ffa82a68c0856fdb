"""The opcodes of tuples, lists, dicts and sets; each checks what it puts things into."""

from __future__ import annotations

import sys
from typing import Final

from ckptool.pickling.machine import Machine, Table, pop_mark
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.pickling.objects import receiver

__all__ = ["COLLECTIONS"]

_PLAIN_KEYS = frozenset({str, bool, bytes, type(None)})
_KEY_TUPLE_ITEMS = 64
_LARGE_KEYS = 1_000
_SET = Global("builtins", "set")
_FROZENSET = Global("builtins", "frozenset")


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
    items = pop_mark(machine)
    machine.stack.append(items)
    return at


def _append(machine: Machine, at: int) -> int:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])
    return at


def _appends(machine: Machine, at: int) -> int:
    items = pop_mark(machine)
    # Of nothing no object is ever told, whatever it is.
    if items:
        _extend(machine.stack[-1], items)
    return at


def _extend(target: Node, items: list[Node]) -> None:
    if type(target) is list:
        target.extend(items)
        return
    opaque = receiver(target)
    if opaque.listed is None:
        opaque.listed = []
    opaque.listed.extend(items)


def _empty_dict(machine: Machine, at: int) -> int:
    machine.stack.append({})
    return at


def _dict(machine: Machine, at: int) -> int:
    items = pop_mark(machine)
    machine.stack.append({})
    _update(machine, items)
    return at


def _setitem(machine: Machine, at: int) -> int:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _update(machine, [key, value])
    return at


def _setitems(machine: Machine, at: int) -> int:
    items = pop_mark(machine)
    if items:
        _update(machine, items)
    return at


def _update(machine: Machine, items: list[Node]) -> None:
    if len(items) % 2:
        raise ValueError("is given a key without a value")
    target = machine.stack[-1]
    keys = items[::2]
    for key in keys:
        if type(key) not in _PLAIN_KEYS:
            _require_key(machine, key)
    if type(target) is not dict:
        opaque = receiver(target)
        if opaque.keyed is None:
            opaque.keyed = {}
        target = opaque.keyed
    before = len(target)
    target.update(zip(keys, items[1::2], strict=True))
    if len(target) != before + len(keys):
        machine.has_overwritten = True


def _empty_set(machine: Machine, at: int) -> int:
    machine.stack.append(Opaque(_SET, (), "set"))
    return at


def _additems(machine: Machine, at: int) -> int:
    items = pop_mark(machine)
    target = machine.stack[-1]
    if not items:
        return at
    for item in items:
        _require_key(machine, item)
    opaque = receiver(target)
    if opaque.added is None:
        opaque.added = []
    opaque.added.extend(items)
    return at


def _frozenset(machine: Machine, at: int) -> int:
    items = pop_mark(machine)
    machine.stack.append(Opaque(_FROZENSET, (), "frozenset", added=items))
    return at


def _require_key(machine: Machine, key: Node) -> None:
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
        elif type(part) in (int, float):
            _count_large(machine, part)
        elif part.__hash__ is None:
            raise TypeError(f"is given a {type(part).__name__} as a key")


def _count_large(machine: Machine, number: float) -> None:
    # Below this each number has a hash of its own; beyond it any number of them can have the same.
    if abs(number) >= sys.hash_info.modulus:
        machine.large_keys += 1
        if machine.large_keys > _LARGE_KEYS:
            raise ValueError(f"is given more than {_LARGE_KEYS:,} keys that are that large")


COLLECTIONS: Final[Table] = {
    "APPEND": (b"a", _append),
    "DICT": (b"d", _dict),
    "EMPTY_DICT": (b"}", _empty_dict),
    "APPENDS": (b"e", _appends),
    "LIST": (b"l", _list),
    "EMPTY_LIST": (b"]", _empty_list),
    "SETITEM": (b"s", _setitem),
    "TUPLE": (b"t", _tuple),
    "EMPTY_TUPLE": (b")", _empty_tuple),
    "SETITEMS": (b"u", _setitems),
    "TUPLE1": (b"\x85", _tuple1),
    "TUPLE2": (b"\x86", _tuple2),
    "TUPLE3": (b"\x87", _tuple3),
    "EMPTY_SET": (b"\x8f", _empty_set),
    "ADDITEMS": (b"\x90", _additems),
    "FROZENSET": (b"\x91", _frozenset),
}
