"""Numbers that no trained model should have: NaN, infinities, impossible statistics, counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptool.analysis.findings import Code, Finding
from ckptool.analysis.progress import Progress, side_by_side
from ckptool.analysis.sizes import dense_parts, place_of
from ckptool.checkpoint.keypath import KeyPath
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import LimitExceededError
from ckptool.tensors.dtypes import DType
from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import numpy_dtype, read_elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Numbers", "check_numbers"]

_MEAN: Final = "running_mean"
_VARIANCE: Final = "running_var"
_COUNTER: Final = "num_batches_tracked"
# The bits of the exponent; all of them are set in NaN and infinities, and in nothing else.
_BFLOAT16_EXPONENT: Final = 0x7F80


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was found in values, of how many tensors; `notes` name those that were not read."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    tensors_read: int


class _Tally(NamedTuple):
    """How many elements are NaN, and how many are infinite; `refusal` says why none were read."""

    nan: int
    inf: int
    refusal: str | None = None


def check_numbers(entries: Sequence[ClassifiedEntry], progress: Progress) -> Numbers:
    """Read the values of all entries in bounded memory, those of tied ones once."""
    users: dict[object, list[ClassifiedEntry]] = defaultdict(list)
    parts: dict[object, TensorRef] = {}
    for one in entries:
        for part in dense_parts(one.entry.tensor):
            if part.dtype.kind in ("float", "complex") and isinstance(part.data, Strided):
                place: object = place_of(part) or id(part)
                parts.setdefault(place, part)
                users[place].append(one)
    progress.expect(sum(_kept_once(part).nbytes for part in parts.values()))
    tallies = dict(zip(parts, side_by_side(_tally, parts.values(), progress), strict=True))
    findings = [
        finding
        for place, tally in tallies.items()
        for one in users[place]
        for finding in _findings_of(one, tally, parts[place].numel or 0)
    ]
    unread = {
        id(one): f"{one.entry.path or '/'} was not read: {tally.refusal}"
        for place, tally in tallies.items()
        if tally.refusal is not None
        for one in users[place]
    }
    read = [one for one in entries if id(one) not in unread]
    findings += _findings_of_statistics(read, progress)
    return Numbers(tuple(findings), tuple(unread.values()), len(read))


def _findings_of(one: ClassifiedEntry, tally: _Tally, numel: int) -> Iterator[Finding]:
    if tally.nan:
        yield _finding("nan", one, f"{_share(tally.nan, numel)} NaN")
    if tally.inf:
        yield _finding("inf", one, f"{_share(tally.inf, numel)} infinite")


def _share(count: int, numel: int) -> str:
    return f"{count:,} of {numel:,} {'element is' if numel == 1 else 'elements are'}"


# Values ----------------------------------------------------------------------------------------


def _tally(tensor: TensorRef, progress: Progress) -> _Tally:
    nan = inf = 0
    once = _kept_once(tensor)
    is_all_finite = _finite_test(tensor.dtype)
    try:
        for chunk in read_elements(once):
            progress.advance(chunk.nbytes)
            if not is_all_finite(_reals(chunk, tensor.dtype)):
                nan_here, inf_here = _count(chunk, tensor.dtype)
                nan, inf = nan + nan_here, inf + inf_here
    except LimitExceededError as error:
        return _Tally(0, 0, error.message)
    times = (tensor.numel or 0) // (once.numel or 1)
    return _Tally(nan * times, inf * times)


def _kept_once(tensor: TensorRef) -> TensorRef:
    """The tensor without the repetitions that a stride of zero stands for."""
    data = tensor.data
    if not isinstance(data, Strided) or 0 not in data.stride or 0 in tensor.shape:
        return tensor
    steps = zip(tensor.shape, data.stride, strict=True)
    return replace(tensor, shape=tuple(size if step else 1 for size, step in steps))


def _reals(chunk: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Real and imaginary parts side by side; real numbers as they are."""
    is_pair = dtype.kind == "complex" and dtype.name != "complex32"
    return chunk.view(chunk.real.dtype) if is_pair else chunk


