"""`strip` and the state_dict that it is about: names, `_metadata`, ties, waste, the command."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ckptool import (
    AmbiguousRootError,
    EditError,
    EntryConflictError,
    EntryNotFoundError,
    NotACheckpointError,
    UnsupportedFormatError,
    load_model_spec,
    open_checkpoint,
    plan_reset_buffers,
    plan_strip,
    write_checkpoint,
)
from ckptool.render.edit_json import edit_document
from tests import builders
from tests.edit.results import load, overhang, records, same, saved, sharing, strip, without
from tests.running import SAMPLES, json_of, run
from tests.sample_models import models


class FrozenNorm(nn.Module):
    """As detectron2's: its version says that its variance has no epsilon in it."""

    _version = 3
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.ones(2))


class Wrapper(nn.Module):
    """As DistributedDataParallel: a module in a module, with a version of its own."""

    _version = 7

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), FrozenNorm())


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    return tmp_path / "dst.pt"


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    return saved({"state": Wrapper(network()).state_dict()}, tmp_path / "wrapped.pt")


# Prefixes and _metadata -------------------------------------------------------------------------


def versions(state: Any) -> dict[str, int]:
    return {name: facts["version"] for name, facts in state._metadata.items()}


def test_metadata_is_renamed_with_its_modules(wrapped: Path, dst: Path) -> None:
    assert versions(load(wrapped)["state"])[""] == 7
    strip(wrapped, dst, prefix="module.")
    found = load(dst)["state"]
    assert versions(found) == versions(network().state_dict()) == {"": 1, "0": 1, "1": 2, "2": 3}
    network().load_state_dict(found, strict=True)


def test_metadata_of_modules_that_are_gone_goes_too(wrapped: Path, dst: Path) -> None:
    strip(wrapped, dst, drop=["module.1.*", "module.2.*", "module.0.bias"])
    assert versions(load(dst)["state"]) == {"": 7, "module": 1, "module.0": 1}


def test_metadata_stays_where_only_a_part_of_a_module_goes(wrapped: Path, dst: Path) -> None:
    plan = strip(wrapped, dst, drop=["*.num_batches_tracked"])
    assert versions(load(dst)["state"]) == versions(load(wrapped)["state"])
    assert any("num_batches_tracked" in note and "version" in note for note in plan.notes)


def test_a_state_dict_without_metadata_gets_none(tmp_path: Path, dst: Path) -> None:
    for kind in (dict, OrderedDict):
        dst.unlink(missing_ok=True)
        src = saved(kind(network().state_dict().items()), tmp_path / "src.pt")
        strip(src, dst, drop=["0.bias"])
        assert not hasattr(load(dst), "_metadata")
        assert type(load(dst)) is kind


@pytest.mark.parametrize("edit", ["strip", "another root", "reset"])
def test_the_flag_of_a_load_with_assign_goes_with_a_note(
    edit: str, tmp_path: Path, dst: Path
) -> None:
    state: Any = network().state_dict()
    network().load_state_dict(state, assign=True)
    assert any("assign_to_params_buffers" in facts for facts in state._metadata.values())
    src = saved({"model": state, "other": {"x": torch.ones(1)}}, tmp_path / "src.pt")
    with open_checkpoint(src) as checkpoint:
        plan = (
            plan_reset_buffers(checkpoint, patterns=["1.*"])
            if edit == "reset"
            else plan_strip(checkpoint, drop=["/other" if edit == "another root" else "0.bias"])
        )
        write_checkpoint(plan, dst)
    assert sum("assign=True" in note for note in plan.notes) == 1
    found = load(dst)["model"]
    assert versions(found) == versions(network().state_dict())
    assert all(list(facts) == ["version"] for facts in found._metadata.values())


