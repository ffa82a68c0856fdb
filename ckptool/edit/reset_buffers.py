"""Buffers back to their initial values, without touching anything beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ckptool.analysis.selection import check_patterns, name_matcher
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root, find_root, shortened
from ckptool.classification.classify import classify
from ckptool.classification.matching import ModelMatch
from ckptool.classification.roles import ClassifiedEntry
from ckptool.edit.initial import RULES, NoValueError, ResetValue, filled, initial_value
from ckptool.edit.metadata import FLAG_NOTE, edited_metadata
from ckptool.edit.neighbours import Neighbours
from ckptool.edit.patches import NewElements, check_place, patches_of
from ckptool.edit.plan import Changed, Left, Plan, check_editable, make_plan
from ckptool.edit.storages import keep_all, pieced_storages
from ckptool.edit.targets import ambiguous
from ckptool.edit.tree import TreeEdit
from ckptool.errors import (
    EditError,
    EntryNotFoundError,
    SharedStorageError,
    about,
)
from ckptool.formats.container import Container
from ckptool.formats.content import EditedTree, NewStorage
from ckptool.spec.model_spec import Computed, Random, UnknownValue
from ckptool.tensors.refs import Strided, TensorRef

if TYPE_CHECKING:
    from ckptool.spec.model_spec import TensorSpec
    from ckptool.spec.strict_load import Model

__all__ = ["plan_reset_buffers"]

_STATISTICS: Final = ("running_mean", "running_var")


def plan_reset_buffers(
    checkpoint: Checkpoint,
    model: Model | None = None,
    *,
    patterns: Sequence[str] = (),
    value: float | None = None,
    seed: int | None = None,
    roots: Sequence[str] = (),
) -> Plan:
    """Plan which buffers get which values; `write_checkpoint` writes it.

        >>> from ckptool import open_checkpoint, plan_reset_buffers
        >>> with open_checkpoint("averaged.pt") as checkpoint:
        ...     for one in plan_reset_buffers(checkpoint, patterns=["*.bn*"]).changed:
        ...         print(one.path, one.to)

    `patterns` are for names in the root, `!` before one leaves out; without any it is about all
    buffers. They get the model's initial value; without a model that of a normalisation's
    statistics; or `value`. With a `seed` random initial values are those behind
    `torch.manual_seed(seed)`. `roots` are key paths of several state_dicts, where not the chosen
    one is meant. Parameters are never touched. A buffer that has no known initial value, or bytes
    that are also another tensor's, stays and is named; where nothing else matches, EditError or
    SharedStorageError is raised.
    """
    with about(checkpoint.path):
        check_editable(checkpoint)
        if value is not None and not patterns:
            raise EditError("a value is for buffers that are named", hint="--match GLOB")
        found, kept = _Found({}, [], []), _Kept(checkpoint.container)
        names: list[str] = []
        for chosen in _chosen(checkpoint, model, roots):
            contents = classify(chosen, model)
            inside = [one for one in contents.entries if one.name is not None and one.entry.tensor]
            names += [one.name for one in inside if one.name is not None]
            is_wanted = name_matcher(patterns)
            wanted = [one for one in inside if is_wanted(one.name or "")]
            values = _Values(model, contents.match, value, seed, wanted)
            _collect(found, wanted, values, kept, is_named=bool(patterns))
        check_patterns(patterns, names)
        if value is not None or not found.resets:
            found.left.extend(found.doubtful)
        return _plan(checkpoint, found)


@dataclass(frozen=True, slots=True)
class _Reset:
    """An entry with the value that it is to have; one tensor can be several entries."""

    one: ClassifiedEntry
    tensor: TensorRef
    value: ResetValue


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be reset, by the identity of the entry, and what is left as it is.

    `doubtful` is what was named and nothing calls a buffer: a module's weights beside its buffers.
    """

    resets: dict[int, _Reset]
    left: list[Left]
    doubtful: list[Left]


def _chosen(
    checkpoint: Checkpoint, model: Model | None, roots: Sequence[str]
) -> Iterator[Checkpoint]:
    """Yield the checkpoint with each of the roots that it is about."""
    for path in roots:
        root = find_root(checkpoint.container.tree, path)
        known = checkpoint.survey.roots.get(root.keys, root)
        yield replace(checkpoint.with_root(known), is_root_given=True)
    if roots:
        return
    if checkpoint.root is None and checkpoint.roots and model is None:
        raise ambiguous(checkpoint, "choose with --root, which can be repeated")
    yield checkpoint


