"""The verdict on every tensor of a checkpoint, and on every name that a model has besides.

Without a model the file's own evidence decides. With one the model's word goes before it: its
names, through the prefix that `align` finds and the hooks that its modules load with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ckptool.checkpoint.modules import EXTRA_STATE
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.checkpoint.state_dict import key_name
from ckptool.classification.evidence import classify_by_evidence, extra_state_of
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry, Status, Use
from ckptool.classification.use import use_of
from ckptool.errors import about
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import TensorRef

if TYPE_CHECKING:
    from ckptool.checkpoint.state_dict import StateDict
    from ckptool.classification.align import Alignment
    from ckptool.spec.model_spec import ModelSpec, TensorSpec
    from ckptool.spec.strict_load import Model, StrictLoad

__all__ = ["Classification", "Conflict", "ModelMatch", "classify", "is_left_over", "is_same_kind"]

Shape: TypeAlias = tuple[int, ...] | None

# What a file states, and not what its names suggest.
_CLAIMS: Final = ("module", "type-tag")


@dataclass(frozen=True, slots=True, eq=False)
class Conflict:
    """An entry of which the file claims another role or persistence than the model gives it."""

    claimed: ClassifiedEntry
    entry: ClassifiedEntry


@dataclass(frozen=True, slots=True, eq=False)
class ModelMatch:
    """A root held against a model.

    `strict_load` is the answer for the root as it is, `strict_load_with_prefix` that after the
    names were changed as `alignment` says. `absent` are the names that the root lacks, in the
    model's order.
    """

    model: Model
    state: StateDict
    alignment: Alignment
    strict_load: StrictLoad
    strict_load_with_prefix: StrictLoad
    absent: tuple[AbsentTensor, ...]
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Every tensor and extra state of a checkpoint with what it is, in file order.

    `checkpoint` has the root that the model fits; `match` is None without a model.
    """

    checkpoint: Checkpoint
    entries: tuple[ClassifiedEntry, ...]
    match: ModelMatch | None = None

    @property
    def absent(self) -> tuple[AbsentTensor, ...]:
        """The names that the model has and the root has not."""
        return () if self.match is None else self.match.absent


def classify(checkpoint: Checkpoint, model: Model | None = None) -> Classification:
    """Say of every tensor what it is, and with a model how it stands to it.

        >>> from ckptool import classify, load_model_spec, open_checkpoint
        >>> model = load_model_spec("models.py:MyModel(10, 5)")
        >>> with open_checkpoint("model.pt") as checkpoint:
        ...     for one in classify(checkpoint, model).entries:
        ...         print(one.name, one.role, one.is_persistent, one.status)

    Raises AmbiguousRootError where several roots fit the model equally well and the user named
    none.
    """
    with about(checkpoint.path):
        if model is None:
            return Classification(checkpoint, classify_by_evidence(checkpoint))
        from ckptool.classification.align import fit_root

        checkpoint = fit_root(checkpoint, model.spec)
        by_file = classify_by_evidence(checkpoint)
        if checkpoint.root is None:
            return Classification(checkpoint, by_file)
        return _Matching(checkpoint, checkpoint.root, model).classification(by_file)


