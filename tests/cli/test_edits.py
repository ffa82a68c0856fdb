"""What edits say: a plan and a report, in a pipe, on a terminal, as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from tests import builders
from tests.builders import Tensor, torch_zip
from tests.running import SAMPLES, run, run_on_terminal

SPECS = SAMPLES / "specs"
EDITS: tuple[tuple[str | Path, ...], ...] = (
    ("strip", SAMPLES / "training.ckpt", "--training"),
    ("strip", SAMPLES / "training.ckpt", "--training", "--ema", "use", "--extract"),
    ("strip", SAMPLES / "training.ckpt", "--root", "model", "--buffers", "--guess"),
    ("strip", SAMPLES / "left_over_buffer.pt", "--stale", "--model", SPECS / "my_model.json"),
    ("strip", SAMPLES / "compiled_ddp.pt", "--prefix", "auto", "--model", SPECS / "my_model.json"),
    ("strip", SAMPLES / "tied_and_view.pt", "--drop", "embed.weight"),
    ("strip", SAMPLES / "model.safetensors", "--keep", "*.weight"),
    ("reset-buffers", SAMPLES / "drifted.pt"),
    ("reset-buffers", SAMPLES / "whole_module.pt", "--match", "*", "--match", "!0.*"),
    ("reset-buffers", SAMPLES / "masked_layer.pt", "--match", "mask", "--to", "1"),
    ("reset-buffers", SAMPLES / "lookup_table.pt", "--model", SPECS / "lookup_table.json"),
)
FIELDS = [
    "ckptool", "command", "src", "dst", "written", "removed", "changed", "left", "kept",
    "bytes_before", "bytes_after", "notes", "warnings",
]  # fmt: skip


def shown(edit: tuple[str | Path, ...]) -> str:
    return " ".join(one.name if isinstance(one, Path) else one for one in edit)


@pytest.mark.parametrize("edit", EDITS, ids=shown)
def test_a_plan_in_a_pipe(
    edit: tuple[str | Path, ...], snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLES.parent)
    relative = [one.relative_to(SAMPLES.parent) if isinstance(one, Path) else one for one in edit]
    result = run(*relative, "--dry-run")
    assert result.code == 0
    assert result.out == snapshot(name="out")
    assert result.err == snapshot(name="err")


@pytest.mark.parametrize("edit", EDITS, ids=shown)
def test_what_was_planned_is_what_is_written(edit: tuple[str | Path, ...], tmp_path: Path) -> None:
    target = tmp_path / "new.pt"
    planned = json.loads(run(*edit, "--dry-run", "--json").out)
    written = json.loads(run(*edit, "-o", target, "--json").out)
    assert list(planned) == list(written) == FIELDS
    assert (planned.pop("written"), written.pop("written")) == (False, True)
    assert (planned.pop("dst"), written.pop("dst")) == (None, str(target))
    assert planned == written
    assert target.stat().st_size == written["bytes_after"]
    assert written["bytes_before"] == Path(written["src"]).stat().st_size


def test_a_report_on_a_terminal(
    tmp_path: Path, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "training.ckpt", "last.ckpt")
    code, written = run_on_terminal(
        "strip", "last.ckpt", "--training", "-o", "model.ckpt", columns=80
    )
    assert code == 0
    assert "\x1b[" in written
    assert written == snapshot


def test_repeated_layers_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "deep.pt"
    names = [f"module.blocks.{n}.{leaf}" for n in range(12) for leaf in ("weight", "bias")]
    path.write_bytes(torch_zip({name: Tensor("float32", (2,)) for name in names}))
    result = run("strip", path, "--dry-run", "--drop", "*.bias", "--prefix", "module.")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["module.blocks.{0-11}.bias", "x12", "12", "96", "B"] in lines
    assert ["module.blocks.{0-11}.weight", "x12", "renamed", "blocks.{0-11}.weight"] in lines


def test_names_from_a_file_are_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    evil = "\x1b[31m[bold]running_mean\ud800"
    path.write_bytes(torch_zip({evil: Tensor("float32", (2,)), "w": Tensor("float32", (2,))}))
    result = run("strip", path, "--dry-run", "--drop", "*mean*")
    assert result.code == 0
    assert "\\x1b[31m[bold]running_mean\\ud800" in result.out
    assert json.loads(run("strip", path, "--dry-run", "--drop", "*mean*", "--json").out)[
        "removed"
    ] == [{"path": evil, "tensors": 1, "bytes": 8}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("strip", "-o", "new.pt"), "nothing is asked for"),
        (("strip", "--training"), "-o DST says where to"),
        (("strip", "--training", "-o", "new.pt", "--in-place"), "exclude each other"),
        (("strip", "--drop", "w", "--guess", "-o", "new.pt"), "goes with --buffers"),
        (("strip", "--ema", "both", "-o", "new.pt"), "'use', 'drop'"),
        (("reset-buffers",), "-o DST says where to"),
        (("reset-buffers", "--to", "1", "-o", "new.pt"), "--to goes with --match"),
        (("reset-buffers", "--match", "w", "--to", "x", "-o", "new.pt"), "'x' is no number"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = arguments
    result = run(command, SAMPLES / "training.ckpt", *options)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert problem in result.err.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [builders.lfs_pointer(), b"", builders.torch_package({"m": 1})])
def test_what_cannot_be_edited_is_refused_and_nothing_written(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pt"
    path.write_bytes(data)
    for edit in (("strip", "--training"), ("reset-buffers",)):
        result = run(edit[0], path, *edit[1:], "-o", tmp_path / "new.pt", "--json")
        assert result.code == 2
        assert json.loads(result.out)["error"]["path"] == str(path)
    assert list(tmp_path.iterdir()) == [path]