def _collect(
    found: _Found,
    wanted: Sequence[ClassifiedEntry],
    values: _Values,
    kept: _Kept,
    *,
    is_named: bool,
) -> None:
    for one in wanted:
        tensor = one.entry.tensor
        if tensor is None or one.role in ("parameter", "optimizer"):
            continue
        try:
            value = values.of(one, tensor)
            kept.check(tensor)
            check_place(NewElements(tensor, value.elements))
        except NoValueError as error:
            left = Left(one.entry.path, str(error))
            if one.role == "buffer" or _rule_of(one) is not None:
                found.left.append(left)
            elif is_named:
                found.doubtful.append(left)
        else:
            found.resets[id(one.entry)] = _Reset(one, tensor, value)


class _Kept:
    """Which storages of a container can be written anew in part."""

    def __init__(self, container: Container) -> None:
        self._extents = container.extents
        self._pieced = pieced_storages(container)

    def check(self, tensor: TensorRef) -> None:
        """Raise NoValueError for a tensor whose elements are kept in another way."""
        if isinstance(tensor.data, Strided):
            storage = tensor.data.storage
            if storage.extents is not self._extents:
                raise NoValueError("its elements are kept inside of the pickle")
            if storage.key in self._pieced:
                raise NoValueError("its storage is kept in pieces")


def _rule_of(one: ClassifiedEntry) -> int | None:
    return RULES.get((one.name or "").rpartition(".")[2])


# Values ----------------------------------------------------------------------------------------


class _Values:
    """The value of each buffer: the user's, the model's, or that of a rule."""

    def __init__(
        self,
        model: Model | None,
        match: ModelMatch | None,
        value: float | None,
        seed: int | None,
        wanted: Sequence[ClassifiedEntry],
    ) -> None:
        self._match = match
        self._value = value
        self._seed = seed
        self._content: Mapping[str, bytes] = {}
        specs = [self._spec(one) for one in wanted if one.role == "buffer"]
        kinds = (Computed,) if seed is None else (Computed, Random)
        names = [name for name, spec in specs if spec and isinstance(spec.initial, kinds)]
        if model is not None and value is None:
            self._content = model.initial_content(names, seed)

    def of(self, one: ClassifiedEntry, tensor: TensorRef) -> ResetValue:
        """Return the value of an entry; raise NoValueError where it has none."""
        if self._value is not None:
            if one.role != "buffer":
                raise NoValueError("nothing says that it is a buffer; --model tells")
            return filled(tensor, self._value)
        name, spec = self._spec(one)
        if spec is not None and not isinstance(spec.initial, UnknownValue | None):
            return initial_value(tensor, spec, self._content.get(name), self._why(spec))
        rule = _rule_of(one)
        if rule is not None:
            return filled(tensor, rule)
        if one.role != "buffer":
            raise NoValueError("nothing says that it is a buffer, nor what it held")
        if spec is None:
            raise NoValueError("no rule tells its initial value; --model does")
        why = spec.initial.why if isinstance(spec.initial, UnknownValue) else "not told"
        raise NoValueError(f"the model does not tell its initial value: {why}")

    def _spec(self, one: ClassifiedEntry) -> tuple[str, TensorSpec | None]:
        """The model's own name for an entry, and what it says of that."""
        if self._match is None or one.name is None or one.evidence != "spec":
            return one.name or "", None
        name = self._match.alignment.rename(one.name)
        return name, self._match.model.spec.tensors.get(name)

    def _why(self, spec: TensorSpec) -> str:
        """What stands in the way, or how the value is told where nothing does."""
        if isinstance(spec.initial, Random):
            if self._seed is None:
                return "its initial value is random; --seed N takes that behind a seed"
            if not self._content:
                return "its initial value is random, and only a live model can make it"
            return f"initial value, seed {self._seed}"
        if isinstance(spec.initial, Computed) and not self._content:
            return "the spec does not hold its initial value, which is large; a live model does"
        return "initial value"


# Neighbours ------------------------------------------------------------------------------------


