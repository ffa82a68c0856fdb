"""The builders against what they imitate: pickletools, zipfile, torch and safetensors."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from safetensors import deserialize
from torch.package.package_importer import PackageImporter

from tests import builders, strategies
from tests.builders import Call, Global, Raw, Storage, Tensor, ZipRecord

DTYPES = sorted(builders.STORAGE_CLASSES.keys() - {"qint8", "quint8", "qint32"})
UNTYPED_DTYPES = sorted(builders.ITEMSIZES.keys() - builders.STORAGE_CLASSES.keys())

OPCODES: list[tuple[str, bytes, object]] = [
    ("MARK", builders.MARK, None),
    ("STOP", builders.STOP, None),
    ("POP", builders.POP, None),
    ("POP_MARK", builders.POP_MARK, None),
    ("DUP", builders.DUP, None),
    ("NONE", builders.NONE, None),
    ("NEWTRUE", builders.NEWTRUE, None),
    ("NEWFALSE", builders.NEWFALSE, None),
    ("EMPTY_LIST", builders.EMPTY_LIST, None),
    ("APPEND", builders.APPEND, None),
    ("APPENDS", builders.APPENDS, None),
    ("LIST", builders.LIST, None),
    ("EMPTY_TUPLE", builders.EMPTY_TUPLE, None),
    ("TUPLE", builders.TUPLE, None),
    ("TUPLE1", builders.TUPLE1, None),
    ("TUPLE2", builders.TUPLE2, None),
    ("TUPLE3", builders.TUPLE3, None),
    ("EMPTY_DICT", builders.EMPTY_DICT, None),
    ("DICT", builders.DICT, None),
    ("SETITEM", builders.SETITEM, None),
    ("SETITEMS", builders.SETITEMS, None),
    ("EMPTY_SET", builders.EMPTY_SET, None),
    ("ADDITEMS", builders.ADDITEMS, None),
    ("FROZENSET", builders.FROZENSET, None),
    ("REDUCE", builders.REDUCE, None),
    ("BUILD", builders.BUILD, None),
    ("OBJ", builders.OBJ, None),
    ("NEWOBJ", builders.NEWOBJ, None),
    ("NEWOBJ_EX", builders.NEWOBJ_EX, None),
    ("STACK_GLOBAL", builders.STACK_GLOBAL, None),
    ("MEMOIZE", builders.MEMOIZE, None),
    ("BINPERSID", builders.BINPERSID, None),
    ("NEXT_BUFFER", builders.NEXT_BUFFER, None),
    ("READONLY_BUFFER", builders.READONLY_BUFFER, None),
    ("PROTO", builders.proto(5), 5),
    ("FRAME", builders.frame(77), 77),
    ("INT", builders.int_(-12), -12),
    ("LONG", builders.long_(1 << 80), 1 << 80),
    ("BININT", builders.binint(-5), -5),
    ("BININT1", builders.binint1(255), 255),
    ("BININT2", builders.binint2(65535), 65535),
    ("LONG1", builders.long1(-(1 << 63)), -(1 << 63)),
    ("LONG4", builders.long4(1 << 4000), 1 << 4000),
    ("FLOAT", builders.float_(1.5), 1.5),
    ("BINFLOAT", builders.binfloat(-0.1), -0.1),
    ("STRING", builders.string("it's"), "it's"),
    ("BINSTRING", builders.binstring(b"abc"), "abc"),
    ("SHORT_BINSTRING", builders.short_binstring(b"abc"), "abc"),
    ("UNICODE", builders.unicode_("a\\ü\n"), "a\\ü\n"),
    ("SHORT_BINUNICODE", builders.short_binunicode("ü"), "ü"),
    ("BINUNICODE", builders.binunicode("ü\ud800"), "ü\ud800"),
    ("BINUNICODE8", builders.binunicode8("ü"), "ü"),
    ("SHORT_BINBYTES", builders.short_binbytes(b"\0\1"), b"\0\1"),
    ("BINBYTES", builders.binbytes(b"\0\1"), b"\0\1"),
    ("BINBYTES8", builders.binbytes8(b"\0\1"), b"\0\1"),
    ("BYTEARRAY8", builders.bytearray8(b"\0\1"), bytearray(b"\0\1")),
    ("PUT", builders.put(300), 300),
    ("GET", builders.get(300), 300),
    ("BINPUT", builders.binput(200), 200),
    ("BINGET", builders.binget(200), 200),
    ("LONG_BINPUT", builders.long_binput(1 << 31), 1 << 31),
    ("LONG_BINGET", builders.long_binget(1 << 31), 1 << 31),
    ("GLOBAL", builders.global_("a.b", "C.d"), "a.b C.d"),
    ("INST", builders.inst("a.b", "C"), "a.b C"),
    ("PERSID", builders.persid("17"), "17"),
    ("EXT1", builders.ext1(200), 200),
    ("EXT2", builders.ext2(60000), 60000),
    ("EXT4", builders.ext4(1 << 30), 1 << 30),
]


def load(data: bytes) -> object:
    return torch.load(io.BytesIO(data), weights_only=True)


def saved(value: object, **options: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **options)  # type: ignore[arg-type]
    return out.getvalue()


def record(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


# ---------------------------------------------------------------------------------------- opcodes


@pytest.mark.parametrize(("name", "opcode", "argument"), OPCODES, ids=[row[0] for row in OPCODES])
def test_an_opcode_is_what_pickletools_takes_it_for(
    name: str, opcode: bytes, argument: object
) -> None:
    found, value, _ = next(pickletools.genops(opcode + builders.STOP))
    assert (found.name, value) == (name, argument)
    assert len(list(pickletools.genops(opcode + builders.STOP))) == (1 if name == "STOP" else 2)


def test_no_opcode_is_missing() -> None:
    assert {opcode.name for opcode in pickletools.opcodes} == {row[0] for row in OPCODES}


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 255, 256, -(1 << 15), 1 << 2100])
def test_a_long_comes_back(value: int) -> None:
    assert pickle.loads(builders.stream(builders.long4(value))) == value


# ------------------------------------------------------------------------------------------ trees

PLAIN: list[object] = [
    None, True, 0, 255, 256, 65536, -1, 1 << 31, -(1 << 200), 1 << 3000, 1.5, "", "ü", b"",
    b"\xff\0", 1j, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], list(range(1000)),
    list(range(1001)), {}, {"a": 1}, {1: 2, 3: 4}, set(), {"a"}, frozenset({1}), OrderedDict(),
    OrderedDict(a=1), OrderedDict((i, i) for i in range(2001)),
    {i: i for i in range(1000)}, {i: i for i in range(1001)}, {i: i for i in range(2000)},
    [{f"{i}": [i] for i in range(300)}], {"a": "b", "c": "b"},
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:24])
def test_a_plain_value_is_written_as_the_pickler_writes_it(value: object) -> None:
    assert pickle.loads(builders.to_pickle(value)) == value
    if not isinstance(value, bytes):  # `__builtin__.bytes` against `__builtin__ bytes` with a memo
        assert builders.to_pickle(value) == pickle.dumps(value, 2)


def test_a_value_met_twice_is_the_same_object_twice() -> None:
    shared = ["x"]
    first, second = pickle.loads(builders.to_pickle([shared, shared]))
    assert first is second


def test_a_list_can_hold_itself() -> None:
    value: list[object] = []
    value.append(value)
    loaded = pickle.loads(builders.to_pickle(value))
    assert loaded[0] is loaded


def test_a_tuple_can_hold_itself_through_a_list() -> None:
    inner: list[object] = []
    inner.append((inner, 1))
    loaded = pickle.loads(builders.to_pickle(inner[0]))
    assert loaded[0][0] is loaded


def test_raw_opcodes_and_calls_stand_anywhere() -> None:
    tree = {"raw": Raw(builders.long_(7)), "call": Call(Global("fractions", "Fraction"), (1, 2))}
    loaded = pickle.loads(builders.to_pickle(tree))
    assert (loaded["raw"], str(loaded["call"])) == (7, "1/2")


# ---------------------------------------------------------------------------------------- torch zip


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated", "ignore:torch.quantize_per_tensor")
def test_the_pickle_is_torchs_to_the_byte() -> None:
    shared = torch.arange(6.0)
    theirs = {
        "model": OrderedDict(a=shared.view(2, 3), b=shared[1:4], c=shared.view(2, 3).T),
        "half": torch.zeros(3, dtype=torch.float16),
        "empty": torch.zeros(0, 2),
        "parameter": torch.nn.Parameter(torch.zeros(2)),
        "buffer": torch.nn.Buffer(torch.zeros(2), persistent=False),
        "float8": torch.zeros(2, dtype=torch.float8_e5m2),
        "conjugate": torch.zeros(2, dtype=torch.complex64).conj(),
        "quantized": torch.quantize_per_tensor(torch.zeros(2), 0.5, 3, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
        "epoch": 3,
    }
    storage = Storage("float32", builders.pack("float32", range(6)))
    ours = {
        "model": OrderedDict(
            a=Tensor("float32", (2, 3), storage=storage),
            b=Tensor("float32", (3,), storage=storage, offset=1),
            c=Tensor("float32", (3, 2), storage=storage, stride=(1, 3)),
        ),
        "half": Tensor("float16", (3,), [0]),
        "empty": Tensor("float32", (0, 2)),
        "parameter": builders.parameter(Tensor("float32", (2,), [0])),
        "buffer": builders.buffer(Tensor("float32", (2,), [0]), persistent=False),
        "float8": Tensor("float8_e5m2", (2,), [0]),
        "conjugate": Tensor("complex64", (2,), [0], metadata={"conj": True}),
        "quantized": builders.quantized(Tensor("qint8", (2,), [3]), scale=0.5, zero_point=3),
        "sparse": builders.sparse_coo(
            Tensor("int64", (2, 2), [0, 1, 0, 1]), Tensor("float32", (2,), [1]), (2, 2)
        ),
        "epoch": 3,
    }
    theirs_bytes, ours_bytes = saved(theirs), builders.torch_zip(ours)
    assert _without_memo(ours_bytes) == _without_memo(theirs_bytes)


def _without_memo(data: bytes) -> bytes:
    return pickletools.optimize(record(data, "archive/data.pkl"))


def test_the_file_is_torchs_to_the_byte_but_for_the_serialization_id() -> None:
    theirs = saved({"w": torch.arange(6.0).reshape(2, 3), "empty": torch.zeros(0)})
    ours = builders.torch_zip({"w": Tensor("float32", (2, 3)), "empty": Tensor("float32", (0,))})
    serialization_id = record(theirs, "archive/.data/serialization_id")
    records = builders.torch_records(
        {"w": Tensor("float32", (2, 3)), "empty": Tensor("float32", (0,))}
    )
    records = builders.with_record(
        records, "serialization_id", lambda found: replace(found, data=serialization_id)
    )
    assert len(ours) == len(theirs)
    assert builders.zip_archive(records) == theirs


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("dtype", DTYPES + UNTYPED_DTYPES)
def test_torch_reads_a_tensor_of_every_dtype(dtype: str) -> None:
    built = Tensor(dtype, (2, 3), offset=1, stride=(1, 2))
    loaded = load(builders.torch_zip(built))
    assert isinstance(loaded, torch.Tensor)
    assert str(loaded.dtype) == f"torch.{dtype}"
    assert (tuple(loaded.shape), loaded.stride(), loaded.storage_offset()) == ((2, 3), (1, 2), 1)
    assert _bytes(loaded) == built.elements()


def _bytes(tensor: torch.Tensor) -> bytes:
    # Not `view(torch.uint8)`: torch refuses that for one element of stride 0.
    whole = tensor.contiguous()
    start = whole.storage_offset() * whole.itemsize
    stored = bytes(whole.untyped_storage().tolist())  # type: ignore[no-untyped-call]
    return stored[start : start + whole.numel() * whole.itemsize]


@pytest.mark.parametrize(
    "build",
    [
        lambda tree: builders.torch_zip(tree, archive_name="a b ü"),
        lambda tree: builders.torch_zip(tree, order=("data/0", "version", "data.pkl")),
        lambda tree: builders.torch_zip(tree, without=(".format_version", "byteorder")),
        lambda tree: builders.torch_zip(tree, crc=False),
        lambda tree: builders.torch_zip(tree, data_descriptor=False),
        lambda tree: builders.torch_zip(tree, zip64=True),
        lambda tree: builders.torch_zip(tree, zip64=True, data_descriptor=False),
        lambda tree: builders.torch_zip(tree, zip64_end=False),
        lambda tree: builders.torch_zip(tree, alignment=4096),
        lambda tree: builders.torch_zip(tree, alignment=0),
        lambda tree: builders.torch_zip(tree, compress=True),
        lambda tree: builders.torch_zip(tree, byteorder="big"),
        lambda tree: builders.torch_zip(tree, byteorder=None),
        lambda tree: builders.torch_zip(tree, keys=builders.address_keys()),
        lambda tree: builders.torch_zip(tree, extra_records={".data/extra": b"x"}),
        builders.legacy,
        lambda tree: builders.legacy(tree, little_endian=False),
        lambda tree: builders.legacy(tree, keys=builders.count_keys()),
    ],
)
def test_torch_reads_every_kind_of_file(build: Callable[[object], bytes]) -> None:
    storage = Storage("float32", builders.pack("float32", range(100)))
    tree = {
        "w": Tensor("float32", (10, 5), storage=storage, offset=50),
        "tied": Tensor("float32", (10, 5), storage=storage, offset=50),
        "scalar": Tensor("int64", (), [7]),
        "complex": Tensor("complex64", (2,), [1 + 2j, 3]),
        "epoch": 3,
    }
    data = build(tree)
    loaded = load(data)
    assert isinstance(loaded, dict)
    assert loaded["w"].flatten().tolist() == list(range(50, 100))
    assert loaded["w"].data_ptr() == loaded["tied"].data_ptr()
    assert (loaded["scalar"].item(), loaded["epoch"]) == (7, 3)
    assert loaded["complex"].tolist() == [1 + 2j, 3]


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@given(strategies.state_dicts(surrogates=False))
def test_torch_reads_any_state_dict(tensors: dict[str, Tensor]) -> None:
    loaded = torch.load(io.BytesIO(builders.torch_zip(tensors)), map_location="cpu")
    assert list(loaded) == list(tensors)
    for name, built in tensors.items():
        found = loaded[name]
        assert (tuple(found.shape), found.stride()) == (built.shape, built.stride)
        assert _bytes(found) == built.elements()


def test_data_starts_on_a_multiple_of_the_alignment() -> None:
    data = builders.torch_zip({"w": Tensor("float32", (3,), [math.pi])}, alignment=256)
    assert data.index(builders.pack("float32", [math.pi] * 3)) % 256 == 0


def test_zipfile_reads_the_archive_and_finds_every_crc_right() -> None:
    for compress in (False, True):
        data = builders.torch_zip({"w": Tensor("float32", (3,))}, compress=compress)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            assert archive.namelist()[0] == "archive/data.pkl"


def test_a_record_can_contradict_itself() -> None:
    lies = [
        ZipRecord("archive/a", b"1234", local_name="archive/b"),
        ZipRecord("archive/c", b"1234", crc=1, size=9, compressed_size=9),
        ZipRecord("archive/a", b"5678", local_offset=0),
        ZipRecord("archive/hidden", b"5678", in_central=False),
        ZipRecord("archive/nowhere", b"5678", in_local=False),
    ]
    data = builders.zip_archive(lies)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = archive.infolist()
        assert [info.filename for info in found] == [
            "archive/a", "archive/c", "archive/a", "archive/nowhere",
        ]  # fmt: skip
        assert (found[1].CRC, found[1].file_size) == (1, 9)
        assert found[2].header_offset == 0
        with pytest.raises(zipfile.BadZipFile, match="differ"):
            archive.read(found[0])
    assert b"archive/hidden" in data


# -------------------------------------------------------------------------------------- state dicts


def test_a_state_dict_carries_its_metadata() -> None:
    built = builders.state_dict({"bn.weight": Tensor("float32", (2,))}, {"": 1, "bn": 2})
    loaded = load(builders.torch_zip(built))
    assert isinstance(loaded, OrderedDict)
    assert loaded._metadata == {"": {"version": 1}, "bn": {"version": 2}}  # type: ignore[attr-defined]


def test_a_module_is_one_that_torch_takes_for_its_own() -> None:
    inner = builders.module(
        parameters={"weight": Tensor("float32", (2,))},
        buffers={"mean": Tensor("float32", (2,)), "temp": Tensor("float32", (3,))},
        non_persistent=["temp"],
    )
    data = builders.torch_zip(builders.module(modules={"0": inner}))
    loaded = torch.load(io.BytesIO(data), weights_only=False)
    assert [name for name, _ in loaded.named_parameters()] == ["0.weight"]
    assert [name for name, _ in loaded.named_buffers()] == ["0.mean", "0.temp"]
    # A module from before those hooks existed has no attributes for them.
    assert loaded.get_submodule("0")._non_persistent_buffers_set == {"temp"}


def test_a_buffer_saved_directly_is_one() -> None:
    data = builders.torch_zip(builders.buffer(Tensor("float32", (2,)), persistent=False))
    loaded = torch.load(io.BytesIO(data), weights_only=False)
    assert isinstance(loaded, torch.nn.Buffer)
    assert loaded.persistent is False


# --------------------------------------------------------------------------- other kinds of archive


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
def test_torch_jit_reads_a_torchscript_archive() -> None:
    types = {"weight": "Tensor", "mean": "Tensor", "training": "bool"}
    source = builders.script_source("M", types, parameters=["weight"], buffers=["mean"])
    root = builders.script_module(
        "M",
        {
            "weight": Tensor("float32", (2, 3), requires_grad=True),
            "mean": Tensor("float32", (3,)),
            "training": False,
        },
    )
    data = builders.torchscript(root, source, constants=(Tensor("int64", (2,)),))
    loaded = torch.jit.load(io.BytesIO(data))  # type: ignore[no-untyped-call]
    assert [name for name, _ in loaded.named_parameters()] == ["weight"]
    assert [name for name, _ in loaded.named_buffers()] == ["mean"]
    assert loaded.mean.tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_torch_package_reads_a_package(tmp_path: Path) -> None:
    path = tmp_path / "package.pt"
    path.write_bytes(
        builders.torch_package(
            {"model/model.pkl": {"w": Tensor("float32", (3,))}}, sources={"a.py": "x = 1\n"}
        )
    )
    importer = PackageImporter(path)
    assert importer.load_pickle("model", "model.pkl")["w"].tolist() == [0, 1, 2]
    assert importer.import_module("a").x == 1


# ------------------------------------------------------------------------------------ legacy stream


def test_the_legacy_stream_is_torchs_to_the_byte() -> None:
    value = {"w": torch.arange(6.0).reshape(2, 3)}
    theirs = saved(value, _use_new_zipfile_serialization=False)
    key = str(value["w"].untyped_storage()._cdata)
    assert builders.legacy({"w": Tensor("float32", (2, 3))}, keys=[key]) == theirs


def test_a_legacy_storage_can_be_a_view_of_another() -> None:
    storage = Storage("float32", builders.pack("float32", range(6)), view=("99", 2, 3))
    loaded = load(builders.legacy({"w": Tensor("float32", (3,), storage=storage)}))
    assert isinstance(loaded, dict)
    assert loaded["w"].tolist() == [2, 3, 4]


def test_a_legacy_module_is_a_persistent_id() -> None:
    made = Global("torch.nn.modules.module", "Module")
    identifier = builders.Persistent(("module", made, None, None))
    data = builders.legacy([identifier, Tensor("float32", (1,))])
    loaded = torch.load(io.BytesIO(data), weights_only=False)
    assert loaded[0] is torch.nn.Module


def test_torch_reads_the_tar_of_old_torch(tmp_path: Path) -> None:
    data = builders.tar_of_old_torch({"w": Tensor("float32", (2, 3), stride=(1, 2))})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["sys_info", "pickle", "storages", "tensors"]
    path = tmp_path / "old.pt"
    path.write_bytes(data)
    loaded = torch.load(path, weights_only=False)
    assert loaded["w"].tolist() == [[0, 2, 4], [1, 3, 5]]


# -------------------------------------------------------------------------------------- safetensors


def test_safetensors_reads_every_dtype_it_knows() -> None:
    tensors = {dtype: Tensor(dtype, (2, 3)) for dtype in builders.SAFETENSORS_NAMES}
    data = builders.safetensors(tensors, {"format": "pt"})
    found = dict(deserialize(data))  # type: ignore[no-untyped-call]
    assert {name: (tuple(view["shape"]), bytes(view["data"])) for name, view in found.items()} == {
        name: (tensor.shape, tensor.elements()) for name, tensor in tensors.items()
    }


def test_a_safetensors_header_can_be_replaced() -> None:
    data = builders.safetensors(
        {"w": Tensor("uint8", (2,))}, header_override=b"{", length_override=9
    )
    assert data == struct.pack("<Q", 9) + b"{" + b"\0\1"


# -------------------------------------------------------------------------------------- wrong files


@pytest.mark.parametrize("name", builders.wrong_files())
def test_torch_reads_no_wrong_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pt"
    path.write_bytes(builders.wrong_files()[name])
    with pytest.raises((RuntimeError, EOFError, pickle.UnpicklingError)):
        torch.load(path, weights_only=True)


def test_the_canary_sings_when_it_is_run(tmp_path: Path) -> None:
    path = tmp_path / "canary"
    data = builders.torch_zip(builders.canary(str(path)))
    assert not path.exists()
    torch.load(io.BytesIO(data), weights_only=False)["canary"].close()
    assert path.exists()
