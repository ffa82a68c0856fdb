"""How much a reader spends on one file before it gives up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Final

__all__ = ["LIMIT_NAMES", "Limits", "read_limits"]


_LONGEST_NUMBER: Final = 18


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one checkpoint may make its reader do.

    The defaults let the largest checkpoints in use through with room to spare: a state_dict of
    100,000 tensors has 3.5 million opcodes and 0.7 million memo entries.
    """

    opcodes: int = 100_000_000
    depth: int = 500
    memo: int = 20_000_000
    leaves: int = 5_000_000
    """How many places of the tree are looked at: with sharing they can be far more than nodes."""
    string_bytes: int = 1 << 28
    integer_bytes: int = 1_024
    pickle_bytes: int = 1 << 30
    inflation: int = 200
    """How many times larger than its stored size a deflated pickle may be."""
    header_bytes: int = 100_000_000
    """How long a safetensors header may be: the library's own bound."""


LIMIT_NAMES: Final = tuple(field.name.replace("_", "-") for field in fields(Limits))
"""The limits as they are named on the command line."""


def read_limits(texts: Iterable[str]) -> Limits:
    """Read `NAME=NUMBER`, several of them separated by commas; what is not named stays as it is.

    Raises ValueError for other text, and for a depth that whatever walks the tree cannot follow.
    """
    limits = Limits()
    for text in (part for whole in texts for part in whole.split(",")):
        name, _, number = text.partition("=")
        if name not in LIMIT_NAMES:
            raise ValueError(f"{name!r} is not one of {', '.join(LIMIT_NAMES)}")
        if not number.isdecimal() or len(number) > _LONGEST_NUMBER:
            raise ValueError(f"{text!r} is not NAME=NUMBER")
        if name == "depth" and int(number) > limits.depth:
            raise ValueError(f"a depth of more than {Limits().depth:,} cannot be walked")
        limits = replace(limits, **{name.replace("-", "_"): int(number)})
    return limits