def test_a_chain_of_prefixes_goes_by_the_word_of_a_model(tmp_path: Path, dst: Path) -> None:
    model = load_model_spec(str(SAMPLES / "specs" / "my_model.json"))
    plan = strip(SAMPLES / "compiled_ddp.pt", dst, model, prefix="auto")
    assert {one.what for one in plan.changed} == {"renamed"}
    models.MyModel(10, 5).load_state_dict(load(dst), strict=True)
    with pytest.raises(EditError):
        strip(SAMPLES / "compiled_ddp.pt", tmp_path / "x.pt", prefix="auto")
    with pytest.raises(EntryNotFoundError):
        strip(SAMPLES / "my_model.pt", tmp_path / "x.pt", model, prefix="auto")


@pytest.mark.parametrize("names", [("a.w", "module.a.w"), ("module.a.w", "a.w")])
def test_two_names_that_would_be_one_are_refused(
    names: tuple[str, str], tmp_path: Path, dst: Path
) -> None:
    src = saved({name: torch.ones(1) for name in names}, tmp_path / "src.pt")
    with pytest.raises(EntryConflictError) as caught:
        strip(src, dst, prefix="module.")
    assert set(caught.value.names) == set(names)
    assert not dst.exists()
    strip(src, dst, prefix="module.", drop=["a.w"])
    assert list(load(dst)) == ["a.w"]


def test_names_without_the_prefix_stay_and_are_counted(tmp_path: Path, dst: Path) -> None:
    src = saved({"model.w": torch.ones(1), "metric": torch.ones(2)}, tmp_path / "src.pt")
    plan = strip(src, dst, prefix="model.")
    assert list(load(dst)) == ["w", "metric"]
    assert any("'model.'" in note and "1" in note for note in plan.notes)


