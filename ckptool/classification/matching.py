"""A root held against a model: its names, its entries, and what it lacks.

The model's word goes before the file's. Names of the file become the model's through the prefix
that `align` finds, and through the hooks that its modules load with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ckptool.checkpoint.modules import EXTRA_STATE, join
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root
from ckptool.checkpoint.state_dict import StateDict, key_name, state_dict_of
from ckptool.classification.align import Alignment, align
from ckptool.classification.evidence import extra_state_of
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry, Use
from ckptool.classification.use import use_of
from ckptool.spec.load_rules import renamed_by_hooks
from ckptool.spec.model_spec import ModelSpec, TensorSpec
from ckptool.spec.strict_load import Model, StrictLoad
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import TensorRef

__all__ = ["Conflict", "ModelMatch", "is_left_over", "is_same_kind", "match_root"]

# What a file states, and not what its names suggest.
_CLAIMS: Final = ("module", "type-tag")


@dataclass(frozen=True, slots=True, eq=False)
class Conflict:
    """A verdict of the file's own, and the model's, which is another one."""

    claimed: ClassifiedEntry
    given: ClassifiedEntry


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


def match_root(
    checkpoint: Checkpoint, root: Root, model: Model, by_file: Iterable[ClassifiedEntry]
) -> tuple[tuple[ClassifiedEntry, ...], ModelMatch]:
    """Give the entries of a root the model's word, and say how the root stands to the model.

    `by_file` are all entries of the checkpoint with what the file itself says of them.
    """
    state = state_dict_of(checkpoint, root)
    answer = model.strict_load(state)
    # A file that loads as it is needs no other names, whatever its hooks do with them.
    alignment = align(state, model.spec, is_fitting=answer.is_ok is True)
    renamed = state.renamed(alignment.rename)
    after = answer if alignment.is_identity else model.strict_load(renamed)
    by_hooks = renamed_by_hooks(model.spec, renamed.tensors.keys())
    names = _Names(
        root,
        alignment,
        renamed,
        after,
        frozenset(after.unexpected),
        frozenset(after.shape),
        by_hooks,
    )
    verdicts = [
        (claimed, claimed if claimed.name is None else _given(claimed, names, model.spec))
        for claimed in by_file
    ]
    conflicts = tuple(Conflict(*pair) for pair in verdicts if _contradicts(*pair))
    absent = tuple(_absent(names, model.spec, (claimed for claimed, _ in verdicts)))
    match = ModelMatch(model, state, alignment, answer, after, absent, conflicts)
    return tuple(given for _, given in verdicts), match


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


@dataclass(frozen=True, slots=True, eq=False)
class _Names:
    """The names of a root as the model has them: behind the prefix, and behind hooks' renames.

    `answer` is that of a strict load of the `renamed` state_dict; `unexpected` and `misshapen` are
    the names in it, to be looked up.
    """

    root: Root
    alignment: Alignment
    renamed: StateDict
    answer: StrictLoad
    unexpected: frozenset[str]
    misshapen: frozenset[str]
    by_hooks: Mapping[str, str]

    def key_of(self, one: ClassifiedEntry) -> str:
        """The key of the state_dict that an entry in the root is, or is part of, renamed."""
        inside = one.entry.keys[len(self.root.keys) :]
        if self._is_named_whole(one) or not inside:
            return self.alignment.rename(one.name or "")
        return self.alignment.rename(key_name(inside[0]))

    def loaded_as(self, key: str) -> str:
        """The name that a known hook gives to what stands under a key."""
        return self.by_hooks.get(key, key)

    def is_value(self, one: ClassifiedEntry) -> bool:
        """Whether an entry is itself what stands under its key, and not a part of it."""
        return self._is_named_whole(one) or len(one.entry.keys) == len(self.root.keys) + 1

    def is_taken(self, key: str) -> bool:
        """Whether torch takes what stands under a key that no rule is about, as a hook may do."""
        is_told = self.answer.is_ok is not None and key in self.renamed.tensors
        return is_told and key not in self.unexpected

    def has_its_shape(self, key: str, tensor: TensorRef, expected: TensorSpec) -> bool:
        """Whether a tensor fits: as torch says, or else as its shape does."""
        if self.answer.is_ok is not None:
            return key not in self.misshapen
        # torch takes the one element of a vector for a number: torch 0.3 had no 0-d tensors.
        shapes = (expected.shape, tensor.shape)
        return expected.shape in (None, tensor.shape) or shapes == ((), (1,))

    def _is_named_whole(self, one: ClassifiedEntry) -> bool:
        return self.root.pairs is not None or one.entry.member is not None


def _given(claimed: ClassifiedEntry, names: _Names, spec: ModelSpec) -> ClassifiedEntry:
    """Give an entry in the root the model's word."""
    key = names.key_of(claimed)
    if extra_state_of(claimed.entry) is not None:
        return _given_extra_state(claimed, key, spec)
    loaded_as = names.loaded_as(key)
    expected = spec.tensors.get(loaded_as) if names.is_value(claimed) else None
    tensor = claimed.entry.tensor
    if expected is None or tensor is None:
        return claimed._replace(status="matched" if names.is_taken(key) else "unexpected")
    fits = names.has_its_shape(loaded_as, tensor, expected) and is_same_kind(tensor, expected)
    # A module that was saved whole holds its non-persistent buffers by right.
    is_stale = expected.is_persistent is False and claimed.entry.is_persistent is not False
    is_as_expected = expected.shape in (None, tensor.shape)
    is_as_expected &= expected.dtype in (None, tensor.dtype.name)
    return claimed._replace(
        role=expected.kind,
        evidence="spec",
        is_certain=True,
        is_persistent=expected.is_persistent if expected.kind == "buffer" else None,
        use=_use(loaded_as, expected, spec, tensor),
        status="stale" if is_stale else "matched" if fits else "mismatched",
        expected=None if is_as_expected else expected,
    )


