"""How a checkpoint stands to a model, for people: names, prefix, strict load, what is absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.classification.matching import ModelMatch, is_left_over
from ckptool.classification.roles import AbsentTensor
from ckptool.render.escape import visible
from ckptool.render.folding import Fold, fold
from ckptool.render.natural import natural_count, natural_role, natural_size
from ckptool.render.table import ROLE_STYLES, shape_text

if TYPE_CHECKING:
    from ckptool.spec.model_spec import ModelSpec
    from ckptool.spec.strict_load import LoadError, StrictLoad

__all__ = ["absent_table", "match_rows", "spec_summary"]

_NAMED: Final = 3
_ABSENT: Final = {
    "not-saved": ("not saved", ""),
    "supplied": ("filled in by a load", ""),
    "missing": ("missing", "red"),
}


def spec_summary(spec: ModelSpec) -> str:
    """Return what a model has, in counts; tied names count each."""
    buffers = [one.is_persistent for one in spec.tensors.values() if one.kind == "buffer"]
    counts = [
        natural_count(len(spec.tensors) - len(buffers), "parameter"),
        natural_count(buffers.count(True), "persistent buffer"),
        natural_count(buffers.count(False), "non-persistent buffer"),
    ]
    if unknown := buffers.count(None):
        noun = "buffer of unknown persistence", "buffers of unknown persistence"
        counts.append(natural_count(unknown, *noun))
    return ", ".join(counts)


def match_rows(match: ModelMatch) -> Iterator[tuple[str, Text]]:
    """Yield what the heading says of the model: label and text."""
    spec = match.model.spec
    yield "model", Text(f"{visible(spec.source)}: {spec_summary(spec)}")
    yield "names", Text(_names(match))
    yield "strict load", _strict_load(match)


def _names(match: ModelMatch) -> str:
    alignment = match.alignment
    count = sum(tensor is not None for tensor in match.state.tensors.values())
    matched = f"{alignment.matched:,} of {count:,} are in the model"
    if alignment.is_identity:
        return matched
    return f"{matched} {_with_prefix(match)}; {alignment.matched_as_is:,} as they are"


def _with_prefix(match: ModelMatch) -> str:
    strip, add = (visible(part) for part in (match.alignment.strip, match.alignment.add))
    if not strip:
        return f"with '{add}' put before them"
    return f"with '{add}' in the place of '{strip}'" if add else f"without '{strip}'"


def _strict_load(match: ModelMatch) -> Text:
    spec = match.model.spec
    text = _answer(match.strict_load, spec)
    if not match.alignment.is_identity:
        after = _answer(match.strict_load_with_prefix, spec)
        text.append(f"\n{_with_prefix(match)}: ").append_text(after)
    return text


def _answer(answer: StrictLoad, spec: ModelSpec) -> Text:
    if answer.is_ok:
        return Text("succeeds", "green")
    left_over = sum(is_left_over(name, spec) for name in answer.unexpected)
    counts = (
        (len(answer.missing), "missing"),
        (left_over, "left over"),
        (len(answer.unexpected) - left_over, "unexpected"),
        (len(answer.shape), "of another shape"),
        (len(answer.errors), f"that cannot be loaded ({_named(answer.errors)})"),
    )
    reasons = [f"{count:,} {what}" for count, what in counts if count]
    if answer.is_ok is None:
        by_name = f"; by their names {', '.join(reasons)}" if reasons else "; all names fit"
        return Text(f"cannot be told: {visible(answer.why_unknown or '')}{by_name}", "yellow")
    return Text(f"fails: {', '.join(reasons)}", "red")


def _named(errors: Sequence[LoadError]) -> str:
    """What load errors are about: the first names, or what they say where they have none."""
    named = [visible(error.problem if error.name is None else error.name) for error in errors]
    more = ", ..." if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


# What is not in the file -----------------------------------------------------------------------


def absent_table(absent: Sequence[AbsentTensor], unfold: bool) -> Iterator[RenderableType]:
    """The names that the model has and the file has not, and what to do about them."""
    yield Text("not in the file", "bold")
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("name", "role", "dtype", "shape"):
        table.add_column(heading, overflow="fold")
    table.add_column("bytes", justify="right", overflow="fold")
    table.add_column("status", overflow="fold")
    for line in _lines(absent, unfold):
        table.add_row(*_row(line))
    yield table
    if any(one.status == "not-saved" for one in absent):
        yield Text(
            "not saved: absent by design; it has to be computed again after a load with "
            "assign=True or from the meta device",
            "dim",
        )
    if any(one.status == "missing" and one.role != "extra-state" for one in absent):
        yield Text("missing: it would stay at its initial value", "dim")


def _lines(absent: Sequence[AbsentTensor], unfold: bool) -> list[Fold[AbsentTensor]]:
    if unfold:
        return [Fold(one.name, (one,)) for one in absent]
    return fold(absent, name_of=lambda one: one.name, alike=_looks)


def _looks(one: AbsentTensor) -> tuple[object, ...]:
    facts = None if one.spec is None else (one.spec.dtype, one.spec.shape)
    return (one.role, one.is_persistent, one.status, one.use, facts)


def _row(line: Fold[AbsentTensor]) -> tuple[Text, ...]:
    one = line.members[0]
    shape = None if one.spec is None else one.spec.shape
    count = f"  x{len(line.members)}" if len(line.members) > 1 else ""
    return (
        Text(visible(line.label)).append(count, "bold"),
        Text(natural_role(one), ROLE_STYLES[one.role]),
        Text((one.spec and one.spec.dtype) or ""),
        Text("" if shape is None else shape_text(shape)),
        Text(natural_size(sum(member.nbytes for member in line.members))),
        Text(*_ABSENT[one.status]),
    )