def _finite_test(dtype: DType) -> Callable[[NDArray[Any]], bool]:
    """Return a test for arrays of a dtype; numpy's own is slow where it has no loop for one."""
    import numpy as np

    def has_finite_bits(numbers: NDArray[Any]) -> bool:
        exponents = numbers.view(np.uint16) & _BFLOAT16_EXPONENT
        return not (exponents == _BFLOAT16_EXPONENT).any()

    if dtype.name == "bfloat16":
        return has_finite_bits
    if dtype.itemsize == 1 and dtype.name.startswith("float8"):
        is_finite = np.isfinite(np.arange(256, dtype=np.uint8).view(numpy_dtype(dtype)))
        return lambda numbers: bool(is_finite[numbers.view(np.uint8)].all())
    return lambda numbers: bool(np.isfinite(numbers).all())


def _count(numbers: NDArray[Any], dtype: DType) -> tuple[int, int]:
    """How many elements are NaN, how many infinite; a complex one by either of its parts."""
    import numpy as np

    is_nan, is_inf = np.isnan(numbers), np.isinf(numbers)
    if dtype.name == "complex32":
        is_nan, is_inf = (flags.reshape(-1, 2).any(axis=1) for flags in (is_nan, is_inf))
    return int(is_nan.sum()), int(is_inf.sum())


# Statistics and counters -----------------------------------------------------------------------


def _findings_of_statistics(
    entries: Sequence[ClassifiedEntry], progress: Progress
) -> Iterator[Finding]:
    """Yield variances below zero, and counters that are not what a normalisation counts with."""
    statistics = {
        _place(one): tensor
        for one in entries
        if (tensor := one.entry.tensor) is not None
        and isinstance(tensor.data, Strided)
        and _place(one)[1].endswith((_MEAN, _VARIANCE, _COUNTER))
    }
    for one in entries:
        above, name = _place(one)
        tensor = statistics.get((above, name))
        leaf = name.rpartition(".")[2]
        if tensor is None:
            continue
        if leaf == _VARIANCE and tensor.dtype.kind == "float":
            negative = sum(int((chunk < 0).sum()) for chunk in _watched(tensor, progress))
            if negative:
                detail = f"{_share(negative, tensor.numel or 0)} below zero"
                yield _finding("negative-variance", one, detail)
        elif leaf == _COUNTER:
            module = name.removesuffix(_COUNTER)
            beside = {leaf: statistics.get((above, module + leaf)) for leaf in (_MEAN, _VARIANCE)}
            wrong = _wrong_counter(tensor) or _idle_counter(tensor, beside, progress)
            if wrong is not None:
                yield _finding("counter", one, wrong)


def _place(one: ClassifiedEntry) -> tuple[KeyPath, str]:
    """Where an entry stands and its name there; in a list of pairs the name is beside it."""
    *above, last = one.entry.keys or ("",)
    return (tuple(above), last) if isinstance(last, str) else (tuple(above[:-1]), one.name or "")


def _watched(tensor: TensorRef, progress: Progress) -> Iterator[NDArray[Any]]:
    once = _kept_once(tensor)
    progress.expect(once.nbytes)
    for chunk in read_elements(once):
        progress.advance(chunk.nbytes)
        yield chunk


def _wrong_counter(tensor: TensorRef) -> str | None:
    if tensor.dtype.name == "int64" and tensor.shape == ():
        return None
    return f"{tensor.dtype} {list(tensor.shape)}, where torch counts with int64 []"


def _idle_counter(
    counter: TensorRef, beside: Mapping[str, TensorRef | None], progress: Progress
) -> str | None:
    """What is wrong with a counter of zero: the statistics beside it have seen data."""
    if any(chunk.any() for chunk in read_elements(counter)):
        return None
    for leaf, statistic in beside.items():
        initial = 0 if leaf == _MEAN else 1
        if statistic is not None and any(
            (chunk != initial).any() for chunk in _watched(statistic, progress)
        ):
            return f"it is 0, though {leaf} is no longer {initial}"
    return None


def _finding(code: Code, one: ClassifiedEntry, detail: str) -> Finding:
    return Finding("numbers", code, one.entry.path or "/", one.name, detail)
