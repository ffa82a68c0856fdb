"""What a person looks at of a tensor: all elements of a small one, the corners of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Final

from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import read_elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Excerpt", "excerpt"]

_WHOLE_UP_TO: Final = 1_000
_CORNERS_UP_TO: Final = 2_500


@dataclass(frozen=True, slots=True, eq=False)
class Excerpt:
    """Elements in the tensor's shape, complex32 ones as pairs.

    `edge_items` is how many stand at either end of an axis that was cut, with one more between
    them in the place of all others; None where no axis was cut.
    """

    elements: NDArray[Any]
    edge_items: int | None


def excerpt(tensor: TensorRef) -> Excerpt | None:
    """Return what is shown of a tensor's elements.

    Of a large tensor only the elements that are shown are read. None where a tensor has so many
    axes that its corners are too many, where several elements share a byte, and where it has no
    elements of its own.
    """
    import numpy as np

    if not isinstance(tensor.data, Strided) or tensor.dtype.per_item > 1:
        return None
    if prod(tensor.shape) <= _WHOLE_UP_TO:
        chunks = list(read_elements(tensor))
        pair = (2,) if tensor.dtype.name == "complex32" else ()
        if not chunks:
            # numpy has no room for a shape like (0, 1 << 62).
            return Excerpt(np.empty(0), None)
        return Excerpt(np.concatenate(chunks).reshape((*tensor.shape, *pair)), None)
    for edge_items in (3, 1):
        if prod(len(_kept(size, edge_items)) for size in tensor.shape) <= _CORNERS_UP_TO:
            return Excerpt(_corners(tensor, tensor.shape, tensor.data, edge_items), edge_items)
    return None


def _kept(size: int, edge_items: int) -> Sequence[int]:
    if size <= 2 * edge_items:
        return range(size)
    return [*range(edge_items + 1), *range(size - edge_items, size)]


def _corners(
    tensor: TensorRef, shape: tuple[int, ...], data: Strided, edge_items: int
) -> NDArray[Any]:
    """The corners of a part of the tensor, which has this shape and begins where `data` says."""
    import numpy as np

    if not shape:
        (element,) = read_elements(replace(tensor, shape=(), data=data))
        return element if tensor.dtype.name == "complex32" else element.reshape(())
    step, *stride = data.stride
    return np.stack(
        [
            _corners(
                tensor,
                shape[1:],
                data._replace(offset=data.offset + index * step, stride=tuple(stride)),
                edge_items,
            )
            for index in _kept(shape[0], edge_items)
        ]
    )
