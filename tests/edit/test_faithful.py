"""What an edit is not about stays as it is, to the bit: torch itself is asked."""

from __future__ import annotations

import functools
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ckptool import EntryNotFoundError, Plan, open_checkpoint, plan_strip
from tests import builders
from tests.edit.results import (
    load,
    pickle_of,
    records,
    reset,
    same,
    saved,
    strip,
    without,
)
from tests.oracle import TREES, WRITERS
from tests.running import SAMPLES
from tests.test_samples import FILES

SERIALIZATION_ID: Final = ".data/serialization_id"
TRUSTED: Final = {"training.ckpt", "whole_module.pt"}

# torch does not read back what it writes into the old stream with dtypes of no typed storage, nor
# sparse tensors.
UNREADABLE: Final = {("every dtype", "legacy"), ("views", "legacy"), ("several parts", "legacy")}
# Of these trees not all bytes of every storage are in use.
WASTEFUL: Final = {"views", "typed views", "several parts"}
ALL_TREES: Final[Mapping[str, Callable[[], Any]]] = {
    **TREES,
    "typed views": lambda: {
        name: tensor
        for name, tensor in TREES["views"]().items()  # type: ignore[attr-defined]
        if tensor.dtype != torch.complex32
    },
}
CASES: Final = [
    pytest.param(tree, writer, id=f"{tree}, {writer}")
    for tree in ALL_TREES
    for writer in WRITERS
    if (tree, writer) not in UNREADABLE and tree != "bare tensor"
]


def written(tree: str, writer: str, path: Path) -> Path:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITERS[writer](ALL_TREES[tree](), path)
    return path


def loaders(tree: str, writer: str) -> list[Callable[[Path], Any]]:
    """All the ways in which torch reads such a file."""
    is_trusted = tree == "training" or writer in ("protocol 4", "protocol 5")
    is_mapped = [False] if writer == "legacy" else [False, True]
    trusts = [True] if is_trusted else [False, True]
    return [functools.partial(load, mmap=m, trusted=t) for m in is_mapped for t in trusts]


def check_records(before: Path, after: Path, changed: Collection[str] = ("data.pkl",)) -> None:
    """Assert that records keep their names, order, bytes and CRC, and lie where mmap wants them.

    A storage of which only a part stays is that part.
    """
    old, new = records(before), records(after)
    here = [name for name in old if name in new]
    assert [name for name in new if name in old] == here
    assert {name.partition("/")[0] for name in new} == {next(iter(old)).partition("/")[0]}
    gone = {name.partition("/")[2] for name in old.keys() - new.keys()}
    assert all(name.startswith("data/") or name == SERIALIZATION_ID for name in gone)
    storages = [one.data for name, one in old.items() if "/data/" in name]
    for name, record in new.items():
        assert record.at % 64 == 0, name
        short = name.partition("/")[2]
        if short in changed:
            assert record.crc == zlib.crc32(record.data)
        elif name in old and len(old[name].data) == len(record.data):
            assert record[:2] + record[3:] == old[name][:2] + old[name][3:], name
        else:
            assert short.startswith("data/")
            assert record.crc == zlib.crc32(record.data)
            assert any(record.data in whole for whole in storages), name


# Every kind of file -----------------------------------------------------------------------------


