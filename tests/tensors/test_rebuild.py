"""The calls that make tensors: what is read from each, and what each refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptool import list_contents
from ckptool.checkpoint.opening import open_checkpoint
from ckptool.errors import TensorError
from ckptool.pickling import nodes
from ckptool.pickling.nodes import Opaque
from ckptool.tensors.arguments import sizes
from ckptool.tensors.dtypes import (
    DTYPES,
    SAFETENSORS_DTYPES,
    STORAGE_DTYPES,
    dtype_of_global,
    dtype_of_storage_class,
)
from ckptool.tensors.rebuild import REBUILD_CALLS, explain
from ckptool.tensors.refs import Components, NoData, Strided, TensorRef, storages_of
from tests import builders
from tests.builders import Call, Global, Tensor, torch_zip

VALUES = Tensor("float32", (6,))
FLOAT = Global("torch", "float32")


def tensor_of(folder: Path, value: object) -> TensorRef:
    path = folder / "checkpoint.pt"
    path.write_bytes(torch_zip({"t": value}))
    with open_checkpoint(path) as checkpoint:
        (tensor,) = [entry.tensor for entry in checkpoint.entries if entry.tensor is not None]
    return tensor


def utils(name: str, *args: object) -> Call:
    return Call(Global("torch._utils", name), args)


def strided(tensor: TensorRef) -> Strided:
    assert isinstance(tensor.data, Strided)
    return tensor.data


# Dtypes ----------------------------------------------------------------------------------------


def test_every_dtype_of_torch_is_in_the_table_with_its_size() -> None:
    of_torch = {
        str(value).removeprefix("torch."): value.itemsize
        for value in vars(torch).values()
        if isinstance(value, torch.dtype)
    }
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == of_torch


def test_floating_dtypes_are_those_of_torch() -> None:
    for name, dtype in DTYPES.items():
        of_torch = getattr(torch, name)
        assert (dtype.kind == "float") == of_torch.is_floating_point, name
        assert (dtype.kind == "complex") == of_torch.is_complex, name


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_every_typed_storage_class_of_torch_is_known() -> None:
    classes = {
        name: value.dtype
        for name, value in vars(torch).items()
        if name.endswith("Storage")
        and hasattr(value, "dtype")
        and name not in ("Storage", "TypedStorage")
    }
    for name, dtype in classes.items():
        assert str(dtype) == f"torch.{STORAGE_DTYPES[name]}", name


def test_aliases_and_old_homes_of_storages_are_understood() -> None:
    assert dtype_of_global(nodes.Global("torch", "half")) is DTYPES["float16"]
    assert dtype_of_global(nodes.Global("numpy", "float32")) is None
    assert dtype_of_global("torch.half") is None
    found = dtype_of_storage_class(nodes.Global("torch.cuda", "HalfStorage"))
    assert found is DTYPES["float16"]
    assert dtype_of_storage_class(nodes.Global("torchvision", "HalfStorage")) is None
    assert SAFETENSORS_DTYPES["BF16"] is DTYPES["bfloat16"]


# Calls -----------------------------------------------------------------------------------------


def test_the_three_versions_of_the_strided_call_are_read(tmp_path: Path) -> None:
    first = utils("_rebuild_tensor", VALUES.storage, 1, (2,), (2,))
    second = utils("_rebuild_tensor_v2", VALUES.storage, 1, (2,), (2,), True, {}, {"neg": True})
    third = utils(
        "_rebuild_tensor_v3", VALUES.storage, 1, (2,), (2,), False, {}, Global("torch", "int32")
    )
    for call, dtype, requires_grad, negative in (
        (first, "float32", False, False),
        (second, "float32", True, True),
        (third, "int32", False, False),
    ):
        tensor = tensor_of(tmp_path, call)
        data = strided(tensor)
        assert (str(tensor.dtype), tensor.shape, data.offset, data.stride) == (
            dtype, (2,), 1, (2,),
        )  # fmt: skip
        assert (tensor.requires_grad, data.is_conjugate, data.is_negative) == (
            requires_grad, False, negative,
        )  # fmt: skip


@pytest.mark.parametrize("bit", ["conj", "neg"])
def test_a_bit_that_a_dtype_cannot_have_is_an_error(bit: str, tmp_path: Path) -> None:
    flags = Tensor("bool", (2,))
    call = utils("_rebuild_tensor_v2", flags.storage, 0, (2,), (1,), False, {}, {bit: True})
    with pytest.raises(TensorError, match="bit"):
        tensor_of(tmp_path, call)


@pytest.mark.parametrize("shape", [(1,) * 65, (2**62, 4), (2**63,), (-1,), (2.0,)])
def test_a_shape_that_no_tensor_has_is_an_error(shape: tuple[int, ...], tmp_path: Path) -> None:
    call = utils("_rebuild_tensor_v2", VALUES.storage, 0, shape, (0,) * len(shape), False, {})
    with pytest.raises(TensorError, match="shape"):
        tensor_of(tmp_path, call)


def test_tensors_made_of_tensors_made_of_tensors_are_an_error(tmp_path: Path) -> None:
    layout = Call(Global("torch.serialization", "_get_layout"), ("torch.sparse_coo",))
    nested: object = VALUES
    for _ in range(40):
        nested = utils("_rebuild_sparse_tensor", layout, (nested, nested, (2, 3), True))
    with pytest.raises(TensorError):
        tensor_of(tmp_path, nested)


def test_a_shape_may_be_a_size_or_a_list(tmp_path: Path) -> None:
    call = utils("_rebuild_tensor", VALUES.storage, 0, builders.torch_size((2, 3)), [3, 1])
    assert tensor_of(tmp_path, call).shape == (2, 3)
    with pytest.raises(TensorError):
        sizes((1, -2))
    with pytest.raises(TensorError):
        sizes("no shape")


@pytest.mark.parametrize("parameter", ["_rebuild_parameter", "_rebuild_parameter_with_state"])
def test_a_parameter_keeps_what_it_is(parameter: str, tmp_path: Path) -> None:
    args: list[object] = [VALUES, False, {}]
    if parameter.endswith("state"):
        args.append({"note": 1})
    tensor = tensor_of(tmp_path, utils(parameter, *args))
    assert (tensor.saved_as, tensor.requires_grad) == ("parameter", False)


def test_a_subclass_keeps_its_class_and_a_tensor_with_attributes_is_a_tensor(
    tmp_path: Path,
) -> None:
    plain = tensor_of(tmp_path, builders.with_attributes(VALUES, {"note": "x"}))
    assert plain.saved_as == "tensor"
    own = builders.with_attributes(VALUES, {"note": "x"}, Global("mine", "Tensor"))
    assert str(tensor_of(tmp_path, own).saved_as) == "mine.Tensor"
    slotted = builders.with_attributes(VALUES, {})
    slotted = Call(slotted.function, (*slotted.args[:3], ({"persistent": 1}, {"_is_buffer": True})))
    buffer = tensor_of(tmp_path, slotted)
    assert (buffer.saved_as, buffer.is_persistent) == ("buffer", None)


def test_attributes_of_a_tensor_are_entries_below_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    noted = builders.with_attributes(VALUES, {"scale": VALUES, "note": "x"})
    parameter = utils("_rebuild_parameter_with_state", noted, True, {}, (None, {"axis": 1}))
    path.write_bytes(torch_zip({"t": parameter}))
    with open_checkpoint(path) as checkpoint:
        found = [(entry.path, entry.member) for entry in checkpoint.entries]
        (inside,) = list_contents(checkpoint, patterns=["*"]).entries
    assert found == [
        ("t", None),
        ("t/scale", "attribute"),
        ("t/note", "attribute"),
        ("t/axis", "attribute"),
    ]
    assert inside.name == "t"


def test_a_wrapper_subclass_is_made_of_the_tensors_in_it(tmp_path: Path) -> None:
    float32 = Global("torch", "float32")
    layout = Call(Global("torch.serialization", "_get_layout"), ("torch.strided",))
    cpu = Call(Global("torch", "device"), ("cpu",))
    args = (Global("mine", "Wrapped"), float32, (2, 3), (3, 1), 0, layout, cpu, False)
    inner = (Global("torch._utils", "_rebuild_wrapper_subclass"), Global("mine", "Wrapped"))
    rebuild = Global("torch._tensor", "_rebuild_from_type_v2")
    # A class with slots, as DTensor is one, has its tensors in the second half of its state.
    for state in ({"packed": VALUES}, (None, {"packed": VALUES})):
        tensor = tensor_of(tmp_path, Call(rebuild, (*inner, args, state)))
        assert (tensor.layout, tensor.shape, tensor.nbytes) == ("subclass", (2, 3), 24)
        assert tensor.location == "cpu"
    assert isinstance(tensor.data, Components)
    assert [part.role for part in tensor.data.parts] == ["packed"]


def test_meta_tensors_have_no_data(tmp_path: Path) -> None:
    call = utils(
        "_rebuild_meta_tensor_no_storage", Global("torch", "float32"), (2, 3), (3, 1), True
    )
    tensor = tensor_of(tmp_path, call)
    assert isinstance(tensor.data, NoData)
    assert (tensor.location, tensor.shape, tensor.requires_grad) == ("meta", (2, 3), True)
    assert storages_of(tensor) == ()


def test_sparse_tensors_have_indices_and_values(tmp_path: Path) -> None:
    indices = Tensor("int64", (1, 3), [0, 2, 4])
    tensor = tensor_of(tmp_path, builders.sparse_coo(indices, Tensor("float32", (3,)), (6,)))
    assert (tensor.layout, tensor.shape, str(tensor.dtype)) == ("sparse_coo", (6,), "float32")
    assert tensor.nbytes == 24 + 12
    old = utils(
        "_rebuild_sparse_csr_tensor",
        Global("torch", "sparse_csr"),
        (Tensor("int64", (2,)), Tensor("int64", (1,)), Tensor("float32", (1,)), (1, 4)),
    )
    assert tensor_of(tmp_path, old).layout == "sparse_csr"


def test_a_quantized_tensor_has_its_scale(tmp_path: Path) -> None:
    made = builders.quantized(Tensor("qint8", (2, 2)), scale=0.5, zero_point=3)
    tensor = tensor_of(tmp_path, made)
    assert isinstance(tensor.data, Components)
    assert [(part.role, part.value) for part in tensor.data.parts[1:]] == [
        ("scale", 0.5),
        ("zero_point", 3),
    ]


def array(dtype: str, shape: tuple[int, ...], data: bytes, order: str = "<") -> Call:
    core = "numpy._core.multiarray"
    described = Call(
        Global("numpy", "dtype"), (dtype, False, True), (3, order, None, None, None, -1, -1, 0)
    )
    return Call(
        Global(core, "_reconstruct"),
        (Global("numpy", "ndarray"), (0,), b"b"),
        (1, shape, described, False, data),
    )


def test_tensors_of_other_devices_come_as_numpy_arrays(tmp_path: Path) -> None:
    floats = array("f4", (2,), b"\0\0\x80\x3f\0\0\0\x40")
    call = utils("_rebuild_device_tensor_from_numpy", floats, FLOAT, "xla:0", True)
    tensor = tensor_of(tmp_path, call)
    assert (tensor.location, tensor.shape) == ("xla:0", (2,))
    half = tensor_of(
        tmp_path, utils("_rebuild_xla_tensor", floats, Global("torch", "bfloat16"), "xla:0", False)
    )
    storage = strided(half).storage
    assert storage.extent is not None
    assert storage.extent.source.read(0, 4) == b"\x80\x3f\0\x40"
    moved = utils("_rebuild_device_tensor_from_cpu_tensor", VALUES, Global("torch", "float32"),
                  "hpu", False)  # fmt: skip
    assert tensor_of(tmp_path, moved).location == "hpu"


COO = Call(Global("torch.serialization", "_get_layout"), ("torch.sparse_coo",))


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (utils("_rebuild_tensor_v2", 1, 2), "2 arguments"),
        (utils("_rebuild_tensor", "storage", 0, (), ()), "not a storage"),
        (utils("_rebuild_tensor", VALUES.storage, -1, (), ()), "offset"),
        (utils("_rebuild_tensor", VALUES.storage, True, (), ()), "offset"),
        (utils("_rebuild_tensor", VALUES.storage, 0, (2,), ()), "1 dimensions and 0 strides"),
        (utils("_rebuild_tensor", VALUES.storage, 0, (-1,), (1,)), "not a list of counts"),
        (
            utils("_rebuild_tensor_v3", VALUES.storage, 0, (), (), False, {}, "float"),
            "dtype is none",
        ),
        (utils("_rebuild_sparse_tensor", COO, (1,)), "other parts"),
        (utils("_rebuild_sparse_tensor", 5, ()), "layout is not named"),
        (utils("_rebuild_sparse_tensor", COO, (1, 2, (3,), True)), "not a tensor"),
        (
            utils("_rebuild_qtensor", VALUES.storage, 0, (), (), "none", False, {}),
            "quantizer",
        ),
        (utils("_rebuild_nested_tensor", VALUES, VALUES, VALUES, VALUES), "not a matrix"),
        (
            Call(Global("torch.nested._internal.nested_tensor", "_rebuild_njt"), ((),)),
            "named parts",
        ),
        (
            Call(
                Global("torch.nested._internal.nested_tensor", "_rebuild_njt"),
                ({"values": VALUES, "offsets": VALUES, "_ragged_idx": 9},),
            ),
            "ragged",
        ),
        (
            Call(Global("torch._tensor", "_rebuild_from_type_v2"), (1, 2, 3, 4)),
            "unknown way",
        ),
        (utils("_rebuild_xla_tensor", 1, FLOAT, "xla", False), "numpy array"),
        (
            utils("_rebuild_xla_tensor", array("i4", (1,), bytes(4)), FLOAT, "xla", False),
            "holds int32",
        ),
    ],
)
def test_a_call_with_other_arguments_is_an_error_with_the_path(
    call: Call, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(TensorError, match=problem) as caught:
        tensor_of(tmp_path, call)
    assert caught.value.key_path == "t"


def test_every_call_refuses_nonsense_without_failing() -> None:
    nonsense: list[Any] = [None, -1, "x", (), [], {}, VALUES, nodes.Global("a", "b")]
    for callee, interpret in REBUILD_CALLS.items():
        for count in range(9):
            for item in nonsense:
                node = Opaque(callee, (item,) * count)
                assert interpret(node) is node
                assert isinstance(explain(node), TensorError)


def test_other_calls_need_no_explanation() -> None:
    assert explain(Opaque(nodes.Global("os", "system"), ())) is None
