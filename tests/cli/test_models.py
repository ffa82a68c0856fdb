"""Commands with a model: what people and scripts see of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from tests.running import SAMPLES, json_of, run, run_on_terminal
from tests.test_samples import MODELS

SPECS = SAMPLES / "specs"
MY_MODEL = "specs/my_model.json"
LIVE = "models.py:MyModel(10, 5)"


@pytest.fixture(autouse=True)
def in_the_folder_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLES)


# Snapshots -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_inspect_with_a_spec_in_a_pipe(name: str, snapshot: SnapshotAssertion) -> None:
    result = run("inspect", name, "--model", f"specs/{Path(name).stem}.json")
    assert (result.code, result.err) == (0, "")
    assert result.out == snapshot


CASES = [
    ("left_over_buffer.pt", MY_MODEL),
    ("compiled_ddp.pt", MY_MODEL),
    ("compiled_ddp.pt", LIVE),
    ("my_model.pt", "specs/masked_layer.json"),
    ("my_model.pt", "whole_module.pt"),
    ("training.ckpt", "specs/classifier.json", "--root", "model"),
    ("model.safetensors", "specs/classifier.json"),
]


@pytest.mark.parametrize("command", ["inspect", "check"])
@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_a_model_in_a_pipe(
    command: str, arguments: tuple[str, ...], snapshot: SnapshotAssertion
) -> None:
    path, model, *options = arguments
    result = run(command, path, "--model", model, *options)
    assert result.code == snapshot(name="code")
    assert result.out == snapshot(name="out")
    assert result.err == snapshot(name="err")


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "left_over_buffer.pt", "--model", MY_MODEL),
        ("check", "compiled_ddp.pt", "--model", MY_MODEL),
        ("check", "my_model.pt"),
    ],
    ids=" ".join,
)
def test_a_model_on_a_terminal(arguments: tuple[str, ...], snapshot: SnapshotAssertion) -> None:
    code, written = run_on_terminal(*arguments)
    assert code == snapshot(name="code")
    assert written == snapshot(name="written")


def test_list_says_how_each_tensor_stands_to_the_model(snapshot: SnapshotAssertion) -> None:
    assert run("list", "left_over_buffer.pt", "--model", MY_MODEL).out == snapshot
    assert run("list", "left_over_buffer.pt", "--model", MY_MODEL, "--sha256").out == snapshot


def test_the_tree_shows_what_is_not_as_the_model_has_it() -> None:
    result = run("inspect", "left_over_buffer.pt", "--model", MY_MODEL, "--tree")
    assert result.code == 0
    assert "temp_buffer  float32 [3]  non-persistent buffer" in result.out
    assert "  left over" in result.out


# JSON ------------------------------------------------------------------------------------------


def test_the_json_of_a_check(snapshot: SnapshotAssertion) -> None:
    result = run("check", "left_over_buffer.pt", "--model", MY_MODEL, "--json")
    assert (result.code, result.err) == (1, "")
    document = json.loads(result.out)
    assert document["command"] == "check"
    for key in ("model", "strict_load", "absent", "findings", "totals", "warnings"):
        assert document[key] == snapshot(name=key)


def test_the_prefix_is_told_in_full() -> None:
    document = json_of("inspect", "compiled_ddp.pt", "--model", MY_MODEL)
    prefix = {"strip": "_orig_mod.module.", "add": "", "matched": 3, "matched_as_is": 0}
    assert document["model"]["prefix"] == prefix
    assert (document["strict_load"]["ok"], document["strict_load"]["ok_with_prefix"]) == (
        False, True,
    )  # fmt: skip
    assert {entry["status"] for entry in document["entries"]} == {"matched"}
    assert document["entries"][0]["name"] == "_orig_mod.module.weight"


def test_what_has_to_be_computed_again_is_listed_for_a_loader() -> None:
    """With dtype and shape, so that a load from the meta device can make it anew."""
    document = json_of("inspect", "my_model.pt", "--model", MY_MODEL)
    (absent,) = document["absent"]
    assert absent["name"] == "temp_buffer"
    assert (absent["role"], absent["persistent"], absent["status"]) == (
        "buffer", False, "not-saved",
    )  # fmt: skip
    assert (absent["dtype"], absent["shape"]) == ("float32", [3])
    assert run("check", "my_model.pt", "--model", MY_MODEL).code == 0


def test_names_that_are_not_in_the_file_can_be_asked_for() -> None:
    result = run("inspect", "my_model.pt", "--model", MY_MODEL, "--match", "temp_*")
    assert result.code == 0
    assert "temp_buffer" in result.out
    assert run("inspect", "my_model.pt", "--match", "temp_*").code == 2


def test_live_and_frozen_say_the_same_to_scripts() -> None:
    documents = [
        json_of("inspect", "compiled_ddp.pt", "--model", model) for model in (MY_MODEL, LIVE)
    ]
    for document in documents:
        document["model"].pop("source")
    assert documents[0] == documents[1]


# What goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("missing.json", "input"),
        ("models.py", "spec"),
        ("models.py:MyModl", "spec"),
        ("models.py:MyModel", "spec"),
        ("models.py:MyModel(size)", "spec"),
        ("my_model.pt", "spec"),
        ("README.md", "not-a-checkpoint"),
    ],
)
def test_a_wrong_model_is_one_line_and_a_hint(
    model: str, kind: str, snapshot: SnapshotAssertion
) -> None:
    result = run("inspect", "my_model.pt", "--model", model)
    assert (result.code, result.out) == (2, "")
    assert result.err == snapshot
    told = run("check", "my_model.pt", "--model", model, "--json")
    assert (told.code, json.loads(told.out)["error"]["kind"]) == (2, kind)


def test_two_roots_that_fit_need_a_choice(snapshot: SnapshotAssertion) -> None:
    for command in ("inspect", "check", "list"):
        result = run(command, "training.ckpt", "--model", "specs/classifier.json")
        assert (result.code, result.out) == (2, "")
        assert result.err == snapshot


def test_what_the_users_code_prints_is_no_data(tmp_path: Path) -> None:
    path = tmp_path / "chatty_models.py"
    path.write_text("from torch import nn\nprint('loud')\ndef build():\n    print('louder')\n"
                    "    return nn.Linear(2, 2)\n")  # fmt: skip
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    result = run("check", tmp_path / "w.pt", "--model", f"{path}:build", "--json")
    assert result.code == 0
    json.loads(result.out)
    assert "louder" in result.err


# spec ------------------------------------------------------------------------------------------


def test_a_spec_goes_to_a_file_or_to_stdout(tmp_path: Path) -> None:
    target = tmp_path / "spec.json"
    result = run("spec", LIVE, "-o", target)
    assert (result.code, result.err) == (0, "")
    assert result.out == (f"{target}: 1 parameter, 2 persistent buffers, 1 non-persistent buffer\n")
    assert run("spec", LIVE).out == target.read_text()
    assert run("spec", target).out == target.read_text()


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "spec.json"
    target.write_text("mine")
    result = run("spec", LIVE, "-o", target)
    assert (result.code, target.read_text()) == (2, "mine")
    assert "--force" in result.err
    assert run("spec", LIVE, "-o", target, "--force").code == 0
    assert target.read_text().startswith("{")
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert run("spec", LIVE, "-o", tmp_path / "spec.json").code == 2


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = run("spec", LIVE, "-o", tmp_path / "missing" / "spec.json")
    assert result.code == 2
    assert result.err.startswith("error: ")


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    for target in (tmp_path, ".", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        result = run("spec", LIVE, "-o", target, "--force")
        assert result.code == 2
        assert result.err.startswith("error: ")
    (tmp_path / "file").write_text("mine")
    assert run("spec", LIVE, "-o", tmp_path / "file" / "x.json").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_model_leaves_no_file(tmp_path: Path) -> None:
    assert run("spec", "models.py:MyModel", "-o", tmp_path / "spec.json").code == 2
    assert list(tmp_path.iterdir()) == []
