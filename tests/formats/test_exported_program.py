"""The signature of `.pt2` programs, held against the modules that torch exported them from."""

from __future__ import annotations

import contextlib
import json
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._export.serde import schema, serialize

from ckptool import open_checkpoint
from ckptool.errors import (
    ArchiveError,
    CkptoolError,
    LimitExceededError,
    UnsupportedFormatError,
)
from ckptool.formats.archive import Archive, read_archive
from ckptool.formats.exported_program import (
    ExportedProgram,
    is_exported_program,
    read_exported_program,
)
from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource
from tests import builders
from tests.builders import ZipRecord, zip_archive

RECORD = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


class Inner(nn.Module):
    """Buffers of both kinds, the one that is not saved between two that are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Buffer(torch.arange(4))
        self.cache = nn.Buffer(torch.ones(2, 2), persistent=False)
        self.last = nn.Buffer(torch.ones(2, dtype=torch.bool))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.first.sum() + self.cache.sum() + self.last.sum()


class Everything(nn.Module):
    """All that a program keeps apart, and tensors that are neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.inner = Inner()
        self.norm = nn.BatchNorm1d(4)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.fc.weight
        self.layers = nn.ModuleList([nn.Linear(4, 4, bias=False)])
        self.scale = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        self.unused = nn.Parameter(torch.ones(5))
        self.empty = nn.Buffer(torch.empty(0, 3))
        self.also_empty = nn.Buffer(torch.empty(0, 3))
        self.register_buffer("none", None)
        self.plain = torch.ones(4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.fc(inputs) + self.tied(inputs))
        literal = torch.tensor([1.0, 2.0, 3.0, 4.0])
        hidden = self.inner(hidden) * self.scale + self.plain + literal
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def exported(path: Path, module: nn.Module, inputs: Tensor, **options: Any) -> Path:
    torch.export.save(torch.export.export(module.eval(), (inputs,), **options), str(path))
    return path


def archive_in(path: Path) -> Archive:
    return read_archive(FileSource(path))


def read(path: Path, limits: Limits | None = None) -> ExportedProgram:
    return read_exported_program(archive_in(path), limits or Limits())


@pytest.fixture(scope="module")
def program_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.pt2"
    return exported(path, Everything(), torch.ones(5, 3))


def live_tensors(module: nn.Module) -> dict[str, tuple[object, ...]]:
    """What the module itself says of its tensors, by name."""
    kept = set(module.state_dict())
    found: dict[str, tuple[object, ...]] = {}
    for kind, named in (
        ("parameter", module.named_parameters(remove_duplicate=False)),
        ("buffer", module.named_buffers(remove_duplicate=False)),
    ):
        for name, tensor in named:
            dtype = str(tensor.dtype).removeprefix("torch.")
            found[name] = (kind, name in kept, dtype, tuple(tensor.shape))
    return found


def told(program: ExportedProgram) -> dict[str, tuple[object, ...]]:
    return {
        name: (tensor.kind, tensor.is_persistent, tensor.dtype, tensor.shape)
        for name, tensor in program.tensors.items()
    }


@pytest.mark.parametrize("strict", [False, True])
def test_the_signature_is_that_of_the_module(tmp_path: Path, strict: bool) -> None:
    module = Everything()
    path = exported(tmp_path / "program.pt2", module, torch.ones(5, 3), strict=strict)
    program = read(path)
    assert told(program) == live_tensors(module)
    assert program.torch_version == torch.__version__


def test_names_come_in_the_order_of_the_programs_state_dict(program_path: Path) -> None:
    saved = [name for name, tensor in read(program_path).tensors.items() if tensor.is_persistent]
    kept = list(torch.export.load(str(program_path)).state_dict)
    assert sorted(saved) == sorted(kept)
    # The archive puts a tied name behind the one that it is tied to.
    assert [name for name in saved if name != "tied.weight"] == [
        name for name in kept if name != "tied.weight"
    ]


def test_a_buffer_that_is_not_saved_keeps_its_place_among_the_others(program_path: Path) -> None:
    inner = [name for name in read(program_path).tensors if name.startswith("inner.")]
    assert inner == ["inner.first", "inner.cache", "inner.last"]


