"""The calls that make tensors in a pickle, read into `TensorRef` without being made.

The argument lists are those of torch 2.13 in `torch/_utils.py`, `torch/_tensor.py` and
`torch/nested/_internal/nested_tensor.py`, older forms included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from ckptool.errors import TensorError
from ckptool.pickling.nodes import Global, Node, Opaque, PersistentId, attributes_in
from ckptool.pickling.opcodes import Interpreter
from ckptool.tensors.arrays import read_array
from ckptool.tensors.dtypes import DTYPES, DType, dtype_of_global
from ckptool.tensors.refs import (
    LARGEST_COUNT,
    MOST_DIMENSIONS,
    Component,
    NoData,
    StorageRef,
    Strided,
    TensorRef,
    checked_shape,
    components,
)

__all__ = ["REBUILD_CALLS", "explain", "sizes", "tensor_attributes"]

_T = TypeVar("_T")
_SIZE = Global("torch", "Size")


def explain(node: Opaque) -> TensorError | None:
    """Why a call that should have made a tensor could not be read; None for any other call."""
    read = _READERS.get(node.callee) if isinstance(node.callee, Global) else None
    if read is None:
        return None
    try:
        read(node)
    except TensorError as error:
        return error
    return None


def sizes(node: Node) -> tuple[int, ...]:
    """Return a shape or strides: a tuple or list of counts, or a `torch.Size` of one."""
    if type(node) is Opaque and node.callee == _SIZE and len(node.args) == 1:
        node = node.args[0]
    if type(node) is list:
        node = tuple(node)
    if type(node) is tuple and len(node) <= MOST_DIMENSIONS:
        for size in node:
            if type(size) is not int or not 0 <= size <= LARGEST_COUNT:
                break
        else:
            return node
    raise TensorError("its shape or strides are not a list of counts")


# Dense tensors ---------------------------------------------------------------------------------


def _rebuild_tensor(node: Opaque) -> TensorRef:
    storage, offset, shape, stride = _args(node, 4, 4)
    return _strided(node, storage, offset, shape, stride)


def _rebuild_tensor_v2(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, requires_grad, _hooks, *metadata = _args(node, 6, 7)
    return _strided(node, storage, offset, shape, stride, requires_grad, metadata=metadata)


def _rebuild_tensor_v3(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, requires_grad, _hooks, dtype, *metadata = _args(node, 7, 8)
    return _strided(
        node, storage, offset, shape, stride, requires_grad, _dtype(dtype), metadata=metadata
    )


def _strided(
    node: Opaque,
    storage: Node,
    offset: Node,
    shape: Node,
    stride: Node,
    requires_grad: Node = False,
    dtype: DType | None = None,
    *,
    metadata: list[Node] | None = None,
) -> TensorRef:
    if type(storage) is PersistentId:
        raise TensorError("its storage is kept outside of this pickle")
    if type(storage) is not StorageRef:
        raise TensorError("its first argument is not a storage")
    if type(offset) is not int or not 0 <= offset <= LARGEST_COUNT:
        raise TensorError("its offset is not a count")
    shape, stride = checked_shape(sizes(shape)), sizes(stride)
    if len(shape) != len(stride):
        raise TensorError(f"it has {len(shape)} dimensions and {len(stride)} strides")
    dtype = dtype or storage.dtype
    data: Strided | NoData
    if storage.location == "meta":
        data = NoData(stride)
    else:
        data = Strided(storage, offset, stride, *_bits(dtype, metadata[0] if metadata else None))
    return TensorRef(dtype, shape, requires_grad is True, data, node)


def _bits(dtype: DType, metadata: Node) -> tuple[bool, bool]:
    """The conjugate and the negative bit, as `torch._utils.set_tensor_metadata` gets them."""
    if type(metadata) is not dict:
        return False, False
    is_conjugate, is_negative = metadata.get("conj") is True, metadata.get("neg") is True
    if (is_conjugate and dtype.kind != "complex") or (is_negative and dtype.kind == "bool"):
        raise TensorError(f"it has a conjugate or negative bit, which {dtype} has not")
    return is_conjugate, is_negative


def _rebuild_meta_tensor(node: Opaque) -> TensorRef:
    dtype, shape, stride, requires_grad = _args(node, 4, 4)
    return TensorRef(
        _dtype(dtype),
        checked_shape(sizes(shape)),
        requires_grad is True,
        NoData(sizes(stride)),
        node,
    )


def _rebuild_from_cpu_tensor(node: Opaque) -> TensorRef:
    tensor, _, device, requires_grad = _args(node, 4, 4)
    return replace(
        _tensor(tensor), node=node, device=_device(device), requires_grad=requires_grad is True
    )


def _rebuild_from_numpy(node: Opaque) -> TensorRef:
    array, dtype_name, device, requires_grad = _args(node, 4, 4)
    found = read_array(array)
    if found is None:
        raise TensorError("its first argument is not a numpy array of numbers")
    wanted = _dtype(dtype_name)
    if found.dtype == "float32" and wanted is DTYPES["bfloat16"]:
        # numpy has no bfloat16, so torch writes such tensors widened: the upper halves are they.
        found = found.upper_halves()
    elif found.dtype != wanted.name:
        raise TensorError(f"its numpy array holds {found.dtype}, not {wanted}")
    storage = found.storage(wanted, _device(device))
    data = Strided(storage, 0, found.stride)
    return TensorRef(wanted, found.shape, requires_grad is True, data, node)


# Tensors made of others ------------------------------------------------------------------------


def _rebuild_sparse_tensor(node: Opaque) -> TensorRef:
    if len(node.args) > 2:
        return _rebuild_script_sparse_tensor(node)
    layout, data = _args(node, 2, 2)
    name = _layout(layout)
    roles = _SPARSE_ROLES.get(name)
    if roles is None or type(data) is not tuple or len(data) < len(roles) + 1:
        raise TensorError(f"its sparse layout {name!r} has other parts than torch's")
    parts = tuple(Component(role, _tensor(part)) for role, part in zip(roles, data, strict=False))
    values = _tensor(data[len(roles) - 1])
    return TensorRef(
        values.dtype,
        checked_shape(sizes(data[len(roles)])),
        values.requires_grad,
        components(name, parts),
        node,
    )


def _rebuild_script_sparse_tensor(node: Opaque) -> TensorRef:
    """TorchScript's own arguments: `pushLiteralSparseTensor` in `serialization/pickler.cpp`."""
    layout, shape, requires_grad, *parts, _hooks = _args(node, 6, 7)
    name = _SCRIPT_LAYOUTS.get(layout) if type(layout) is int else None
    roles = _SPARSE_ROLES.get(name or "", ())
    if name is None or len(parts) != len(roles):
        raise TensorError(f"its sparse layout {layout!r} is none of TorchScript's")
    tensors = [_tensor(part) for part in parts]
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


