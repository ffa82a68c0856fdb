"""A path to what its files would import and call if they were loaded, without doing it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from ckptool.analysis.scan.contents import look_into
from ckptool.analysis.scan.parts import Contents, Part
from ckptool.analysis.scan.result import Scan, ScanFinding, ScannedFile
from ckptool.errors import (
    FileKind,
    InputError,
    LimitExceededError,
    MalformedCheckpointError,
    NotACheckpointError,
    about,
)
from ckptool.formats.wrong_files import CHECKPOINT_NAME, name_unknown, refuse_wrong_file
from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource

__all__ = ["scan"]

_HEAD_BYTES: Final = 1 << 10
_COMPRESSED: Final = frozenset(
    {
        FileKind.SEVEN_ZIP,
        FileKind.BZIP2,
        FileKind.GZIP,
        FileKind.RAR,
        FileKind.XZ,
        FileKind.ZSTANDARD,
    }
)


def scan(path: str | Path, *, limits: Limits | None = None) -> Scan:
    """Say what the pickles in a file would import and call; of a directory, in all files below it.

        >>> from ckptool import scan
        >>> for file, finding in scan("downloads/").findings():
        ...     print(file.path, finding.severity, finding.name, finding.calls)

    Nothing is imported or called. Every pickle in a file is looked into, not only the one that
    torch.load reads, and a file that is broken as far as it goes. Raises InputError for a path that
    cannot be read, and NotACheckpointError for a single file that can hold no pickle; in a
    directory such files are told in `not_read`. That nothing is found does not make a file safe.
    """
    path = Path(path)
    limits = limits or Limits()
    with about(path), closing(FileSource(path)) as source:
        if not source.is_directory:
            return Scan(path, (_scan_source(source, limits),))
    return Scan(path, tuple(_scan_below(path, limits)))


def _scan_below(path: Path, limits: Limits) -> Iterator[ScannedFile]:
    closed: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            try:
                with closing(FileSource(file)) as source:
                    yield _scan_source(source, limits)
            except NotACheckpointError as error:
                yield _not_read(file, error.found, error.file_kind)
            except InputError as error:
                yield _not_read(file, error.message, error.file_kind)
    for problem in closed:
        what = f"cannot be read: {problem.strerror}"
        yield _not_read(Path(problem.filename), what, FileKind.NO_PERMISSION)


def _scan_source(source: FileSource, limits: Limits) -> ScannedFile:
    contents = Contents.of(source, limits, look_into)
    try:
        look_into(Part(source), contents)
    except (MalformedCheckpointError, LimitExceededError) as error:
        contents.note_error(error, Part(source))
        contents.is_known = True
    if not contents.is_known:
        head = source.read_up_to(0, _HEAD_BYTES)
        refuse_wrong_file(source, head)
        raise name_unknown(source, head)
    return ScannedFile(source.path, source.size, tuple(contents.pickles), tuple(contents.findings))


def _not_read(path: Path, what: str, kind: FileKind) -> ScannedFile:
    """A file that is no checkpoint; where its content is out of sight, that is a finding."""
    findings: tuple[ScanFinding, ...] = ()
    if kind in _COMPRESSED or kind is FileKind.NO_PERMISSION:
        message = f"{what}; what is inside was not looked into"
        findings = (ScanFinding("unknown", "not-read", "", message),)
    elif kind in (FileKind.UNKNOWN, FileKind.TEXT) and CHECKPOINT_NAME.search(path.name):
        message = f"named like a checkpoint, and is none: {what}"
        findings = (ScanFinding("suspicious", "not-read", "", message),)
    try:
        nbytes = path.lstat().st_size
    except OSError:
        nbytes = 0
    return ScannedFile(path, nbytes, findings=findings, not_read=what, file_kind=kind)