def test_tied_tensors_share_a_place_and_empty_ones_have_none(program_path: Path) -> None:
    tensors = read(program_path).tensors
    assert tensors["fc.weight"].place == tensors["tied.weight"].place
    assert tensors["fc.weight"].place is not None
    assert tensors["fc.bias"].place != tensors["tied.bias"].place
    assert tensors["empty"].place is None
    assert tensors["also_empty"].place is None


def test_tensors_on_the_meta_device_are_not_taken_for_one(tmp_path: Path) -> None:
    with torch.device("meta"):
        module, inputs = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.ones(2, 3)
    tensors = read(exported(tmp_path / "meta.pt2", module, inputs)).tensors
    assert list(tensors) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert {tensor.place for tensor in tensors.values()} == {None}


def test_modules_have_their_types_where_an_operation_tells_them(program_path: Path) -> None:
    modules = read(program_path).modules
    live = dict(Everything().named_modules(remove_duplicate=False))
    assert list(modules) == list(live)
    assert modules["fc"] == "torch.nn.modules.linear.Linear"
    assert modules[""] == f"{__name__}.Everything"
    assert modules["layers"] is None
    for path, name in modules.items():
        assert name in (None, f"{type(live[path]).__module__}.{type(live[path]).__qualname__}")


class Odd(nn.Module):
    """Names with the separators of a stack in them, and a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.ModuleDict({"a,b": nn.Linear(3, 3), "c;d": nn.Linear(3, 3)})
        self.again = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.table.values():
            inputs = layer(inputs)
        for _ in range(2):
            inputs = self.again(inputs)
        return inputs


@pytest.mark.parametrize("preserved", [(), ("again",)])
def test_a_stack_that_is_not_clear_tells_no_type(tmp_path: Path, preserved: Sequence[str]) -> None:
    path = tmp_path / "odd.pt2"
    exported(path, Odd(), torch.ones(2, 3), preserve_module_call_signature=tuple(preserved))
    modules = read(path).modules
    assert list(modules) == ["", "table", "table.a,b", "table.c;d", "again"]
    assert (modules["table.a,b"], modules["table.c;d"]) == (None, None)
    assert modules["again"] == "torch.nn.modules.linear.Linear"


def test_the_numbers_of_dtypes_are_those_of_torch(tmp_path: Path) -> None:
    numbers = {
        member.value: str(dtype).removeprefix("torch.")
        for dtype, member in serialize._TORCH_TO_SERIALIZE_DTYPE.items()
    }
    assert set(numbers) == {member.value for member in schema.ScalarType} - {0}
    for number, name in [*numbers.items(), (0, None), (99, None)]:
        path = write(tmp_path, document(dtype=number))
        assert read(path).tensors["w"].dtype == name


# Layouts ---------------------------------------------------------------------------------------


def test_the_layout_of_torch_2_7_tells_the_same_but_for_ties(
    program_path: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(program_path) as source:
        graph = source.read(f"program/{RECORD}")
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as target:
        target.writestr("serialized_exported_program.json", graph)
        target.writestr("serialized_state_dict.pt", builders.torch_zip({}))
        target.writestr("version", "8.5")
    assert is_exported_program(archive_in(old))
    program, new = read(old), read(program_path)
    assert told(program) == told(new)
    assert program.modules == new.modules
    assert {tensor.place for tensor in program.tensors.values()} == {None}


def test_a_program_without_a_table_of_weights_is_read_too(tmp_path: Path) -> None:
    path = write(tmp_path, document())
    assert told(read(path)) == {
        "w": ("parameter", True, "float32", (2, 3)),
        "b": ("buffer", False, "int64", ()),
    }


def test_what_only_the_weights_have_is_saved(tmp_path: Path) -> None:
    weights = {"config": {"w": payload(), "p": payload(is_param=True), "s": payload()}}
    path = write(tmp_path, document(), weights)
    assert told(read(path)) == {
        "w": ("parameter", True, "float32", (2, 3)),
        "b": ("buffer", False, "int64", ()),
        "p": ("parameter", True, "float32", (2, 3)),
        "s": ("buffer", True, "float32", (2, 3)),
    }


def test_a_pickled_weight_is_left_alone(tmp_path: Path) -> None:
    weights = {"config": {"w": payload(tensor_meta=None), "s": payload(use_pickle=True)}}
    tensors = read(write(tmp_path, document(), weights)).tensors
    assert tensors["w"].dtype == "float32"
    assert tensors["s"].shape == (2, 3)
    assert tensors["s"].place is None


def test_the_program_called_model_is_the_one_that_is_read(tmp_path: Path) -> None:
    other = {"models/other.json": json.dumps(document(name="other")).encode()}
    assert "w" in read(write(tmp_path, document(), others=other)).tensors
    (tmp_path / "only.pt2").write_bytes(packed(other))
    assert "other" in read(tmp_path / "only.pt2").tensors


def test_a_pt2_of_several_programs_or_none_is_refused(tmp_path: Path) -> None:
    graph = json.dumps(document()).encode()
    several = {"models/a.json": graph, "models/b.json": graph}
    for records in (several, {"data/aotinductor/model.so": b""}):
        path = tmp_path / "several.pt2"
        path.write_bytes(packed(records))
        assert is_exported_program(archive_in(path))
        with pytest.raises(UnsupportedFormatError):
            read(path)


def test_a_program_of_before_2_2_is_refused(tmp_path: Path) -> None:
    old = document()
    old["graph_module"]["signature"] = {"inputs_to_parameters": {"arg0": "w"}}
    with pytest.raises(UnsupportedFormatError, match=r"before torch 2\.2"):
        read(write(tmp_path, old))


def test_a_buffer_of_a_program_that_does_not_say_is_of_unknown_persistence(tmp_path: Path) -> None:
    old = document()
    del old["graph_module"]["signature"]["input_specs"][1]["buffer"]["persistent"]
    assert read(write(tmp_path, old)).tensors["b"].is_persistent is None


def test_an_open_dimension_is_none(tmp_path: Path) -> None:
    sizes = [{"as_expr": {"expr_str": "s0", "hint": {"as_int": 4}}}, {"as_int": 3}]
    assert read(write(tmp_path, document(sizes=sizes))).tensors["w"].shape == (None, 3)


def test_as_a_checkpoint_a_program_is_refused_by_name(program_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError) as caught:
        open_checkpoint(program_path)
    assert ".pt2" in caught.value.found
    assert "--model" in (caught.value.hint or "")


def test_other_archives_are_no_programs(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(builders.torch_zip({}))
    assert not is_exported_program(archive_in(path))


def test_nothing_that_a_program_brings_along_is_opened(tmp_path: Path) -> None:
    flag = tmp_path / "it ran"
    canary = builders.torch_zip(builders.canary(str(flag)))
    others = {"data/sample_inputs/model.pt": canary, "data/weights/model.pt": canary}
    assert "w" in read(write(tmp_path, document(), others=others)).tensors
    assert not flag.exists()


# Damage ----------------------------------------------------------------------------------------


def document(*, name: str = "w", dtype: object = 7, sizes: object = None) -> dict[str, Any]:
    """The parts of a program that are read: one parameter, one buffer."""
    if sizes is None:
        sizes = [{"as_int": 2}, {"as_int": 3}]
    meta = {"dtype": dtype, "sizes": sizes, "strides": [], "storage_offset": {"as_int": 0}}
    return {
        "graph_module": {
            "graph": {
                "nodes": [{"target": "x", "metadata": {"nn_module_stack": "k,,m.Net"}}],
                "tensor_values": {"p_w": meta, "b_b": {"dtype": 5, "sizes": []}},
            },
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "p_w"}, "parameter_name": name}},
                    {
                        "buffer": {
                            "arg": {"name": "b_b"},
                            "buffer_name": "b",
                            "persistent": False,
                        }
                    },
                    {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
                ]
            },
            "module_call_graph": [{"fqn": "", "signature": None}],
        },
        "torch_version": "2.13.0",
    }


def payload(**changes: object) -> dict[str, object]:
    meta = {
        "dtype": 7,
        "sizes": [{"as_int": 2}, {"as_int": 3}],
        "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0},
    }
    kept = {"path_name": "weight_0", "is_param": False, "use_pickle": False, "tensor_meta": meta}
    return {**kept, **changes}


def packed(records: Mapping[str, bytes]) -> bytes:
    contents = {"archive_format": b"pt2", **records}
    return zip_archive([ZipRecord(f"program/{name}", data) for name, data in contents.items()])


def write(
    folder: Path,
    graph: object,
    weights: object = None,
    *,
    others: Mapping[str, bytes] | None = None,
) -> Path:
    records = {RECORD: graph if isinstance(graph, bytes) else json.dumps(graph).encode()}
    if weights is not None:
        records |= {WEIGHTS: json.dumps(weights).encode(), "data/weights/weight_0": bytes(24)}
    path = folder / "written.pt2"
    path.write_bytes(packed(records | dict(others or {})))
    return path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"graph_module": ' + b"9" * 5_000 + b"}",
        b'{"graph_module": {}}',
    ],
)
def test_a_record_that_is_no_program_is_one_error(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(write(tmp_path, raw))
    assert caught.value.record == RECORD


def _set(*keys: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        place: Any = graph["graph_module"]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


SIZES = ("graph", "tensor_values", "p_w", "sizes")
SPECS = ("signature", "input_specs")


@pytest.mark.parametrize(
    "change",
    [
        _set("graph", to=[]),
        _set("graph", "nodes", to={}),
        _set("graph", "nodes", 0, to=1),
        _set("graph", "tensor_values", to=None),
        _set("graph", "tensor_values", "p_w", to="x"),
        _set("graph", "tensor_values", "p_w", "dtype", to="float32"),
        _set("graph", "tensor_values", "p_w", "dtype", to=True),
        _set(*SIZES, to=None),
        _set(*SIZES, 0, to=3),
        _set(*SIZES, 0, to={}),
        _set(*SIZES, 0, "as_int", to=-1),
        _set(*SIZES, 0, "as_int", to=2.0),
        _set(*SIZES, 0, "as_int", to=1 << 63),
        _set(*SIZES, to=[{"as_int": 1 << 62}] * 2),
        _set(*SIZES, to=[{"as_int": 1}] * 65),
        _set("signature", to="x"),
        _set(*SPECS, to={}),
        _set(*SPECS, 0, to="parameter"),
        _set(*SPECS, 0, "parameter", to=[]),
        _set(*SPECS, 0, "parameter", "parameter_name", to=7),
        _set(*SPECS, 0, "parameter", "parameter_name", to="b"),
        _set(*SPECS, 0, "parameter", "arg", to="p_w"),
        _set(*SPECS, 0, "parameter", "arg", "name", to="elsewhere"),
        _set(*SPECS, 1, "buffer", "persistent", to=1),
        _set("module_call_graph", to={"fqn": ""}),
        _set("module_call_graph", 0, to={}),
        _set("module_call_graph", 0, "fqn", to=[]),
    ],
)
def test_json_of_another_form_is_one_error(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    graph = document()
    change(graph)
    with pytest.raises(ArchiveError) as caught:
        read(write(tmp_path, graph))
    assert caught.value.record == RECORD


@pytest.mark.parametrize(
    "weights",
    [
        [],
        {"config": []},
        {"config": {"w": []}},
        {"config": {"w": payload(is_param=0)}},
        {"config": {"w": payload(path_name=None)}},
        {"config": {"w": payload(use_pickle="no")}},
        {"config": {"w": payload(tensor_meta=[])}},
        {"config": {"w": payload(tensor_meta={"dtype": 7, "sizes": [{"as_int": 2}]})}},
    ],
)
def test_weights_of_another_form_are_one_error(tmp_path: Path, weights: object) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(write(tmp_path, document(), weights))
    assert caught.value.record == WEIGHTS


def test_a_record_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(LimitExceededError):
        read(write(tmp_path, document()), Limits(header_bytes=10))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(seed=st.integers(0, 1 << 32), value=JSON, in_weights=st.booleans())
def test_any_value_in_any_place_gives_a_program_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, value: object, in_weights: bool
) -> None:
    graph, weights = document(), {"config": {"w": payload(), "s": payload(is_param=True)}}
    _replace(weights if in_weights else graph, value, random.Random(seed))
    path = write(tmp_path_factory.mktemp("damaged"), graph, weights)
    with contextlib.suppress(CkptoolError):
        assert isinstance(read(path), ExportedProgram)


def _replace(tree: Any, value: object, chance: random.Random) -> None:
    """Put a value in a random place of a JSON tree."""
    places = []
    pending = [tree]
    while pending:
        held = pending.pop()
        for key, inner in list(held.items() if isinstance(held, dict) else enumerate(held)):
            places.append((held, key))
            if isinstance(inner, dict | list):
                pending.append(inner)
    held, key = chance.choice(places)
    held[key] = value
