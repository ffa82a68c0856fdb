"""A plan to a file: written beside its target, flushed, verified, and only then renamed over it.

Whatever happens on the way, the checkpoint that is read stays as it is, and the target is the old
file or the new one as a whole.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.edit.files import Files, OutputFile
from ckptool.edit.plan import Plan
from ckptool.edit.verify import verify_file
from ckptool.errors import OutputError
from ckptool.formats.content import joined

__all__ = ["Written", "check_target", "write_checkpoint"]

_MARK: Final = "ckptool-unfinished"
_LONGEST_NAME: Final = 200
_MODE_BITS: Final = 0o7777


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written; `notes` are what is worth knowing of how."""

    path: Path
    nbytes: int
    notes: tuple[str, ...] = ()


def write_checkpoint(
    plan: Plan,
    path: str | Path | None = None,
    *,
    force: bool = False,
    verify: bool = False,
    progress: Progress = UNWATCHED,
    files: Files | None = None,
) -> Written:
    """Write what a plan says; without a path, over the checkpoint that was read.

        >>> from ckptool import open_checkpoint, plan_strip, write_checkpoint
        >>> with open_checkpoint("last.ckpt") as checkpoint:
        ...     write_checkpoint(plan_strip(checkpoint, training=True), "model.ckpt")

    A file that is there is replaced with `force` only. The directory, the tree, the sizes and all
    that was written anew are always read again before the file gets its name; `verify` compares
    every other byte with the source as well. Raises OutputError, and leaves no file of its own.
    """
    files = files or Files()
    target = plan.checkpoint.path if path is None else Path(path)
    check_target(plan, path, force=force)
    progress.expect(plan.nbytes)
    notes: list[str] = []
    try:
        with _unfinished(target, files, notes) as (unfinished, descriptor):
            output = OutputFile(files, descriptor, progress)
            for piece in joined(plan.pieces()):
                output.put(piece)
            output.finish(_mode(target, plan))
            verify_file(plan, unfinished, progress, is_whole=verify)
            # Much time may have gone by; what came in the meantime is somebody's.
            check_target(plan, path, force=force)
            # Whoever wants to interrupt can do so for the last time.
            progress.advance(0)
            files.replace(unfinished, target)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=target) from error
    try:
        files.sync_folder(target.parent)
    except OSError as error:
        problem = f"it is written, but its folder could not be flushed: {error.strerror}"
        raise OutputError(problem, path=target) from error
    return Written(target, plan.nbytes, tuple(notes))


def check_target(plan: Plan, path: str | Path | None, *, force: bool = False) -> None:
    """Raise OutputError for a target that is not to be written; see `write_checkpoint`."""
    source = plan.checkpoint.path
    target = source if path is None else Path(path)
    try:
        there = target.lstat()
    except FileNotFoundError:
        there = None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot be written: {reason}", path=target) from error
    if path is None:
        _check_in_place(plan, there)
    elif not target.parent.is_dir():
        raise OutputError("its folder is not there", path=target)
    elif there is not None:
        _check_existing(target, there, source, force=force)


def _check_in_place(plan: Plan, there: os.stat_result | None) -> None:
    source = plan.checkpoint.source
    if there is not None and stat.S_ISLNK(there.st_mode):
        raise OutputError(
            "it is a symbolic link, and a cache that others share may stand behind it",
            path=source.path,
            hint=f"name the file itself: {source.path.resolve()}",
        )
    if there is None or not os.path.samestat(there, os.fstat(source.fd)):
        raise OutputError("another file has taken its place since it was read", path=source.path)


def _check_existing(target: Path, there: os.stat_result, source: Path, *, force: bool) -> None:
    if target.is_dir():
        raise OutputError("it is a directory", path=target, hint="name the file inside it")
    with suppress(OSError):
        if target.samefile(source):
            raise OutputError(
                "it is the checkpoint that is read", path=target, hint="--in-place replaces it"
            )
    if not stat.S_ISREG(there.st_mode) and not stat.S_ISLNK(there.st_mode):
        raise OutputError("it is a pipe, a socket or a device", path=target)
    if not force:
        raise OutputError("there is a file already", path=target, hint="--force replaces it")


def _mode(target: Path, plan: Plan) -> int:
    """The mode bits of the file that is replaced, else of the one that is read."""
    try:
        status = target.stat()
    except OSError:
        status = os.fstat(plan.checkpoint.source.fd)
    return status.st_mode & _MODE_BITS


# The file beside the target --------------------------------------------------------------------


@contextmanager
def _unfinished(target: Path, files: Files, notes: list[str]) -> Iterator[tuple[Path, int]]:
    """Make the file that is written first; it is gone afterwards, or has its name."""
    path = target.with_name(_unfinished_name(target.name))
    descriptor = _claim(path, target, files, notes)
    try:
        yield path, descriptor
    except BaseException:
        with suppress(OSError):
            if _is_still(descriptor, path):
                files.remove(path)
        raise
    finally:
        os.close(descriptor)


def _unfinished_name(name: str) -> str:
    """A name that tells what the file is, the same each time, whatever was left behind."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = sha256(os.fsencode(name)).hexdigest()
    return f".{name}.{_MARK}"


def _claim(path: Path, target: Path, files: Files, notes: list[str]) -> int:
    """Make the file; one that a killed edit left behind is removed, and said so."""
    while True:
        try:
            descriptor = files.create(path)
        except FileExistsError:
            if not _remove_abandoned(path, files, notes):
                raise OutputError("another edit of it is under way", path=target) from None
            continue
        # Whoever locks it first has it: between making and locking, another edit may remove it.
        if _lock(descriptor) and _is_still(descriptor, path):
            return descriptor
        os.close(descriptor)


def _remove_abandoned(path: Path, files: Files, notes: list[str]) -> bool:
    """Remove a file that no edit holds any more; False where one does.

    It is locked while it is removed: no other edit can have put its own in that place.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _lock(descriptor):
            return False
        if _is_still(descriptor, path):
            files.remove(path)
            notes.append(f"{path.name} was left behind by an edit that was killed; it is removed")
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file until it is closed; False where another process has it locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some file systems know no locks
        return True
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
