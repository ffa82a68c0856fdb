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

_KINDS: Final = {"float": "float", "complex": "complex", "int": "integer", "uint": "integer"}


class NoValueError(Exception):
    """Why a buffer cannot be given a value; it is then left as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class ResetValue:
    """The elements of a tensor in its own dtype and shape, and how they are told."""

    elements: NDArray[Any]
    told: str
    is_rounded: bool = False


def filled(tensor: TensorRef, value: float) -> ResetValue:
    """Return a tensor full of one number; raise NoValueError where its dtype has no such number."""
    import numpy as np

    element = np.asarray(value)
    if tensor.dtype.kind in ("int", "uint", "bool") and not float(value).is_integer():
        raise NoValueError(f"{value} is no {tensor.dtype}")
    converted, is_rounded = _converted(element, tensor.dtype)
    told = str(int(value) if float(value).is_integer() else value)
    return ResetValue(np.broadcast_to(converted, tensor.shape), told, is_rounded)


def initial_value(
    tensor: TensorRef, spec: TensorSpec, content: bytes | None, told: str
) -> ResetValue:
    """Return a model's initial value of a buffer; raise NoValueError where there is none.

    `content` are its elements where the spec does not hold them.
    """
    import numpy as np

    if spec.shape != tensor.shape:
        raise NoValueError(f"its shape is not the model's, {_shape_text(spec.shape)}")
    match spec.initial:
        case Fill(value):
            return filled(tensor, value)
        case Range(start, step):
            last = start + step * max(0, (tensor.numel or 0) - 1)
            numbers = np.arange(tensor.numel or 0, dtype=np.int64) * step + start
            elements, told = numbers, f"{start} to {last}"
        case Content(data):
            elements = _elements(data, spec)
        case _ if content is not None:
            elements = _elements(content, spec)
        case _:
            raise NoValueError(told)
    converted, is_rounded = _converted(elements, tensor.dtype)
    return ResetValue(converted.reshape(tensor.shape), told, is_rounded)


def _elements(data: bytes, spec: TensorSpec) -> NDArray[Any]:
    import numpy as np

    dtype = DTYPES[spec.dtype or ""]
    if dtype.per_item > 1:
        raise NoValueError(f"elements of {dtype} are packed")
    return np.frombuffer(data, numpy_dtype(dtype))


def _converted(elements: NDArray[Any], dtype: DType) -> tuple[NDArray[Any], bool]:
    """Elements in a tensor's own dtype, and whether any had to be rounded."""
    import numpy as np

    if dtype.kind in ("quantized", "bits") or dtype.per_item > 1 or dtype.name == "complex32":
        raise NoValueError(f"elements of {dtype} are not set")
    target = numpy_dtype(dtype)
    with np.errstate(all="ignore"):
        converted = elements.astype(target)
        # Compared as numbers that hold both: the small floats compare with nothing else.
        wide = np.complex128 if dtype.kind == "complex" else np.float64
        is_integer = dtype.kind in ("int", "uint", "bool") and elements.dtype.kind in "iub"
        before, after = (
            (elements, converted) if is_integer else (elements.astype(wide), converted.astype(wide))
        )
    is_same = np.asarray((before == after) | ((before != before) & (after != after)))
    if not is_same.all() and dtype.kind not in ("float", "complex"):
        raise NoValueError(f"its initial value does not fit into {dtype}")
    if bool((np.isinf(after) & ~np.isinf(before)).any()):
        raise NoValueError(f"its initial value is too large for {dtype}")
    return converted, not bool(is_same.all())


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "unknown" if shape is None else str(list(shape))