def _without_shared(checkpoint: Checkpoint, found: _Found) -> dict[int, _Reset]:
    """Leave the buffers whose bytes are also those of what is not reset to the same."""
    neighbours = Neighbours(checkpoint.entries)
    resets = dict(found.resets)
    shared: list[tuple[str, list[str]]] = []
    while True:
        conflicts = {
            key: others
            for key, reset in resets.items()
            if (others := list(_others(reset, neighbours, resets)))
        }
        if not conflicts:
            break
        for key, others in conflicts.items():
            path = resets.pop(key).one.entry.path
            shared.append((path, others))
            found.left.append(Left(path, f"its bytes are also those of {shortened(others)}"))
    if found.resets and not resets:
        path, others = shared[0]
        raise SharedStorageError(path, others=others)
    return resets


def _others(reset: _Reset, neighbours: Neighbours, resets: Mapping[int, _Reset]) -> Iterator[str]:
    for entry in neighbours.of(reset.tensor):
        # A module's attribute that is the buffer again is the same object.
        is_itself = entry.node is reset.tensor and entry.member == "attribute"
        other = resets.get(id(entry))
        if not is_itself and (other is None or not _is_alike(reset, other)):
            yield entry.path


def _is_alike(reset: _Reset, other: _Reset) -> bool:
    """Whether two tensors that share bytes are one, and get the same elements."""
    mine, its = reset.tensor, other.tensor
    is_one = (mine.dtype, mine.shape, mine.data) == (its.dtype, its.shape, its.data)
    return (mine is its or is_one) and reset.value.is_same(other.value)


# The plan --------------------------------------------------------------------------------------


def _plan(checkpoint: Checkpoint, found: _Found) -> Plan:
    resets = _without_shared(checkpoint, found)
    if not resets:
        if not found.left:
            raise EntryNotFoundError(
                "a buffer that can be reset", hint="parameters are never touched"
            )
        first, *others = found.left
        more = f" (and {len(others):,} more are left)" if others else ""
        raise EditError(f"{first.why}{more}", key_path=first.path)
    notes = list(_notes(resets))
    edited, is_flagged = _without_flags(checkpoint)
    if is_flagged:
        notes.append(FLAG_NOTE)
    return make_plan(
        "reset-buffers",
        checkpoint,
        _patched(keep_all(checkpoint.container), resets),
        edited,
        changed=[
            Changed(reset.one.entry.path, "reset", reset.value.told) for reset in resets.values()
        ],
        left=found.left,
        notes=notes,
    )


def _patched(
    storages: Sequence[NewStorage], resets: Mapping[int, _Reset]
) -> tuple[NewStorage, ...]:
    new: dict[str, dict[int, NewElements]] = defaultdict(dict)
    for reset in resets.values():
        if isinstance(reset.tensor.data, Strided) and reset.tensor.nbytes:
            elements = NewElements(reset.tensor, reset.value.elements)
            new[reset.tensor.data.storage.key][id(reset.tensor)] = elements
    return tuple(
        replace(one, content=replace(one.content, patches=tuple(patches_of(parts))))
        if (parts := list(new.get(one.old_key, {}).values()))
        else one
        for one in storages
    )


def _notes(resets: Mapping[int, _Reset]) -> Iterator[str]:
    leaves = [(reset.one.name or "").rpartition(".")[2] for reset in resets.values()]
    if any(leaf in _STATISTICS for leaf in leaves):
        yield (
            "the statistics are placeholders until the model has seen data: train it, or run "
            "torch.optim.swa_utils.update_bn, before it is evaluated"
        )
    rounded = [reset.one.entry.path for reset in resets.values() if reset.value.is_rounded]
    if rounded:
        yield f"initial values were rounded to the file's dtype: {shortened(rounded)}"


def _without_flags(checkpoint: Checkpoint) -> tuple[EditedTree | None, bool]:
    """The tree without what a load with `assign=True` left in `_metadata`."""
    tree = checkpoint.container.tree
    edit = TreeEdit(tree)
    roots: list[Root] = []
    for root in checkpoint.roots:
        metadata, is_flagged = edited_metadata(root, (), "")
        if is_flagged and metadata is not None:
            edit.set_attribute(root.node, "_metadata", metadata)
            roots.append(root)
    return (EditedTree(tree, edit.replaced()), True) if roots else (None, False)
