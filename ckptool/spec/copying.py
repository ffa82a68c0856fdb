"""Whether torch can copy a tensor of a file into one of a model, once their shapes agree."""

from __future__ import annotations

from typing import Final, NamedTuple

from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import Components, NoData, Strided, TensorRef

__all__ = ["CopyProblem", "find_copy_problem", "is_usual"]


class CopyProblem(NamedTuple):
    """Why a copy fails; or why it may, where a spec does not tell enough of the model's tensor."""

    sentence: str
    is_certain: bool


_SMALL: Final = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8))
"""What `copy_` has no kernel for, as of torch 2.13; not even for one of these into the same."""

_ALIKE: Final = frozenset(name for name, dtype in DTYPES.items() if dtype.kind == "bits") | {
    "float4_e2m1fn_x2"
}
"""What is copied into the same dtype only."""

_QUANTIZED: Final = frozenset(name for name, dtype in DTYPES.items() if dtype.kind == "quantized")

_USUAL: Final = frozenset(DTYPES) - _SMALL - _ALIKE - _QUANTIZED
"""Each of these is copied into each other: `copy_` converts."""


def is_usual(tensor: TensorRef) -> bool:
    """Whether a tensor is dense and of a dtype that `copy_` converts from and to."""
    return type(tensor.data) is Strided and tensor.dtype.name in _USUAL


def find_copy_problem(name: str, tensor: TensorRef, dtype: str | None) -> CopyProblem | None:
    """Say what is in the way of `copy_` from a tensor into a dense one of a dtype, if anything.

    The dtype is None for a tensor that takes the one of the file's.
    """
    if is_usual(tensor) and dtype in _USUAL:
        return None
    if isinstance(tensor.data, NoData):
        return CopyProblem("it is on the meta device: it has no data to copy", True)
    if isinstance(tensor.data, Components) and tensor.data.layout != "quantized":
        sentence = f"whether the model's {name!r} is {tensor.data.layout} too is not recorded"
        return CopyProblem(sentence, False)
    return None if dtype is None else _between_dtypes(name, tensor, dtype)


def _between_dtypes(name: str, tensor: TensorRef, dtype: str) -> CopyProblem | None:
    source = tensor.dtype.name
    if dtype in _QUANTIZED and source in (dtype, "float32"):
        return CopyProblem(f"how the model's {name!r} is quantized is not recorded", False)
    if source not in _QUANTIZED:
        # Without elements nothing is copied, and nothing fails but quantizing.
        is_copied = source == dtype and source in _ALIKE
        is_copied = is_copied or (source in _USUAL and dtype in _USUAL)
        if is_copied or (tensor.numel == 0 and dtype not in _QUANTIZED):
            return None
    return CopyProblem(f"torch cannot copy {source} into {dtype}", True)
