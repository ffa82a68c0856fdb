"""The gate: whether a checkpoint loads, holds together, and has the numbers that it should."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.analysis.findings import Finding, read_allowances
from ckptool.analysis.integrity import crc_findings, defect_findings
from ckptool.analysis.loading import load_findings, notes_on_dtypes, role_findings
from ckptool.analysis.numbers import number_findings, statistic_findings
from ckptool.analysis.overview import Contents, list_contents
from ckptool.analysis.progress import UNWATCHED, Progress
from ckptool.analysis.selection import name_matcher
from ckptool.checkpoint.opening import Checkpoint
from ckptool.errors import about

if TYPE_CHECKING:
    from ckptool.spec.strict_load import Model, StrictLoad

__all__ = ["Check", "check"]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """What a check found, in the order load, role, integrity, numbers.

    `allowed` are the findings that the user lets pass, `notes` what is worth knowing and wrong in
    no way.
    """

    contents: Contents
    findings: tuple[Finding, ...]
    allowed: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_passed(self) -> bool:
        """Whether nothing is left to object to."""
        return not self.findings

    @property
    def strict_load(self) -> StrictLoad | None:
        """The answer of a strict load of the root as it is, None without a model."""
        return None if self.contents.match is None else self.contents.match.strict_load


def check(
    checkpoint: Checkpoint,
    model: Model | None = None,
    *,
    patterns: Sequence[str] = (),
    roles: Sequence[str] = (),
    allow: Sequence[str] = (),
    progress: Progress = UNWATCHED,
) -> Check:
    """Hold a checkpoint against a model, and read all that it holds.

        >>> from ckptool import check, load_model_spec, open_checkpoint
        >>> model = load_model_spec("models.py:MyModel(10, 5)")
        >>> with open_checkpoint("model.pt", keep_defects=True) as checkpoint:
        ...     for finding in check(checkpoint, model).findings:
        ...         print(finding.code, finding.name, finding.detail)

    Values are streamed. `patterns` and `roles` say which tensors it is about, `allow` which
    findings may pass: `CODE` or `CODE:GLOB`. Nothing is ever repaired.
    """
    allowances = read_allowances(allow)
    contents = list_contents(checkpoint, model=model, patterns=patterns, roles=roles)
    is_whole = not patterns and not roles
    with about(checkpoint.path):
        found = [
            *_findings_of_names(contents, patterns, roles),
            *defect_findings(checkpoint, contents.entries),
            *crc_findings(checkpoint, contents.entries, progress, is_whole=is_whole),
            *_findings_of_numbers(contents, progress),
        ]
    left: list[Finding] = []
    passing: list[Finding] = []
    for finding in found:
        is_allowed = any(allowance.covers(finding) for allowance in allowances)
        (passing if is_allowed else left).append(finding)
    return Check(contents, tuple(left), tuple(passing), tuple(notes_on_dtypes(contents.entries)))


def _findings_of_names(
    contents: Contents, patterns: Sequence[str], roles: Sequence[str]
) -> Iterator[Finding]:
    """What a strict load says, and the model, as far as it was asked for."""
    match = contents.match
    if match is None:
        return
    is_wanted = name_matcher(patterns)
    role_of = {one.name: one.role for one in contents.entries}
    for finding in load_findings(contents.checkpoint, match, contents.entries):
        name = finding.name or ""
        spec = match.model.spec.tensors.get(name)
        role = role_of.get(name, "tensor") if spec is None else spec.kind
        if is_wanted(name) and (not roles or role in roles):
            yield finding
    yield from role_findings(match, contents.entries)


def _findings_of_numbers(contents: Contents, progress: Progress) -> Iterator[Finding]:
    """What is wrong with values; a tensor whose bytes are not all there has none."""
    broken = {defect.key_path for defect in contents.checkpoint.defects}
    sound = [one for one in contents.entries if one.entry.path not in broken]
    yield from number_findings(sound, progress)
    yield from statistic_findings(sound)
