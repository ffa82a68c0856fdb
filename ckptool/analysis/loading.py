"""What keeps a strict load from succeeding, and where file and model contradict each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckptool.analysis.findings import Finding
from ckptool.checkpoint.keypath import display
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.classify import Conflict, ModelMatch, is_left_over, is_same_kind
from ckptool.classification.roles import ClassifiedEntry
from ckptool.spec.model_spec import ModelSpec

__all__ = ["load_findings", "notes_on_dtypes", "role_findings"]


def load_findings(
    checkpoint: Checkpoint, match: ModelMatch, entries: Sequence[ClassifiedEntry]
) -> Iterator[Finding]:
    """Yield one finding per name that a strict load of the root, as it is, would object to."""
    spec, answer = match.model.spec, match.strict_load
    paths = {one.name: one.entry.path for one in entries if one.name is not None}
    above = () if checkpoint.root is None else checkpoint.root.keys

    def path_of(name: str) -> str:
        return paths.get(name) or display((*above, name))

    for name in answer.missing:
        yield Finding("load", "missing", path_of(name), name, _missing(name, match))
    for name in answer.unexpected:
        if is_left_over(name, spec):
            detail = "left over: the model's buffer is not persistent"
            yield Finding("load", "stale", path_of(name), name, detail)
        else:
            yield Finding("load", "unexpected", path_of(name), name, _unexpected(name, spec))
    for name in answer.shape:
        yield Finding("load", "shape", path_of(name), name, _shapes(name, match))
    for message in answer.errors:
        yield Finding("load", "unexpected", display(above) or "/", None, message)


def role_findings(match: ModelMatch, entries: Sequence[ClassifiedEntry]) -> Iterator[Finding]:
    """Yield where the file claims another role than the model, or has another kind of number."""
    asked_for = {id(one) for one in entries}
    for conflict in match.conflicts:
        one = conflict.entry
        if id(one) in asked_for:
            yield Finding("role", "conflict", one.entry.path, one.name, _conflict(conflict))
    for one in entries:
        tensor, expected = one.entry.tensor, one.expected
        if tensor is not None and expected is not None and not is_same_kind(tensor, expected):
            detail = f"{tensor.dtype} in the file, {expected.dtype} in the model"
            yield Finding("role", "dtype", one.entry.path, one.name, detail)


def notes_on_dtypes(entries: Sequence[ClassifiedEntry]) -> Iterator[str]:
    """Yield how many tensors a load casts to another width; that is no finding."""
    widths = Counter(
        (str(one.entry.tensor.dtype), one.expected.dtype)
        for one in entries
        if one.expected is not None
        and one.entry.tensor is not None
        and one.expected.dtype not in (None, one.entry.tensor.dtype.name)
        and is_same_kind(one.entry.tensor, one.expected)
    )
    for (saved, expected), count in widths.items():
        tensors = "1 tensor is" if count == 1 else f"{count:,} tensors are"
        yield f"{tensors} {saved} in the file and {expected} in the model; a load casts them"


def _missing(name: str, match: ModelMatch) -> str:
    spec = match.model.spec.tensors.get(name)
    if spec is None:
        return "the model takes an extra state"
    twin = _twin(name, match)
    if twin is not None:
        return f"a {spec.kind} of the model, tied with {twin}, which is in the file"
    return f"a {spec.kind} of the model; it would stay at its initial value"


def _twin(name: str, match: ModelMatch) -> str | None:
    """Another name of the same tensor that the file has."""
    tensors = match.model.spec.tensors
    first = tensors[name].tied_to or name
    names = match.state.tensors
    return next(
        (
            other
            for other, spec in tensors.items()
            if other != name and first in (other, spec.tied_to) and other in names
        ),
        None,
    )


def _unexpected(name: str, spec: ModelSpec) -> str:
    module, _, leaf = name.rpartition(".")
    owner = spec.modules.get(module)
    if owner is not None and leaf in owner.none_tensors:
        return "the model has it registered as None"
    return "the model has no such name"


def _shapes(name: str, match: ModelMatch) -> str:
    tensor, spec = match.state.tensors.get(name), match.model.spec.tensors.get(name)
    if tensor is None or spec is None or spec.shape is None:
        return "its shape is another one than the model's"
    return f"{list(tensor.shape)} in the file, {list(spec.shape)} in the model"


def _conflict(conflict: Conflict) -> str:
    claimed, one = conflict.claimed, conflict.entry
    return (
        f"{_named(claimed)} by the file's own word ({claimed.evidence}), {_named(one)} in the model"
    )


def _named(one: ClassifiedEntry) -> str:
    if one.role != "buffer" or one.is_persistent is None:
        return one.role
    return f"{'persistent' if one.is_persistent else 'non-persistent'} buffer"