def _given_extra_state(claimed: ClassifiedEntry, key: str, spec: ModelSpec) -> ClassifiedEntry:
    module = spec.modules.get(key.removesuffix(EXTRA_STATE).removesuffix("."))
    if module is None or module.has_extra_state is False:
        return claimed._replace(status="unexpected")
    if module.has_extra_state is None:
        return claimed._replace(status="matched")
    return claimed._replace(
        role="extra-state", evidence="spec", is_certain=True, use=None, status="matched"
    )


def _absent(
    names: _Names, spec: ModelSpec, by_file: Iterable[ClassifiedEntry]
) -> Iterator[AbsentTensor]:
    """Yield what the model has and the root has not, in the model's order."""
    present = {names.loaded_as(key) for key in names.renamed.tensors}
    present.update(
        names.loaded_as(names.key_of(one))
        for one in by_file
        if one.name is not None and one.entry.member == "buffer"
    )
    missing = frozenset(names.answer.missing)
    is_told = names.answer.is_ok is not None
    for name, expected in spec.tensors.items():
        if name not in present:
            use = _use(name, expected, spec)
            if expected.is_persistent is False:
                yield AbsentTensor(name, expected.kind, "not-saved", expected, use)
            elif is_told and name not in missing:
                yield AbsentTensor(name, expected.kind, "supplied", expected, use)
            else:
                yield AbsentTensor(name, expected.kind, "missing", expected, use)
    for path, module in spec.modules.items():
        name = join(path, EXTRA_STATE)
        if module.has_extra_state and name not in present:
            yield AbsentTensor(name, "extra-state", "missing", None)


def _use(
    name: str, expected: TensorSpec, spec: ModelSpec, tensor: TensorRef | None = None
) -> Use | None:
    """What a buffer is used for, by the file's tensor where there is one."""
    if expected.kind == "parameter":
        return None
    module = spec.modules.get(name.rpartition(".")[0])
    return use_of(
        name,
        expected.dtype if tensor is None else tensor.dtype.name,
        expected.shape if tensor is None else tensor.shape,
        None if module is None else module.type,
        expected.initial,
    )


def _contradicts(claimed: ClassifiedEntry, one: ClassifiedEntry) -> bool:
    """Whether the model gives an entry another role or persistence than the file claims."""
    is_claim = claimed.evidence in _CLAIMS and claimed.role != "tensor"
    if not is_claim or one.evidence != "spec":
        return False
    known = None not in (claimed.is_persistent, one.is_persistent)
    return claimed.role != one.role or (known and claimed.is_persistent != one.is_persistent)