class _Matching:
    """One root held against one model, name by name."""

    def __init__(self, checkpoint: Checkpoint, root: Root, model: Model) -> None:
        from ckptool.checkpoint.state_dict import state_dict_of
        from ckptool.classification.align import align
        from ckptool.spec.load_rules import renamed_by_hooks

        self._checkpoint = checkpoint
        self._root = root
        self._model = model
        self._spec: ModelSpec = model.spec
        self._state = state_dict_of(checkpoint, root)
        self._strict_load = model.strict_load(self._state)
        # A file that loads as it is needs no other names, whatever its hooks do with them.
        self._alignment = align(self._state, self._spec, is_fitting=self._strict_load.is_ok is True)
        renamed = self._state.renamed(self._alignment.rename)
        self._with_prefix = (
            self._strict_load if self._alignment.is_identity else model.strict_load(renamed)
        )
        self._unexpected = frozenset(self._with_prefix.unexpected)
        self._renamed_by_hooks = renamed_by_hooks(self._spec, renamed.tensors.keys())
        self._present = {self._loaded_as(name) for name in renamed.tensors}

    def classification(self, by_file: tuple[ClassifiedEntry, ...]) -> Classification:
        """Give every entry in the root the model's word."""
        entries = []
        conflicts = []
        for claimed in by_file:
            one = claimed if claimed.name is None else self._matched(claimed, claimed.name)
            entries.append(one)
            if one.evidence == "spec" and _contradicts(claimed, one):
                conflicts.append(Conflict(claimed, one))
        match = ModelMatch(
            self._model,
            self._state,
            self._alignment,
            self._strict_load,
            self._with_prefix,
            tuple(self._absent()),
            tuple(conflicts),
        )
        return Classification(self._checkpoint, tuple(entries), match)

    def _matched(self, claimed: ClassifiedEntry, name: str) -> ClassifiedEntry:
        inside = claimed.entry.keys[len(self._root.keys) :]
        is_named_whole = self._root.pairs is not None or claimed.entry.member is not None
        key = name if is_named_whole else key_name(inside[0]) if inside else name
        renamed = self._alignment.rename(key)
        if extra_state_of(claimed.entry) is not None:
            return self._matched_extra_state(claimed, renamed)
        loaded_as = self._loaded_as(renamed)
        is_value = is_named_whole or len(inside) == 1
        expected = self._spec.tensors.get(loaded_as) if is_value else None
        tensor = claimed.entry.tensor
        if expected is None or tensor is None:
            # A hook that is not known by its rule can take a name; torch then does not object.
            is_taken = self._with_prefix.is_ok is not None and renamed not in self._unexpected
            return claimed._replace(status="matched" if is_taken else "unexpected")
        self._present.add(loaded_as)
        return claimed._replace(
            role=expected.kind,
            evidence="spec",
            is_certain=True,
            is_persistent=expected.is_persistent if expected.kind == "buffer" else None,
            use=self._use(loaded_as, expected, tensor.dtype.name, tensor.shape),
            status=_status(claimed, tensor, expected),
            expected=None if _is_alike(tensor, expected) else expected,
        )

    def _matched_extra_state(self, claimed: ClassifiedEntry, name: str) -> ClassifiedEntry:
        module = self._spec.modules.get(name.removesuffix(EXTRA_STATE).removesuffix("."))
        if module is None or module.has_extra_state is False:
            return claimed._replace(status="unexpected")
        if module.has_extra_state is None:
            return claimed._replace(status="matched")
        return claimed._replace(
            role="extra-state", evidence="spec", is_certain=True, use=None, status="matched"
        )

    def _loaded_as(self, name: str) -> str:
        return self._renamed_by_hooks.get(name, name)

    def _absent(self) -> Iterator[AbsentTensor]:
        missing = frozenset(self._with_prefix.missing)
        is_told = self._with_prefix.is_ok is not None
        for name, spec in self._spec.tensors.items():
            if name in self._present:
                continue
            use = self._use(name, spec, spec.dtype, spec.shape)
            if spec.is_persistent is False:
                yield AbsentTensor(name, spec.kind, "not-saved", spec, use)
            elif is_told and name not in missing:
                yield AbsentTensor(name, spec.kind, "supplied", spec, use)
            else:
                yield AbsentTensor(name, spec.kind, "missing", spec, use)
        for path, module in self._spec.modules.items():
            name = f"{path}.{EXTRA_STATE}" if path else EXTRA_STATE
            if module.has_extra_state and name not in self._present:
                yield AbsentTensor(name, "extra-state", "missing", None)

    def _use(self, name: str, spec: TensorSpec, dtype: str | None, shape: Shape) -> Use | None:
        if spec.kind == "parameter":
            return None
        module = self._spec.modules.get(name.rpartition(".")[0])
        return use_of(name, dtype, shape, None if module is None else module.type, spec.initial)


def _status(claimed: ClassifiedEntry, tensor: TensorRef, expected: TensorSpec) -> Status:
    # A module that was saved whole holds its non-persistent buffers by right.
    if expected.is_persistent is False and claimed.entry.is_persistent is not False:
        return "stale"
    if not _is_same_shape(tensor, expected) or not is_same_kind(tensor, expected):
        return "mismatched"
    return "matched"


def _is_alike(tensor: TensorRef, expected: TensorSpec) -> bool:
    return expected.shape in (None, tensor.shape) and expected.dtype in (None, tensor.dtype.name)


def _is_same_shape(tensor: TensorRef, expected: TensorSpec) -> bool:
    # torch takes the one element of a vector for a number: torch 0.3 had no 0-d tensors.
    return expected.shape in (None, tensor.shape) or (expected.shape, tensor.shape) == ((), (1,))


def is_left_over(name: str, spec: ModelSpec) -> bool:
    """Whether a name of a state_dict is that of a buffer which the model does not save."""
    expected = spec.tensors.get(name)
    return expected is not None and expected.is_persistent is False


def is_same_kind(tensor: TensorRef, expected: TensorSpec) -> bool:
    """Whether both are the same kind of number; how wide it is does not matter."""
    if expected.dtype is None or expected.dtype == tensor.dtype.name:
        return True
    kinds = {tensor.dtype.kind, DTYPES[expected.dtype].kind}
    return len(kinds) == 1 or kinds == {"int", "uint"}


def _contradicts(claimed: ClassifiedEntry, one: ClassifiedEntry) -> bool:
    if claimed.evidence not in _CLAIMS or claimed.role == "tensor":
        return False
    known = None not in (claimed.is_persistent, one.is_persistent)
    return claimed.role != one.role or (known and claimed.is_persistent != one.is_persistent)
