"""ckptool against torch: the same entries, dtypes, shapes, strides and values, file by file."""

from __future__ import annotations

import copyreg
import pickle
import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from safetensors.torch import load_file, save_file
from torch import nn
from torch.package.package_exporter import PackageExporter

from ckptool import list_contents, open_checkpoint
from ckptool.tensors.refs import NoData, Strided, TensorRef
from tests import builders, strategies
from tests.networks import Net
from tests.oracle import TREES, WRITERS, Facts, content_hash, facts, tensors_in

# torch.load(weights_only=True) reads protocols 2 and 3 only.
READ_BY_TORCH = ("zip", "legacy", "big-endian", "without CRC", "protocol 3")
# It writes no dtypes without a typed storage into the old stream and cannot load sparse tensors of
# it; it does not turn the bytes of untyped storages.
REFUSED_BY_TORCH = {
    ("every dtype", "legacy"),
    ("views", "legacy"),
    ("several parts", "legacy"),
}
MISREAD_BY_TORCH = {("every dtype", "big-endian"), ("views", "big-endian")}


def loaded(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=True, map_location="cpu")


def described(path: Path) -> dict[object, Facts]:
    """What ckptool says of a file, in torch's terms."""
    with open_checkpoint(path) as checkpoint:
        contents = list_contents(checkpoint, with_hashes=True)
        return {
            one.entry.keys: _facts(one.entry.tensor, contents.hashes[id(one)])
            for one in contents.entries
            if one.entry.tensor is not None
        }


