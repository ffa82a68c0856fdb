"""What a case of the collection is: bytes built by code, and what has to become of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ckptool.errors import CkptoolError, PickleStreamError
from tests import builders
from tests.builders import Call, Global, Raw, Tensor, torch_zip

__all__ = [
    "EXIT_7",
    "FIRST_OPCODE",
    "VALUES",
    "Case",
    "Opens",
    "Outcome",
    "Refused",
    "beside",
    "misuse",
    "tensor_call",
    "with_pickle",
]

VALUES: Final = Tensor("float32", (2,))
"""The real tensor that most of the files have; it is named `w`."""

EXIT_7: Final = "exit 7"
"""What a shell would do if one was ever started: nothing that harms."""

FIRST_OPCODE: Final = 2
"""Where the opcodes begin: behind the two bytes of PROTO."""


@dataclass(frozen=True)
class Opens:
    """The file opens and has tensors at these paths, in this order."""

    tensors: tuple[str, ...] = ("w",)


@dataclass(frozen=True)
class Refused:
    """The file is refused with an error of this class, which says this in its fields."""

    error: type[CkptoolError]
    fields: Mapping[str, object] = field(default_factory=dict)


Outcome: TypeAlias = Opens | Refused


@dataclass(frozen=True)
class Case:
    """One attack; `stands_for` is the public thread or advisory that it repeats, if any."""

    name: str
    trick: str
    build: Callable[[], bytes]
    outcome: Outcome = field(default_factory=Opens)
    stands_for: str = ""


def with_pickle(data: bytes) -> bytes:
    """An archive around a pickle, with the storage of `VALUES` in it."""
    return torch_zip({"w": VALUES}, data_pkl=data)


def beside(*opcodes: bytes) -> bytes:
    """An archive with a real tensor, and beside it what these opcodes leave on the stack."""
    return torch_zip({"w": VALUES, "x": Raw(b"".join(opcodes))})


def tensor_call(*args: object) -> Call:
    """A call that rebuilds a tensor, whatever it is given."""
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), args)


def misuse(name: str, trick: str, opcode: str, before: bytes, wrong: bytes) -> Case:
    """A pickle that does what no pickle may: in the opcode `wrong`, which follows `before`."""
    fields = {"offset": FIRST_OPCODE + len(before), "opcode": opcode, "breaks_off": False}
    return Case(
        name,
        trick,
        lambda: with_pickle(builders.stream(before, wrong, builders.NONE)),
        Refused(PickleStreamError, fields),
        "pytorch/pytorch#190888",
    )