def _rebuild_qtensor(node: Opaque) -> TensorRef:
    storage, offset, shape, stride, quantizer, requires_grad, _hooks = _args(node, 7, 7)
    values = _strided(node, storage, offset, shape, stride, requires_grad)
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


def _rebuild_nested_tensor(node: Opaque) -> TensorRef:
    values, shapes, strides, offsets = (_tensor(part) for part in _args(node, 4, 4))
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


def _rebuild_jagged_tensor(node: Opaque) -> TensorRef:
    (keywords,) = _args(node, 1, 1)
    if type(keywords) is not dict:
        raise TensorError("it is not made from named parts")
    values, offsets = _tensor(keywords.get("values")), _tensor(keywords.get("offsets"))
    ragged = keywords.get("_ragged_idx", 1)
    if type(ragged) is not int or not 1 <= ragged <= len(values.shape) or not offsets.shape:
        raise TensorError("its ragged dimension is none of its own")
    parts = [Component("values", values), Component("offsets", offsets)]
    if keywords.get("lengths") is not None:
        parts.append(Component("lengths", _tensor(keywords["lengths"])))
    rest = list(values.shape)
    rest[ragged - 1] = -1
    return TensorRef(
        values.dtype,
        (offsets.shape[0] - 1, *rest),
        keywords.get("requires_grad") is True,
        components("jagged", tuple(parts)),
        node,
    )


def _rebuild_wrapper_subclass(node: Opaque) -> TensorRef:
    cls, dtype, shape, stride, _, _, device, requires_grad = _args(node, 8, 8)
    return TensorRef(
        _dtype(dtype),
        checked_shape(sizes(shape)),
        requires_grad is True,
        NoData(sizes(stride)),
        node,
        cls if isinstance(cls, Global) else "tensor",
        device=_device(device),
    )


def _device(node: Node) -> str | None:
    """A pickled `torch.device("cuda", 0)` as torch writes it: `cuda:0`."""
    if type(node) is Opaque and node.callee == Global("torch", "device"):
        return ":".join(str(part) for part in node.args)
    return node if type(node) is str else None


# Parameters, buffers, subclasses ---------------------------------------------------------------


def _rebuild_parameter(node: Opaque) -> TensorRef:
    tensor, requires_grad, *_ = _args(node, 3, 4)
    return replace(
        _tensor(tensor), node=node, requires_grad=requires_grad is True, saved_as="parameter"
    )