def _facts(tensor: TensorRef, sha256: str | None) -> Facts:
    is_plain = isinstance(tensor.data, Strided | NoData)
    return Facts(
        str(tensor.dtype),
        tensor.shape[:1] if tensor.layout in ("nested", "jagged") else tensor.shape,
        tensor.data.stride if isinstance(tensor.data, Strided | NoData) else None,
        tensor.layout,
        tensor.requires_grad,
        sha256 if is_plain else None,
    )


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("tree", TREES)
def test_every_tensor_is_what_was_saved(tree: str, writer: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "checkpoint.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = TREES[tree]()
        if (tree, writer) in REFUSED_BY_TORCH:
            pytest.skip("torch itself cannot write it")
        WRITERS[writer](value, path)
        expected = {keys: facts(tensor) for keys, tensor in tensors_in(value)}
        is_read = writer in READ_BY_TORCH and (tree, writer) not in MISREAD_BY_TORCH
        if is_read and tree != "training":
            assert {keys: facts(tensor) for keys, tensor in tensors_in(loaded(path))} == expected
    assert described(path) == expected
    assert expected


@given(tree=strategies.trees(opaque=False))
def test_torch_loads_the_same_from_built_files(
    tree: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("built") / "checkpoint.pt"
    path.write_bytes(builders.torch_zip(tree))
    expected = {keys: facts(tensor) for keys, tensor in tensors_in(loaded(path))}
    found = described(path)
    assert {keys: fact._replace(requires_grad=False) for keys, fact in found.items()} == {
        keys: fact._replace(requires_grad=False) for keys, fact in expected.items()
    }


def test_the_big_endian_files_of_these_tests_are_read_so_by_torch(tmp_path: Path) -> None:
    path = tmp_path / "big.pt"
    WRITERS["big-endian"]({"w": torch.arange(3, dtype=torch.int32)}, path)
    assert b"\0\0\0\1\0\0\0\2" in path.read_bytes()
    read = loaded(path)
    assert isinstance(read, dict)
    assert read["w"].tolist() == [0, 1, 2]


def test_a_whole_module_is_its_state_dict_and_the_buffers_that_it_leaves_out(
    tmp_path: Path,
) -> None:
    net = Net()
    path = tmp_path / "net.pt"
    torch.save(net, path)
    with open_checkpoint(path) as checkpoint:
        found = list_contents(checkpoint, with_hashes=True)
    by_name = {one.name: one for one in found.entries}
    expected = dict(net.named_parameters()) | dict(net.named_buffers())
    assert by_name.keys() == expected.keys()
    assert {
        name for name, one in by_name.items() if one.role == "parameter"
    } == dict(net.named_parameters()).keys()  # fmt: skip
    assert {
        name for name, one in by_name.items() if one.is_persistent is False
    } == expected.keys() - net.state_dict().keys()  # fmt: skip
    assert all(one.is_certain and one.evidence == "module" for one in found.entries)
    assert {name: found.hashes[id(one)] for name, one in by_name.items()} == {
        name: content_hash(tensor) for name, tensor in expected.items()
    }


class Holding(nn.Module):
    """What is in no state_dict: a tensor, a list of modules, an optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.count = torch.zeros(3)
        self.others = [nn.Linear(1, 1)]
        self.optimizer = torch.optim.Adam(self.layer.parameters())


@pytest.mark.parametrize(
    "module",
    [
        nn.LSTM(2, 3, num_layers=2, bidirectional=True),
        nn.TransformerEncoderLayer(4, 2, 4),
        torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),
        Holding(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_whole_module_and_its_state_dict_have_one_fingerprint(
    module: nn.Module, tmp_path: Path
) -> None:
    fingerprints = set()
    for tree in (module, module.state_dict(), {"model": module, "epoch": 3}):
        torch.save(tree, tmp_path / "t.pt")
        with open_checkpoint(tmp_path / "t.pt") as checkpoint:
            found = list_contents(checkpoint, with_hashes=True)
        named = [one for one in found.entries if one.name is not None]
        assert {one.name for one in named} == module.state_dict().keys()
        fingerprints.add(found.fingerprint)
    assert len(fingerprints) == 1
    assert None not in fingerprints


@pytest.mark.parametrize("slot", ["state", "keyed", "listed", "kwargs", "args", "set", "callee"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_tensor_is_found_wherever_an_object_keeps_it(
    slot: str, protocol: int, tmp_path: Path
) -> None:
    torch.save({"x": Keeper(slot, torch.ones(7))}, tmp_path / "t.pt", pickle_protocol=protocol)
    with open_checkpoint(tmp_path / "t.pt") as checkpoint:
        shapes = [entry.tensor.shape for entry in checkpoint.entries if entry.tensor]
    assert shapes == [(7,)]


class Keeper:
    """Keeps a tensor in the part of its pickle that it is asked to."""

    def __init__(self, slot: str, tensor: torch.Tensor) -> None:
        self.slot, self.tensor = slot, tensor

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        held = self.tensor
        whole: dict[str, tuple[object, ...]] = {
            "state": (OrderedDict, (), {"hidden": held}),
            "keyed": (dict, (), None, None, iter([("a", held)])),
            "listed": (list, (), None, iter([held])),
            "kwargs": (copyreg.__newobj_ex__, (Keeper, (), {"tensor": held})),  # type: ignore[attr-defined]
            "args": (Keeper, ("args", held)),
            "set": (set, ([held],)),
            "callee": (partial(Keeper, tensor=held), ("callee",)),
        }
        return whole[self.slot]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("is_lite", [False, True], ids=["full", "lite"])
def test_a_torchscript_archive_gives_the_attributes_of_its_modules(
    is_lite: bool, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt"
    scripted = torch.jit.script(Net().eval())
    if is_lite:
        scripted._save_for_lite_interpreter(str(path))  # type: ignore[no-untyped-call]
    else:
        torch.jit.save(scripted, path)
    # The archive keeps no difference between persistent and other buffers.
    state = dict(scripted.named_parameters()) | dict(scripted.named_buffers())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "torchscript"
        contents = list_contents(checkpoint, with_hashes=True)
        found = {
            one.name: (one.role, contents.hashes[id(one)])
            for one in contents.entries
            if one.name is not None
        }
    parameters = dict(scripted.named_parameters()).keys()
    assert found == {
        name: ("parameter" if name in parameters else "buffer", content_hash(tensor))
        for name, tensor in state.items()
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_package_gives_the_tensors_that_were_put_in(tmp_path: Path) -> None:
    path = tmp_path / "package.pt"
    state = nn.Linear(2, 3).state_dict()
    with PackageExporter(str(path)) as exporter:
        exporter.extern("**")
        exporter.save_pickle("model", "weights.pkl", dict(state))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "torch-package"
    assert described(path) == {
        ("model/weights.pkl", name): facts(tensor) for name, tensor in state.items()
    }


def test_tensors_in_a_plain_pickle_are_read(tmp_path: Path) -> None:
    tree = {"a": torch.arange(4.0).reshape(2, 2).t(), "b": torch.tensor(3), "c": [torch.ones(2)]}
    for protocol in range(2, 6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(tree, protocol=protocol))
        assert described(path) == {keys: facts(tensor) for keys, tensor in tensors_in(tree)}


def test_safetensors_give_what_their_own_library_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = ("float32", "bfloat16", "float8_e4m3fn", "bool", "int64", "uint16", "complex64")
    state = {name: torch.ones(2, 3).to(getattr(torch, name)) for name in names}
    save_file({**state, "empty": torch.empty(0, 2), "0-d": torch.tensor(1.0)}, path)
    expected = {(name,): facts(tensor) for name, tensor in load_file(path).items()}
    assert described(path) == expected


@pytest.mark.parametrize("writer", ["zip", "legacy"])
def test_ties_are_those_of_torch(writer: str, tmp_path: Path) -> None:
    shared = torch.randn(6)
    tree = {"a": shared, "b": shared, "first": shared[:3], "last": shared[3:], "c": shared.clone()}
    path = tmp_path / "tied.pt"
    WRITERS[writer](tree, path)
    from ckptool import overview

    with open_checkpoint(path) as checkpoint:
        seen = overview(list_contents(checkpoint))
        groups = {tuple(entry.path for entry in group) for group in seen.ties.values()}
    assert groups == {("a", "b")}
