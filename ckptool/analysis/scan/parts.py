"""A part of a file that is looked into, and what has been found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from ckptool.analysis.scan.result import ScanCode, ScanFinding, ScannedPickle
from ckptool.analysis.scan.verdicts import Severity
from ckptool.errors import CkptoolError, LimitExceededError
from ckptool.pickling.limits import Limits
from ckptool.pickling.tracer import Trace, trace_pickle
from ckptool.sources import BytesSource, Extent, PartSource, Source, read_content

__all__ = ["DEEPEST", "Contents", "Part", "head_of", "part_of"]

DEEPEST: Final = 4
"""How many parts are looked into that lie in each other."""
_HEAD_BYTES: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that may be a file of their own: the file itself, a record, a pickle in a pickle.

    `where` names it for people and is empty for the file itself. `start` is its offset in the file,
    None where it is there in another form only. `depth` counts the parts around it. `is_expected`
    says that it is a pickle by its name, whatever it looks like.
    """

    source: Source
    where: str = ""
    start: int | None = 0
    depth: int = 0
    is_expected: bool = False

    def offset(self, at: int) -> int | None:
        """Return an offset in the part as one in the file."""
        return None if self.start is None else self.start + at

    def within(self, name: str) -> str:
        """Return the name of something in the part."""
        return f"{self.where}::{name}" if self.where else name

    def between(self, start: int, end: int | None = None) -> Part:
        """Return what lies between two offsets, or behind the first."""
        end = self.source.size if end is None else end
        rest = PartSource(self.source, start, max(0, end - start))
        return Part(rest, self.where, self.offset(start), self.depth)


# Parts can lie in each other: how often each byte is looked at, all in all.
_TIMES: Final = 2
_OPCODES_OF_ANY_FILE: Final = 100_000
# What it costs to begin with one, however short it is.
_OPCODES_OF_ANY_PICKLE: Final = 50

Look: TypeAlias = Callable[["Part", "Contents"], bool]


@dataclass(slots=True)
class Contents:
    """What was found in one file so far; `is_known` says that something in it was understood.

    `look` looks into a part of any format and says whether it was understood. `opcodes_left` and
    `inflatable` are what may still be spent on the file.
    """

    limits: Limits
    look: Look
    opcodes_left: int
    inflatable: int
    pickles: list[ScannedPickle] = field(default_factory=list)
    findings: list[ScanFinding] = field(default_factory=list)
    is_known: bool = False

    @classmethod
    def of(cls, source: Source, limits: Limits, look: Look) -> Contents:
        """Begin with a file of which nothing is known."""
        opcodes = _OPCODES_OF_ANY_FILE + _TIMES * source.size
        return cls(limits, look, min(limits.opcodes, opcodes), limits.pickle_bytes)

    def trace(self, data: bytes) -> Trace:
        """Trace the pickle that bytes begin with, with the opcodes that are left."""
        trace = trace_pickle(data, replace(self.limits, opcodes=self.opcodes_left))
        self.opcodes_left = max(0, self.opcodes_left - trace.opcodes - _OPCODES_OF_ANY_PICKLE)
        return trace

    def may_inflate(self, extent: Extent) -> bool:
        """Whether a record is not too large, and take note that it is going to be inflated."""
        if extent.size > min(self.inflatable, self.limits.inflation * extent.stored_size):
            return False
        self.inflatable -= extent.size
        self.opcodes_left = min(self.limits.opcodes, self.opcodes_left + extent.size)
        return True

    def note(
        self,
        severity: Severity,
        code: ScanCode,
        where: str,
        message: str,
        offset: int | None = None,
    ) -> None:
        """Add a finding about the file."""
        self.findings.append(ScanFinding(severity, code, where, message, offset))

    def note_error(self, error: CkptoolError, part: Part) -> None:
        """Add the finding that a reader refuses a part."""
        code: ScanCode = "limit" if isinstance(error, LimitExceededError) else "malformed"
        self.note("suspicious", code, part.where, error.message, part.start)


def head_of(extent: Extent) -> bytes:
    """Return the first bytes of a record; of one that cannot be inflated what comes before that."""
    head = b""
    try:
        for chunk in read_content(extent, 0, min(_HEAD_BYTES, extent.size)):
            head += chunk
    except CkptoolError:
        return head
    return head


def part_of(
    outer: Part, name: str, extent: Extent, contents: Contents, *, is_expected: bool = False
) -> Part | None:
    """Return a record as a part; None where a limit keeps it from being inflated, which is noted.

    Its CRC is not asked: torch does not ask it either.
    """
    where = outer.within(name)
    start = outer.offset(extent.offset)
    if outer.depth >= DEEPEST:
        message = f"lies in {DEEPEST} others, each in another; it was not looked into"
        contents.note("suspicious", "not-read", where, message, start)
        return None
    if not extent.is_deflated:
        source = PartSource(outer.source, extent.offset, extent.stored_size)
        return Part(source, where, start, outer.depth + 1, is_expected)
    if not contents.may_inflate(extent):
        message = f"would be {extent.size:,} bytes out of {extent.stored_size:,}; it was not read"
        contents.note("suspicious", "limit", where, message, start)
        return None
    try:
        inflated = b"".join(read_content(extent))
    except CkptoolError as error:
        contents.note("suspicious", "malformed", where, error.message, start)
        return None
    return Part(BytesSource(inflated), where, None, outer.depth + 1, is_expected)