def _rebuild_from_type(node: Opaque) -> TensorRef:
    callee, cls, args, state = _args(node, 4, 4)
    read = _READERS.get(callee) if isinstance(callee, Global) else None
    is_known = read not in (None, _rebuild_from_type)
    if read is None or not is_known or type(args) is not tuple or not isinstance(cls, Global):
        raise TensorError("it is a subclass that is rebuilt in an unknown way")
    inner = read(Opaque(callee, args))
    attributes = attributes_in(state)
    if attributes.get("_is_buffer") is True:
        persistent = attributes.get("persistent")
        return replace(
            inner,
            node=node,
            saved_as="buffer",
            is_persistent=persistent if isinstance(persistent, bool) else None,
        )
    saved_as = inner.saved_as if cls in _PLAIN_TENSORS else cls
    if isinstance(inner.data, NoData) and (parts := _parts(attributes)):
        return replace(inner, node=node, saved_as=saved_as, data=components("subclass", parts))
    return replace(inner, node=node, saved_as=saved_as)


def _parts(attributes: dict[Node, Node]) -> tuple[Component, ...]:
    return tuple(
        Component(str(name), value)
        for name, value in attributes.items()
        if type(value) is TensorRef
    )


_PLAIN_TENSORS: Final = frozenset({Global("torch", "Tensor"), Global("torch._tensor", "Tensor")})


# Attributes ------------------------------------------------------------------------------------


def tensor_attributes(tensor: TensorRef) -> dict[Node, Node]:
    """Return what a tensor carries besides its elements, by name.

    Its components are none of it, nor are the two marks of an `nn.Buffer`.
    """
    node = tensor.node
    if node is None or not (node.has_state or node.callee in _WITH_STATE):
        return {}
    state = node.args[3] if len(node.args) == 4 else None
    found = _named(state) | _named(node.state)
    if node.callee in _PARAMETERS and type(node.args[0]) is TensorRef:
        found = tensor_attributes(node.args[0]) | found
    if tensor.saved_as == "buffer":
        found = {name: value for name, value in found.items() if name not in _BUFFER_MARKS}
    if tensor.layout == "jagged":
        return {}  # its components again, and caches of their sizes
    if tensor.layout == "subclass":
        found = {name: value for name, value in found.items() if type(value) is not TensorRef}
    return found


def _named(state: Node) -> dict[Node, Node]:
    return attributes_in(state) or ({} if state in (None, {}) else {"__setstate__": state})


_BUFFER_MARKS: Final = frozenset({"_is_buffer", "persistent"})


# Arguments -------------------------------------------------------------------------------------


def _args(node: Opaque, fewest: int, most: int) -> tuple[Node, ...]:
    if not fewest <= len(node.args) <= most:
        raise TensorError(f"{node.callee} is called with {len(node.args)} arguments")
    return node.args


def _tensor(node: Node) -> TensorRef:
    return _require(node if type(node) is TensorRef else None, "a part of it is not a tensor")


def _dtype(node: Node) -> DType:
    return _require(dtype_of_global(node), "its dtype is none of torch's")


def _require(found: _T | None, problem: str) -> _T:
    if found is None:
        raise TensorError(problem)
    return found


_READERS: Final[dict[Node, Callable[[Opaque], TensorRef]]] = {
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_sparse_tensor"): _rebuild_sparse_tensor,
    Global("torch._utils", "_rebuild_sparse_csr_tensor"): _rebuild_sparse_tensor,
    Global("torch._utils", "_rebuild_qtensor"): _rebuild_qtensor,
    Global("torch._utils", "_rebuild_nested_tensor"): _rebuild_nested_tensor,
    Global("torch._utils", "_rebuild_meta_tensor_no_storage"): _rebuild_meta_tensor,
    Global("torch._utils", "_rebuild_wrapper_subclass"): _rebuild_wrapper_subclass,
    Global("torch._utils", "_rebuild_device_tensor_from_numpy"): _rebuild_from_numpy,
    Global("torch._utils", "_rebuild_xla_tensor"): _rebuild_from_numpy,
    Global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_from_cpu_tensor,
    Global("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Global("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    Global("torch.nested._internal.nested_tensor", "_rebuild_njt"): _rebuild_jagged_tensor,
}


_PARAMETERS: Final = frozenset(
    callee for callee, read in _READERS.items() if read is _rebuild_parameter
)
_WITH_STATE: Final = _PARAMETERS | frozenset(
    callee for callee, read in _READERS.items() if read is _rebuild_from_type
)


def _interpreter(read: Callable[[Opaque], TensorRef]) -> Interpreter:
    def interpret(node: Opaque) -> Node:
        try:
            return read(node)
        except TensorError:
            # The key path is not known yet: whoever lists the entries asks `explain` and names it.
            return node

    return interpret


REBUILD_CALLS: Final[dict[Node, Interpreter]] = {
    callee: _interpreter(read) for callee, read in _READERS.items()
}
"""For `read_pickle`: which calls make tensors, and how each is read."""
