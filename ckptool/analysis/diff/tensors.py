"""The verdict on each pair of tensors: bytes first, numbers only where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckptool.analysis.diff.equality import are_same_bytes, is_same_by_record
from ckptool.analysis.diff.result import EQUAL, Figures, Number, Tolerance, Values, Verdict
from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.progress import Progress
from ckptool.analysis.sizes import place_of
from ckptool.tensors.dtypes import DType
from ckptool.tensors.refs import Component, Components, NoData, Strided, TensorRef
from ckptool.values import read_elements

if TYPE_CHECKING:
    from ckptool.analysis.diff.numeric import Measured, Scale

__all__ = ["compare_tensors"]

_CHANGED = Values("changed")


@dataclass(slots=True, eq=False)
class _Case:
    """Two tensors that are compared: the strided ones that they are made of, by their roles.

    `values` is None until there is a verdict. `different` are the roles of the parts whose bytes
    are not the same, `is_alike` whether all that is no tensor is the same.
    """

    a: TensorRef
    b: TensorRef
    parts: dict[str, TensorPair] = field(default_factory=dict)
    is_alike: bool = True
    different: list[str] = field(default_factory=list)
    is_against_crc: bool = False
    values: Values | None = None


def compare_tensors(
    pairs: Sequence[tuple[TensorRef, TensorRef]],
    tolerance: Tolerance | None,
    is_quick: bool,
    progress: Progress,
    processes: int = 1,
) -> list[Values]:
    """Return the verdict on each pair; what is tied on both sides is compared once.

    With `is_quick` recorded CRCs and sizes decide wherever they tell. Of an `equal` pair the
    numbers are not read, so what would need them is None.
    """
    places = [tuple(place_of(tensor) or id(tensor) for tensor in pair) for pair in pairs]
    cases = {place: _case(*pair) for place, pair in zip(places, pairs, strict=True)}
    pending = [case for case in cases.values() if case.values is None]
    _compare_bytes(pending, tolerance, is_quick, progress)
    different = [case for case in pending if case.values is None]
    _compare_numbers(different, tolerance, progress, processes)
    return [cases[place].values or _CHANGED for place in places]


def _case(a: TensorRef, b: TensorRef) -> _Case:
    case = _Case(a, b)
    if a.shape != b.shape:
        case.values = Values("shape")
    elif isinstance(a.data, Strided) and isinstance(b.data, Strided):
        case.parts["values"] = TensorPair(a, b)
    elif isinstance(a.data, NoData) and isinstance(b.data, NoData):
        # Without values the dtype is all there is.
        case.values = Values("equal") if a.dtype is b.dtype else _CHANGED
    elif not _add_parts(case, a, b, ""):
        case.values = _CHANGED
    return case


def _add_parts(case: _Case, a: TensorRef, b: TensorRef, above: str) -> bool:
    """Add the parts of two tensors; say whether both are made of the same parts, by shape."""
    if a.layout != b.layout or a.dtype is not b.dtype or a.shape != b.shape:
        return False
    if isinstance(a.data, Strided) and isinstance(b.data, Strided):
        case.parts[above] = TensorPair(a, b)
        return True
    if not isinstance(a.data, Components) or not isinstance(b.data, Components):
        return isinstance(a.data, NoData) and isinstance(b.data, NoData)
    parts = a.data.parts, b.data.parts
    if [part.role for part in parts[0]] != [part.role for part in parts[1]]:
        return False
    return all(_add_part(case, *both, above) for both in zip(*parts, strict=True))


def _add_part(case: _Case, a: Component, b: Component, above: str) -> bool:
    if isinstance(a.value, TensorRef) and isinstance(b.value, TensorRef):
        return _add_parts(case, a.value, b.value, f"{above}.{a.role}" if above else a.role)
    case.is_alike &= a.value == b.value
    return not isinstance(a.value, TensorRef) and not isinstance(b.value, TensorRef)


# Bytes -----------------------------------------------------------------------------------------


def _compare_bytes(
    cases: Sequence[_Case], tolerance: Tolerance | None, is_quick: bool, progress: Progress
) -> None:
    """Find the parts that are not the same bytes; what has none of them is equal."""
    unread: list[tuple[_Case, str]] = []
    for case in cases:
        # Reading the numbers of what has another CRC will tell the same, and more.
        is_measured = isinstance(case.a.data, Strided) and _is_measurable(case)
        for role, pair in case.parts.items():
            recorded = is_same_by_record(pair)
            if is_quick and recorded is False and tolerance is None:
                case.values = _CHANGED
            elif pair.a.dtype is not pair.b.dtype or (recorded is False and is_measured):
                case.different.append(role)
            elif not (is_quick and recorded):
                unread.append((case, role))
    pairs = [case.parts[role] for case, role in unread]
    for (case, role), is_same in zip(unread, are_same_bytes(pairs, progress), strict=True):
        if not is_same:
            case.different.append(role)
            case.is_against_crc |= is_same_by_record(case.parts[role]) is True
    for case in cases:
        if case.values is None and not case.different and case.is_alike:
            case.values = EQUAL


# Numbers ---------------------------------------------------------------------------------------


def _compare_numbers(
    cases: Sequence[_Case], tolerance: Tolerance | None, progress: Progress, processes: int
) -> None:
    measurable = [case for case in cases if _is_measurable(case)]
    if not measurable:
        return
    from ckptool.analysis.diff.numeric import Comparison, measure

    comparisons = [Comparison(case.parts["values"], _scales(case)) for case in measurable]
    measured = measure(comparisons, tolerance, progress, processes)
    for case, found in zip(measurable, measured, strict=True):
        case.values = _values(case, found, tolerance)
    # A recorded CRC can be wrong: that all is the same is only ever said of the bytes.
    same = [case for case in measurable if case.values and case.values.verdict == "equal-values"]
    pairs = [case.parts["values"] for case in same]
    for case, is_same in zip(same, are_same_bytes(pairs, progress), strict=True):
        if is_same:
            case.values = EQUAL


def _is_measurable(case: _Case) -> bool:
    """Whether what differs are numbers, and each has the same meaning on both sides."""
    if case.different not in ([], ["values"]) or not _has_numbers(case.a.dtype, case.b.dtype):
        return False
    return case.is_alike or _scales(case) is not None


def _has_numbers(*dtypes: DType) -> bool:
    return all(
        dtype.kind != "bits" and dtype.per_item == 1 and not dtype.name.endswith("_x2")
        for dtype in dtypes
    )


def _scales(case: _Case) -> tuple[Scale, Scale] | None:
    """The scales of tensors that were quantized as a whole."""
    from ckptool.analysis.diff.numeric import Scale

    scales = []
    for tensor in (case.a, case.b):
        parts = tensor.data.parts if isinstance(tensor.data, Components) else ()
        match {part.role: part.value for part in parts}:
            case {"scale": float() as scale, "zero_point": int() as zero_point}:
                scales.append(Scale(scale, zero_point))
            case _:
                return None
    return scales[0], scales[1]


def _values(case: _Case, found: Measured, tolerance: Tolerance | None) -> Values:
    figures = found.figures
    is_quantized = case.a.layout == "quantized"
    if is_quantized and _scales(case) is None:
        # Each channel has a scale of its own: the integers say how many differ, and not how far.
        return Values("changed", Figures(figures.changed_elements))
    verdict = _verdict(case, found, tolerance, is_quantized)
    rounded_to = found.rounded_to if verdict == "rounded" else None
    reverse = found.rounded_to if found.is_reverse else None
    numbers = _numbers(case) if case.a.numel == case.b.numel == 1 and not is_quantized else None
    return Values(verdict, figures, rounded_to, reverse, numbers, case.is_against_crc)


def _numbers(case: _Case) -> tuple[Number, Number] | None:
    """The only numbers of two tensors, as Python has them."""
    chunks = [next(read_elements(tensor)) for tensor in case.parts["values"]]
    if any(chunk.size != 1 for chunk in chunks):
        # A complex32 is a pair.
        return None
    a, b = (chunk.item() for chunk in chunks)
    return a, b


def _verdict(
    case: _Case, found: Measured, tolerance: Tolerance | None, is_quantized: bool
) -> Verdict:
    has_same_values = not found.figures.changed_elements
    if has_same_values and case.a.dtype is case.b.dtype and not is_quantized:
        return "equal-values"
    if tolerance is not None and found.is_close:
        return "close"
    if has_same_values and not is_quantized:
        return "dtype"
    return "rounded" if found.rounded_to and not found.is_reverse else "changed"
