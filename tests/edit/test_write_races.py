"""Files that change while an edit is under way, and two edits of one target."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ckptool import Plan, open_checkpoint, plan_strip, write_checkpoint
from ckptool.errors import CkptoolError, MalformedCheckpointError, OutputError
from tests.edit.killing import UNFINISHED, watched, zip_file
from tests.running import json_of, run

_DROP: Final = ("--drop", "head.*")


@contextmanager
def _plan(source: Path) -> Iterator[Plan]:
    with open_checkpoint(source) as checkpoint:
        yield plan_strip(checkpoint, drop=["head.*"])


def _edit(
    source: Path,
    target: Path | None,
    step: Callable[..., Any] | None = None,
    *,
    verify: bool = False,
) -> list[str]:
    """Write over whatever is there; return the notes."""
    files = None if step is None else watched(step)
    with _plan(source) as plan:
        return list(write_checkpoint(plan, target, force=True, verify=verify, files=files).notes)


def _once(wanted: str, act: Callable[[], object]) -> Callable[..., Any]:
    """Do something before the first call of a name."""
    done: list[str] = []

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == wanted and not done:
            done.append(name)
            act()
        return call(*args)

    return step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a source and nothing else."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "src").write_bytes(zip_file())
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the edit gives."""
    path = tmp_path_factory.mktemp("expected")
    (path / "src").write_bytes(zip_file())
    _edit(path / "src", path / "dst")
    return (path / "dst").read_bytes()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# A source that changes -------------------------------------------------------------------------


@pytest.mark.parametrize("is_verified", [False, True])
def test_a_source_that_is_cut_while_it_is_read_gives_no_file(
    is_verified: bool, folder: Path
) -> None:
    source = folder / "src"

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "copy_file_range":
            os.truncate(source, min(args[2] + 1000, source.stat().st_size))
        return call(*args)

    with pytest.raises(MalformedCheckpointError, match="cut short"):
        _edit(source, folder / "dst", step, verify=is_verified)
    assert _names(folder) == {"src"}


def test_a_source_that_changes_behind_its_copy_is_found_by_verification(folder: Path) -> None:
    source = folder / "src"

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        result = call(*args)
        if name == "copy_file_range":
            with source.open("r+b") as file:
                file.seek(args[2] + 7)
                file.write(b"\xff")
        return result

    with pytest.raises(CkptoolError, match="not what was planned"):
        _edit(source, folder / "dst", step, verify=True)
    assert _names(folder) == {"src"}


def test_a_source_that_is_replaced_while_it_is_read_is_read_to_its_end(
    folder: Path, expected: bytes
) -> None:
    source = folder / "src"

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name == "create":
            (folder / "other").write_bytes(b"other")
            (folder / "other").replace(source)
        return call(*args)

    _edit(source, folder / "dst", step, verify=True)
    assert source.read_bytes() == b"other"
    assert (folder / "dst").read_bytes() == expected


# A target that changes ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["create", "sync"])
def test_in_place_does_not_replace_a_newer_file(stage: str, folder: Path) -> None:
    def save() -> None:
        (folder / "newer").write_bytes(b"newer")
        (folder / "newer").replace(folder / "src")

    with pytest.raises(OutputError, match="another file has taken its place"):
        _edit(folder / "src", None, _once(stage, save))
    assert (folder / "src").read_bytes() == b"newer"
    assert _names(folder) == {"src"}


@pytest.mark.parametrize("stage", ["create", "sync"])
def test_a_file_that_comes_while_another_is_written_needs_force_too(
    stage: str, folder: Path
) -> None:
    files = watched(_once(stage, lambda: (folder / "dst").write_bytes(b"other")))
    with (
        _plan(folder / "src") as plan,
        pytest.raises(OutputError, match="there is a file already"),
    ):
        write_checkpoint(plan, folder / "dst", files=files)
    assert (folder / "dst").read_bytes() == b"other"
    assert _names(folder) == {"src", "dst"}


def test_a_directory_that_comes_while_the_file_is_written_stays(folder: Path) -> None:
    with pytest.raises(OutputError):
        _edit(folder / "src", folder / "dst", _once("replace", (folder / "dst").mkdir))
    assert (folder / "dst").is_dir()
    assert _names(folder) == {"src", "dst"}


