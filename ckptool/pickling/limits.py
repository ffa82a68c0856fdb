"""How much a reader spends on one file before it gives up."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


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
