"""Buffers reset: torch and live modules say what they are then, and that all else is as it was."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ckptool import (
    AmbiguousRootError,
    EditError,
    EntryNotFoundError,
    SharedStorageError,
    open_checkpoint,
    plan_reset_buffers,
)
from tests import builders, strategies
from tests.oracle import WRITERS, facts, tensors_in, tensors_of_several_parts
from tests.running import SAMPLES, json_of, run, run_process
from tests.sample_models import models
from tests.test_samples import KINDS, MODELS
from tests.test_seed_models import ARGUMENTS

HERE: Final = "tests.edit.test_reset_buffers"
LEAVES: Final = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
PLACEHOLDERS: Final = "placeholders"


class Edit(NamedTuple):
    """What was said of an edit, and what torch loads from its result."""

    said: dict[str, Any]
    tree: Any
    path: Path

    @property
    def changed(self) -> dict[str, str]:
        assert {one["what"] for one in self.said["changed"]} == {"reset"}
        return {one["path"]: one["to"] for one in self.said["changed"]}

    @property
    def left(self) -> dict[str, str]:
        return {one["path"]: one["why"] for one in self.said["left"]}

    @property
    def notes(self) -> str:
        return " ".join(self.said["notes"])


def loaded(path: Path) -> Any:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def reset(src: Path, *arguments: str | Path) -> Edit:
    dst = src.with_name(f"reset-{src.name}")
    said = json_of("reset-buffers", src, "-o", dst, "--force", *arguments)
    return Edit(said, loaded(dst), dst)


def refused(src: Path, *arguments: str | Path) -> tuple[str, str]:
    """The kind and the words of an error, after which there is no file."""
    before = sorted(src.parent.iterdir())
    result = run("reset-buffers", src, "-o", src.with_name("no.pt"), *arguments, "--json")
    assert (result.code, sorted(src.parent.iterdir())) == (2, before)
    error = json.loads(result.out)["error"]
    assert result.err.startswith("error: ")
    return error["kind"], error["message"]


def saved(tree: object, folder: Path, name: str = "src.pt") -> Path:
    torch.save(tree, folder / name)
    return folder / name


def assert_same(found: object, expected: object) -> None:
    """The same tensors under the same key paths, bit by bit."""
    pair = [{keys: facts(one) for keys, one in tensors_in(tree)} for tree in (found, expected)]
    assert pair[0] == pair[1]


def pickle_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return archive.read(name)


def set_all(tensor: Tensor, value: float) -> None:
    """Set element after element: in place torch refuses views in which elements are one."""
    with torch.no_grad():
        for index in itertools.product(*map(range, tensor.shape)):
            tensor[index] = value


def used() -> nn.Module:
    """A network after two steps, with statistics by torch and by hand."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 3), models.CustomBatchNorm(3))
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), inner, nn.BatchNorm1d(3))
    for _ in range(2):
        network(torch.randn(6, 5) * 3 + 1)
    return network


