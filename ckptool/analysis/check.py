"""The gate: whether a checkpoint loads, holds together, and has the numbers that it should."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.analysis.findings import Finding, read_allowances
from ckptool.analysis.integrity import Records, check_records, defect_findings
from ckptool.analysis.loading import load_findings, notes_on_dtypes, role_findings
from ckptool.analysis.numbers import check_numbers
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
    no way. `records` says how much of the file a CRC vouches for, `tensors_read` of how many
    tensors the values were looked at.
    """

    contents: Contents
    findings: tuple[Finding, ...]
    allowed: tuple[Finding, ...]
    notes: tuple[str, ...]
    records: Records
    tensors_read: int

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
    broken = {id(defect.entry) for defect in checkpoint.defects}
    sound = [one for one in contents.entries if id(one.entry) not in broken and one.entry.tensor]
    with about(checkpoint.path):
        records, of_records = check_records(
            checkpoint, contents.entries, progress, is_whole=is_whole
        )
        numbers = check_numbers(sound, progress)
        found = [
            *_findings_of_names(contents, patterns, roles),
            *defect_findings(checkpoint, contents.entries),
            *of_records,
            *numbers.findings,
        ]
    left: list[Finding] = []
    passing: list[Finding] = []
    for finding in found:
        is_allowed = any(allowance.covers(finding) for allowance in allowances)
        (passing if is_allowed else left).append(finding)
    notes = (*notes_on_dtypes(contents.entries), *numbers.notes)
    return Check(contents, tuple(left), tuple(passing), notes, records, numbers.tensors_read)


def _findings_of_names(
    contents: Contents, patterns: Sequence[str], roles: Sequence[str]
) -> Iterator[Finding]:
    """What a strict load says, and the model, as far as it was asked for."""
    match = contents.match
    if match is None:
        return
    is_wanted = name_matcher(patterns)
    known = {one.name: one.role for one in contents.entries}

    def role_of(name: str) -> str:
        spec = match.model.spec.tensors.get(name)
        return known.get(name, "tensor") if spec is None else spec.kind

    for finding in load_findings(contents.checkpoint, match, contents.entries):
        # What is about no name in particular is about all that was asked for.
        if finding.name is None or (
            is_wanted(finding.name) and (not roles or role_of(finding.name) in roles)
        ):
            yield finding
    yield from role_findings(match, contents.entries)
