"""Calls that make a tensor out of others: sparse, quantized, nested, jagged, wrapped ones.

The argument lists are those of `torch/_utils.py` and `torch/nested/_internal/nested_tensor.py` in
torch 2.13, and of TorchScript's own pickler.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.tensors.arguments import arguments, device_in, dtype_in, sizes, tensor_in
from ckptool.tensors.dense import strided
from ckptool.tensors.refs import (
    LARGEST_COUNT,
    MOST_DIMENSIONS,
    Component,
    NoData,
    TensorRef,
    checked_shape,
    components,
)

__all__ = [
    "rebuild_jagged_tensor",
    "rebuild_nested_tensor",
    "rebuild_quantized_tensor",
    "rebuild_sparse_tensor",
    "rebuild_wrapper_subclass",
]


def rebuild_sparse_tensor(node: Opaque) -> TensorRef:
    if len(node.args) > 2:
        return _rebuild_script_sparse_tensor(node)
    layout, data = arguments(node, 2, 2)
    name = _layout(layout)
    roles = _SPARSE_ROLES.get(name)
    if roles is None or type(data) is not tuple or len(data) < len(roles) + 1:
        raise TensorError(f"its sparse layout {name!r} has other parts than torch's")
    parts = tuple(Component(role, tensor_in(part)) for role, part in zip(roles, data, strict=False))
    values = tensor_in(data[len(roles) - 1])
    return TensorRef(
        values.dtype,
        checked_shape(sizes(data[len(roles)])),
        values.requires_grad,
        components(name, parts),
        node,
    )


def _rebuild_script_sparse_tensor(node: Opaque) -> TensorRef:
    """TorchScript's own arguments: `pushLiteralSparseTensor` in `serialization/pickler.cpp`."""
    layout, shape, requires_grad, *parts, _hooks = arguments(node, 6, 7)
    name = _SCRIPT_LAYOUTS.get(layout) if type(layout) is int else None
    roles = _SPARSE_ROLES.get(name or "", ())
    if name is None or len(parts) != len(roles):
        raise TensorError("its sparse layout is none of TorchScript's")
    tensors = [tensor_in(part) for part in parts]
    found = tuple(Component(*pair) for pair in zip(roles, tensors, strict=True))
    return TensorRef(
        tensors[-1].dtype,
        checked_shape(sizes(shape)),
        requires_grad is True,
        components(name, found),
        node,
    )


# `c10::Layout` in `c10/core/Layout.h`.
_SCRIPT_LAYOUTS: Final[dict[int, str]] = {
    1: "sparse_coo",
    2: "sparse_csr",
    4: "sparse_csc",
    5: "sparse_bsr",
    6: "sparse_bsc",
}
_SPARSE_ROLES: Final = {
    "sparse_coo": ("indices", "values"),
    "sparse_csr": ("crow_indices", "col_indices", "values"),
    "sparse_bsr": ("crow_indices", "col_indices", "values"),
    "sparse_csc": ("ccol_indices", "row_indices", "values"),
    "sparse_bsc": ("ccol_indices", "row_indices", "values"),
}


def _layout(node: Node) -> str:
    # Older files name the layout itself, newer ones `torch.serialization._get_layout("torch.x")`.
    if isinstance(node, Opaque) and len(node.args) == 1 and isinstance(node.args[0], str):
        return node.args[0].removeprefix("torch.")
    if isinstance(node, Global):
        return node.name
    raise TensorError("its layout is not named")


def rebuild_quantized_tensor(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, quantizer, requires_grad, _hooks = arguments(node, 7, 7)
    values = strided(node, storage, offset, shape, stride, requires_grad)
    match quantizer:
        case (
            Global("torch", "per_tensor_affine"),
            (int() | float()) as scale,
            int() as zero,
        ) if abs(zero) <= LARGEST_COUNT and abs(scale) <= LARGEST_COUNT:
            parameters = (Component("scale", float(scale)), Component("zero_point", zero))
        case (Global("torch", str()), TensorRef() as scales, TensorRef() as zeros, int()):
            parameters = (Component("scales", scales), Component("zero_points", zeros))
        case _:
            raise TensorError("its quantizer is none of torch's")
    parts = (Component("values", values), *parameters)
    return replace(values, data=components("quantized", parts))


def rebuild_nested_tensor(node: Opaque) -> TensorRef:
    values, shapes, strides, offsets = (tensor_in(part) for part in arguments(node, 4, 4))
    if len(shapes.shape) != 2 or shapes.shape[1] >= MOST_DIMENSIONS:
        raise TensorError("the sizes of its nested tensors are not a matrix")
    count, dimensions = shapes.shape
    parts = (
        Component("values", values),
        Component("sizes", shapes),
        Component("strides", strides),
        Component("offsets", offsets),
    )
    shape = (count, *[-1] * dimensions)
    return TensorRef(values.dtype, shape, values.requires_grad, components("nested", parts), node)


def rebuild_jagged_tensor(node: Opaque) -> TensorRef:
    (keywords,) = arguments(node, 1, 1)
    if type(keywords) is not dict:
        raise TensorError("it is not made from named parts")
    values, offsets = tensor_in(keywords.get("values")), tensor_in(keywords.get("offsets"))
    ragged = keywords.get("_ragged_idx", 1)
    if type(ragged) is not int or not 1 <= ragged <= len(values.shape) or not offsets.shape:
        raise TensorError("its ragged dimension is none of its own")
    parts = [Component("values", values), Component("offsets", offsets)]
    if keywords.get("lengths") is not None:
        parts.append(Component("lengths", tensor_in(keywords["lengths"])))
    rest = list(values.shape)
    rest[ragged - 1] = -1
    return TensorRef(
        values.dtype,
        (offsets.shape[0] - 1, *rest),
        keywords.get("requires_grad") is True,
        components("jagged", tuple(parts)),
        node,
    )


def rebuild_wrapper_subclass(node: Opaque) -> TensorRef:
    cls, dtype, shape, stride, _, _, device, requires_grad = arguments(node, 8, 8)
    return TensorRef(
        dtype_in(dtype),
        checked_shape(sizes(shape)),
        requires_grad is True,
        NoData(sizes(stride)),
        node,
        cls if isinstance(cls, Global) else "tensor",
        device=device_in(device),
    )
