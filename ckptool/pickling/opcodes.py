"""What each byte of a pickle does: all opcodes of protocols 0 to 5.

They are those of PEP 3154 and PEP 574, as documented in the standard library's `pickletools`.
"""

from __future__ import annotations

from typing import Final

from ckptool.pickling.collections import COLLECTIONS
from ckptool.pickling.machine import Handler, Machine, Table
from ckptool.pickling.objects import OBJECTS
from ckptool.pickling.scalars import SCALARS
from ckptool.pickling.stack import STACK

__all__ = ["HANDLERS", "NAMES"]


def _unknown(machine: Machine, at: int) -> int:
    raise ValueError(f"no opcode begins with byte 0x{machine.data[at - 1]:02x}")


_OPCODES: Final[Table] = STACK | SCALARS | COLLECTIONS | OBJECTS

HANDLERS: Final[list[Handler]] = [_unknown] * 256
for _code, _handler in _OPCODES.values():
    HANDLERS[_code[0]] = _handler

NAMES: Final[dict[int, str]] = {code[0]: name for name, (code, _) in _OPCODES.items()}
