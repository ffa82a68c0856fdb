"""What a scan found: per file its pickles with the names in them, and findings by severity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ckptool.analysis.scan.verdicts import SEVERITIES, Severity
from ckptool.errors import FileKind
from ckptool.pickling.nodes import ExtensionCode, Global

__all__ = ["Scan", "ScanCode", "ScanFinding", "ScannedFile", "ScannedName", "ScannedPickle"]

ScanCode: TypeAlias = Literal[
    "call", "import", "nested-call", "internal-state",
    "malformed", "limit", "hidden-pickle", "hidden-archive", "record-name", "encrypted",
    "stray-bytes", "not-read",
]  # fmt: skip
"""What a finding is about: the first four are about names and calls, all others about the file."""


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """One thing to look at.

    `where` is the part of the file, empty for the file itself; `offset` counts bytes of the file,
    None where the bytes are compressed. `name` is the global that it is about, `calls` are its
    calls in words, each once, with their literal arguments; `times` is how often it is called.
    """

    severity: Severity
    code: ScanCode
    where: str
    message: str
    offset: int | None = None
    name: str | None = None
    calls: tuple[str, ...] = ()
    times: int = 0


@dataclass(frozen=True, slots=True)
class ScannedName:
    """A name in a pickle: what it is judged to be and why, and how often it is called."""

    reference: Global | ExtensionCode
    severity: Severity
    reason: str
    times: int


@dataclass(frozen=True, slots=True)
class ScannedPickle:
    """One pickle: its part of the file, its size in bytes; `is_whole` says that it ends in STOP."""

    where: str
    offset: int | None
    nbytes: int
    protocol: int
    is_whole: bool
    names: tuple[ScannedName, ...]


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file. `not_read` says what else it is, where it is nothing that can hold a pickle."""

    path: Path
    nbytes: int
    pickles: tuple[ScannedPickle, ...] = ()
    findings: tuple[ScanFinding, ...] = ()
    not_read: str | None = None
    file_kind: FileKind | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """All files below a path, in the order of their names."""

    path: Path
    files: tuple[ScannedFile, ...]

    def findings(self) -> Iterator[tuple[ScannedFile, ScanFinding]]:
        """Yield all findings, each with its file."""
        for file in self.files:
            for finding in file.findings:
                yield file, finding

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity == severity for _, finding in self.findings())

    def has_at_least(self, severity: Severity) -> bool:
        """Whether a finding is of that severity, or of a higher one."""
        least = SEVERITIES.index(severity)
        return any(SEVERITIES.index(finding.severity) >= least for _, finding in self.findings())
