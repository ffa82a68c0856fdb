"""Numbers that no trained model should have: NaN, infinities, impossible statistics, counters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ckptool.analysis.findings import Code, Finding
from ckptool.analysis.progress import Progress, side_by_side
from ckptool.analysis.sizes import dense_parts, place_of
from ckptool.checkpoint.keypath import KeyPath
from ckptool.classification.roles import ClassifiedEntry
from ckptool.tensors.dtypes import DType
from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import numpy_dtype, read_elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["number_findings", "statistic_findings"]

_MEAN: Final = "running_mean"
_VARIANCE: Final = "running_var"
_COUNTER: Final = "num_batches_tracked"
# The bits of the exponent; all of them are set in NaN and infinities, and in nothing else.
_BFLOAT16_EXPONENT: Final = 0x7F80


class _Tally(NamedTuple):
    """How many elements are NaN, and how many are infinite."""

    nan: int
    inf: int


def number_findings(entries: Sequence[ClassifiedEntry], progress: Progress) -> Iterator[Finding]:
    """Read the values of all entries in bounded memory, those of tied ones once."""
    users: dict[object, list[ClassifiedEntry]] = defaultdict(list)
    parts: dict[object, TensorRef] = {}
    for one in entries:
        for part in dense_parts(one.entry.tensor):
            if part.dtype.kind in ("float", "complex") and isinstance(part.data, Strided):
                place: object = place_of(part) or id(part)
                parts.setdefault(place, part)
                users[place].append(one)
    progress.expect(sum(part.nbytes for part in parts.values()))
    tallies = side_by_side(_tally, parts.values(), progress)
    for place, tally in zip(parts, tallies, strict=True):
        for one in users[place]:
            yield from _findings_of(one, tally, parts[place].numel or 0)


def _findings_of(one: ClassifiedEntry, tally: _Tally, numel: int) -> Iterator[Finding]:
    path = one.entry.path or "/"
    if tally.nan:
        yield Finding("numbers", "nan", path, one.name, f"{_share(tally.nan, numel)} NaN")
    if tally.inf:
        yield Finding("numbers", "inf", path, one.name, f"{_share(tally.inf, numel)} infinite")


def _share(count: int, numel: int) -> str:
    return f"{count:,} of {numel:,} {'element is' if numel == 1 else 'elements are'}"


# Values ----------------------------------------------------------------------------------------


def _tally(tensor: TensorRef, progress: Progress) -> _Tally:
    nan = inf = 0
    is_all_finite = _finite_test(tensor.dtype)
    for chunk in read_elements(tensor):
        progress.advance(chunk.nbytes)
        numbers = _reals(chunk, tensor.dtype)
        if not is_all_finite(numbers):
            nan_here, inf_here = _count(numbers)
            nan, inf = nan + nan_here, inf + inf_here
    return _Tally(nan, inf)


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


def _count(numbers: NDArray[Any]) -> tuple[int, int]:
    import numpy as np

    return int(np.isnan(numbers).sum()), int(np.isinf(numbers).sum())


# Statistics and counters -----------------------------------------------------------------------


def statistic_findings(entries: Sequence[ClassifiedEntry]) -> Iterator[Finding]:
    """Yield variances below zero, and counters that are not what a normalisation counts with."""
    by_keys = {one.entry.keys: one for one in entries}
    for one in entries:
        tensor, leaf = one.entry.tensor, _split(one)[1]
        if tensor is None or not isinstance(tensor.data, Strided):
            continue
        if leaf == _VARIANCE and tensor.dtype.kind == "float":
            negative = sum(int((chunk < 0).sum()) for chunk in read_elements(tensor))
            if negative:
                detail = f"{_share(negative, tensor.numel or 0)} below zero"
                yield _finding("negative-variance", one, detail)
        elif leaf == _COUNTER:
            wrong = _wrong_counter(tensor) or _idle_counter(one, tensor, by_keys)
            if wrong is not None:
                yield _finding("counter", one, wrong)


def _finding(code: Code, one: ClassifiedEntry, detail: str) -> Finding:
    return Finding("numbers", code, one.entry.path or "/", one.name, detail)


def _wrong_counter(tensor: TensorRef) -> str | None:
    if tensor.dtype.name == "int64" and tensor.shape == ():
        return None
    return f"{tensor.dtype} {list(tensor.shape)}, where torch counts with int64 []"


def _idle_counter(
    one: ClassifiedEntry, counter: TensorRef, by_keys: Mapping[KeyPath, ClassifiedEntry]
) -> str | None:
    """What is wrong with a counter of zero: the statistics beside it have seen data."""
    if any(chunk.any() for chunk in read_elements(counter)):
        return None
    above, _ = _split(one)
    for leaf, initial in ((_MEAN, 0), (_VARIANCE, 1)):
        statistic = by_keys.get((*one.entry.keys[:-1], above + leaf))
        tensor = None if statistic is None else statistic.entry.tensor
        if tensor is None or not isinstance(tensor.data, Strided):
            continue
        if any((chunk != initial).any() for chunk in read_elements(tensor)):
            return f"it is 0, though {leaf} is no longer {initial}"
    return None


def _split(one: ClassifiedEntry) -> tuple[str, str]:
    """The last key of an entry: the module's path with its dot, and the name behind it."""
    keys = one.entry.keys
    key = keys[-1] if keys and isinstance(keys[-1], str) else ""
    leaf = key.rpartition(".")[2]
    return key.removesuffix(leaf), leaf