@pytest.mark.parametrize(("tree", "writer"), CASES)
def test_whatever_part_goes_the_others_stay(tree: str, writer: str, tmp_path: Path) -> None:
    src, dst = written(tree, writer, tmp_path / "src.pt"), tmp_path / "dst.pt"
    keys = range(2) if tree == "pairs" else list(ALL_TREES[tree]())
    for key in keys:
        dst.unlink(missing_ok=True)
        plan = strip(src, dst, drop=[f"/{key}"])
        assert [one.path for one in plan.removed] == [str(key)]
        assert dst.stat().st_size == plan.nbytes
        # What Python's zipfile wrote for this test is not aligned.
        assert plan.nbytes < plan.bytes_before or writer == "big-endian"
        for read in loaders(tree, writer):
            same(without(read(src), key), read(dst))
        if writer != "legacy":
            check_records(src, dst)


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "big-endian"])
@pytest.mark.parametrize(
    "tree", [name for name in ALL_TREES if name not in WASTEFUL | {"bare tensor"}]
)
def test_the_last_part_goes_as_if_torch_had_never_had_it(
    tree: str, writer: str, tmp_path: Path
) -> None:
    value = ALL_TREES[tree]()
    last = len(value) - 1 if tree == "pairs" else list(value)[-1]
    WRITERS[writer](value, tmp_path / "src.pt")
    WRITERS[writer](without(value, last), tmp_path / "expected.pt")
    strip(tmp_path / "src.pt", tmp_path / "dst.pt", drop=[f"/{last}"])
    if writer == "legacy":
        # Its storage keys are memory addresses, the same ones in both files.
        assert (tmp_path / "dst.pt").read_bytes() == (tmp_path / "expected.pt").read_bytes()
    else:
        assert pickle_of(tmp_path / "dst.pt") == pickle_of(tmp_path / "expected.pt")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_part_becomes_the_file(writer: str, tmp_path: Path) -> None:
    src, dst = written("training", writer, tmp_path / "src.pt"), tmp_path / "dst.pt"
    plan = strip(src, dst, root="model", extract=True)
    assert plan.bytes_before > 2 * plan.nbytes
    for read in loaders("training", writer):
        same(read(src)["model"], read(dst))
    if writer in ("zip", "legacy", "big-endian", "without CRC", "protocol 3"):
        same(load(dst), load(dst, trusted=True))


@pytest.mark.parametrize("writer", WRITERS)
def test_training_state_goes_and_all_else_stays(writer: str, tmp_path: Path) -> None:
    src, dst = written("training", writer, tmp_path / "src.pt"), tmp_path / "dst.pt"
    plan = strip(src, dst, training=True)
    assert [one.path for one in plan.removed] == ["optimizer", "rng"]
    for read in loaders("training", writer):
        same(without(without(read(src), "optimizer"), "rng"), read(dst))


