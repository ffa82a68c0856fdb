"""The verdict on one entry."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from ckptool.checkpoint.entries import Entry

__all__ = ["ClassifiedEntry", "Evidence", "Role", "Use"]

Role: TypeAlias = Literal["parameter", "buffer", "extra-state", "optimizer", "tensor"]
Evidence: TypeAlias = Literal["spec", "module", "type-tag", "optimizer", "metadata", "name", "none"]
Use: TypeAlias = Literal["statistics", "cache", "mask", "constant", "counter"]


class ClassifiedEntry(NamedTuple):
    """An entry with what it is.

    `name` is its name inside the root, None outside of it. `is_persistent` is about buffers and
    None for anything else, and for buffers of which nothing tells.
    """

    entry: Entry
    name: str | None
    role: Role
    evidence: Evidence
    is_certain: bool
    is_persistent: bool | None = None
    use: Use | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, 0 for an extra state that is no tensor."""
        return 0 if self.entry.tensor is None else self.entry.tensor.nbytes
