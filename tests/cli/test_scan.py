"""What `scan` says in a pipe, on a terminal, as JSON and as SARIF, and how it ends."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from syrupy.assertion import SnapshotAssertion

from ckptool.pickling.limits import LIMIT_NAMES, Limits, read_limits
from tests.builders import Call, Global, Tensor, to_pickle, torch_zip
from tests.running import SAMPLES, run, run_on_terminal

CANARY: Final = SAMPLES / "canary.pt"
FIELDS: Final = {
    "ckptool": "command path fail_on failed summary files findings",
    "file": "path bytes not_read file_kind pickles",
    "pickle": "where offset bytes protocol whole names",
    "name": "name severity reason calls",
    "finding": "path severity code where offset name calls times message",
}


def document(*arguments: str | Path) -> dict[str, Any]:
    result = run("scan", *arguments, "--json")
    assert result.err == ""
    read: dict[str, Any] = json.loads(result.out)
    return read


def evil(tmp_path: Path, *functions: str) -> Path:
    path = tmp_path / "evil.pt"
    called = [Call(Global(*one.rsplit(".", 1)), ("id",)) for one in functions]
    path.write_bytes(torch_zip({"w": Tensor("float32", (2,)), "x": called}))
    return path


@pytest.mark.parametrize("name", ["canary.pt", "legacy.pt", "whole_module.pt", "model.safetensors"])
def test_a_scan_in_a_pipe(
    name: str, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLES)
    assert tuple(run("scan", name)) == snapshot
    assert run("scan", name, "--all").out == snapshot(name="all")


def test_a_scan_on_a_terminal(snapshot: SnapshotAssertion) -> None:
    code, written = run_on_terminal("scan", CANARY)
    assert (code, written) == snapshot


def test_a_scan_says_that_it_promises_nothing() -> None:
    assert "does not promise that a file is safe" in run("scan", CANARY).err


@pytest.mark.parametrize(
    ("function", "level", "code"),
    [
        ("os.system", None, 1),
        ("os.system", "dangerous", 1),
        ("mypackage.Config", None, 0),
        ("mypackage.Config", "unknown", 1),
        ("mypackage.Config", "dangerous", 0),
        ("collections.OrderedDict", "unknown", 0),
    ],
)
def test_the_exit_code_is_1_from_the_severity_that_is_asked_for(
    function: str, level: str | None, code: int, tmp_path: Path
) -> None:
    options = () if level is None else ("--fail-on", level)
    path = evil(tmp_path, function)
    for form in ((), ("--json",), ("--sarif",)):
        assert run("scan", path, *options, *form).code == code
    assert document(path, *options)["failed"] is bool(code)


def test_a_severity_that_is_none_and_two_forms_at_once_are_errors_of_use() -> None:
    for options in (("--fail-on", "harmless"), ("--fail-on", "x"), ("--json", "--sarif")):
        assert run("scan", CANARY, *options).code == 2


def test_the_json_has_every_field(tmp_path: Path) -> None:
    told = document(evil(tmp_path, "os.system"))
    (file,) = told["files"]
    (pickle,) = file["pickles"]
    (finding,) = told["findings"]
    parts = {"ckptool": told, "file": file, "pickle": pickle, "finding": finding}
    for kind, part in {**parts, "name": pickle["names"][0]}.items():
        assert set(part) - {"ckptool"} == set(FIELDS[kind].split())
    assert (told["ckptool"], told["command"], told["failed"]) == (1, "scan", True)
    assert told["summary"] == {
        "files": 1, "not_read": 0, "pickles": 1, "unknown": 0, "suspicious": 0, "dangerous": 1,
    }  # fmt: skip
    assert finding["calls"] == ["os.system('id')"]
    data = Path(finding["path"]).read_bytes()
    assert data[finding["offset"]] == ord("R")


def test_the_sarif_has_a_rule_and_a_place_for_each_finding(tmp_path: Path) -> None:
    path = evil(tmp_path, "os.system", "mypackage.Config").rename(tmp_path / "a b#\u00fc.pt")
    told = json.loads(run("scan", path, "--sarif").out)
    assert told["version"] == "2.1.0"
    (sarif,) = told["runs"]
    assert sarif["tool"]["driver"]["name"] == "ckptool"
    rules = {rule["id"] for rule in sarif["tool"]["driver"]["rules"]}
    assert [result["level"] for result in sarif["results"]] == ["error", "note"]
    for result in sarif["results"]:
        assert result["ruleId"] in rules
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert unquote(place["artifactLocation"]["uri"]) == f"file://{path}"
        assert path.read_bytes()[place["region"]["byteOffset"]] == ord("R")
        (logical,) = location["logicalLocations"]
        assert logical["fullyQualifiedName"] == "archive/data.pkl"
    assert sarif["results"][0]["message"]["text"].startswith("os.system('id'): ")


def test_a_clean_scan_has_an_empty_list_of_results() -> None:
    told = json.loads(run("scan", SAMPLES / "my_model.pt", "--sarif").out)
    assert told["runs"][0]["results"] == []


def test_what_a_file_calls_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    text = "\x1b[31m\u202e[bold]\nrm\ud800"
    path.write_bytes(to_pickle([Call(Global("os", text), (text,)), Global(text, "x")]))
    for form in ((), ("--all",), ("--json",), ("--sarif",)):
        result = run("scan", path, *form)
        assert result.code == 1
        assert not set("\x1b\u202e") & set(result.out + result.err)


# Limits, which all commands that read have ------------------------------------------------------


READING: Final[tuple[tuple[str, ...], ...]] = (
    ("inspect",), ("list",), ("show", "*"), ("check",), ("diff", str(CANARY)), ("scan",),
    ("strip", "--dry-run", "--drop", "*"), ("reset-buffers", "--dry-run"),
)  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_a_limit_that_is_lowered_ends_each_command(command: tuple[str, ...]) -> None:
    name, *more = command
    result = run(name, CANARY, *more, "--limits", "opcodes=5")
    assert result.code == (1 if name == "scan" else 2)
    assert "more opcodes than are read" in (result.out if name == "scan" else result.err)


@pytest.mark.parametrize("name", sorted(set(LIMIT_NAMES) - {"depth", "inflation", "header-bytes"}))
def test_the_hint_of_a_limit_is_what_raises_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    tree = {f"{n}" * 99: {"x": [1 << 200, [n]]} for n in range(9)}
    path.write_bytes(pickle.dumps(tree))
    too_low = run("list", path, "--limits", f"{name}=3")
    assert too_low.code == 2
    hint = too_low.err.splitlines()[-1]
    option, _, text = hint.partition(": --limits ")[2].partition("=")
    assert (option, too_low.err.count("hint: ")) == (name, 1)
    raised = run("list", path, "--limits", f"{option}={int(text)}")
    while raised.code:
        again = raised.err.splitlines()[-1].partition(f"{name}=")[2]
        assert int(again) > int(text)
        text = again
        raised = run("list", path, "--limits", f"{name}={text}")


def test_limits_are_read_from_text() -> None:
    assert read_limits([]) == Limits()
    assert read_limits(["opcodes=5,memo=6", "leaves=7"]) == Limits(opcodes=5, memo=6, leaves=7)
    assert read_limits(["string-bytes=8"]).string_bytes == 8


@pytest.mark.parametrize(
    "text", ["", "opcodes", "opcodes=", "opcodes=-1", "opcodes=1e9", "nothing=1", "depth=501", "=1"]
)
def test_other_text_for_limits_is_an_error_of_use(text: str) -> None:
    with pytest.raises(ValueError, match=r"one of|NAME=NUMBER|walked"):
        read_limits([text])
    assert run("list", CANARY, "--limits", text).code == 2