@pytest.mark.parametrize("writer", WRITERS)
def test_names_lose_a_prefix_and_nothing_else(writer: str, tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(prefix="module.")
    WRITERS[writer](state, tmp_path / "src.pt")
    plan = strip(tmp_path / "src.pt", tmp_path / "dst.pt", prefix="module.")
    assert {one.what for one in plan.changed} == {"renamed"}
    for read in loaders("prefix", writer):
        before, after = read(tmp_path / "src.pt"), read(tmp_path / "dst.pt")
        assert list(after) == [name.removeprefix("module.") for name in before]
        for one, other in zip(before.values(), after.values(), strict=True):
            same(one, other)
        modules = {"": {"version": 1}, "0": {"version": 1}, "1": {"version": 2}}
        assert after._metadata == modules
    if writer != "legacy":
        check_records(tmp_path / "src.pt", tmp_path / "dst.pt")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_reset_touches_its_buffers_only(writer: str, tmp_path: Path) -> None:
    src, dst = written("training", writer, tmp_path / "src.pt"), tmp_path / "dst.pt"
    plan = reset(src, dst, roots=["model"])
    leaves = ("running_mean", "running_var", "num_batches_tracked")
    assert [one.path for one in plan.changed] == [f"model/1.{leaf}" for leaf in leaves]
    for read in loaders("training", writer):
        expected, found = read(src), read(dst)
        for leaf, value in zip(leaves, (0, 1, 0), strict=True):
            expected["model"][f"1.{leaf}"].fill_(value)
        same(expected, found)
    if writer == "legacy":
        assert src.stat().st_size == dst.stat().st_size
    else:
        assert pickle_of(src) == pickle_of(dst)
        old, new = records(src), records(dst)
        differing = [name.partition("/")[2] for name in new if new[name].data != old[name].data]
        assert len(differing) == 3
        check_records(src, dst, differing)


@pytest.mark.parametrize("name", [name for name in FILES if name != "canary.pt"])
def test_a_sample_loses_a_name_and_nothing_else(name: str, tmp_path: Path) -> None:
    src, dst = SAMPLES / name, tmp_path / name
    with open_checkpoint(src, root="model" if name == "training.ckpt" else None) as checkpoint:
        named = [checkpoint.name_of(one) for one in checkpoint.entries if one.tensor is not None]
    first = next(name for name in named if name is not None)
    root = "model" if name == "training.ckpt" else None
    plan = strip(src, dst, root=root, drop=[first])
    assert [one.path.removeprefix("model/") for one in plan.removed] == [first]
    for trusted in (False, True) if name not in TRUSTED else (True,):
        for mmap in (False, True) if name != "legacy.pt" else (False,):
            read = functools.partial(load, trusted=trusted, mmap=mmap)
            expected, found = read(src), read(dst)
            same(_without_name(expected, root, first), found)
    if name not in ("legacy.pt", "model.safetensors"):
        check_records(src, dst)


def _without_name(tree: Any, root: str | None, name: str) -> Any:
    state = tree if root is None else tree[root]
    if isinstance(state, nn.Module):
        module, _, leaf = name.rpartition(".")
        delattr(state.get_submodule(module), leaf)
        return tree
    del state[name]
    gone = {name.rpartition(".")[0]} - {other.rpartition(".")[0] for other in state} - {""}
    for module in gone & getattr(state, "_metadata", {}).keys():
        del state._metadata[module]
    return tree


def test_safetensors_stay_what_their_own_library_says(tmp_path: Path) -> None:
    src, dst = tmp_path / "src.safetensors", tmp_path / "dst.safetensors"
    state = {
        "b": torch.arange(3, dtype=torch.int8),
        "a": torch.randn(2, 3),
        "empty": torch.empty(0, 2),
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "odd": torch.tensor([True, False, True]),
    }
    save_file(state, src, metadata={"format": "pt", "note": "é"})
    for name in state:
        dst.unlink(missing_ok=True)
        strip(src, dst, drop=[name])
        same(without(load(src), name), load(dst))
        with safe_open(dst, "pt") as read:
            assert read.metadata() == {"format": "pt", "note": "é"}


# Archives ---------------------------------------------------------------------------------------

STATE: Final = {
    "a": builders.Tensor("float32", (3,)),
    "b": builders.Tensor("int64", ()),
    "c": builders.Tensor("float16", (2, 5)),
}
SHAPES: Final[Mapping[str, dict[str, Any]]] = {
    "plain": {},
    "another archive name": {"archive_name": "some model"},
    "no CRC": {"crc": False},
    "ZIP64 in every record": {"zip64": True},
    "sizes in the headers": {"data_descriptor": False},
    "no byteorder": {"byteorder": None},
    "another order": {"order": ["version", "data/1", "data.pkl"]},
    "no alignment": {"alignment": 0},
    "other storage keys": {"keys": ["7", "x", "140737488355328"]},
    "records of others": {"extra_records": {"notes.txt": b"by hand", "extra/data.pkl2": b""}},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", STATE)
def test_an_archive_keeps_its_form(shape: str, name: str, tmp_path: Path) -> None:
    src, dst = tmp_path / "src.pt", tmp_path / "dst.pt"
    src.write_bytes(builders.torch_zip(STATE, **SHAPES[shape]))
    strip(src, dst, drop=[name])
    check_records(src, dst)
    assert records(src).keys() - records(dst).keys() == {
        one
        for one, key in zip(records(src), map(_storage_key, records(src)), strict=True)
        if one.endswith(SERIALIZATION_ID) or key == list(_keys(shape))[list(STATE).index(name)]
    }
    for mmap in (False, True):
        same(without(load(src, mmap=mmap), name), load(dst, mmap=mmap))


def _storage_key(record: str) -> str | None:
    return record.rpartition("/")[2] if "/data/" in record else None


def _keys(shape: str) -> list[str]:
    return list(SHAPES[shape].get("keys", ("0", "1", "2")))


def test_a_crc_that_is_not_recorded_stays_so(tmp_path: Path) -> None:
    src, dst = tmp_path / "src.pt", tmp_path / "dst.pt"
    src.write_bytes(builders.torch_zip(STATE, crc=False))
    strip(src, dst, drop=["b"])
    crc = {name.partition("/")[2]: one.crc for name, one in records(dst).items()}
    assert crc.pop("data.pkl") == zlib.crc32(pickle_of(dst))
    assert set(crc.values()) == {0}


@pytest.mark.parametrize("edit", ["strip", "reset"])
def test_deflated_records_stay_deflated_and_readable(edit: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 60), nn.BatchNorm1d(60))
    plain = saved(model.state_dict(), tmp_path / "plain.pt")
    src, dst = tmp_path / "src.pt", tmp_path / "dst.pt"
    with zipfile.ZipFile(src, "w", zipfile.ZIP_DEFLATED) as target:
        for name, record in records(plain).items():
            target.writestr(name, record.data)
    expected = load(src)
    if edit == "strip":
        strip(src, dst, drop=["0.bias"])
        check_records(src, dst)
        del expected["0.bias"]
    else:
        reset(src, dst)
        norm = model[1]
        assert isinstance(norm, nn.BatchNorm1d)
        norm.reset_running_stats()
        expected.update(model.state_dict())
    same(expected, load(dst))
    deflated = [name for name, one in records(dst).items() if one.is_deflated]
    assert any(name.endswith("/data/0") for name in deflated)


def test_storages_that_nothing_refers_to_go_along(tmp_path: Path) -> None:
    src, dst = tmp_path / "src.pt", tmp_path / "dst.pt"
    src.write_bytes(builders.torch_zip(STATE, extra_records={"data/9": bytes(1000)}))
    strip(src, dst, drop=["b"])
    assert [name for name in records(dst) if "/data/" in name] == [
        "archive/data/0",
        "archive/data/2",
    ]
    same(without(load(src), "b"), load(dst))


# The same again ---------------------------------------------------------------------------------

EDITS: Final[dict[str, dict[str, Any]]] = {
    "drop": {"root": "model", "drop": ["0.bias"]},
    "pattern": {"root": "model", "drop": ["1.*"]},
    "training": {"training": True},
    "prefix": {"root": "model", "prefix": "0."},
    "extract": {"root": "model", "extract": True},
    "keep": {"root": "model", "keep": ["0.*"]},
}


@pytest.mark.parametrize("writer", ["zip", "legacy", "without CRC", "protocol 5"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_gives_the_same_bytes_each_time_and_is_done_once(
    edit: str, writer: str, tmp_path: Path
) -> None:
    src = written("training", writer, tmp_path / "src.pt")
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    plans = [strip(src, path, **EDITS[edit]) for path in (first, second)]
    assert first.read_bytes() == second.read_bytes()
    assert facts_of(plans[0]) == facts_of(plans[1])
    again: dict[str, Any] = {**EDITS[edit]}
    if edit == "extract":
        del again["root"]
    with pytest.raises(EntryNotFoundError):
        strip(first, tmp_path / "third.pt", **again)
    assert not (tmp_path / "third.pt").exists()


def facts_of(plan: Plan) -> tuple[object, ...]:
    return plan.removed, plan.changed, plan.left, plan.notes, plan.kept, plan.nbytes


@pytest.mark.parametrize("writer", WRITERS)
def test_edits_one_after_the_other_are_one_edit(writer: str, tmp_path: Path) -> None:
    src = written("training", writer, tmp_path / "src.pt")
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("a.pt", "b.pt", {"training": True}),
        ("b.pt", "c.pt", {"drop": ["/history"]}),
    ]
    (tmp_path / "a.pt").write_bytes(src.read_bytes())
    for before, after, options in steps:
        strip(tmp_path / before, tmp_path / after, **options)
    strip(src, tmp_path / "once.pt", training=True, drop=["/history"])
    assert (tmp_path / "c.pt").read_bytes() == (tmp_path / "once.pt").read_bytes()


@pytest.mark.parametrize("name", [name for name in FILES if name != "canary.pt"])
def test_a_bare_plan_changes_nothing(name: str) -> None:
    with open_checkpoint(SAMPLES / name) as checkpoint, pytest.raises(EntryNotFoundError):
        plan_strip(checkpoint)
