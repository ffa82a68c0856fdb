"""The names in a pickle whose opcodes can no longer be done: found by walking over their arguments.

How long an argument is stands in the standard library's `pickletools`.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterator
from typing import Final

from ckptool.pickling.machine import Machine
from ckptool.pickling.nodes import ExtensionCode, Global
from ckptool.pickling.opcodes import NAMES

__all__ = ["names_behind"]


def names_behind(machine: Machine, at: int) -> Iterator[tuple[int, Global | ExtensionCode]]:
    """Yield the names that opcodes from an offset on give, each with its own offset.

    A name that is not in its opcode is put together from the last two strings before it, the ones
    that the machine remembers included; `?` stands for what is not known. The walk ends at bytes
    that are no opcode.
    """
    data, memo = machine.data, machine.memo
    pushed: deque[str] = deque(("?", "?"), maxlen=2)
    while at < len(data):
        name = NAMES.get(data[at])
        if name is None:
            return
        argument, after = _argument(data, at + 1, name)
        if after > len(data):
            return
        if name in _STRINGS:
            pushed.append(_string(name, argument))
        elif name in _GETS:
            remembered = memo.get(_index(argument, name))
            pushed.append(remembered if type(remembered) is str else "?")
        elif name in _PUTS:
            index = len(memo) if name == "MEMOIZE" else _index(argument, name)
            memo.setdefault(index, pushed[-1])
        elif name in _NAMING:
            yield at, _name(name, argument, pushed)
        at = after


def _name(name: str, argument: bytes, pushed: deque[str]) -> Global | ExtensionCode:
    if name in ("GLOBAL", "INST"):
        module, _, attribute = argument[:-1].partition(b"\n")
        return Global(_text(module), _text(attribute))
    if name == "STACK_GLOBAL":
        return Global(*pushed)
    return ExtensionCode(int.from_bytes(argument, "little"))


def _index(argument: bytes, name: str) -> int:
    if name in _LINES:
        is_index = len(argument) <= _LONGEST_INDEX and argument[:-1].isdigit()
        return int(argument) if is_index else -1
    return int.from_bytes(argument, "little")


def _argument(data: bytes, at: int, name: str) -> tuple[bytes, int]:
    """An opcode's argument with its count, and the offset behind it."""
    if name in _LINES:
        end = at
        for _ in range(_LINES[name]):
            found = data.find(b"\n", end)
            end = found + 1 if found >= 0 else len(data) + 1
    elif name in _COUNTED:
        width = _COUNTED[name]
        end = at + width + int.from_bytes(data[at : at + width], "little")
    else:
        end = at + _FIXED.get(name, 0)
    return data[at:end], end


def _string(name: str, argument: bytes) -> str:
    if name == "STRING":
        try:
            return _text(codecs.escape_decode(argument[1:-2])[0])
        except ValueError:
            return _text(argument[1:-2])
    return _text(argument[:-1] if name in _LINES else argument[_COUNTED[name] :])


def _text(raw: bytes) -> str:
    return codecs.decode(raw, "utf-8", "replace")


_LINES: Final = {
    "INT": 1, "LONG": 1, "FLOAT": 1, "STRING": 1, "UNICODE": 1, "PERSID": 1, "GET": 1, "PUT": 1,
    "GLOBAL": 2, "INST": 2,
}  # fmt: skip
_COUNTED: Final = {
    "LONG1": 1, "SHORT_BINSTRING": 1, "SHORT_BINBYTES": 1, "SHORT_BINUNICODE": 1,
    "LONG4": 4, "BINSTRING": 4, "BINUNICODE": 4, "BINBYTES": 4,
    "BINUNICODE8": 8, "BINBYTES8": 8, "BYTEARRAY8": 8,
}  # fmt: skip
_FIXED: Final = {
    "BININT": 4, "BININT1": 1, "BININT2": 2, "BINFLOAT": 8, "BINGET": 1, "LONG_BINGET": 4,
    "BINPUT": 1, "LONG_BINPUT": 4, "PROTO": 1, "FRAME": 8, "EXT1": 1, "EXT2": 2, "EXT4": 4,
}  # fmt: skip
_LONGEST_INDEX: Final = 20
_NAMING: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_STRINGS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
     "SHORT_BINSTRING"}
)  # fmt: skip
