"""The value that a buffer is reset to, as the elements of its own dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptool.spec.model_spec import Content, Fill, Range
from ckptool.tensors.dtypes import DTYPES, DType
from ckptool.values import numpy_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptool.spec.model_spec import TensorSpec
    from ckptool.tensors.refs import TensorRef

__all__ = ["RULES", "NoValueError", "ResetValue", "filled", "initial_value"]

RULES: Final[Mapping[str, int]] = {
    "running_mean": 0,
    "running_var": 1,
    "num_batches_tracked": 0,
}
"""What `reset_running_stats` of torch's normalisations sets; other modules use the names alike."""


class NoValueError(Exception):
    """Why a buffer cannot be given a value; it is then left as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class ResetValue:
    """The elements of a tensor in its own dtype and shape, and how they are told."""

    elements: NDArray[Any]
    told: str
    is_rounded: bool = False

    def is_same(self, other: ResetValue) -> bool:
        """Whether another value has the same elements."""
        mine, its = self.elements, other.elements
        if (mine.shape, mine.dtype) != (its.shape, its.dtype):
            return False
        if not (any(mine.strides) or any(its.strides)):
            # One number throughout, however often.
            mine, its = (one[(slice(0, 1),) * one.ndim] for one in (mine, its))
        return mine.tobytes() == its.tobytes()


def filled(tensor: TensorRef, value: float) -> ResetValue:
    """Return a tensor full of one number; raise NoValueError where its dtype has no such number."""
    import numpy as np

    converted, is_rounded = _converted(_one(value), tensor.dtype)
    is_whole = isinstance(value, int) or value.is_integer()
    told = str(int(value) if is_whole else value)
    return ResetValue(np.broadcast_to(converted, _shape(tensor)), told, is_rounded)


def initial_value(
    tensor: TensorRef, spec: TensorSpec, content: bytes | None, told: str
) -> ResetValue:
    """Return a model's initial value of a buffer; raise NoValueError where there is none.

    `content` are its elements where the spec does not hold them; `told` is why there are none, or
    how they are told.
    """
    shape = _shape(tensor)
    if spec.shape != shape:
        expected = "unknown" if spec.shape is None else str(list(spec.shape))
        raise NoValueError(f"its shape is not the model's, {expected}")
    match spec.initial:
        case Fill(value):
            return filled(tensor, value)
        case Range(start, step):
            elements = _range(start, step, tensor.numel or 0)
            told = f"{elements[0]} to {elements[-1]}" if elements.size else "nothing"
        case Content(data):
            elements = _elements(data, spec)
        case _ if content is not None:
            elements = _elements(content, spec)
        case _:
            raise NoValueError(told)
    if elements.size != tensor.numel:
        raise NoValueError("it has another length each time the model is constructed")
    converted, is_rounded = _converted(elements, tensor.dtype)
    return ResetValue(converted.reshape(shape), told, is_rounded)


def _shape(tensor: TensorRef) -> tuple[int, ...]:
    if tensor.numel is None:
        raise NoValueError(f"it is {tensor.layout}")
    return tensor.shape


def _one(value: float) -> NDArray[Any]:
    import numpy as np

    try:
        return np.asarray(value)
    except OverflowError:
        return np.asarray(float(value))


def _range(start: int, step: int, count: int) -> NDArray[Any]:
    import numpy as np

    dtype = np.uint64 if start + step * max(0, count - 1) > np.iinfo(np.int64).max else np.int64
    # Steps down from a large number wrap around, and arrive where they should.
    steps = np.arange(count, dtype=np.int64) * step
    return (steps.astype(np.uint64) + np.uint64(start % (1 << 64))).astype(dtype)


def _elements(data: bytes, spec: TensorSpec) -> NDArray[Any]:
    import numpy as np

    dtype = DTYPES[spec.dtype or ""]
    _check_kind(dtype)
    return np.frombuffer(data, numpy_dtype(dtype))


def _check_kind(dtype: DType) -> None:
    if dtype.kind in ("quantized", "bits") or dtype.per_item > 1 or dtype.name in _PACKED:
        raise NoValueError(f"elements of {dtype} are not set")


_PACKED: Final = {"complex32", "float4_e2m1fn_x2"}


def _converted(elements: NDArray[Any], dtype: DType) -> tuple[NDArray[Any], bool]:
    """Elements in a tensor's own dtype, and whether any had to be rounded."""
    import numpy as np

    _check_kind(dtype)
    target = numpy_dtype(dtype)
    if dtype.kind in ("int", "uint", "bool"):
        _check_integers(elements, dtype)
        return elements.astype(target), False
    if elements.dtype.kind == "c" and dtype.kind != "complex":
        raise NoValueError(f"its initial value is complex, and it is {dtype}")
    # Compared as numbers that hold both: the small floats compare with nothing else.
    wide = np.complex128 if dtype.kind == "complex" else np.float64
    with np.errstate(all="ignore"):
        converted = elements.astype(target)
        before, after = elements.astype(wide), converted.astype(wide)
    is_lost = (np.isnan(after) & ~np.isnan(before)) | (np.isinf(after) & ~np.isinf(before))
    if is_lost.any():
        raise NoValueError(f"its initial value is none that {dtype} has")
    is_same = (before == after) | (np.isnan(before) & np.isnan(after))
    return converted, not bool(is_same.all())


def _check_integers(elements: NDArray[Any], dtype: DType) -> None:
    """Raise NoValueError where a number is no integer, or none of a dtype."""
    import numpy as np

    if elements.dtype.kind not in "iubO":
        numbers = elements.astype(np.complex128)
        if not (np.isfinite(numbers).all() and (numbers == np.trunc(numbers.real)).all()):
            raise NoValueError(f"its initial value is no {dtype}")
        elements = numbers.real
    if not elements.size:
        return
    least, most = (0, 1) if dtype.kind == "bool" else _limits(dtype)
    if not least <= int(elements.min()) <= int(elements.max()) <= most:
        raise NoValueError(f"its initial value does not fit into {dtype}")


def _limits(dtype: DType) -> tuple[int, int]:
    import numpy as np

    limits = np.iinfo(numpy_dtype(dtype))
    return int(limits.min), int(limits.max)
