"""What a check finds, and which findings the user lets pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from ckptool.analysis.selection import glob_matcher

__all__ = ["CODES", "Allowance", "Code", "Finding", "Kind", "read_allowances"]

Kind: TypeAlias = Literal["load", "role", "integrity", "numbers"]
Code: TypeAlias = Literal[
    "missing", "unexpected", "stale", "shape", "value",
    "conflict", "dtype",
    "cut-short", "crc", "size", "record", "bounds",
    "nan", "inf", "negative-variance", "counter",
]  # fmt: skip
CODES: Final[tuple[str, ...]] = get_args(Code)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `path` says where, `name` is the name inside the root.

    `name` is None for what is in no root. `detail` says more than the code does, in a few words.
    """

    kind: Kind
    code: Code
    path: str
    name: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """Findings of one code that may pass: all of them, or those whose name or path matches."""

    code: str
    matches: Callable[[str], bool]

    def covers(self, finding: Finding) -> bool:
        """Whether it lets a finding pass."""
        return self.code == finding.code and (
            self.matches(finding.path) or (finding.name is not None and self.matches(finding.name))
        )


def read_allowances(texts: Iterable[str]) -> Sequence[Allowance]:
    """Read `CODE` and `CODE:GLOB`; raise ValueError for a code that no finding has."""
    allowances = []
    for text in texts:
        code, _, pattern = text.partition(":")
        if code not in CODES:
            raise ValueError(f"{code!r} is not one of {', '.join(CODES)}")
        allowances.append(Allowance(code, glob_matcher(pattern or "*")))
    return allowances