# Roots ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"drop": ["*.bias"]},
        {"keep": ["0.*"]},
        {"buffers": True},
        {"prefix": "0."},
        {"extract": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_several_roots_are_asked_about(options: dict[str, Any], tmp_path: Path, dst: Path) -> None:
    tree = {"generator": network().state_dict(), "critic": network().state_dict()}
    src = saved(tree, tmp_path / "src.pt")
    with pytest.raises(AmbiguousRootError) as caught:
        strip(src, dst, **options)
    assert caught.value.roots == ("generator", "critic")
    if "buffers" not in options:
        strip(src, dst, root="critic", **options)


def test_a_list_of_pairs_is_a_root(tmp_path: Path, dst: Path) -> None:
    pairs = [(f"module.{name}", tensor) for name, tensor in network().state_dict().items()]
    src = saved(pairs, tmp_path / "src.pt")
    strip(src, dst, drop=["module.1.*"], prefix="module.")
    expected = [(n.removeprefix("module."), t) for n, t in load(src) if ".1." not in n]
    same(expected, load(dst))


def test_a_module_that_was_saved_whole_loses_parameters_and_buffers(
    tmp_path: Path, dst: Path
) -> None:
    module = nn.Sequential(models.MyModel(10, 5), nn.Linear(5, 2))
    src = saved(module, tmp_path / "src.pt")
    plan = strip(src, dst, buffers=True, drop=["1.bias"])
    assert [one.path for one in plan.removed] == [
        "0.running_mean", "0.running_var", "0.temp_buffer", "1.bias",
    ]  # fmt: skip
    expected = load(src, trusted=True)
    for name in ("running_mean", "running_var", "temp_buffer"):
        delattr(expected[0], name)
    del expected[1].bias
    found = load(dst, trusted=True)
    assert list(found.state_dict()) == ["0.weight", "1.weight"]
    same(expected.state_dict(), found.state_dict())
    with pytest.raises(EditError):
        strip(src, tmp_path / "x.pt", prefix="0.")


# Ties and waste ---------------------------------------------------------------------------------


def test_tied_weights_stay_one_tensor(tmp_path: Path, dst: Path) -> None:
    embedding = nn.Parameter(torch.randn(50, 8))
    tree = {"wte.weight": embedding.data, "gone": torch.ones(1), "lm_head.weight": embedding.data}
    src = saved(tree, tmp_path / "src.pt")
    plan = strip(src, dst, drop=["gone"])
    found = load(dst)
    assert found["wte.weight"].data_ptr() == found["lm_head.weight"].data_ptr()
    assert sharing(found) == sharing(without(load(src), "gone"))
    assert dst.stat().st_size == plan.nbytes < src.stat().st_size
    assert [len(one.data) for name, one in records(dst).items() if "/data/" in name] == [1600]


def test_a_tie_that_loses_one_name_keeps_its_storage(tmp_path: Path, dst: Path) -> None:
    tied = torch.randn(50, 8)
    src = saved({"wte.weight": tied, "lm_head.weight": tied}, tmp_path / "src.pt")
    strip(src, dst, drop=["lm_head.*"])
    same(without(load(src), "lm_head.weight"), load(dst))


def test_a_small_view_no_longer_drags_its_storage_along(tmp_path: Path, dst: Path) -> None:
    tree = {"view": torch.zeros(10**6)[:1000], "gone": torch.ones(1)}
    src = saved(tree, tmp_path / "src.pt")
    assert src.stat().st_size > 4_000_000
    plan = strip(src, dst, drop=["gone"])
    assert dst.stat().st_size < 10_000
    assert [(one.path, one.what, one.to) for one in plan.changed] == [
        ("view", "compacted", "4000 bytes")
    ]
    same(without(load(src), "gone"), load(dst))


def test_views_of_a_flat_buffer_keep_only_their_own_parts(tmp_path: Path, dst: Path) -> None:
    flat = torch.arange(30_000.0)
    tree = {f"l{n}.weight": flat[10_000 * n :][:1000].view(10, 100) for n in range(3)}
    src = saved(tree, tmp_path / "src.pt")
    strip(src, dst, drop=["l1.weight"])
    found = load(dst, mmap=True)
    same(without(load(src), "l1.weight"), found)
    assert set(overhang(found).values()) == {0}
    assert dst.stat().st_size < 10_000


# Refusals ---------------------------------------------------------------------------------------

OTHERS: Final[Mapping[str, Callable[[], bytes]]] = {
    "TorchScript": lambda: builders.torchscript(
        builders.script_module("Net", {"weight": builders.Tensor("float32", (2,))}),
        builders.script_source("Net", {"weight": "Tensor"}, parameters=["weight"]),
    ),
    "torch.package": lambda: builders.torch_package(
        {"model/model.pkl": {"weight": builders.Tensor("float32", (2,))}}
    ),
    "pickle": lambda: builders.to_pickle({"weight": [1, 2], "b": {"c": 1}}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_formats_that_are_only_read_are_refused_by_name(
    kind: str, tmp_path: Path, dst: Path
) -> None:
    src = tmp_path / "src.pt"
    src.write_bytes(OTHERS[kind]())
    with pytest.raises(UnsupportedFormatError) as caught:
        strip(src, dst, drop=["weight"])
    assert kind in caught.value.found
    assert caught.value.supported
    with open_checkpoint(src) as checkpoint, pytest.raises(UnsupportedFormatError):
        plan_reset_buffers(checkpoint)
    result = run("strip", src, "-o", dst, "--drop", "/weight")
    assert (result.code, result.out, dst.exists()) == (2, "", False)


def test_a_directory_is_refused(tmp_path: Path, dst: Path) -> None:
    with pytest.raises(NotACheckpointError):
        strip(tmp_path, dst, drop=["weight"])


def test_an_item_of_a_tuple_cannot_be_taken_out(tmp_path: Path, dst: Path) -> None:
    src = saved({"pair": (torch.ones(1), torch.ones(2)), "w": torch.ones(3)}, tmp_path / "src.pt")
    with pytest.raises(EditError) as caught:
        strip(src, dst, drop=["/pair/0"])
    assert caught.value.key_path == "pair/0"
    assert not dst.exists()
    strip(src, dst, drop=["/pair"])
    assert list(load(dst)) == ["w"]


@pytest.mark.parametrize("build", [builders.torch_zip, builders.legacy])
def test_a_pickle_that_throws_a_call_away_is_refused(
    build: Callable[[object], bytes], tmp_path: Path, dst: Path
) -> None:
    call = builders.global_("os", "getcwd") + builders.EMPTY_TUPLE + builders.REDUCE
    thrown = builders.Raw(call + builders.POP + builders.NONE)
    src = tmp_path / "src.pt"
    src.write_bytes(build({"w": builders.Tensor("float32", (2,)), "x": thrown}))
    with pytest.raises(EditError):
        strip(src, dst, drop=["w"])
    with open_checkpoint(src) as checkpoint, pytest.raises(EditError):
        plan_reset_buffers(checkpoint, patterns=["w"], value=0)


@pytest.mark.parametrize("build", [builders.torch_zip, builders.legacy])
def test_a_canary_goes_through_every_edit_and_is_not_run(
    build: Callable[[object], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = {
        "model": {"module.w": builders.Tensor("float32", (2,)), **_statistics("module.bn.")},
        "model_ema": {"module.w": builders.Tensor("float32", (2,)), **_statistics("module.bn.")},
        "optimizer": {"state": {}, "param_groups": []},
        **builders.canary(str(tmp_path / "run")),
    }
    (tmp_path / "src.pt").write_bytes(build(tree))
    edits = (
        ["--drop", "module.w"], ["--keep", "module.w"], ["--keep", "/canary"], ["--training"],
        ["--buffers", "--guess"], ["--prefix", "module."], ["--ema", "use"], ["--drop", "/model"],
    )  # fmt: skip
    commands = [["strip", *edit] for edit in edits] + [["reset-buffers"]]
    for number, (command, *options) in enumerate(commands):
        root = [] if "--ema" in options else ["--root", "model"]
        dst = tmp_path / f"{number}.pt"
        result = run(command, tmp_path / "src.pt", "-o", dst, *options, *root)
        assert result.code == 0, result
        with open_checkpoint(dst) as checkpoint:
            assert [entry.path for entry in checkpoint.entries if entry.path == "canary"]
    assert run("strip", SAMPLES / "canary.pt", "-o", tmp_path / "s.pt", "--drop", "w*").code == 0
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "the-canary-was-run").exists()


def _statistics(prefix: str) -> dict[str, object]:
    leaves = ("running_mean", "running_var")
    return {prefix + leaf: builders.Tensor("float32", (2,)) for leaf in leaves}


# The command ------------------------------------------------------------------------------------

FIELDS: Final = [
    "ckptool", "command", "src", "dst", "written", "removed", "changed", "left", "kept",
    "bytes_before", "bytes_after", "notes", "warnings",
]  # fmt: skip
COMMANDS: Final[Mapping[str, tuple[list[str], dict[str, Any]]]] = {
    "drop": (["--root", "model", "--drop", "1.*"], {"drop": ["1.*"]}),
    "keep": (["--root", "model", "--keep", "0.*"], {"keep": ["0.*"]}),
    "buffers": (["--root", "model", "--buffers", "--guess"], {"buffers": True, "guess": True}),
    "training": (["--root", "model", "--training"], {"training": True}),
    "prefix": (["--root", "model", "--prefix", "0."], {"prefix": "0."}),
    "extract": (["--root", "model", "--extract"], {"extract": True}),
    "ema": (["--root", "model", "--ema", "drop"], {"ema": "drop"}),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_does_and_says_what_its_plan_says(name: str, tmp_path: Path) -> None:
    src = SAMPLES / "training.ckpt"
    arguments, options = COMMANDS[name]
    by_command, by_function = tmp_path / "command.pt", tmp_path / "function.pt"
    dry = json_of("strip", src, "-o", by_command, *arguments, "--dry-run")
    assert not by_command.exists()
    said = json_of("strip", src, "-o", by_command, *arguments)
    assert {**dry, "written": True} == said
    assert dry["written"] is False
    assert list(said) == FIELDS
    plan = strip(src, by_function, root="model", **options)
    assert by_command.read_bytes() == by_function.read_bytes()
    document = edit_document(plan, by_command, plan.notes, is_written=True)
    assert said == json.loads(json.dumps(document))
    assert (said["bytes_before"], said["bytes_after"]) == tuple(
        path.stat().st_size for path in (src, by_command)
    )
    with open_checkpoint(by_command) as checkpoint:
        tensors = [entry for entry in checkpoint.entries if entry.tensor is not None]
        stored = sum(extent.size for extent in checkpoint.container.extents.values())
    assert said["kept"] == {"entries": len(tensors), "bytes": stored}
    assert all(set(one) == {"path", "tensors", "bytes"} for one in said["removed"])
    assert all(set(one) == {"path", "what", "to"} for one in said["changed"])


def test_a_dry_run_without_a_target_has_none(tmp_path: Path) -> None:
    said = json_of("strip", SAMPLES / "my_model.pt", "--drop", "weight", "--dry-run")
    assert (said["dst"], said["written"]) == (None, False)
    assert said["removed"] == [{"path": "weight", "tensors": 1, "bytes": 200}]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["--drop", "nothing*"], "entry-not-found"),
        (["--training"], "entry-not-found"),
        (["--buffers"], "entry-not-found"),
        (["--extract"], "entry-not-found"),
        (["--stale"], "edit"),
        (["--prefix", "x."], "entry-not-found"),
    ],
)
def test_where_nothing_matches_no_file_is_written(
    arguments: list[str], kind: str, tmp_path: Path
) -> None:
    src, dst = saved({"w": torch.ones(1)}, tmp_path / "src.pt"), tmp_path / "dst.pt"
    result = run("strip", src, "-o", dst, *arguments, "--json")
    assert (result.code, json.loads(result.out)["error"]["kind"]) == (2, kind)
    assert [path.name for path in tmp_path.iterdir()] == ["src.pt"]


@pytest.mark.parametrize("arguments", [[], ["--guess"], ["--drop", "w", "--in-place"]])
def test_a_command_that_asks_for_nothing_or_too_much_is_refused(
    arguments: list[str], tmp_path: Path
) -> None:
    src = saved({"w": torch.ones(1)}, tmp_path / "src.pt")
    assert run("strip", src, "-o", tmp_path / "dst.pt", *arguments).code == 2
    assert not (tmp_path / "dst.pt").exists()


@pytest.fixture
def described_file(tmp_path: Path) -> Path:
    path = tmp_path / "src.safetensors"
    save_file({"bias": torch.ones(1), "w": torch.ones(2)}, path, metadata={"format": "pt"})
    return path


def test_what_a_safetensors_file_says_of_itself_stays_with_what_is_kept(
    described_file: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst.safetensors"
    strip(described_file, dst, keep=["bias"])
    assert list(load(dst)) == ["bias"]
    with safe_open(dst, "pt") as read:
        assert read.metadata() == {"format": "pt"}


def test_a_part_of_what_a_safetensors_file_says_of_itself_goes_or_is_refused(
    described_file: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst.safetensors"
    result = run("strip", described_file, "-o", dst, "--drop", "/__metadata__/format", "--json")
    if result.code:
        assert json.loads(result.out)["error"]["kind"] in ("entry-not-found", "edit")
    else:
        with safe_open(dst, "pt") as read:
            assert not read.metadata()


def test_a_safetensors_file_need_not_say_anything_of_itself(
    described_file: Path, tmp_path: Path
) -> None:
    dst = tmp_path / "dst.safetensors"
    strip(described_file, dst, drop=["/__metadata__"])
    with safe_open(dst, "pt") as read:
        assert not read.metadata()
    same(load(described_file), load(dst))
