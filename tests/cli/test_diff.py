"""`ckptool diff` as people and scripts run it: output, options, exit codes."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import save_file
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from ckptool.render import leaves
from tests import builders
from tests.builders import torch_zip
from tests.running import SAMPLES, Result, json_of, run, run_on_terminal, run_process

BFLOAT16: Final = torch.bfloat16


class Net(nn.Module):
    """Twelve layers with BatchNorm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)) for _ in range(12)
        )
        self.head = nn.Linear(4, 2)


def network() -> dict[str, Tensor]:
    """A state_dict with values that depend on nothing but their place."""
    state = Net().state_dict()
    for at, tensor in enumerate(state.values()):
        steps = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
        tensor.copy_(torch.sin(steps + 3 * at) + 2 if tensor.is_floating_point() else steps + at)
    return state


MODEL = network()


def changed(is_changed: Callable[[str], bool], by: float = 0.001) -> dict[str, Tensor]:
    """The model with these tensors changed."""
    state = copy.deepcopy(MODEL)
    for name, tensor in state.items():
        if is_changed(name):
            tensor.add_(1 if name.endswith("num_batches_tracked") else by)
    return state


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the names of files are the same in every run."""
    monkeypatch.chdir(tmp_path)


def save(a: object, b: object) -> tuple[str, str]:
    """Save both, bytes as they are, and return the names."""
    for name, value in (("a.pt", a), ("b.pt", b)):
        if isinstance(value, bytes):
            Path(name).write_bytes(value)
        else:
            torch.save(value, name)
    return "a.pt", "b.pt"


def diff(a: object, b: object, *options: str) -> Result:
    return run("diff", *save(a, b), *options)


def document_of(*arguments: str | Path, code: int = 1) -> dict[str, Any]:
    """The JSON of a comparison, read strictly."""
    result = run("diff", *arguments, "--json")
    assert result.code == code, result
    document: dict[str, Any] = json.loads(result.out, parse_constant=_refuse_constant)
    return document


def _refuse_constant(name: str) -> object:
    raise AssertionError(f"a bare {name} is not JSON")


def verdicts(document: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    """What is not the same, by name."""
    return {
        entry["name"]: (entry["change"], entry["verdict"])
        for entry in document["entries"]
        if entry["change"] != "same"
    }


# Snapshots -------------------------------------------------------------------------------------


def trained() -> tuple[object, object]:
    """Two checkpoints of one training: most changes are in what is resumed from."""
    model = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}
    state = {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2, 3)}}
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}]
    before: dict[str, Any] = {
        "model": model,
        "optimizer": {"state": state, "param_groups": groups},
        "epoch": 1,
        "history": [0.5],
    }
    after = copy.deepcopy(before)
    after["model"]["fc.weight"] += torch.tensor([0.0, 0.25, 0.5])
    after["optimizer"]["state"][0]["step"] += 1
    after["optimizer"]["param_groups"][0]["lr"] = 0.05
    return before, {**after, "epoch": 2, "history": [0.5, 0.25], "note": "resumed"}


def restructured() -> tuple[object, object]:
    """Everything at once: renamed, reshaped, recast, gone and new."""
    a = {f"blocks.{n}.w": torch.full((3,), n + 1.0) for n in range(4)}
    a |= {"head": torch.arange(4.0), "old": torch.ones(2), "mask": torch.tensor([True, False])}
    b = {f"layers.{n}.w": torch.full((3,), n + 1.0) for n in range(4)}
    b |= {"head": torch.arange(6.0), "new": torch.ones(5), "mask": torch.tensor([1, 0])}
    return {**a, "nan": torch.zeros(2)}, {**b, "nan": torch.tensor([float("nan"), 1.0])}


def rounded() -> tuple[object, object]:
    return MODEL, {
        name: tensor.to(BFLOAT16) if tensor.is_floating_point() else tensor
        for name, tensor in MODEL.items()
    }


SAVED: Final[dict[str, Callable[[], tuple[object, object]]]] = {
    "statistics": lambda: (MODEL, changed(is_statistic)),
    "one layer": lambda: (MODEL, changed(lambda name: name.startswith("layers.11."))),
    "trained": trained,
    "restructured": restructured,
    "cast": rounded,
    "renamed": lambda: (dict(MODEL), {f"model.{name}": one for name, one in MODEL.items()}),
}
SAMPLE_PAIRS: Final = (
    ("my_model.pt", "my_model.pt"),
    ("compiled_ddp.pt", "my_model.pt"),
    ("my_model.pt", "left_over_buffer.pt"),
    ("whole_module.pt", "my_model.pt"),
    ("training.ckpt", "model.safetensors", "--root-a", "model"),
    ("training.ckpt", "training.ckpt", "--root-a", "model", "--root-b", "model_ema"),
    ("training.ckpt", "training.ckpt"),
    ("my_model.pt", "legacy.pt", "--model", "specs/my_model.json"),
)


@pytest.mark.parametrize("arguments", SAMPLE_PAIRS, ids=" ".join)
def test_samples_in_a_pipe(
    arguments: tuple[str, ...], snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLES)
    assert run("diff", *arguments) == snapshot


@pytest.mark.parametrize("case", SAVED)
def test_pairs_in_a_pipe(case: str, snapshot: SnapshotAssertion) -> None:
    assert diff(*SAVED[case]()) == snapshot


@pytest.mark.parametrize("options", [("--all",), ("--top", "2"), ("--quick",)], ids=" ".join)
def test_options_of_listing_in_a_pipe(
    options: tuple[str, ...], snapshot: SnapshotAssertion
) -> None:
    assert diff(*trained(), *options) == snapshot


@pytest.mark.parametrize(
    ("case", "columns"), [("statistics", 120), ("restructured", 80), ("trained", 60)]
)
def test_pairs_on_a_terminal(case: str, columns: int, snapshot: SnapshotAssertion) -> None:
    code, written = run_on_terminal("diff", *save(*SAVED[case]()), columns=columns)
    assert code == 1
    assert "\x1b[" in written
    assert written == snapshot


def test_help_has_examples(snapshot: SnapshotAssertion) -> None:
    result = run("diff", "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out == snapshot
    assert "ckptool diff " in result.out.partition("Examples:")[2]


# Exit codes ------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_diff() -> None:
    assert diff(MODEL, MODEL).code == 0
    assert diff(MODEL, changed(lambda name: name == "head.bias")).code == 1
    assert diff(MODEL, dict(MODEL)).code == 1
    assert diff(MODEL, b"").code == 2
    a, b = save(MODEL, changed(lambda name: name == "head.bias"))
    assert [run_process("diff", a, other).returncode for other in (a, b)] == [0, 1]


def test_what_is_within_the_tolerances_is_the_same() -> None:
    a, b = save(MODEL, changed(lambda name: name == "head.bias", by=1e-3))
    assert run("diff", a, b, "--atol", "1e-4").code == 1
    assert run("diff", a, b, "--rtol", "1e-6").code == 1
    for options in (("--atol", "1e-2"), ("--rtol", "1e-2"), ("--atol", "6e-4", "--rtol", "5e-4")):
        document = document_of(a, b, *options, code=0)
        (entry,) = [one for one in document["entries"] if one["name"] == "head.bias"]
        assert (entry["change"], entry["verdict"], entry["changed_elements"]) == (
            "same", "close", 2,
        )  # fmt: skip


@pytest.mark.parametrize(
    "options", [("--atol", "-1"), ("--rtol", "-1"), ("--top", "0"), ("--atol", "x"), ("--nope",)]
)
def test_bad_usage_is_an_error(options: tuple[str, ...]) -> None:
    result = diff(MODEL, MODEL, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")


def test_a_tolerance_that_is_no_number_is_refused() -> None:
    result = diff(MODEL, changed(lambda name: name == "head.bias"), "--atol", "nan")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")


# Which tensors ---------------------------------------------------------------------------------


def test_with_a_pattern_it_is_about_those_tensors_alone() -> None:
    a = {"model": MODEL, "epoch": 3}
    b = {"model": changed(lambda name: name.startswith("layers.3.")), "epoch": 4}
    files = save(a, b)
    document = document_of(*files, "--match", "layers.3.*")
    assert {entry["name"] for entry in document["entries"]} == {
        name for name in MODEL if name.startswith("layers.3.")
    }
    assert (document["leaves"], document["summary"]["leaves_changed"]) == ([], 0)
    assert run("diff", *files, "--match", "head.*").code == 0
    assert run("diff", *files, "--match", "*", "--match", "!layers.3.*").code == 0
    assert run("diff", *files).code == 1


def test_with_a_role_it_is_about_those_tensors_alone() -> None:
    files = save({"model": MODEL, "epoch": 3}, {"model": changed(is_statistic), "epoch": 4})
    document = document_of(*files, "--role", "buffer")
    assert {entry["role"] for entry in document["entries"]} == {"buffer"}
    assert document["leaves"] == []
    assert run("diff", *files, "--role", "buffer", "--match", "head*").code == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--match", "nothing*"),
        ("--match", "head.*", "--match", "nothing*"),
        ("--match", "!nothing*"),
        ("--match", "head.*", "--match", "!head.*"),
        ("--fail-if-unchanged", "nothing*"),
        ("--role", "extra-state"),
        ("--match", "head.*", "--fail-if-unchanged", "layers.*"),
    ],
    ids=" ".join,
)
def test_what_matches_nothing_is_an_error(options: tuple[str, ...]) -> None:
    result = diff(MODEL, MODEL, *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    told = json.loads(run("diff", "a.pt", "b.pt", *options, "--json").out)
    assert told["error"]["kind"] == "entry-not-found"


def test_a_pattern_can_match_what_only_one_file_has() -> None:
    a, b = {"w": torch.ones(2), "old": torch.ones(3)}, {"w": torch.ones(2), "new": torch.ones(4)}
    for pattern, change in (("old", "removed"), ("new", "added")):
        assert verdicts(document_of(*save(a, b), "--match", pattern)) == {pattern: (change, None)}


def test_fail_if_unchanged_turns_the_question_round() -> None:
    files = save(MODEL, changed(lambda name: name.startswith("layers.")))
    assert run("diff", *files, "--fail-if-unchanged", "layers.*").code == 0
    result = run("diff", *files, "--fail-if-unchanged", "head.*")
    assert result.code == 1
    assert "2 tensors should have changed and did not\nhead." in result.out
    document = document_of(*files, "--fail-if-unchanged", "*")
    assert document["unchanged"] == ["head.weight", "head.bias"]
    assert run("diff", *files, "--fail-if-unchanged", "*", "--match", "layers.*").code == 0
    options = ("--fail-if-unchanged", "layers.*", "--fail-if-unchanged", "head.*")
    assert run("diff", *files, *options).code == 1
    document = document_of(*files, "--fail-if-unchanged", "layers.*", code=0)
    assert document["unchanged"] == []


def test_fail_if_unchanged_is_about_close_tensors_too() -> None:
    files = save(MODEL, changed(lambda name: name == "head.bias", by=1e-6))
    assert run("diff", *files, "--fail-if-unchanged", "head.bias").code == 0
    options = ("--fail-if-unchanged", "head.bias", "--atol", "1e-3")
    assert run("diff", *files, *options).code == 1


# What is listed --------------------------------------------------------------------------------


def test_most_changed_comes_first_and_top_says_what_it_leaves_out() -> None:
    b = copy.deepcopy(MODEL)
    for by, name in ((0.01, "head.weight"), (1, "head.bias"), (0.1, "layers.0.0.weight")):
        b[name] += by
    files = save(MODEL, b)
    lines = run("diff", *files).out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith(("head.", "layers."))]
    assert shown == ["head.bias", "layers.0.0.weight", "head.weight"]
    result = run("diff", *files, "--top", "1")
    assert "head.weight" not in result.out
    assert "... and 2 more tensors; without --top all are listed" in result.out
    assert "more tensor" not in run("diff", *files, "--top", "3").out


def test_all_lists_what_is_the_same_and_unfolds() -> None:
    files = save(MODEL, changed(is_statistic))
    folded, unfolded = run("diff", *files).out, run("diff", *files, "--all").out
    assert "layers.{0-11}.1.running_mean  x12" in folded
    assert "head.weight" not in folded
    for name in MODEL:
        assert f"\n{name} " in unfolded


def test_a_quick_comparison_says_so_on_stderr_and_in_json() -> None:
    files = save(MODEL, changed(lambda name: name == "head.bias"))
    result = run("diff", *files, "--quick")
    assert result.code == 1
    assert "recorded CRCs and sizes decided" in result.err
    document = document_of(*files, "--quick")
    assert document["summary"]["quick"] is True
    assert any("recorded CRCs" in warning for warning in document["warnings"])
    assert document_of(*files)["summary"]["quick"] is False
    assert "CRC" not in run("diff", *files).err


# JSON ------------------------------------------------------------------------------------------

TOP: Final = {"ckptool", "command", "a", "b", "summary", "entries", "leaves", "warnings"}
SIDE: Final = {"path", "root", "prefix"}
SUMMARY: Final = {
    "same", "changed", "added", "removed", "moved", "leaves_changed", "statement", "quick",
}  # fmt: skip
ENTRY: Final = {
    "name", "path_a", "path_b", "role", "persistent", "evidence", "change", "verdict",
    "rounded_to", "dtype", "shape", "elements", "changed_elements", "max_abs", "mean_abs",
    "rel_l2", "cosine", "nan", "inf",
}  # fmt: skip


@pytest.mark.parametrize("case", SAVED)
def test_every_field_of_the_contract_is_always_there(case: str) -> None:
    a, b = SAVED[case]()
    files = save(a, b)
    document = document_of(*files, code=run("diff", *files).code)
    assert document.keys() >= TOP
    assert (document["ckptool"], document["command"]) == (1, "diff")
    for side, path in zip("ab", files, strict=True):
        assert document[side].keys() >= SIDE
        assert document[side]["path"] == path
    assert document["summary"].keys() == SUMMARY
    for entry in document["entries"]:
        assert entry.keys() >= ENTRY
        is_alone = entry["change"] in ("added", "removed")
        assert (entry["verdict"] is None) == is_alone
        assert [len(entry[field]) for field in ("dtype", "shape", "nan", "inf")] == [2] * 4
        assert (entry["path_a"] is None, entry["path_b"] is None) == (
            entry["change"] == "added",
            entry["change"] == "removed",
        )
    for leaf in document["leaves"]:
        assert leaf.keys() == {"path", "change", "a", "b"}
    counted = [entry["change"] for entry in document["entries"]]
    for change in ("same", "changed", "added", "removed", "moved"):
        assert document["summary"][change] == counted.count(change)
    changes = [leaf["change"] for leaf in document["leaves"]]
    assert document["summary"]["leaves_changed"] == len(changes) - changes.count("same")


def test_the_json_in_full(snapshot: SnapshotAssertion) -> None:
    assert document_of(*save(*restructured())) == snapshot
    document = document_of(*save(*trained()))
    assert document["leaves"] == snapshot


def test_json_lists_what_is_the_same_too() -> None:
    document = document_of(*save(MODEL, MODEL), code=0)
    assert [entry["name"] for entry in document["entries"]] == list(MODEL)
    assert {entry["verdict"] for entry in document["entries"]} == {"equal"}
    assert document["summary"]["same"] == len(MODEL)


def test_numbers_that_json_has_no_word_for_are_strings() -> None:
    a = {"zero": torch.zeros(2), "w": torch.ones(2)}
    b = {"zero": torch.ones(2), "w": torch.tensor([1.0, float("inf")])}
    files = save({**a, "x": float("nan")}, {**b, "x": float("-inf")})
    document = document_of(*files)
    (zero,) = [one for one in document["entries"] if one["name"] == "zero"]
    assert (zero["rel_l2"], zero["cosine"]) == ("Infinity", None)
    assert [(leaf["a"], leaf["b"]) for leaf in document["leaves"]] == [("NaN", "-Infinity")]


def test_paths_in_json_are_those_of_each_file() -> None:
    document = document_of(*save({"state_dict": MODEL}, dict(MODEL)), code=1)
    assert document["a"]["root"] == "state_dict"
    assert document["b"]["root"] == ""
    entry = document["entries"][0]
    assert (entry["name"], entry["path_a"], entry["path_b"]) == (
        "layers.0.0.weight",
        "state_dict/layers.0.0.weight",
        "layers.0.0.weight",
    )


# Files that are none ---------------------------------------------------------------------------


def error_of(*arguments: str) -> str:
    """The one line of an error; nothing else is said but a hint, and nothing on stdout."""
    result = run("diff", *arguments)
    assert (result.code, result.out) == (2, ""), result
    first, *rest = result.err.splitlines()
    assert not rest or (len(rest) == 2 and rest[0] == "" and rest[1].startswith("hint: "))
    told = json.loads(run("diff", *arguments, "--json").out)
    assert told.keys() == {"ckptool", "error"}
    assert f"error: {told['error']['path']}: " in first
    return first


@pytest.mark.parametrize("kind", sorted(builders.wrong_files()))
@pytest.mark.parametrize("side", [0, 1])
def test_a_wrong_file_is_an_error_that_names_it(kind: str, side: int) -> None:
    files: list[object] = [MODEL, MODEL]
    files[side] = builders.wrong_files()[kind]
    names = save(*files)
    assert error_of(*names).startswith(f"error: {names[side]}: ")


@pytest.mark.parametrize("side", [0, 1])
def test_a_missing_file_is_an_error_that_names_it(side: int) -> None:
    names = list(save(MODEL, MODEL))
    names[side] = "missing.pt"
    assert error_of(*names).startswith("error: missing.pt: ")


def _cut(tree: object) -> bytes:
    """A legacy file that ends within its last storage."""
    return builders.legacy(tree)[:-6]


def _badly_deflated(tree: object) -> bytes:
    """An archive in which the deflate stream of a storage is broken."""
    data = bytearray(torch_zip(tree, compress=True, data_descriptor=False))
    at = data.rfind(b"data/0", 0, data.rfind(b"PK\x01\x02"))
    start = data.index(b"archive/data/0") + len(b"archive/data/0")
    start += int.from_bytes(data[start - 14 - 2 : start - 14], "little")
    assert at > 0
    data[start : start + 8] = b"\xff" * 8
    return bytes(data)


DAMAGES: Final[dict[str, Callable[[object], bytes]]] = {
    "cut": _cut,
    "bad deflate stream": _badly_deflated,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("side", [0, 1])
def test_a_damaged_storage_is_an_error_that_names_its_file(damage: str, side: int) -> None:
    tensor = builders.Tensor("float32", (100,))
    files = [torch_zip({"w": tensor})] * 2
    files[side] = DAMAGES[damage]({"w": tensor})
    names = save(*files)
    assert error_of(*names).startswith(f"error: {names[side]}: ")


@pytest.mark.parametrize("side", [0, 1])
def test_a_damaged_storage_that_is_hashed_for_moves_names_its_file(side: int) -> None:
    a, b = ({name: builders.Tensor("float32", (100,))} for name in ("old", "new"))
    files = [torch_zip(a), torch_zip(b)]
    files[side] = _badly_deflated((a, b)[side])
    names = save(*files)
    assert error_of(*names).startswith(f"error: {names[side]}: ")


@pytest.mark.parametrize("option", ["--root-a", "--root-b"])
def test_a_root_that_is_not_there_names_its_file(option: str) -> None:
    names = save({"model": MODEL}, {"model": MODEL})
    path = names[option == "--root-b"]
    assert error_of(*names, option, "modle").startswith(f"error: {path}: ")


def test_several_roots_are_an_error_that_names_the_option_to_use() -> None:
    both = {"model": MODEL, "model_ema": changed(lambda _: True)}
    for files, path, option in (
        ((both, MODEL), "a.pt", "--root-a"),
        ((MODEL, both), "b.pt", "--root-b"),
    ):
        result = diff(*files)
        assert result.code == 2
        assert result.err.startswith(f"error: {path}: ")
        assert f"hint: choose one with {option}: model, model_ema" in result.err


def test_no_message_names_an_option_that_diff_does_not_have() -> None:
    both = {"model": MODEL, "model_ema": changed(lambda _: True)}
    assert not re.search(r"--root(?!-)", diff(both, both).err)


# Hostile names ---------------------------------------------------------------------------------

HOSTILE: Final = "\x1b]0;owned\x07[bold]\u202e\ud800\n[/nope]"


def test_names_and_values_reach_a_terminal_escaped() -> None:
    def saved(value: float, text: str, other: str) -> bytes:
        tensors: dict[str, object] = {
            HOSTILE: builders.Tensor("float32", (2,), [value]),
            HOSTILE + other: builders.Tensor("float32", (3,), [value]),
            "moved" + HOSTILE + other: builders.Tensor("int8", (5,)),
        }
        return torch_zip({**tensors, "note" + HOSTILE: text, "g": builders.Global(text, "red")})

    files = save(saved(1, "\x1b[31m", "x"), saved(2, "\x1b[32m", "y"))
    for options in ((), ("--all",), ("--fail-if-unchanged", "*")):
        result = run("diff", *files, *options)
        assert result.code in (0, 1)
        assert "\x1b" not in result.out + result.err
        assert "\\x1b]0;owned\\x07[bold]\\u202e\\ud800\\x0a[/nope]" in result.out
    code, written = run_on_terminal("diff", *files)
    assert code == 1
    assert "\x1b]0" not in written
    assert document_of(*files)["entries"][0]["name"] == HOSTILE


def test_a_statement_with_a_hostile_name_is_escaped() -> None:
    a, b = ({HOSTILE: torch.full((2,), value), "w": torch.ones(1)} for value in (1.0, 2.0))
    result = diff(a, b)
    assert "\x1b" not in result.out
    assert "only \\x1b]0;owned" in result.out


def test_an_error_with_a_hostile_name_is_escaped() -> None:
    result = diff(MODEL, MODEL, "--match", "\x1b[31m*")
    assert result.code == 2
    assert "\x1b" not in result.err


@pytest.mark.parametrize(("columns", "options"), [(60, ()), (60, ("--all",)), (20, ())])
def test_long_names_on_a_narrow_terminal_do_not_crash(
    columns: int, options: tuple[str, ...]
) -> None:
    name = ".".join(f"module{n}" for n in range(60))
    a = {name: torch.ones(2), name + ".x": torch.ones(3), "名" * 200: torch.ones(1)}
    b = {name: torch.zeros(2), name + ".y": torch.ones(3), "名" * 200: torch.zeros(1)}
    a_file, b_file = save({**a, "note" * 90: "x" * 900}, {**b, "note" * 90: "y" * 900})
    code, written = run_on_terminal("diff", a_file, b_file, *options, columns=columns)
    assert code == 1
    assert "Traceback" not in written


def test_names_of_any_length_are_whole_in_a_pipe() -> None:
    name = "x" * 5_000
    assert f"{name}y" in diff({name: torch.ones(1)}, {name + "y": torch.zeros(1)}).out


# What other tools get wrong --------------------------------------------------------------------


def one_difference(a: object, b: object) -> dict[str, Any]:
    """The entry of the one tensor that is not the same."""
    document = document_of(*save(a, b))
    (entry,) = [one for one in document["entries"] if one["change"] != "same"]
    return dict(entry)


def test_one_weight_plus_a_thousandth_is_found() -> None:
    b = copy.deepcopy(MODEL)
    b["layers.3.0.weight"][1, 2] += 1e-3
    entry = one_difference(MODEL, b)
    assert (entry["name"], entry["verdict"]) == ("layers.3.0.weight", "changed")
    assert (entry["changed_elements"], entry["elements"]) == (1, 16)
    assert entry["max_abs"] == pytest.approx(1e-3, rel=1e-2)


def test_a_running_mean_that_was_zero_and_its_counter_are_found_with_figures() -> None:
    a = nn.BatchNorm1d(4).state_dict()
    b = copy.deepcopy(a)
    b["running_mean"] += 0.5
    b["num_batches_tracked"] += 10
    document = document_of(*save(a, b))
    assert verdicts(document) == {
        "running_mean": ("changed", "changed"),
        "num_batches_tracked": ("changed", "changed"),
    }
    (mean,) = [one for one in document["entries"] if one["name"] == "running_mean"]
    assert (mean["rel_l2"], mean["cosine"], mean["mean_abs"]) == ("Infinity", None, 0.5)
    assert document["summary"]["statement"] == "only BatchNorm statistics differ"


def test_a_nan_that_came_is_found_and_counted() -> None:
    b = copy.deepcopy(MODEL)
    b["head.weight"][0, 0] = float("nan")
    entry = one_difference(MODEL, b)
    assert (entry["name"], entry["verdict"], entry["nan"]) == ("head.weight", "changed", [0, 1])
    assert entry["changed_elements"] == 1


def test_files_with_the_same_nan_are_identical() -> None:
    a = {"w": torch.tensor([float("nan"), 1.0])}
    result = diff(a, copy.deepcopy(a))
    assert result.code == 0
    assert "identical" in result.out


def test_zero_and_minus_zero_are_equal_as_values_and_not_called_identical() -> None:
    files = save({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([-0.0, 1.0])})
    (entry,) = document_of(*files, code=0)["entries"]
    assert (entry["change"], entry["verdict"]) == ("same", "equal-values")
    assert "identical but for the signs of zeros" in run("diff", *files).out


def test_values_in_another_order_are_found() -> None:
    b = copy.deepcopy(MODEL)
    b["head.weight"] = b["head.weight"].flip(1)
    entry = one_difference(MODEL, b)
    assert (entry["name"], entry["verdict"]) == ("head.weight", "changed")
    assert entry["changed_elements"] == 8


def test_the_same_tensors_saved_again_are_identical() -> None:
    torch.save(MODEL, "a.pt")
    torch.save(torch.load("a.pt", weights_only=True), "again.pt")
    torch.save(MODEL, "old.pt", _use_new_zipfile_serialization=False)
    for other in ("again.pt", "old.pt"):
        result = run("diff", "a.pt", other)
        assert (result.code, result.err) == (0, "")
        assert "\nidentical\n" in result.out


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_one_byte_that_was_corrupted_is_no_difference_of_zero(options: tuple[str, ...]) -> None:
    data = bytearray(torch_zip({"w": builders.Tensor("float32", (100,))}))
    at = data.index(bytes(builders.Tensor("float32", (100,)).elements()))
    data[at + 41] ^= 1
    files = save(torch_zip({"w": builders.Tensor("float32", (100,))}), bytes(data))
    result = run("diff", *files, *options)
    if options:
        # The recorded CRC is that of the bytes before.
        assert result.code == 0
        assert "as far as recorded CRCs and sizes tell" in result.out
    else:
        assert verdicts(document_of(*files)) == {"w": ("changed", "changed")}


def test_a_module_prefix_is_reconciled_and_said() -> None:
    result = diff(dict(MODEL), {f"module.{name}": tensor for name, tensor in MODEL.items()})
    assert result.code == 0
    assert "identical but for the prefix 'module.'" in result.out
    assert "names without 'module.'" in result.out
    exact = run("diff", "a.pt", "b.pt", "--exact-names")
    assert exact.code == 1


def test_a_pt_file_is_compared_with_its_safetensors() -> None:
    torch.save(MODEL, "model.pt")
    save_file(MODEL, "model.safetensors")
    for names in (("model.pt", "model.safetensors"), ("model.safetensors", "model.pt")):
        result = run("diff", *names)
        assert result.code == 0
        assert "\nidentical\n" in result.out
        assert "no place for _metadata" in result.err


@pytest.mark.parametrize("kind", ["truncated", "random", "empty"])
def test_a_file_that_is_none_is_not_compared_with_a_good_one(kind: str) -> None:
    good = torch_zip({"w": builders.Tensor("float32", (100,))})
    wrong = {
        "truncated": good[: len(good) // 2],
        "random": random.Random(0).randbytes(1000),
        "empty": b"",
    }[kind]
    a, b = save(good, wrong)
    assert error_of(a, b).startswith(f"error: {b}: ")
    assert error_of(b, a).startswith(f"error: {b}: ")


# Scenarios -------------------------------------------------------------------------------------


def test_only_batch_norm_moved() -> None:
    save(MODEL, changed(is_statistic))
    torch.save(Net(), "net.pt")
    for options in ((), ("--model", "net.pt")):
        result = run("diff", "a.pt", "b.pt", *options)
        assert result.code == 1
        assert "only BatchNorm statistics differ" in result.out
    lines = dict(line.split(maxsplit=1) for line in result.out.splitlines() if line)
    assert (lines["parameters"], lines["buffers"]) == ("38 same", "36 changed")
    parameters = ("--model", "net.pt", "--role", "parameter")
    assert run("diff", "a.pt", "b.pt", *parameters).code == 0


def test_nothing_was_trained() -> None:
    files = save(MODEL, changed(lambda name: name.startswith(("head.", "layers.11."))))
    result = run("diff", *files, "--fail-if-unchanged", "layers.*")
    assert result.code == 1
    assert "66 tensors should have changed and did not" in result.out
    assert "layers.{0-10}" in result.out
    merged = copy.deepcopy(MODEL)
    result = diff(MODEL, merged)
    assert (result.code, "\nidentical\n" in result.out) == (0, True)


@pytest.mark.parametrize("stored", [torch.float32, BFLOAT16])
def test_values_that_were_only_rounded_are_called_so(stored: torch.dtype) -> None:
    value = torch.tensor([-0.053844, 0.1, 0.3])
    entry = one_difference({"w": value}, {"w": value.to(BFLOAT16).to(stored)})
    assert (entry["change"], entry["verdict"], entry["rounded_to"]) == (
        "changed", "rounded", "bfloat16",
    )  # fmt: skip
    said = "cast" if stored is BFLOAT16 else "rounded"
    assert f"B is A {said} to bfloat16" in run("diff", "a.pt", "b.pt").out


def fingerprint_of(path: str) -> str:
    return str(json_of("list", path, "--sha256")["fingerprint"])


def test_one_state_dict_in_many_containers_is_identical_and_has_one_fingerprint() -> None:
    whole = torch.randn(4, 6)
    tensors = {"first": whole[:, :3], "second": whole[1:]}
    alone = {name: tensor.clone() for name, tensor in tensors.items()}
    made = {
        name: builders.Tensor("float32", tensor.shape, tensor.numpy().tobytes())
        for name, tensor in alone.items()
    }
    torch.save(alone, "one.pt")
    torch.save(alone, "two.bin")
    torch.save(alone, "legacy.pt", _use_new_zipfile_serialization=False)
    Path("deflated.pt").write_bytes(torch_zip(made, compress=True))
    torch.save(tensors, "views.pt")
    names = ("one.pt", "two.bin", "legacy.pt", "deflated.pt", "views.pt")
    assert len({fingerprint_of(name) for name in names}) == 1
    for name in names[1:]:
        assert run("diff", names[0], name).code == 0
        assert run("diff", name, names[0]).code == 0
    flipped = {**alone, "first": (alone["first"].view(torch.int32) ^ 1).view(torch.float32)}
    renamed = {"1st": alone["first"], "second": alone["second"]}
    recast = {**alone, "first": alone["first"].double()}
    for other in (flipped, renamed, recast):
        torch.save(other, "other.pt")
        assert fingerprint_of("other.pt") != fingerprint_of("one.pt")
        assert run("diff", "one.pt", "other.pt").code == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_leaves_that_are_more_than_anybody_reads_are_refused(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaves, "_CHARACTERS_OF_LEAVES", 1_000)
    for name, last in (("a.pt", 1), ("b.pt", 2)):
        long = [*range(100), last]
        torch.save({f"k{n}": long for n in range(20)}, tmp_path / name)
    result = run("diff", tmp_path / "a.pt", tmp_path / "b.pt", *options)
    assert result.code == 2
    assert result.err.startswith("error: more characters of leaves than are read")
