"""What keeps a strict load from succeeding, and where file and model contradict each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckptool.analysis.findings import Code, Finding
from ckptool.checkpoint.keypath import display
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.matching import Conflict, ModelMatch, is_left_over, is_same_kind
from ckptool.classification.roles import ClassifiedEntry
from ckptool.spec.model_spec import ModelSpec, TensorSpec

__all__ = ["load_findings", "notes_on_dtypes", "role_findings"]


def load_findings(
    checkpoint: Checkpoint, match: ModelMatch, entries: Sequence[ClassifiedEntry]
) -> Iterator[Finding]:
    """Yield one finding per name that a strict load of the root, as it is, would object to.

    Where the answer cannot be told, they are what the names alone say, and say so.
    """
    spec, answer = match.model.spec, match.strict_load
    paths = {one.name: one.entry.path for one in entries if one.name is not None}
    above = () if checkpoint.root is None else checkpoint.root.keys
    doubt = "" if answer.is_ok is not None else "; by its name alone"

    def finding(code: Code, name: str | None, detail: str) -> Finding:
        path = display(above) if name is None else paths.get(name) or display((*above, name))
        return Finding("load", code, path or "/", name, detail + doubt)

    twins = _twins(match) if answer.missing else {}
    for name in answer.missing:
        yield finding("missing", name, _missing(spec.tensors.get(name), twins.get(name)))
    for name in answer.unexpected:
        if is_left_over(name, spec):
            yield finding("stale", name, "left over: the model's buffer is not persistent")
        else:
            yield finding("unexpected", name, _unexpected(name, spec))
    for name in answer.shape:
        yield finding("shape", name, _shapes(name, match))
    for error in answer.errors:
        yield finding("value", error.name, error.problem)


def role_findings(match: ModelMatch, entries: Sequence[ClassifiedEntry]) -> Iterator[Finding]:
    """Yield where the file claims another role than the model, or has another kind of number."""
    asked_for = {id(one) for one in entries}
    for conflict in match.conflicts:
        one = conflict.given
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


def _missing(spec: TensorSpec | None, twin: str | None) -> str:
    if spec is None:
        return "the model takes an extra state"
    if twin is not None:
        return f"a {spec.kind} of the model, tied with {twin}, which is in the file"
    return f"a {spec.kind} of the model; it would stay at its initial value"


def _twins(match: ModelMatch) -> dict[str, str]:
    """Names of tensors that the file has under another name, and that name."""
    tensors = match.model.spec.tensors
    saved: dict[str, str] = {}
    for name, spec in tensors.items():
        if name in match.state.tensors:
            saved.setdefault(spec.tied_to or name, name)
    return {
        name: saved[first]
        for name, spec in tensors.items()
        if (first := spec.tied_to or name) in saved and name not in match.state.tensors
    }


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
    claimed = conflict.claimed
    said = f"{_named(claimed)} by the file's own word ({claimed.evidence})"
    return f"{said}, {_named(conflict.given)} in the model"


def _named(one: ClassifiedEntry) -> str:
    if one.role != "buffer" or one.is_persistent is None:
        return one.role
    return f"{'persistent' if one.is_persistent else 'non-persistent'} buffer"
