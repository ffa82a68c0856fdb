"""Whole files of every format: what each container hands on, and how it says what is wrong."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import list_contents, open_checkpoint, overview, read_bytes
from ckptool.checkpoint.opening import Checkpoint
from ckptool.errors import (
    ArchiveError,
    CkptoolError,
    CutShortError,
    InputError,
    LimitExceededError,
    NotACheckpointError,
    PickleStreamError,
    TensorError,
    UnsupportedFormatError,
)
from ckptool.pickling.limits import Limits
from tests import builders, strategies
from tests.builders import (
    Call,
    Global,
    Persistent,
    Storage,
    Tensor,
    legacy,
    safetensors,
    script_module,
    script_source,
    to_pickle,
    torch_package,
    torch_zip,
    torchscript,
)


def opened(folder: Path, data: bytes, *, limits: Limits | None = None) -> Checkpoint:
    path = folder / "checkpoint"
    path.write_bytes(data)
    return open_checkpoint(path, limits=limits)


def values(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {
        entry.path: b"".join(read_bytes(entry.tensor))
        for entry in checkpoint.entries
        if entry.tensor is not None
    }


TENSORS = {
    "weight": Tensor("float32", (2, 3)),
    "count": Tensor("int64", (), [7]),
    "half": Tensor("bfloat16", (4,)),
}
ELEMENTS = {name: tensor.elements() for name, tensor in TENSORS.items()}

WAYS: dict[str, Callable[[Mapping[str, Tensor]], bytes]] = {
    "as torch writes it": torch_zip,
    "under another archive name": lambda t: torch_zip(t, archive_name="my model.v2"),
    "storages first": lambda t: torch_zip(t, order=["data/1", "data/0", "version"]),
    "without CRC": lambda t: torch_zip(t, crc=False),
    "compressed": lambda t: torch_zip(t, compress=True),
    "without descriptors": lambda t: torch_zip(t, data_descriptor=False),
    "ZIP64": lambda t: torch_zip(t, zip64=True),
    "without a ZIP64 end": lambda t: torch_zip(t, zip64_end=False),
    "big-endian": lambda t: torch_zip(t, byteorder="big"),
    "of before 2.1": lambda t: torch_zip(t, byteorder=None),
    "unaligned": lambda t: torch_zip(t, alignment=0),
    "keys are addresses": lambda t: torch_zip(t, keys=builders.address_keys()),
    "without extras": lambda t: torch_zip(
        t, without=[".format_version", ".storage_alignment", ".data/serialization_id"]
    ),
    "legacy": legacy,
    "legacy of a big machine": lambda t: legacy(t, little_endian=False),
    "safetensors": safetensors,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_tensors_come_out_of_every_container(way: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, WAYS[way](TENSORS))
    assert values(checkpoint) == ELEMENTS
    assert [entry.tensor and entry.tensor.shape for entry in checkpoint.entries] == [
        tensor.shape for tensor in TENSORS.values()
    ]


@given(state=strategies.state_dicts(), way=st.sampled_from(sorted(WAYS)))
def test_any_state_dict_comes_out_of_every_container(
    state: dict[str, Tensor], way: str, tmp_path: Path
) -> None:
    if way == "safetensors":
        state = {
            name: tensor
            for name, tensor in state.items()
            if tensor.dtype in builders.SAFETENSORS_NAMES
            and name != "__metadata__"
            and not any("\ud800" <= character <= "\udfff" for character in name)
        }
    with opened(tmp_path, WAYS[way](state)) as checkpoint:
        found = {
            entry.keys[-1]: (str(entry.tensor.dtype), entry.tensor.shape)
            for entry in checkpoint.entries
            if entry.tensor is not None
        }
        contents = list(values(checkpoint).values())
    assert found == {name: (tensor.dtype, tensor.shape) for name, tensor in state.items()}
    assert contents == [tensor.elements() for tensor in state.values()]


def test_the_facts_of_a_zip_are_told(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, torch_zip(TENSORS, archive_name="net", byteorder="big"))
    (file,) = checkpoint.files
    assert checkpoint.format == "torch-zip"
    assert (file.protocol, file.byteorder, file.archive_name, file.crc) == (
        2, "big", "net", "recorded",
    )  # fmt: skip
    (file,) = opened(tmp_path, torch_zip(TENSORS, crc=False)).files
    assert file.crc == "absent"
    mixed = builders.zip_archive(
        [
            builders.ZipRecord(record.name, record.data, crc=0 if "data/0" in record.name else None)
            for record in builders.torch_records(TENSORS)
        ]
    )
    (file,) = opened(tmp_path, mixed).files
    assert file.crc == "partly"


def test_what_torch_would_not_read_is_told(tmp_path: Path) -> None:
    data = torch_zip(TENSORS, extra_records={"notes.txt": b"hello", "data/77": b"1234"})
    checkpoint = opened(tmp_path, data)
    assert any("notes.txt" in warning for warning in checkpoint.warnings)
    assert "77" not in checkpoint.container.referenced
    tail = torch_zip(TENSORS, data_pkl=to_pickle({}) + b"tail")
    (warning,) = opened(tmp_path, tail).warnings
    assert warning.startswith("4 bytes follow")


def test_a_byte_order_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    data = torch_zip(TENSORS, byteorder=None, extra_records={"byteorder": b"middle"})
    with pytest.raises(ArchiveError, match="middle"):
        opened(tmp_path, data)


# Tensors against their storages ----------------------------------------------------------------


def test_a_tensor_outside_its_storage_is_an_error_with_its_path(tmp_path: Path) -> None:
    tensor = Tensor("float32", (4,), storage=Storage("float32", bytes(8)))
    for data in (torch_zip({"a": {"b.c": tensor}}), legacy({"a": {"b.c": tensor}})):
        with pytest.raises(TensorError) as caught:
            opened(tmp_path, data)
        assert (caught.value.key_path, caught.value.path) == ("a/b.c", tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("claimed", "problem"), [(100, "should have 400 bytes"), (1 << 61, "should have")]
)
def test_a_storage_larger_than_its_record_is_an_error(
    claimed: int, problem: str, tmp_path: Path
) -> None:
    storage = Storage("float32", bytes(8), claimed_numel=claimed)
    with pytest.raises(TensorError, match=problem) as caught:
        opened(tmp_path, torch_zip({"w": Tensor("float32", (2,), storage=storage)}))
    assert caught.value.key_path == "w"


def test_a_storage_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TensorError, match="not in the file") as caught:
        opened(tmp_path, torch_zip({"w": Tensor("float32", (2,))}, without=["data/0"]))
    assert caught.value.storage_key == "0"


def test_a_storage_declared_twice_and_differently_is_an_error(tmp_path: Path) -> None:
    first = Storage("float32", bytes(8), key="0")
    second = Storage("float64", bytes(8), key="0")
    tree = {
        "a": Tensor("float32", (2,), storage=first),
        "b": Tensor("float64", (1,), storage=second),
    }
    with pytest.raises(TensorError, match="declared twice"):
        opened(tmp_path, torch_zip(tree))


# Legacy streams --------------------------------------------------------------------------------


def test_a_legacy_view_is_a_part_of_its_root(tmp_path: Path) -> None:
    numbers = Tensor("float32", (6,)).storage
    view = Storage("float32", numbers.data, view=("view", 2, 3))
    checkpoint = opened(tmp_path, legacy({"v": Tensor("float32", (3,), storage=view)}))
    assert values(checkpoint) == {"v": numbers.data[8:20]}


def test_a_module_of_a_legacy_file_is_of_the_class_whose_source_it_carries(tmp_path: Path) -> None:
    cls = Persistent(("module", Global("nets", "Net"), "nets.py", "class Net: ..."))
    made = builders.module(parameters={"w": Tensor("float32", (2,))})
    tree = Call(cls, (), made.state, new=True)
    checkpoint = opened(tmp_path, legacy(tree))
    (entry, *_) = checkpoint.entries
    assert (entry.path, str(entry.module_type)) == ("w", "nets.Net")


def test_a_legacy_stream_cut_short_in_its_storages_names_the_tensor(tmp_path: Path) -> None:
    data = legacy(TENSORS)
    for lost, whole, first in ((3, 2, "half"), (20, 1, "count")):
        with pytest.raises(CutShortError, match=f"first without is '{first}'") as caught:
            opened(tmp_path, data[:-lost])
        error = caught.value
        assert (error.whole, error.tensors, error.offset) == (whole, 3, len(data) - lost)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"protocol_version": 1000}, "1001 should stand"),
        ({"counts": {"94875212955984": 3}}, "the pickle says 6"),
        ({"listed": ["unknown"]}, "no tensor says"),
        ({"listed": [3]}, "not a list of strings"),
    ],
)
def test_a_broken_legacy_stream_is_an_error(
    options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveError, match=problem):
        opened(tmp_path, legacy(TENSORS, **options))


def test_bytes_behind_the_last_storage_are_told(tmp_path: Path) -> None:
    (warning,) = opened(tmp_path, legacy(TENSORS) + b"xyz").warnings
    assert warning == "3 bytes follow the last storage"


def test_a_large_legacy_pickle_is_read_whole(tmp_path: Path) -> None:
    state = {f"layer.{number}": Tensor("float32", (1,)) for number in range(2_000)}
    data = legacy(state)
    assert len(values(opened(tmp_path, data))) == 2_000
    with pytest.raises(LimitExceededError, match="bytes in one pickle"):
        opened(tmp_path, data, limits=Limits(pickle_bytes=1 << 17))


# TorchScript, packages, pickles ----------------------------------------------------------------


def test_a_script_module_says_which_attributes_are_which(tmp_path: Path) -> None:
    linear = script_module("Linear", {"weight": Tensor("float32", (2, 2)), "training": True})
    net = script_module(
        "Net", {"running": Tensor("float32", (2,)), "other": Tensor("int64", ()), "fc": linear}
    )
    source = script_source("Net", {}, buffers=["running"]) + script_source(
        "Linear", {}, parameters=["weight"]
    )
    constant = Tensor("float32", (1,), [3.0])
    checkpoint = opened(tmp_path, torchscript(net, source, constants=(constant,)))
    assert checkpoint.format == "torchscript"
    assert {entry.path: entry.member for entry in checkpoint.entries if entry.tensor} == {
        "running": "buffer",
        "other": "attribute",
        "fc.weight": "parameter",
        "constants.pkl/0": None,
    }
    assert values(checkpoint)["constants.pkl/0"] == constant.elements()


def test_a_script_module_may_hold_what_python_writes_otherwise(tmp_path: Path) -> None:
    class Color(Enum):
        RED = 5

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.color = Color.RED
            self.register_buffer("coo", torch.eye(3).to_sparse())
            self.register_buffer("csr", torch.eye(3).to_sparse_csr())
            self.register_buffer("small", torch.ones(2).to(torch.float8_e5m2))
            self.register_buffer("wide", torch.ones(2).to(torch.uint16))
            self.register_buffer("meta", torch.ones(2, device="meta"))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Net()).save(tmp_path / "net.pt")  # type: ignore[no-untyped-call]
    with open_checkpoint(tmp_path / "net.pt") as checkpoint:
        found = {e.path: e.tensor for e in checkpoint.entries if e.tensor is not None}
    assert {path: (str(one.dtype), one.layout) for path, one in found.items()} == {
        "coo": ("float32", "sparse_coo"),
        "csr": ("float32", "sparse_csr"),
        "small": ("float8_e5m2", "strided"),
        "wide": ("uint16", "strided"),
        "meta": ("float32", "strided"),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_inputs_that_a_module_was_traced_with_are_no_part_of_it(tmp_path: Path) -> None:
    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        torch.nn.Linear(2, 3), torch.ones(4, 2)
    )
    traced.save(tmp_path / "net.pt")
    with open_checkpoint(tmp_path / "net.pt") as checkpoint:
        found = overview(list_contents(checkpoint))
    assert {one.name for one in found.entries} == {"weight", "bias"}
    assert found.sizes.unreferenced == ()


def test_a_compressed_package_is_read_and_what_is_no_pickle_is_named(tmp_path: Path) -> None:
    records = [
        builders.ZipRecord("p/m/a.pkl", to_pickle({"a": 1}), compress=True),
        builders.ZipRecord("p/m/table.bin", b"\x80\x02abc"),
        builders.ZipRecord("p/.data/extern_modules", b""),
    ]
    checkpoint = opened(tmp_path, builders.zip_archive(records))
    assert [entry.path for entry in checkpoint.entries] == ["m\\/a.pkl/a"]
    assert checkpoint.warnings == ("records that are no pickles: m/table.bin",)


def test_a_zip_behind_a_legacy_stream_does_not_hide_it(tmp_path: Path) -> None:
    data = legacy({"hidden": Tensor("float32", (2,))}) + torch_zip(TENSORS)
    checkpoint = opened(tmp_path, data)
    assert checkpoint.format == "torch-legacy"
    assert [entry.path for entry in checkpoint.entries] == ["hidden"]


def test_a_tensor_whose_bytes_are_shared_in_a_pickle_is_read_once(tmp_path: Path) -> None:
    tensor = torch.arange(3.0)
    (tmp_path / "t.pkl").write_bytes(pickle.dumps([tensor, tensor.view(3, 1)], protocol=2))
    with open_checkpoint(tmp_path / "t.pkl") as checkpoint:
        assert len(checkpoint.entries) == 2


def test_a_package_has_a_branch_per_pickle(tmp_path: Path) -> None:
    data = torch_package(
        {"model/model.pkl": TENSORS, "weights": {"x": Tensor("int8", (3,))}},
        sources={"net.py": "class Net: ..."},
    )
    checkpoint = opened(tmp_path, data)
    assert checkpoint.format == "torch-package"
    assert list(values(checkpoint)) == [
        "model\\/model.pkl/weight",
        "model\\/model.pkl/count",
        "model\\/model.pkl/half",
        "weights/x",
    ]


def test_a_pickle_that_torch_did_not_write_is_read(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, pickle.dumps({"epoch": 3, "names": ["a"]}))
    assert checkpoint.format == "pickle"
    assert {entry.path: entry.node for entry in checkpoint.entries} == {
        "epoch": 3,
        "names": ["a"],
    }
    (warning,) = opened(tmp_path, pickle.dumps({}) + b"..").warnings
    assert warning == "2 bytes follow the end of the pickle"
    with pytest.raises(LimitExceededError, match="bytes in one pickle"):
        opened(tmp_path, pickle.dumps(bytes(100)), limits=Limits(pickle_bytes=50))


def test_tensors_in_such_a_pickle_carry_their_storages(tmp_path: Path) -> None:
    inner = legacy(Storage("float32", struct.pack("<2f", 1.5, 2.5)))
    storage = Call(Global("torch.storage", "_load_from_bytes"), (inner,))
    tensor = Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, 0, (2,), (1,), False, {}))
    checkpoint = opened(tmp_path, to_pickle({"w": tensor}))
    assert values(checkpoint) == {"w": struct.pack("<2f", 1.5, 2.5)}
    with pytest.raises(TensorError, match="outside of this pickle"):
        opened(tmp_path, to_pickle({"w": Tensor("float32", (2,))}))
    broken = Call(Global("torch.storage", "_load_from_bytes"), (b"nonsense",))
    (entry,) = opened(tmp_path, to_pickle({"s": broken})).entries
    assert str(entry.node.type) == "torch.storage._load_from_bytes"


# safetensors -----------------------------------------------------------------------------------


def header(facts: object, data: bytes = b"") -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(**facts: object) -> dict[str, dict[str, object]]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **facts}}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (struct.pack("<Q", 2) + b"{]", "not JSON"),
        (struct.pack("<Q", 2) + b"{\xff", "not JSON"),
        (struct.pack("<Q", 40_001) + b'{"a":' + b"[" * 39_996, "JSON|nested"),
        (header({"w": 3}), "no dtype"),
        (header({"__metadata__": {"a": 1}}), "table of strings"),
        (header(one(dtype="F99"), bytes(8)), "F99"),
        (header(one(shape=[-2]), bytes(8)), "not counts"),
        (header(one(shape=[True]), bytes(8)), "not counts"),
        (header(one(shape=[3]), bytes(8)), "its shape needs 12"),
        (header(one(data_offsets=[8, 0]), bytes(8)), "its shape needs"),
        (header(one(), bytes(12)), "belong to no tensor"),
        (header(one(data_offsets=[4, 12]), bytes(12)), "hole"),
        (header(one() | {"v": one()["w"]}, bytes(8)), "overlaps"),
        (header(one(dtype="F4", shape=[3], data_offsets=[0, 1]), bytes(1)), "odd number"),
        (struct.pack("<Q", 15) + b'{"a":1, "a":2}\n', "twice"),
    ],
)
def test_a_broken_safetensors_header_is_an_error(data: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=problem):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    ("data", "record", "whole"),
    [
        (struct.pack("<Q", 500) + b"{", None, None),
        (header(one(), bytes(4)), "w", 0),
        (header(one() | {"v": {**one()["w"], "data_offsets": [8, 16]}}, bytes(12)), "v", 1),
        (header(one() | {"v": {**one()["w"], "data_offsets": [8, 16]}}, bytes(8)), "v", 1),
    ],
)
def test_a_safetensors_file_cut_short_says_what_is_left(
    data: bytes, record: str | None, whole: int | None, tmp_path: Path
) -> None:
    with pytest.raises(CutShortError) as caught:
        opened(tmp_path, data)
    assert (caught.value.record, caught.value.whole) == (record, whole)
    assert caught.value.offset == len(data)


def test_a_safetensors_header_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(LimitExceededError, match="header"):
        opened(tmp_path, struct.pack("<Q", 1 << 39) + b"{}")


def test_packed_floats_are_counted_as_torch_does(tmp_path: Path) -> None:
    facts = {"w": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}}
    (entry,) = opened(tmp_path, header(facts, bytes(4))).entries
    assert entry.tensor is not None
    assert (entry.tensor.dtype.name, entry.tensor.shape) == ("float4_e2m1fn_x2", (2, 2))


def test_the_metadata_of_safetensors_are_leaves(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, safetensors(TENSORS, {"format": "pt"}))
    assert checkpoint.entries[0].path == "__metadata__/format"
    assert checkpoint.entries[0].node == "pt"


# Files that are something else -----------------------------------------------------------------

FOUND = {
    "empty": "empty",
    "lfs-pointer": "440,473,133",
    "html": "Sign in",
    "xml-error": "AccessDenied",
    "json": "a JSON file",
    "text": "Entry not found",
    "gzip": "gzip",
    "zip-around": "model.pt",
    "other-zip": "without a data.pkl",
    "numpy": "numpy",
    "hdf5": "HDF5",
    "gguf": "GGUF",
    "elf": "ELF",
    "png": "PNG",
    "old-tar": "before 0.1.10",
    "zeros": "zero",
}


@pytest.mark.parametrize("kind", sorted(builders.wrong_files()))
def test_a_wrong_file_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CkptoolError) as caught:
        opened(tmp_path, builders.wrong_files()[kind])
    assert isinstance(caught.value, NotACheckpointError | UnsupportedFormatError)
    assert FOUND[kind] in caught.value.found
    assert caught.value.path == tmp_path / "checkpoint"


def test_an_exported_program_and_other_tars_are_named(tmp_path: Path) -> None:
    program = builders.zip_archive([builders.ZipRecord("a/archive_format", b"pt2")])
    with pytest.raises(UnsupportedFormatError, match=r"torch\.export"):
        opened(tmp_path, program)
    tar = builders.tar_of_old_torch()
    with pytest.raises(NotACheckpointError, match="tar"):
        opened(tmp_path, tar.replace(b"storages", b"something"[:8]))
    with pytest.raises(NotACheckpointError, match="tar"):
        opened(tmp_path, tar[:512])
    with pytest.raises(NotACheckpointError, match="tar"):
        opened(tmp_path, tar.replace(b"00000", b"wrong"))
    with pytest.raises(NotACheckpointError, match="XML"):
        opened(tmp_path, b"<?xml version='1.0'?><a/>")


def test_directories_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(NotACheckpointError, match="a directory"):
        open_checkpoint(tmp_path)
    (tmp_path / "data.pkl").touch()
    with pytest.raises(NotACheckpointError, match="unpacked"):
        open_checkpoint(tmp_path)
    (tmp_path / ".metadata").touch()
    with pytest.raises(NotACheckpointError, match="distributed"):
        open_checkpoint(tmp_path)


def test_a_zip_cut_short_says_so(tmp_path: Path) -> None:
    data = torch_zip(TENSORS)
    for length in (100, len(data) // 2, len(data) - 1):
        with pytest.raises(CutShortError) as caught:
            opened(tmp_path, data[:length])
        assert caught.value.offset == length


def test_a_pickle_cut_short_says_so(tmp_path: Path) -> None:
    with pytest.raises(PickleStreamError) as caught:
        opened(tmp_path, pickle.dumps({"a": [1, 2, 3]})[:-2])
    assert caught.value.breaks_off


# Properties ------------------------------------------------------------------------------------


@given(data=st.binary(max_size=300))
def test_any_bytes_give_a_checkpoint_or_an_error(data: bytes, tmp_path: Path) -> None:
    try:
        opened(tmp_path, data).close()
    except CkptoolError:
        return


@given(file=strategies.files(), data=st.data())
def test_mutated_files_give_a_checkpoint_or_an_error(
    file: bytes, data: st.DataObject, tmp_path: Path
) -> None:
    try:
        with opened(tmp_path, data.draw(strategies.mutations(file))) as checkpoint:
            values(checkpoint)
    except CkptoolError:
        return


def test_a_warning_tells_where_torch_gets_wrong_numbers(tmp_path: Path) -> None:
    (warning,) = opened(tmp_path, torch_zip({"w": Tensor("float32", (2,))}, compress=True)).warnings
    assert warning.startswith("storages are compressed (1 of 1)")


def test_the_code_of_a_script_archive_may_be_compressed(tmp_path: Path) -> None:
    script = script_module("Net", {"w": Tensor("float32", (2,))})
    data = torchscript(script, script_source("Net", {}, parameters=["w"]))
    checkpoint = opened(tmp_path, data)
    assert checkpoint.warnings == ()
    assert list(checkpoint.extents) == ["data/0"]
