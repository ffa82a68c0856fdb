"""Writing where calls fail, do less than they should or lie, and where the disk is full."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from ckptool import open_checkpoint, plan_strip, write_checkpoint
from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.edit import files as files_module
from ckptool.edit import write
from ckptool.edit.files import Files
from ckptool.edit.write import Written
from ckptool.errors import OutputError
from tests.edit.killing import (
    CALLS,
    UNFINISHED,
    halved,
    legacy_file,
    safetensors_file,
    watched,
    zip_file,
)
from tests.running import Result, run, run_process

_SOURCES: Final[dict[str, Callable[[], bytes]]] = {
    "zip": zip_file,
    "legacy": legacy_file,
    "safetensors": safetensors_file,
}
_ERRORS: Final = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT, errno.EROFS)
_REFUSED: Final = (
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY,
)  # fmt: skip
_KERNEL_COPIES: Final = ("copy_file_range", "sendfile")
_DROP: Final = ("--drop", "head.*")


def _edit(
    source: Path,
    target: Path | None,
    files: Files | None = None,
    *,
    verify: bool = False,
    progress: Progress = UNWATCHED,
) -> Written:
    with open_checkpoint(source) as checkpoint:
        plan = plan_strip(checkpoint, drop=["head.*"])
        return write_checkpoint(
            plan, target, force=True, verify=verify, files=files, progress=progress
        )


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _restore(folder: Path, contents: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in contents.items():
        (folder / name).write_bytes(data)


@pytest.fixture(params=_SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in a folder of its own; an edit of it makes calls of all kinds."""
    monkeypatch.setattr(files_module, "_FLUSHED", 1 << 16)
    folder = tmp_path / "work"
    folder.mkdir()
    path = folder / "src"
    path.write_bytes(_SOURCES[request.param]())
    return path


only_zip: Final = pytest.mark.parametrize("source", ["zip"], indirect=True)


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """What the edit of it gives."""
    _edit(source, tmp_path / "expected")
    return (tmp_path / "expected").read_bytes()