# Two edits of one target -----------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["write", "copy_file_range", "sync", "replace"])
def test_a_second_edit_of_a_target_says_that_another_is_under_way(
    stage: str, folder: Path, expected: bytes
) -> None:
    seen: list[object] = []
    target = folder / "dst"
    command = "strip", folder / "src", "-o", target, "--training", "--force"
    _edit(folder / "src", target, _once(stage, lambda: seen.append(run(*command))))
    assert seen == [(2, "", f"error: {target}: another edit of it is under way\n")]
    assert target.read_bytes() == expected
    assert _names(folder) == {"src", "dst"}


def test_two_edits_of_two_targets_do_not_mind_each_other(folder: Path, expected: bytes) -> None:
    _edit(folder / "src", folder / "a", _once("sync", lambda: _edit(folder / "src", folder / "b")))
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == expected
    assert _names(folder) == {"src", "a", "b"}


def test_an_edit_that_is_late_never_gives_the_name_to_half_a_file(
    folder: Path, expected: bytes
) -> None:
    target = folder / "dst"
    target.write_bytes(b"old")
    (folder / UNFINISHED.format("dst")).write_bytes(b"left")
    is_other_ready, is_late_writing = threading.Event(), threading.Event()
    problems: list[str] = []
    seen: list[bytes] = []

    def wait() -> None:
        is_other_ready.set()
        is_late_writing.wait(60)

    def edit(step: Callable[..., Any]) -> None:
        try:
            _edit(folder / "src", target, step)
        except CkptoolError as error:
            problems.append(str(error))

    def run_other() -> None:
        edit(_once("replace", wait))
        is_other_ready.set()

    other = threading.Thread(target=run_other)

    def late(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        # It has found what was left behind; before it removes it, the other is about to end.
        if name == "remove" and other.ident is None:
            other.start()
            is_other_ready.wait(60)
        if name == "copy_file_range" and not seen:
            is_late_writing.set()
            other.join(60)
            seen.append(target.read_bytes())
        return call(*args)

    edit(late)
    is_late_writing.set()
    other.join(60)
    assert set(seen) <= {b"old", expected}
    assert target.read_bytes() == expected
    assert _names(folder) == {"src", "dst"}
    assert len(problems) <= 1
    assert all("another edit of it is under way" in problem for problem in problems)


def test_an_edit_goes_on_where_another_ends_in_the_same_moment(
    folder: Path, expected: bytes
) -> None:
    unfinished = folder / UNFINISHED.format("dst")
    unfinished.write_bytes(b"of the other")

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        try:
            return call(*args)
        except FileExistsError:
            unfinished.unlink()
            raise

    assert _edit(folder / "src", folder / "dst", step) == []
    assert (folder / "dst").read_bytes() == expected
    assert _names(folder) == {"src", "dst"}


def test_what_a_killed_edit_left_behind_is_removed_with_a_note(
    folder: Path, expected: bytes
) -> None:
    left = UNFINISHED.format("dst")
    (folder / left).write_bytes(b"left")
    note = f"{left} was left behind by an edit that was killed; it is removed"
    assert _edit(folder / "src", folder / "dst") == [note]
    (folder / left).write_bytes(b"left")
    command = "strip", folder / "src", "-o", folder / "dst", "--force", *_DROP
    result = run(*command)
    assert (result.code, result.err) == (0, f"note: {note}\n")
    (folder / left).write_bytes(b"left")
    assert json_of(*command)["notes"] == [note]
    assert (folder / "dst").read_bytes() == expected
    assert _names(folder) == {"src", "dst"}


def test_a_link_in_the_place_of_what_was_left_behind_leads_nowhere(folder: Path) -> None:
    (folder / "other").write_bytes(b"other")
    (folder / UNFINISHED.format("dst")).symlink_to("other")
    result = run("strip", folder / "src", "-o", folder / "dst", *_DROP)
    assert result.code in (0, 2)
    assert result.err.count("\n") == 1
    assert (folder / "other").read_bytes() == b"other"
    assert (folder / "dst").exists() == (result.code == 0)
