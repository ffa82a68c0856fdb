"""The commands as people and scripts run them: output, options, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from tests import builders
from tests.builders import Tensor, torch_zip
from tests.running import SAMPLES, json_of, run, run_on_terminal, run_process

ALL_SAMPLES = sorted(path.name for path in SAMPLES.glob("*.*") if path.suffix not in (".py", ".md"))
NAMES = ("inspect", "list", "show", "check", "diff", "strip", "reset-buffers", "spec")
TRAINING = SAMPLES / "training.ckpt"

# Snapshots -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_SAMPLES)
def test_inspect_in_a_pipe(name: str, snapshot: SnapshotAssertion) -> None:
    result = run("inspect", SAMPLES / name)
    assert result.code == 0
    assert result.out == snapshot(name="out")
    assert result.err == snapshot(name="err")


@pytest.mark.parametrize(
    "arguments",
    [
        ("training.ckpt", "--all"),
        ("training.ckpt", "--root", "model", "--sha256"),
        ("training.ckpt", "--root", "model", "--match", "*running*", "--sort", "bytes"),
        ("training.ckpt", "--root", "model", "--role", "parameter", "--sort", "name"),
        ("whole_module.pt", "--tree"),
        ("training.ckpt", "--tree"),
    ],
    ids=" ".join,
)
def test_inspect_with_options(arguments: tuple[str, ...], snapshot: SnapshotAssertion) -> None:
    name, *options = arguments
    result = run("inspect", SAMPLES / name, *options)
    assert result.code == 0
    assert result.out == snapshot


@pytest.mark.parametrize(
    ("name", "columns"),
    [("whole_module.pt", 100), ("training.ckpt", 80), ("canary.pt", 40), ("tied_and_view.pt", 80)],
)
def test_inspect_on_a_terminal(name: str, columns: int, snapshot: SnapshotAssertion) -> None:
    code, written = run_on_terminal("inspect", SAMPLES / name, columns=columns)
    assert code == 0
    assert "\x1b[" in written
    assert written == snapshot


def test_list_in_a_pipe(snapshot: SnapshotAssertion) -> None:
    assert run("list", SAMPLES / "whole_module.pt").out == snapshot
    assert run("list", SAMPLES / "my_model.pt", "--sha256").out == snapshot
    result = run("list", TRAINING)
    assert result.out == snapshot
    assert result.err == snapshot


def test_show_in_a_pipe(snapshot: SnapshotAssertion) -> None:
    assert run("show", SAMPLES / "my_model.pt", "weight", "running_*").out == snapshot
    assert run("show", TRAINING, "args", "model/1.running_var", "rng_state/torch").out == snapshot


def test_show_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    code, written = run_on_terminal("show", SAMPLES / "masked_layer.pt", "mask")
    assert code == 0
    assert written == snapshot


@pytest.mark.parametrize("command", [(), *((name,) for name in NAMES)])
def test_help_has_examples(command: tuple[str, ...], snapshot: SnapshotAssertion) -> None:
    result = run(*command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out == snapshot
    assert run(*command, "-h").out == result.out
    if command:
        assert f"ckptool {command[0]} " in result.out.partition("Examples:")[2]


def test_the_program_without_a_command_is_its_help() -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert result.err == run("--help").out
    assert "\n  inspect " in result.err


# Colour ----------------------------------------------------------------------------------------


def test_colour_can_be_turned_off() -> None:
    for options, environment in ((("--no-color",), None), ((), {"NO_COLOR": "1"})):
        code, written = run_on_terminal(
            "inspect", SAMPLES / "whole_module.pt", *options, environment=environment
        )
        assert code == 0
        assert "\x1b[3" not in written


# JSON ------------------------------------------------------------------------------------------

TOP = {
    "ckptool", "command", "path", "format", "files", "roots", "globals", "model", "strict_load",
    "entries", "absent", "leaves", "totals", "storages", "fingerprint", "findings", "warnings",
}  # fmt: skip
ENTRY = {
    "keys", "path", "name", "in_root", "role", "persistent", "status", "evidence", "certain",
    "use", "dtype", "shape", "stride", "offset", "bytes", "layout", "storage", "file", "location",
    "requires_grad", "tied_with", "components", "expected", "sha256",
}  # fmt: skip
TOTALS = {
    "parameters", "persistent_buffers", "stale_buffers", "buffers_of_unknown_persistence",
    "extra_state", "unexpected", "mismatched", "missing_parameters", "missing_persistent_buffers",
    "missing_non_persistent_buffers", "other_tensors",
}  # fmt: skip


@pytest.mark.parametrize("command", ["inspect", "list"])
@pytest.mark.parametrize("name", ALL_SAMPLES)
def test_every_field_of_the_contract_is_always_there(command: str, name: str) -> None:
    result = run(command, SAMPLES / name, "--json")
    document = json.loads(result.out)
    assert result.err == ""
    assert document.keys() >= TOP
    assert (document["ckptool"], document["command"]) == (1, command)
    assert document["path"] == str(SAMPLES / name)
    for file in document["files"]:
        assert file.keys() == {"path", "bytes", "protocol", "byteorder", "archive_name", "crc"}
    for root in document["roots"]:
        assert root.keys() == {"path", "tensors", "bytes", "chosen"}
    for entry in document["entries"]:
        assert entry.keys() == ENTRY
    for leaf in document["leaves"]:
        assert leaf.keys() == {"keys", "path", "type", "value"}
    assert document["totals"].keys() >= TOTALS
    assert all(total.keys() == {"count", "bytes"} for total in document["totals"].values())
    assert document["storages"].keys() == {"count", "bytes", "used_bytes", "unreferenced"}


def test_one_entry_in_full(snapshot: SnapshotAssertion) -> None:
    document = json_of("list", SAMPLES / "custom_batch_norm.pt", "--match", "*_mean", "--sha256")
    assert document["entries"] == snapshot
    assert document["totals"] == snapshot


def test_the_json_of_show(snapshot: SnapshotAssertion) -> None:
    document = json_of("show", TRAINING, "model/1.bias", "epoch")
    assert document.pop("path") == str(TRAINING)
    assert document == snapshot


def test_a_tensor_of_several_parts_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pt"
    made = builders.sparse_coo(Tensor("int64", (1, 2)), Tensor("float32", (2,)), (5,))
    path.write_bytes(torch_zip({"s": made}))
    (entry,) = json_of("list", path)["entries"]
    assert (entry["layout"], entry["storage"], entry["stride"], entry["offset"]) == (
        "sparse_coo", None, None, None,
    )  # fmt: skip
    assert [(part["role"], part["dtype"]) for part in entry["components"]] == [
        ("indices", "int64"),
        ("values", "float32"),
    ]
    shown = run("show", path, "s")
    assert "indices: int64 [1, 2]" in shown.out


def test_filters_are_for_the_totals_too() -> None:
    document = json_of("inspect", SAMPLES / "my_model.pt", "--match", "running_*")
    assert [entry["name"] for entry in document["entries"]] == ["running_mean", "running_var"]
    assert document["totals"]["persistent_buffers"] == {"count": 2, "bytes": 40}
    assert document["totals"]["other_tensors"] == {"count": 0, "bytes": 0}


# What goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("inspect", "missing.pt"), "input"),
        (("inspect", "."), "not-a-checkpoint"),
        (("inspect", "models.py"), "not-a-checkpoint"),
        (("list", "my_model.pt", "--match", "nothing*"), "entry-not-found"),
        (("list", "my_model.pt", "--match", "runing_mean"), "entry-not-found"),
        (("list", "my_model.pt", "--role", "parameter"), "entry-not-found"),
        (("inspect", "training.ckpt", "--root", "modle"), "entry-not-found"),
        (("show", "my_model.pt", "wieght"), "entry-not-found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_an_error_is_one_line_and_perhaps_a_hint(
    arguments: tuple[str, ...], kind: str, snapshot: SnapshotAssertion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(SAMPLES)
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == snapshot
    told = run(*arguments, "--json")
    assert (told.code, told.err) == (2, result.err)
    error = json.loads(told.out)["error"]
    assert error.keys() == {"kind", "message", "path", "hint", "file_kind"}
    assert (error["file_kind"] is not None) == (kind in ("input", "not-a-checkpoint"))
    assert error["kind"] == kind
    assert result.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("show", "my_model.pt"),
        ("inspect", "my_model.pt", "--sort", "size"),
        ("inspect", "my_model.pt", "--role", "weights"),
        ("inspect", "my_model.pt", "--unknown"),
        ("unknown",),
    ],
    ids=" ".join,
)
def test_bad_usage_is_an_error_too(
    arguments: tuple[str, ...], snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLES)
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == snapshot


@pytest.mark.parametrize("kind", sorted(builders.wrong_files()))
@pytest.mark.parametrize("command", ["inspect", "list", "show"])
def test_a_wrong_file_is_an_error(command: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(builders.wrong_files()[kind])
    result = run(command, path, *(["x"] if command == "show" else []))
    assert (result.code, result.out) == (2, "")
    first, *rest = result.err.splitlines()
    assert first.startswith(f"error: {path}: ")
    assert not rest or (rest[0] == "" and rest[1].startswith("hint: ") and len(rest) == 2)


def test_text_from_a_file_reaches_a_terminal_escaped(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07[bold]\u202e\ud800\n"
    path = tmp_path / "odd.pt"
    reference = builders.Global("\x1b[31m", "red")
    path.write_bytes(torch_zip({name: Tensor("float32", (2,)), "note": name, "g": reference}))
    for command, *rest in (("inspect",), ("inspect", "--tree"), ("list",), ("show", name)):
        result = run(command, path, *rest)
        assert result.code == 0
        assert "\\x1b]0;owned\\x07[bold]\\u202e\\ud800\\x0a" in result.out
        assert "\x1b" not in result.out + result.err
    code, written = run_on_terminal("inspect", path)
    assert code == 0
    assert "\x1b]0" not in written
    document = json.loads(run("list", path, "--json").out)
    assert document["entries"][0]["name"] == name


def test_names_of_any_length_are_whole_in_a_pipe(tmp_path: Path) -> None:
    name = "x" * 5_000
    path = tmp_path / "long.pt"
    path.write_bytes(torch_zip({name: Tensor("float32", (2,)), name + "y": Tensor("int8", ())}))
    for command in ("inspect", "list"):
        assert f"{name}y" in run(command, path).out


def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    path = tmp_path / "compressed.pt"
    path.write_bytes(torch_zip({"w": Tensor("float32", (2,))}, compress=True))
    for command in ("inspect", "list"):
        result = run(command, path)
        assert result.code == 0
        assert result.err.startswith("warning: ")
    assert "compressed" in json.loads(run("list", path, "--json").out)["warnings"][0]


# As a process ----------------------------------------------------------------------------------


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert run("--version").out == f"ckptool {version('ckptool')}\n"
    assert run_process("--version").stdout == f"ckptool {version('ckptool')}\n"


def test_exit_codes_of_a_process() -> None:
    assert run_process("list", SAMPLES / "my_model.pt").returncode == 0
    failed = run_process("list", "missing.pt")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "error: missing.pt: cannot be read: No such file or directory\n"


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "many.pt"
    path.write_bytes(torch_zip({f"name.{n}": Tensor("float32", (1,)) for n in range(20_000)}))
    # Without a buffer Python itself drops what a closed pipe does not take.
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for command in ("list", "inspect --all", "list --json"):
        line = f"set -o pipefail; {sys.executable} -m ckptool {command} {path} | head -n 1"
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=False, env=environment
        )
        assert done.stdout
        assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_is_an_error() -> None:
    for command in ("list", "inspect", "list --json"):
        line = f"{sys.executable} -m ckptool {command} {SAMPLES / 'my_model.pt'} >/dev/full"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_without_any_output_nothing_is_said() -> None:
    line = f"{sys.executable} -m ckptool list {SAMPLES / 'my_model.pt'} >&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_of_use_are_json_too() -> None:
    result = run_process("list", SAMPLES / "my_model.pt", "--json", "--role", "nope")
    assert result.returncode == 2
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["path"]) == ("usage", None)


def test_what_has_no_bytes_by_range_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "x" * 5_000):
        done = run_process("list", path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


def test_an_interrupt_ends_with_130(tmp_path: Path) -> None:
    path = tmp_path / "many.pt"
    path.write_bytes(torch_zip({f"name.{n}": Tensor("float32", (1,)) for n in range(50_000)}))
    command = [sys.executable, "-m", "ckptool", "list", str(path)]
    # As a shell starts a command: the interrupt must not be ignored from the start.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        while not _has_open(process.pid, path):
            assert process.poll() is None, "it ended before it could be interrupted"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def _has_open(pid: int, path: Path) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(link) == str(path) for link in folder.iterdir())
    except OSError:
        return False


def test_output_that_has_few_characters_gets_escapes(tmp_path: Path) -> None:
    path = tmp_path / "unicode.pt"
    path.write_bytes(torch_zip({"名前": Tensor("float32", (8,))}))
    for command in (("inspect",), ("list",), ("show", "名前")):
        done = run_process(
            command[0], path, *command[1:], environment={"PYTHONIOENCODING": "ascii"}
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\u540d\\u524d" in done.stdout