class Failing:
    """Makes one call fail; the calls of Files are counted, or those of one name only."""

    def __init__(self, at: int, number: int, name: str | None = None) -> None:
        self._at, self._number, self._name = at, number, name
        self.calls: list[str] = []

    def step(self, name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._name in (None, name):
            self.calls.append(name)
            if len(self.calls) - 1 == self._at:
                raise OSError(self._number, os.strerror(self._number))
        return call(*args)


def _calls(source: Path, target: Path | None) -> list[str]:
    """The calls of an edit that goes well; the folder is as before."""
    before = _contents(source.parent)
    watch = Failing(-1, 0)
    _edit(source, target, watched(watch.step))
    _restore(source.parent, before)
    return watch.calls


# Calls that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["new", "existing", "in place", "left behind"])
def test_each_call_that_fails_leaves_the_old_files_and_nothing_else(
    kind: str, source: Path, expected: bytes
) -> None:
    target = None if kind == "in place" else source.with_name("dst")
    written = target or source
    if kind == "existing":
        written.write_bytes(b"old")
    left = UNFINISHED.format("dst")
    if kind == "left behind":
        source.with_name(left).write_bytes(b"left")
    before = _contents(source.parent)
    calls = _calls(source, target)
    assert set(calls) >= {*CALLS} - {"remove", "sendfile"}
    opened = len(os.listdir("/proc/self/fd"))
    for at, name in enumerate(calls):
        _restore(source.parent, before)
        number = _ERRORS[at % len(_ERRORS)]
        with pytest.raises(OutputError) as caught:
            _edit(source, target, watched(Failing(at, number).step))
        assert caught.value.path == written
        assert os.strerror(number) in str(caught.value)
        rest = dict(before)
        if "remove" in calls[:at]:
            # The file that a killed edit had left was in the way, and is gone.
            del rest[left]
        if name == "sync_folder":
            assert "it is written, but" in str(caught.value)
            rest[written.name] = expected
        assert _contents(source.parent) == rest
    assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize("is_json", [False, True], ids=["text", "json"])
def test_a_call_that_fails_is_one_line_on_the_command_line(
    is_json: bool, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = source.with_name("dst")
    for at, name in enumerate(_calls(source, target)):
        monkeypatch.setattr(write, "Files", lambda at=at: watched(Failing(at, errno.EIO).step))
        more = ("--json",) if is_json else ()
        result = run("strip", source, "-o", target, *_DROP, "--force", *more)
        _check_one_line(result, target, is_json=is_json)
        assert _contents(source.parent).keys() == ({"src", "dst"} if target.exists() else {"src"})
        assert target.exists() == (name == "sync_folder")


def _check_one_line(result: Result, target: Path, *, is_json: bool = False) -> None:
    assert result.code == 2
    assert result.err.startswith(f"error: {target}: ")
    assert result.err.count("\n") == 1
    if is_json:
        assert json.loads(result.out)["error"]["kind"]
    else:
        assert result.out == ""


def test_a_file_that_cannot_be_removed_does_not_hide_what_went_wrong(source: Path) -> None:
    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if name in ("sync", "remove"):
            number = errno.ENOSPC if name == "sync" else errno.EIO
            raise OSError(number, os.strerror(number))
        return call(*args)

    target = source.with_name("dst")
    with pytest.raises(OutputError, match="No space left on device"):
        _edit(source, target, watched(step))
    assert _contents(source.parent).keys() == {"src", UNFINISHED.format("dst")}
    assert "was left behind" in _edit(source, target).notes[0]
    assert _contents(source.parent).keys() == {"src", "dst"}


def test_an_interruption_or_a_mistake_leaves_nothing_behind(source: Path) -> None:
    for error in (KeyboardInterrupt, ValueError, MemoryError):

        class Raising:
            def expect(self, nbytes: int) -> None:
                assert nbytes > 0

            def advance(self, nbytes: int, error: type[BaseException] = error) -> None:
                raise error

        with pytest.raises(error):
            _edit(source, source.with_name("dst"), progress=Raising())
        assert _contents(source.parent).keys() == {"src"}


def test_a_folder_that_cannot_be_flushed_on_its_file_system_is_no_error(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    _edit(source, source.with_name("dst"))
    assert source.with_name("dst").exists()


# Calls that do less ----------------------------------------------------------------------------


@pytest.mark.parametrize("least", [1, 10_000])
def test_short_writes_and_short_copies_give_the_same_bytes(
    least: int, source: Path, expected: bytes
) -> None:
    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        size = len(args[1]) if name == "write" else args[-1]
        is_short = name in ("write", *_KERNEL_COPIES) and size > least
        return call(*(halved(name, args) if is_short else args))

    _edit(source, source.with_name("dst"), watched(step), verify=True)
    assert source.with_name("dst").read_bytes() == expected


@pytest.mark.parametrize("refused", [("copy_file_range",), _KERNEL_COPIES], ids=["one", "both"])
@pytest.mark.parametrize("number", [0, *_REFUSED], ids=lambda number: errno.errorcode.get(number))
@pytest.mark.parametrize("allowed", [0, 2], ids=["at once", "in the middle"])
def test_a_kernel_that_does_not_copy_gives_the_same_bytes(
    refused: tuple[str, ...],
    number: int,
    allowed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "_STEP", 1 << 15)
    source = tmp_path / "src"
    source.write_bytes(zip_file())
    _edit(source, tmp_path / "expected")
    calls: list[str] = []

    def step(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        calls.append(name)
        if name in refused and calls.count(name) > allowed:
            if number:
                raise OSError(number, os.strerror(number))
            return 0
        return call(*args)

    _edit(source, tmp_path / "dst", watched(step), verify=True)
    assert (tmp_path / "dst").read_bytes() == (tmp_path / "expected").read_bytes()
    # A way that was refused is not tried again.
    assert all(calls.count(name) == allowed + 1 for name in refused)
    assert calls.count("sendfile") > allowed


# A full disk -----------------------------------------------------------------------------------

_LIMITED: Final = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[1:2] = []
from ckptool.cli import main
main()
"""


@only_zip
def test_a_size_limit_leaves_the_old_target(source: Path, expected: bytes) -> None:
    target = source.with_name("dst")
    target.write_bytes(b"old")
    before = _contents(source.parent)
    arguments = ["strip", str(source), "-o", str(target), "--force", *_DROP]
    for limit in (0, 100_000, len(expected) - 1, len(expected)):
        command = [sys.executable, "-c", _LIMITED, str(limit), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if limit < len(expected):
            _check_one_line(Result(ended.returncode, ended.stdout, ended.stderr), target)
            assert "File too large" in ended.stderr
            assert _contents(source.parent) == before
    assert (ended.returncode, target.read_bytes()) == (0, expected)


def _mounted(mount: str, folder: Path, *arguments: str | Path) -> Result:
    """Run a command, and `ls`, where something is mounted for them alone."""
    script = f'{mount} || exit 77; "$@"; code=$?; ls -A "$FOLDER"; exit $code'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "ckptool"]
    environment = {**os.environ, "FOLDER": str(folder)}
    try:
        ended = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True, text=True, env=environment, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if ended.returncode == 77 or ended.stderr.startswith("unshare"):
        pytest.skip("nothing can be mounted here")
    return Result(ended.returncode, ended.stdout, ended.stderr)


@only_zip
@pytest.mark.parametrize("size", ["64k", "128k"])
def test_a_full_file_system_keeps_nothing_of_a_file(size: str, source: Path) -> None:
    disk = source.parent.parent / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={size} none "$FOLDER"'
    result = _mounted(mount, disk, "strip", source, "-o", disk / "dst", *_DROP)
    _check_one_line(result, disk / "dst")
    assert "No space left on device" in result.err


@only_zip
@pytest.mark.parametrize("is_in_place", [False, True], ids=["new", "in place"])
def test_a_file_system_that_is_read_only_is_one_line(is_in_place: bool, source: Path) -> None:
    before = _contents(source.parent)
    target = source if is_in_place else source.with_name("dst")
    where = ["--in-place"] if is_in_place else ["-o", str(target)]
    mount = 'mount --bind "$FOLDER" "$FOLDER" && mount -o remount,bind,ro "$FOLDER"'
    result = _mounted(mount, source.parent, "strip", source, *where, *_DROP)
    assert result.out == "src\n"
    _check_one_line(result._replace(out=""), target)
    assert "Read-only file system" in result.err
    assert _contents(source.parent) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
@only_zip
def test_a_folder_that_is_read_only_is_one_line(source: Path) -> None:
    source.parent.chmod(0o500)
    result = run("strip", source, "-o", source.with_name("dst"), *_DROP)
    source.parent.chmod(0o700)
    _check_one_line(result, source.with_name("dst"))
    assert "Permission denied" in result.err
    assert _contents(source.parent).keys() == {"src"}


# Verification ----------------------------------------------------------------------------------


def _flip(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if name != "write":
        return call(*args)
    descriptor, data = args
    return call(descriptor, memoryview(bytes([data[0] ^ 1]) + data[1:]))


def _drop(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return call(args[0], args[1][:-1]) + 1 if name == "write" else call(*args)


def _drop_of_copies(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return call(*args[:-1], args[-1] - 1) + 1 if name == "copy_file_range" else call(*args)


def _lose_all(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    result = call(*args)
    if name == "sync":
        os.ftruncate(args[0], 0)
    return result


def _copy_other(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    result = call(*args)
    if name == "copy_file_range":
        # In the middle of a storage: what stands between them is compared with the plan anyway.
        os.pwrite(args[1], b"\xff", os.lseek(args[1], 0, os.SEEK_CUR) - result // 2)
    return result


@pytest.mark.parametrize("lie", [_flip, _drop, _drop_of_copies, _lose_all])
def test_bytes_that_are_not_what_was_planned_never_get_the_name(
    lie: Callable[..., Any], source: Path
) -> None:
    target = source.with_name("dst")
    target.write_bytes(b"old")
    before = _contents(source.parent)
    for verify in (False, True):
        for where in (target, None):
            with pytest.raises(OutputError, match="not what was planned"):
                _edit(source, where, watched(lie), verify=verify)
            assert _contents(source.parent) == before


def test_a_copy_of_other_bytes_is_found_when_copies_are_to_be_verified(source: Path) -> None:
    target = source.with_name("dst")
    with pytest.raises(OutputError, match="not what was planned"):
        _edit(source, target, watched(_copy_other), verify=True)
    assert _contents(source.parent).keys() == {"src"}
    # Reading all of a large file again takes as long as writing it: it has to be asked for.
    _edit(source, target, watched(_copy_other))
    assert _contents(source.parent).keys() == {"src", "dst"}


def test_the_same_edit_twice_gives_the_same_bytes(source: Path, expected: bytes) -> None:
    result = run_process("strip", source, "-o", source.with_name("dst"), *_DROP)
    assert (result.returncode, result.stderr) == (0, "")
    _edit(source, None, verify=True)
    assert _contents(source.parent) == {"src": expected, "dst": expected}


def test_a_plan_can_be_written_more_than_once(source: Path, expected: bytes) -> None:
    with open_checkpoint(source) as checkpoint:
        plan = plan_strip(checkpoint, drop=["head.*"])
        for name in ("dst", "another"):
            written = write_checkpoint(plan, source.with_name(name))
            assert (written.nbytes, written.notes) == (len(expected), ())
            assert written.path.read_bytes() == expected
