"""Targets: what is never written over, and what a new file keeps of an old one.

The source is a torch.save zip; test_write.py has all formats.
"""

from __future__ import annotations

import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ckptool import Plan, open_checkpoint, plan_strip, write_checkpoint
from ckptool.edit import write
from ckptool.edit.files import Files
from ckptool.errors import OutputError
from tests.edit.killing import UNFINISHED, watched, zip_file
from tests.running import json_of, run

_DROP: Final = ("--drop", "head.*")


@contextmanager
def _plan(source: Path) -> Iterator[Plan]:
    with open_checkpoint(source) as checkpoint:
        yield plan_strip(checkpoint, drop=["head.*"])


def _edit(source: Path, target: Path | None, step: Callable[..., Any] | None = None) -> list[str]:
    """Write over whatever is there; return the notes."""
    files = None if step is None else watched(step)
    with _plan(source) as plan:
        return list(write_checkpoint(plan, target, force=True, files=files).notes)


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


# What is refused -------------------------------------------------------------------------------


def _directory(path: Path) -> None:
    path.mkdir()


def _link_to_directory(path: Path) -> None:
    path.with_name("there").mkdir()
    path.symlink_to("there")


def _link_to_source(path: Path) -> None:
    path.symlink_to("src")


def _hard_link_to_source(path: Path) -> None:
    path.hardlink_to(path.with_name("src"))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_directory, "it is a directory"),
        (_link_to_directory, "it is a directory"),
        (_link_to_source, "it is the checkpoint that is read"),
        (_hard_link_to_source, "it is the checkpoint that is read"),
        (_fifo, "it is a pipe, a socket or a device"),
        (_socket, "it is a pipe, a socket or a device"),
    ],
)
@pytest.mark.parametrize("is_dry", [False, True], ids=["real", "dry"])
def test_what_is_no_file_of_its_own_is_never_replaced(
    is_dry: bool, make: Callable[[Path], None], problem: str, folder: Path
) -> None:
    target = folder / "dst"
    make(target)
    before = _names(folder), target.lstat().st_ino, target.lstat().st_mode
    more = ("--dry-run",) if is_dry else ()
    result = run("strip", folder / "src", "-o", target, "--force", *_DROP, *more)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {target}: {problem}\n")
    assert (_names(folder), target.lstat().st_ino, target.lstat().st_mode) == before
    assert (folder / "src").read_bytes() == zip_file()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("there is no such/dst", "its folder is not there"),
        ("src/dst", "cannot be written: Not a directory"),
        ("x" * 256, "cannot be written: File name too long"),
        ("work/../src", "its folder is not there"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(name: str, problem: str, folder: Path) -> None:
    result = run("strip", folder / "src", "-o", folder / name, *_DROP)
    assert result == (2, "", f"error: {folder / name}: {problem}\n")
    assert _names(folder) == {"src"}


def test_the_source_by_another_path_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("work")
    for path in (folder / "src", tmp_path / "link" / "src", folder / ".." / "work" / "src"):
        result = run("strip", folder / "src", "-o", path, "--force", *_DROP)
        assert (result.code, result.out) == (2, "")
        problem = "it is the checkpoint that is read\n\nhint: --in-place replaces it\n"
        assert result.err == f"error: {path}: {problem}"
    assert (folder / "src").read_bytes() == zip_file()


def test_a_file_that_is_there_needs_force(folder: Path, expected: bytes) -> None:
    target = folder / "dst"
    target.write_bytes(b"old")
    result = run("strip", folder / "src", "-o", target, *_DROP)
    hint = "hint: --force replaces it"
    assert result == (2, "", f"error: {target}: there is a file already\n\n{hint}\n")
    assert target.read_bytes() == b"old"
    assert run("strip", folder / "src", "-o", target, *_DROP, "--force").code == 0
    assert target.read_bytes() == expected


def test_in_place_on_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("src")
    result = run("strip", folder / "link", "--in-place", *_DROP)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {folder / 'link'}: it is a symbolic link")
    assert result.err.endswith(f"\nhint: name the file itself: {folder / 'src'}\n")
    assert (folder / "link").is_symlink()
    assert (folder / "src").read_bytes() == zip_file()
    assert _names(folder) == {"src", "link"}


def test_in_place_where_another_file_has_taken_its_place_is_refused(folder: Path) -> None:
    with _plan(folder / "src") as plan:
        (folder / "other").write_bytes(b"other")
        (folder / "other").replace(folder / "src")
        with pytest.raises(OutputError, match="another file has taken its place"):
            write_checkpoint(plan)
        (folder / "src").unlink()
        with pytest.raises(OutputError, match="another file has taken its place"):
            write_checkpoint(plan)
    assert _names(folder) == set()


# What is replaced ------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["there", "not there", "dst"], ids=["file", "nothing", "loop"])
def test_force_replaces_a_link_and_not_what_is_behind_it(
    behind: str, folder: Path, expected: bytes
) -> None:
    (folder / "there").write_bytes(b"old")
    (folder / "dst").symlink_to(behind)
    result = run("strip", folder / "src", "-o", folder / "dst", *_DROP)
    assert "there is a file already" in result.err
    assert (folder / "dst").is_symlink()
    _edit(folder / "src", folder / "dst")
    assert not (folder / "dst").is_symlink()
    assert (folder / "dst").read_bytes() == expected
    assert (folder / "there").read_bytes() == b"old"
    assert _names(folder) == {"src", "dst", "there"}


@pytest.mark.parametrize("is_in_place", [False, True], ids=["existing", "in place"])
def test_who_reads_the_old_file_goes_on_to_read_it(
    is_in_place: bool, folder: Path, expected: bytes
) -> None:
    target = folder / ("src" if is_in_place else "dst")
    target.write_bytes(zip_file())
    (folder / "hard link").hardlink_to(target)
    with target.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        _edit(folder / "src", None if is_in_place else target)
        assert target.read_bytes() == expected
        assert mapped[:] == file.read() == zip_file()
    assert (folder / "hard link").read_bytes() == zip_file()


def test_in_place_through_a_linked_folder_replaces_the_file(
    folder: Path, tmp_path: Path, expected: bytes
) -> None:
    (tmp_path / "link").symlink_to("work")
    assert run("strip", tmp_path / "link" / "src", "--in-place", *_DROP).code == 0
    assert (folder / "src").read_bytes() == expected
    assert _names(folder) == {"src"}


def test_a_name_of_255_bytes_can_be_written(folder: Path, expected: bytes) -> None:
    name = "\u540d" * 85
    seen: list[set[str]] = []
    _edit(folder / "src", folder / name, _once("sync", lambda: seen.append(_names(folder))))
    assert (folder / name).read_bytes() == expected
    assert _names(folder) == {"src", name}
    (unfinished,) = seen[0] - {"src"}
    assert unfinished.endswith(".ckptool-unfinished")


def test_a_target_on_another_file_system_has_the_same_bytes(folder: Path, expected: bytes) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == folder.stat().st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=other) as name:
        _edit(folder / "src", Path(name, "dst"))
        assert Path(name, "dst").read_bytes() == expected
        assert _names(Path(name)) == {"dst"}


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize(
    ("source", "target", "mode"),
    [(0o640, None, 0o640), (0o444, None, 0o444), (0o640, 0o604, 0o604), (0o640, 0o444, 0o444)],
)
def test_the_mode_is_that_of_the_replaced_file_else_that_of_the_source(
    mask: int, source: int, target: int | None, mode: int, folder: Path
) -> None:
    (folder / "src").chmod(source)
    if target is not None:
        (folder / "dst").write_bytes(b"old")
        (folder / "dst").chmod(target)
    unfinished = folder / UNFINISHED.format("dst")
    seen: list[int] = []
    look = _once("set_mode", lambda: seen.append(unfinished.stat().st_mode))
    before = os.umask(mask)
    try:
        _edit(folder / "src", folder / "dst", look)
        _edit(folder / "src", None)
    finally:
        os.umask(before)
    # Until it is whole nobody else can read it.
    assert seen[0] & 0o177 == 0
    assert (folder / "dst").stat().st_mode & 0o7777 == mode
    assert (folder / "src").stat().st_mode & 0o7777 == source


# Dry runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(), ("-o", "dst"), ("--in-place",)], ids=" ".join)
def test_a_dry_run_changes_nothing_and_tells_the_sizes_of_the_real_run(
    where: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Files:
        raise AssertionError("a dry run has nothing to write with")

    monkeypatch.chdir(folder)
    before = (folder / "src").stat()
    with monkeypatch.context() as patched:
        patched.setattr(write, "Files", refuse)
        dry = json_of("strip", "src", *where, *_DROP, "--dry-run")
    after = (folder / "src").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert _names(folder) == {"src"}
    real = json_of("strip", "src", *(where or ("-o", "dst")), *_DROP)
    assert dry | {"written": True, "dst": real["dst"]} == real
    assert Path(real["dst"]).stat().st_size == dry["bytes_after"]