def with_reset_statistics(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy in which torch has set the statistics in their places."""
    copied = dict(copy.deepcopy(state))
    for name, tensor in copied.items():
        if (leaf := name.rpartition(".")[2]) in LEAVES:
            set_all(tensor, LEAVES[leaf])
    return copied


def statistics(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "bn.running_mean": torch.full((3,), 5).to(dtype),
        "bn.running_var": torch.full((3,), 7).to(dtype),
        "weight": torch.full((2,), 9.0),
    }


# By rule ---------------------------------------------------------------------------------------

NORMALISATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "plain": lambda: nn.BatchNorm1d(3),
    "without affine": lambda: nn.BatchNorm1d(3, affine=False),
    "cumulative": lambda: nn.BatchNorm1d(3, momentum=None),
    "of instances": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    "synchronised": lambda: nn.SyncBatchNorm(3).eval(),
    "frozen": lambda: nn.BatchNorm1d(3).eval().requires_grad_(False),
}
WIDTHS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("dtype", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_a_reset_is_what_reset_running_stats_does(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    norm: Any = NORMALISATIONS[kind]()
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 9)
    network = nn.Sequential(nn.Linear(2, 3), norm).to(dtype)
    src = saved(network.state_dict(), tmp_path)
    edit = reset(src)
    norm.reset_running_stats()
    assert_same(edit.tree, network.state_dict())
    state: Any = network.state_dict()
    assert edit.tree._metadata == state._metadata
    assert pickle_in(edit.path) == pickle_in(src)
    assert edit.changed == {f"1.{leaf}": str(value) for leaf, value in LEAVES.items()}
    assert edit.tree["1.num_batches_tracked"].dtype == torch.int64
    assert PLACEHOLDERS in edit.notes


def test_modules_that_use_the_names_are_reset_like_batch_norm(tmp_path: Path) -> None:
    state = used().state_dict()
    edit = reset(saved(state, tmp_path))
    assert_same(edit.tree, with_reset_statistics(state))
    fresh = models.CustomBatchNorm(3).state_dict()
    for leaf in LEAVES:
        assert_same(edit.tree[f"2.1.{leaf}"], fresh[leaf])


def test_a_counter_with_a_dimension_keeps_it(tmp_path: Path) -> None:
    state = {**nn.BatchNorm1d(2).state_dict(), "num_batches_tracked": torch.tensor([7])}
    assert_same(reset(saved(state, tmp_path)).tree, with_reset_statistics(state))


def test_bad_statistics_are_repaired_in_the_modules_that_match_only(tmp_path: Path) -> None:
    state = used().state_dict()
    for name in ("1.running_mean", "3.running_mean"):
        state[name][0] = float("nan")
    for name in ("1.running_var", "3.running_var"):
        state[name][1] = -9.7
    edit = reset(saved(state, tmp_path), "--match", "1.*running*", "--match", "1.num*")
    expected = with_reset_statistics(state)
    assert_same(edit.tree, {k: expected[k] if k.startswith("1.") else state[k] for k in state})
    codes = {
        (one["name"], one["code"])
        for one in json.loads(run("check", edit.path, "--json").out)["findings"]
    }
    assert codes == {("3.running_mean", "nan"), ("3.running_var", "negative-variance")}


def test_an_exclamation_mark_leaves_names_out(tmp_path: Path) -> None:
    edit = reset(saved(used().state_dict(), tmp_path), "--match", "!*.1.*", "--match", "!*_var")
    names = ("1.running_mean", "1.num_batches_tracked", "3.running_mean", "3.num_batches_tracked")
    assert set(edit.changed) == set(names)


RARE: Final = (torch.complex64, torch.float8_e5m2, torch.float8_e4m3fn)


@pytest.mark.parametrize("dtype", RARE, ids=str)
def test_rare_dtypes_are_reset_as_well(dtype: torch.dtype, tmp_path: Path) -> None:
    state = statistics(dtype)
    expected = {**state, "bn.running_mean": torch.zeros(3), "bn.running_var": torch.ones(3)}
    edit = reset(saved(state, tmp_path))
    assert_same(edit.tree, {name: expected[name].to(state[name].dtype) for name in state})


# By a model ------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A buffer of each way in which an initial value is told, and one that is random."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("table", torch.sin(torch.arange(20_000.0)))
        self.register_buffer("noise", torch.randn(4))
        self.register_buffer("steps", torch.arange(5, 20, 3))
        self.register_buffer("third", torch.full((2, 2), 1 / 3))
        self.register_buffer("mask", torch.tril(torch.ones(3, 3)).bool())
        self.register_buffer("wave", torch.tensor([1 + 2j, 3]))
        self.register_buffer("unset", torch.full((3,), float("nan")))
        self.register_buffer("cache", torch.tensor([0.1, 0.2]), persistent=False)


class Growing(nn.Module):
    """Each one has a longer buffer than the one before."""

    length = 2

    def __init__(self) -> None:
        super().__init__()
        Growing.length += 1
        self.register_buffer("grown", torch.zeros(Growing.length))
        self.register_buffer("fixed", torch.zeros(2))


class Unsigned(nn.Module):
    """Integers that need the last bit."""

    def __init__(self) -> None:
        super().__init__()
        numbers = [(1 << 63) + 5, (1 << 63) + 6, (1 << 63) + 7]
        self.register_buffer("ids", torch.tensor(numbers, dtype=torch.uint64))


BUFFERS: Final = set(dict(Mixed().named_buffers()))


def mixed(**others: Tensor) -> dict[str, Tensor]:
    """A state_dict of Mixed with other values."""
    tensors = {**Mixed().state_dict(), "cache": torch.zeros(2)}
    return {name: torch.ones_like(tensor) for name, tensor in tensors.items()} | others


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "mixed.json"
    assert run("spec", f"{HERE}:Mixed", "-o", path).code == 0
    return path


@pytest.mark.parametrize("form", ["live", "spec"])
@pytest.mark.parametrize("name", MODELS)
def test_a_seed_model_gets_what_its_constructor_gives(name: str, form: str, tmp_path: Path) -> None:
    spec_file = SAMPLES / "specs" / f"{Path(name).stem}.json"
    model = spec_file if form == "spec" else f"{SAMPLES / 'models.py'}:{ARGUMENTS[name]}"
    fresh, module = MODELS[name](), MODELS[name]()
    for buffer in module.buffers():
        buffer.copy_(torch.randint(2, 90, buffer.shape))
    edit = reset(saved(module.state_dict(), tmp_path), "--model", model)
    buffers = {key: value for key, value in fresh.named_buffers() if key in KINDS[name][1]}
    assert_same(edit.tree, {**module.state_dict(), **buffers})
    assert (set(edit.changed), edit.left) == (KINDS[name][1], {})
    assert fresh.load_state_dict(edit.tree, strict=True)
    # What the model does not save is reset as well where it is there.
    stale = {**module.state_dict(), **dict(module.named_buffers())}
    edit = reset(saved(stale, tmp_path), "--model", model)
    assert_same(edit.tree, {**stale, **dict(MODELS[name]().named_buffers())})


@pytest.mark.parametrize("form", ["live", "spec"])
def test_what_a_model_cannot_tell_is_named(form: str, spec: Path, tmp_path: Path) -> None:
    edit = reset(saved(mixed(), tmp_path), "--model", spec if form == "spec" else f"{HERE}:Mixed")
    unknown = {"noise": "--seed", **({"table": "live model"} if form == "spec" else {})}
    assert edit.left.keys() == unknown.keys()
    assert all(part in edit.left[name] for name, part in unknown.items())
    assert edit.changed.keys() == BUFFERS - unknown.keys()
    assert edit.changed["steps"] == "5 to 17"
    expected = {k: v for k, v in Mixed().named_buffers() if k not in unknown}
    assert_same(edit.tree, mixed() | expected)
    assert PLACEHOLDERS not in edit.notes


@pytest.mark.parametrize("seed", [0, 1234])
def test_random_buffers_are_those_behind_the_seed(seed: int, tmp_path: Path) -> None:
    src = saved(mixed(), tmp_path)
    state = torch.get_rng_state()
    edit = reset(src, "--model", f"{HERE}:Mixed", "--seed", str(seed))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(seed)
    fresh = dict(Mixed().named_buffers())
    assert_same(edit.tree, mixed() | fresh)
    assert (edit.left, str(seed) in edit.changed["noise"]) == ({}, True)
    assert refused(src, "--model", f"{HERE}:Mixed", "--match", "noise")[0] == "edit"


def test_a_spec_makes_no_random_buffer_even_with_a_seed(spec: Path, tmp_path: Path) -> None:
    edit = reset(saved(mixed(), tmp_path), "--model", spec, "--seed", "1")
    assert "live model" in edit.left["noise"]
    assert_same(edit.tree["noise"], torch.ones(4))


UNFIT: Final[Mapping[str, Tensor]] = {
    "table": torch.ones(4),
    "third": torch.ones(2, 2, dtype=torch.int32),
    "steps": torch.ones(5, 1, dtype=torch.int64),
    "mask": torch.ones(9, dtype=torch.bool),
    "wave": torch.ones(2),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_the_model_is_left(name: str, spec: Path, tmp_path: Path) -> None:
    state = mixed(**{name: UNFIT[name]})
    edit = reset(saved(state, tmp_path), "--model", spec)
    assert name in edit.left
    assert_same(edit.tree[name], UNFIT[name])


CAST: Final = {
    "third": (torch.float16, torch.bfloat16, torch.float64),
    "steps": (torch.int32, torch.uint8, torch.float32),
    "mask": (torch.uint8, torch.float16),
    "cache": (torch.float8_e4m3fn,),
}


@pytest.mark.parametrize(("name", "dtype"), [(n, d) for n, all_ in CAST.items() for d in all_])
def test_another_width_gets_the_same_numbers_or_says_that_they_are_rounded(
    name: str, dtype: torch.dtype, spec: Path, tmp_path: Path
) -> None:
    expected = dict(Mixed().named_buffers())[name].to(dtype)
    edit = reset(saved(mixed(**{name: torch.ones_like(expected)}), tmp_path), "--model", spec)
    assert_same(edit.tree[name], expected)
    is_rounded = dtype.is_floating_point and dtype.itemsize < 4 and name in ("third", "cache")
    assert (f"rounded to the file's dtype: {name}" in edit.notes) is is_rounded


def test_a_buffer_that_grows_with_each_construction_is_left(tmp_path: Path) -> None:
    state = {"grown": torch.ones(Growing.length + 1), "fixed": torch.ones(2)}
    edit = reset(saved(state, tmp_path), "--model", f"{HERE}:Growing", "--seed", "1")
    assert_same(edit.tree, {**state, "fixed": torch.zeros(2)})


def test_integers_beyond_63_bits_are_set(tmp_path: Path) -> None:
    src = saved({"ids": torch.zeros(3, dtype=torch.uint64)}, tmp_path)
    edit = reset(src, "--model", f"{HERE}:Unsigned")
    assert_same(edit.tree, Unsigned().state_dict())


def test_a_spec_needs_no_torch(spec: Path, tmp_path: Path) -> None:
    src = saved(mixed(), tmp_path)
    code = "import sys; sys.modules['torch'] = None; from ckptool.cli import main; main()"
    arguments = map(str, ("reset-buffers", src, "-o", tmp_path / "dst.pt", "--model", spec))
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    assert (tmp_path / "dst.pt").read_bytes() == reset(src, "--model", spec).path.read_bytes()


# To a value ------------------------------------------------------------------------------------

FITTING: Final[Sequence[tuple[torch.dtype, str]]] = [
    (torch.float32, "-10000"), (torch.float32, "nan"), (torch.float64, "inf"),
    (torch.float16, "-inf"), (torch.bfloat16, "0.5"), (torch.int64, "-3"), (torch.uint8, "255"),
    (torch.bool, "0"), (torch.bool, "1"), (torch.complex64, "2.5"), (torch.float8_e5m2, "inf"),
    (torch.int64, "9007199254740993"),
]  # fmt: skip
UNFITTING: Final[Sequence[tuple[torch.dtype, str]]] = [
    (torch.int64, "1.5"), (torch.int64, "nan"), (torch.int32, "inf"), (torch.int8, "128"),
    (torch.uint8, "300"), (torch.uint8, "-1"), (torch.uint64, "-1"), (torch.bool, "2"),
    (torch.float16, "70000"), (torch.float8_e5m2, "70000"), (torch.float32, "1e39"),
    (torch.float8_e4m3fn, "1000"),
    (torch.float8_e4m3fn, "inf"),
]  # fmt: skip


def number(text: str) -> float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


@pytest.mark.parametrize(("dtype", "value"), FITTING, ids=str)
def test_a_value_is_set_as_torch_sets_it(dtype: torch.dtype, value: str, tmp_path: Path) -> None:
    state = statistics(torch.bool if dtype == torch.bool else dtype)
    edit = reset(saved(state, tmp_path), "--match", "bn.*mean", f"--to={value}")
    filled = torch.full((3,), number(value), dtype=dtype)
    assert_same(edit.tree, {**state, "bn.running_mean": filled})
    assert edit.changed == {"bn.running_mean": value}


@pytest.mark.parametrize(("dtype", "value"), UNFITTING, ids=str)
def test_a_value_that_a_dtype_has_not_is_refused(
    dtype: torch.dtype, value: str, tmp_path: Path
) -> None:
    src = saved(statistics(dtype), tmp_path)
    kind, message = refused(src, "--match", "bn.*mean", f"--to={value}")
    assert (kind, str(dtype).removeprefix("torch.") in message) == ("edit", True)


def test_a_value_needs_a_match_and_is_a_number(tmp_path: Path) -> None:
    src, dst = saved(statistics(), tmp_path), tmp_path / "dst.pt"
    for arguments in (["--to", "3"], ["--to", "x", "--match", "*"]):
        assert (run("reset-buffers", src, "-o", dst, *arguments).code, dst.exists()) == (2, False)
    with open_checkpoint(src) as checkpoint, pytest.raises(EditError):
        plan_reset_buffers(checkpoint, value=3)


def test_what_nothing_calls_a_buffer_gets_no_value(tmp_path: Path) -> None:
    edit = reset(saved(statistics(), tmp_path), "--match", "*", "--to", "3")
    assert set(edit.left) == {"weight"}
    assert_same(edit.tree["weight"], statistics()["weight"])
    assert refused(tmp_path / "src.pt", "--match", "weight", "--to", "3")[0] == "edit"


# Neighbours ------------------------------------------------------------------------------------


def test_parameters_stay_whatever_matches(spec: Path, tmp_path: Path) -> None:
    src = saved(mixed(), tmp_path)
    edit = reset(src, "--model", spec, "--match", "*")
    assert_same(edit.tree["weight"], torch.ones(3))
    assert "weight" not in edit.changed
    assert refused(src, "--model", spec, "--match", "weight", "--to", "3")[0] == "entry-not-found"


@pytest.mark.parametrize("is_same_object", [True, False])
def test_a_buffer_that_is_a_parameter_too_is_left(is_same_object: bool, tmp_path: Path) -> None:
    state = statistics()
    tied = state["bn.running_mean"]
    edit = reset(saved({**state, "w": tied if is_same_object else tied.view(3)}, tmp_path))
    assert set(edit.changed) == {"bn.running_var"}
    assert "w" in edit.left["bn.running_mean"]
    assert refused(tmp_path / "src.pt", "--match", "*mean")[0] == "shared-storage"
    source = open_checkpoint(tmp_path / "src.pt")
    with source as checkpoint, pytest.raises(SharedStorageError) as caught:
        plan_reset_buffers(checkpoint, patterns=["*mean"])
    assert (caught.value.key_path, caught.value.others) == ("bn.running_mean", ("w",))


def laid_out() -> dict[str, dict[str, Tensor]]:
    flat, matrix = torch.arange(1.0, 25), torch.arange(1.0, 25).view(4, 6)
    pair = flat[::2], flat[1::2]
    return {
        "slices": {"running_mean": flat[3:6], "running_var": flat[6:9], "w": flat[:3]},
        "columns": {"running_mean": matrix[:, 1], "running_var": matrix[:, 3], "w": matrix[:, 2:3]},
        "transposed": {"running_mean": matrix[:2].t(), "running_var": flat[12:].view(6, 2)},
        "every second": {"running_mean": pair[0], "w": pair[1]},
        "interleaved": {"running_mean": pair[0], "running_var": pair[1]},
        "expanded": {"running_mean": flat[2:3].expand(4), "w": flat[3:5], "v": flat[:2]},
        "windows": {"running_mean": flat.as_strided((3, 4), (2, 1), 4), "w": flat[12:]},
        "blocks": {"running_mean": matrix[1:3, 2:4], "w": matrix[0], "v": matrix[:, 4:]},
        "empty": {"running_mean": flat.as_strided((0, 2), (1, 1)), "w": flat},
        "0-d": {"running_mean": flat[5], "w": flat[4], "v": flat[6:]},
    }


@pytest.mark.parametrize("value", [None, "nan", "0.1"])
@pytest.mark.parametrize("layout", laid_out())
def test_neighbours_in_a_storage_stay(layout: str, value: str | None, tmp_path: Path) -> None:
    src = saved({f"bn.{name}": tensor for name, tensor in laid_out()[layout].items()}, tmp_path)
    expected = loaded(src)
    for name, tensor in expected.items():
        leaf = name.removeprefix("bn.")
        if leaf in LEAVES and (value is None or leaf == "running_mean"):
            set_all(tensor, LEAVES[leaf] if value is None else float(value))
    if value is not None:  # to be sure that it is a buffer
        src = saved({"bn": module_of(loaded(src))}, tmp_path)
    arguments = [] if value is None else ["--match", "*mean", "--to", value]

    dst = src.with_name("dst.pt")
    assert run("reset-buffers", src, "-o", dst, *arguments).code == 0
    tree = torch.load(dst, weights_only=False)
    found = tree if value is None else {f"bn.{k}": v for k, v in tree["bn"].named_buffers()}
    assert_same(found, expected)
    assert pickle_in(dst) == pickle_in(src)


def module_of(state: Mapping[str, Tensor]) -> nn.Module:
    module = nn.Module()
    for name, tensor in state.items():
        module.register_buffer(name.removeprefix("bn."), tensor)
    return module


@st.composite
def crowded(draw: st.DrawFn) -> dict[str, builders.Tensor]:
    """Views of one storage or two, some of them named as statistics."""
    drawn = [draw(strategies.storages(dtype, 4, 24)) for dtype in ("float32", "bfloat16")]
    pool = [dataclasses.replace(storage, location="cpu") for storage in drawn]
    tree: dict[str, builders.Tensor] = {}
    for index in range(draw(st.integers(1, 6))):
        leaf = draw(st.sampled_from(("running_mean", "running_var", "w", "w")))
        tree[f"m{index}.{leaf}"] = draw(strategies.views(draw(st.sampled_from(pool))))
    return {"m.num_batches_tracked": builders.Tensor("int64", (), [3]), **tree}


def places(tensor: Tensor) -> set[tuple[int, int]]:
    start = tensor.storage_offset()
    return {
        (tensor.untyped_storage().data_ptr(), int(start) + sum(map(mul, at, tensor.stride())))
        for at in itertools.product(*map(range, tensor.shape))
    }


@given(crowded(), st.sampled_from(["little", "big"]))
def test_random_views_are_reset_as_torch_would_in_place(
    tmp_path: Path, tree: dict[str, builders.Tensor], byteorder: builders.ByteOrder
) -> None:
    src = tmp_path / "src.pt"
    src.write_bytes(builders.torch_zip(tree, byteorder=byteorder))
    edit = reset(src)
    expected = loaded(src)
    where = {name: places(tensor) for name, tensor in expected.items()}
    for name in expected:
        leaf = name.rpartition(".")[2]
        others = [other for other in expected if other != name and where[other] & where[name]]
        if leaf in LEAVES:
            assert (name in edit.changed) is not (name in edit.left)
            assert name in edit.changed or any(other in edit.left[name] for other in others)
            assert name not in edit.changed or not any(other.endswith(".w") for other in others)
        if name in edit.changed:
            set_all(expected[name], LEAVES[leaf])
    assert_same(edit.tree, expected)


@pytest.mark.parametrize("is_same_object", [True, False])
def test_a_buffer_under_two_names_is_reset_when_both_match(
    is_same_object: bool, tmp_path: Path
) -> None:
    one = statistics()
    two = {name: one[name] if is_same_object else one[name].view(3) for name in list(one)[:2]}
    state = {**one, **{f"again.{name}": tensor for name, tensor in two.items()}}
    edit = reset(saved(state, tmp_path))
    assert_same(edit.tree, with_reset_statistics(state))
    assert edit.tree["bn.running_mean"].data_ptr() == edit.tree["again.bn.running_mean"].data_ptr()
    edit = reset(saved(state, tmp_path), "--match", "bn.*", "--match", "again.bn.running_var")
    assert set(edit.changed) == {"bn.running_var", "again.bn.running_var"}
    assert "again.bn.running_mean" in edit.left["bn.running_mean"]


def test_a_tensor_that_would_need_two_values_is_left(tmp_path: Path) -> None:
    one = torch.full((3,), 5.0)
    state = {"bn.running_mean": one, "bn.running_var": one}
    assert refused(saved(state, tmp_path))[0] == "shared-storage"


# Roots, containers, kinds of tensors -----------------------------------------------------------


def test_several_roots_are_reset_as_they_are_named(tmp_path: Path) -> None:
    network = used()
    parts = {"state_dict": network.state_dict(), "ema": AveragedModel(network).state_dict()}
    src = saved({**parts, "epoch": 3}, tmp_path)
    fresh = {key: with_reset_statistics(part) for key, part in parts.items()}
    edit = reset(src, "--root", "state_dict", "--root", "ema")
    assert_same(edit.tree, fresh)
    assert set(edit.left) == {"ema/n_averaged"}
    for key in parts:
        assert_same(reset(src, "--root", key).tree, {**parts, key: fresh[key]})
    assert refused(src)[0] == "ambiguous-root"
    with open_checkpoint(src) as checkpoint, pytest.raises(AmbiguousRootError) as caught:
        plan_reset_buffers(checkpoint)
    assert caught.value.roots == ("state_dict", "ema")


def test_a_buffer_in_two_roots_is_reset_with_both(tmp_path: Path) -> None:
    state = used().state_dict()
    src = saved({"model": state, "ema": dict(state)}, tmp_path)
    edit = reset(src, "--root", "ema", "--root", "model")
    assert_same(edit.tree, dict.fromkeys(("model", "ema"), with_reset_statistics(state)))
    assert refused(src, "--root", "ema")[0] == "shared-storage"


def test_a_module_saved_whole_is_reset_with_what_is_not_saved_of_it(tmp_path: Path) -> None:
    module: Any = used()
    for name, buffer in list(module[2][1].named_buffers()):
        module[2][1].register_buffer(name, buffer, persistent=False)
    module[1].kept = module[1].running_mean
    src, dst = saved(module, tmp_path), tmp_path / "dst.pt"
    said = json_of("reset-buffers", src, "-o", dst)
    found = torch.load(dst, weights_only=False)
    assert_same(dict(found.named_buffers()), with_reset_statistics(dict(module.named_buffers())))
    assert_same(dict(found.named_parameters()), dict(module.named_parameters()))
    assert (len(said["changed"]), said["left"]) == (9, [])
    assert found[1].kept is found[1].running_mean


def _deflated(tree: object, path: Path) -> None:
    torch.save(tree, path)
    with zipfile.ZipFile(path) as source:
        records = [(one.filename, source.read(one)) for one in source.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in records:
            target.writestr(name, data)


OTHER_WRITERS: Final[Mapping[str, Callable[..., None]]] = {
    "deflated": _deflated,
    "safetensors": save_file,
}


NOT_LOADED: Final = {"protocol 4", "protocol 5"}  # by torch, with weights_only


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", sorted({*WRITERS, *OTHER_WRITERS} - NOT_LOADED))
def test_every_container_is_reset_alike(writer: str, tmp_path: Path) -> None:
    views = laid_out()["columns"] if writer != "safetensors" else {}
    state = {
        **used().state_dict(),
        **{f"half.{name}": tensor.half() for name, tensor in statistics().items()},
        **{f"complex.{name}": tensor + 2j for name, tensor in statistics().items()},
        **{f"view.{name}": tensor for name, tensor in views.items()},
    }
    src = tmp_path / ("src.safetensors" if writer == "safetensors" else "src.pt")
    write: Callable[..., None] = {**WRITERS, **OTHER_WRITERS}[writer]
    write(state, src)
    assert_same(reset(src).tree, with_reset_statistics(state))


def test_pieces_of_storages_in_a_legacy_stream_are_no_storages_of_their_own(tmp_path: Path) -> None:
    """`a` is said to be reset and is not; `w` changes with `b`."""
    whole = builders.Storage("float32", bytes(range(24)), key="100")
    piece = builders.Storage("float32", whole.data, key="100", view=("101", 3, 3))
    tree = {
        "a.running_mean": builders.Tensor("float32", (2,), storage=piece, offset=1),
        "b.running_mean": builders.Tensor("float32", (4,), storage=whole),
        "c.running_mean": builders.Tensor("float32", (2,)),
        "w": builders.Tensor("float32", (1,), storage=piece),
    }
    src = tmp_path / "src.pt"
    src.write_bytes(builders.legacy(tree))
    edit, expected = reset(src), loaded(src)
    assert "b.running_mean" in edit.left
    for name in edit.changed:
        set_all(expected[name], 0)
    assert_same(edit.tree, expected)


def test_a_safetensors_name_can_be_empty(tmp_path: Path) -> None:
    src = tmp_path / "src.safetensors"
    save_file({"": torch.ones(2, dtype=torch.int64)}, src)
    edit = reset(src, "--match", "*", "--to", "0")
    assert_same(edit.tree, {"": torch.zeros(2, dtype=torch.int64)})


UNSET: Final[Mapping[str, Callable[[], Tensor]]] = {
    "meta": lambda: torch.ones(3, device="meta"),
    "conjugate": lambda: torch.tensor([1 + 2j, 3]).conj(),
    "negative": lambda: torch.tensor([1 + 2j, 3]).conj().imag,
    "sparse": lambda: tensors_of_several_parts()["coo"],
    "compressed": lambda: tensors_of_several_parts()["csr"],
    "quantized": lambda: tensors_of_several_parts()["per tensor"],
    "by channel": lambda: tensors_of_several_parts()["per channel"],
    "nested": lambda: tensors_of_several_parts()["nested"],
    "jagged": lambda: tensors_of_several_parts()["jagged"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNSET)
def test_kinds_of_tensors_that_are_not_set_are_named(kind: str, tmp_path: Path) -> None:
    state = {f"x.{leaf}": UNSET[kind]() for leaf in ("running_mean", "running_var")}
    src, dst = saved({**statistics(), **state}, tmp_path), tmp_path / "dst.pt"
    left = {one["path"]: one["why"] for one in json_of("reset-buffers", src, "-o", dst)["left"]}
    assert left.keys() == state.keys()
    assert not any("strided" in why for why in left.values())
    before, after = (torch.load(path, weights_only=False) for path in (src, dst))
    assert_same([after[name] for name in state], [before[name] for name in state])


@pytest.mark.parametrize("name", ["bn.running_mean", "w"])
def test_a_tensor_of_endless_repetition_ends_in_an_answer(name: str, tmp_path: Path) -> None:
    """MemoryError where it is to be set, hours where it is a neighbour."""
    storage = builders.Storage("float32", bytes(12))
    tree = {
        "x.running_var": builders.Tensor("float32", (2,), storage=storage, stride=(2,)),
        name: builders.Tensor("float32", (1 << 50,), storage=storage, offset=1, stride=(0,)),
    }
    (tmp_path / "src.pt").write_bytes(builders.torch_zip(tree))
    arguments = ("reset-buffers", tmp_path / "src.pt", "-o", tmp_path / "dst.pt")
    assert run_process(*arguments, timeout=10).returncode == 0
    assert_same(loaded(tmp_path / "dst.pt")["x.running_var"], torch.ones(3)[::2])


# What is said ----------------------------------------------------------------------------------


def test_the_flag_of_an_assigning_load_goes_and_versions_stay(tmp_path: Path) -> None:
    state: Any = used().state_dict()
    versions = copy.deepcopy(state._metadata)
    used().load_state_dict(state, assign=True)
    assert state._metadata != versions, "torch no longer leaves it"
    edit = reset(saved(state, tmp_path))
    assert edit.tree._metadata == versions
    assert "assign=True" in edit.notes
    assert "assign=True" not in reset(edit.path).notes


def test_nothing_to_reset_is_an_error_and_no_file(tmp_path: Path) -> None:
    src = saved({"weight": torch.ones(2), "mask": torch.ones(2, dtype=torch.bool)}, tmp_path)
    assert refused(src)[0] == "edit"
    assert refused(src, "--match", "!mask")[0] == "edit"
    assert refused(src, "--match", "bn.*")[0] == "entry-not-found"
    assert refused(saved({"weight": torch.ones(2)}, tmp_path))[0] == "entry-not-found"
    with open_checkpoint(tmp_path / "src.pt") as checkpoint, pytest.raises(EntryNotFoundError):
        plan_reset_buffers(checkpoint)


def test_a_dry_run_says_what_the_run_does_and_writes_nothing(tmp_path: Path) -> None:
    src, dst = saved(statistics() | {"ids": torch.arange(3)}, tmp_path), tmp_path / "dst.pt"
    dry = json_of("reset-buffers", src, "-o", dst, "--dry-run")
    assert not dst.exists()
    assert json_of("reset-buffers", src, "-o", dst) == {**dry, "written": True}
    why = dry["left"][0].pop("why")
    assert isinstance(why, str)
    changed = [(f"bn.{leaf}", str(LEAVES[leaf])) for leaf in ("running_mean", "running_var")]
    assert PLACEHOLDERS in dry["notes"][0]
    assert dry == {
        "ckptool": 1,
        "command": "reset-buffers",
        "src": str(src),
        "dst": str(dst),
        "written": False,
        "removed": [],
        "changed": [{"path": path, "what": "reset", "to": to} for path, to in changed],
        "left": [{"path": "ids"}],
        "kept": {"entries": 4, "bytes": 12 + 12 + 8 + 24},
        "bytes_before": src.stat().st_size,
        "bytes_after": dst.stat().st_size,
        "notes": dry["notes"],
        "warnings": [],
    }
