"""The verdict on one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ckptool.checkpoint.entries import Entry

if TYPE_CHECKING:
    from ckptool.spec.model_spec import TensorSpec

__all__ = ["AbsentTensor", "ClassifiedEntry", "Evidence", "Role", "Status", "Use"]

Role: TypeAlias = Literal["parameter", "buffer", "extra-state", "optimizer", "tensor"]
Evidence: TypeAlias = Literal["spec", "module", "type-tag", "optimizer", "metadata", "name", "none"]
Use: TypeAlias = Literal["statistics", "cache", "mask", "constant", "counter"]
Status: TypeAlias = Literal["matched", "mismatched", "stale", "unexpected"]


class ClassifiedEntry(NamedTuple):
    """An entry with what it is.

    `name` is its name inside the root, None outside of it. `is_persistent` is about buffers and
    None for anything else, and for buffers of which nothing tells. `status` is what a model says of
    it, None without one and outside the root; `expected` is the model's tensor where its dtype or
    shape is another one.
    """

    entry: Entry
    name: str | None
    role: Role
    evidence: Evidence
    is_certain: bool
    is_persistent: bool | None = None
    use: Use | None = None
    status: Status | None = None
    expected: TensorSpec | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, 0 for an extra state that is no tensor."""
        return 0 if self.entry.tensor is None else self.entry.tensor.nbytes


class AbsentTensor(NamedTuple):
    """A name that the model has and the root has not, as the model names it.

    `not-saved` is a non-persistent buffer, which is absent by design; `supplied` is what a hook of
    the model fills in when it loads; `missing` is neither. `spec` is None for an extra state.
    """

    name: str
    role: Literal["parameter", "buffer", "extra-state"]
    status: Literal["not-saved", "supplied", "missing"]
    spec: TensorSpec | None
    use: Use | None = None

    @property
    def is_persistent(self) -> bool | None:
        """Whether a state_dict keeps it; None for what is no buffer."""
        return self.spec.is_persistent if self.spec is not None and self.role == "buffer" else None

    @property
    def nbytes(self) -> int:
        """The bytes that it has in the model, 0 where its shape is not known."""
        return 0 if self.spec is None else self.spec.nbytes
