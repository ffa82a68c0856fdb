"""What `check` says to people: one line per question, then what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.analysis.check import Check
from ckptool.analysis.findings import Finding, Kind
from ckptool.checkpoint.opening import Checkpoint
from ckptool.render.escape import visible
from ckptool.render.folding import Fold, fold
from ckptool.render.matching import match_rows
from ckptool.render.natural import natural_count

__all__ = ["check_view"]

_KINDS: Final[dict[Kind, str]] = {
    "role": "roles",
    "integrity": "integrity",
    "numbers": "numbers",
}
_SHOWN_OF_A_CODE: Final = 8


def check_view(found: Check, *, unfold: bool = False, width: int | None = None) -> Group:
    """Everything `check` says.

    On a terminal, which has a `width` in columns, long lists are cut and say so.
    """
    parts: list[RenderableType] = [_summary(found)]
    if found.findings:
        parts += ["", _table(found.findings, unfold, shorten=width is not None and not unfold)]
    parts += ["", _verdict(found)]
    return Group(*parts)


def _summary(found: Check) -> Table:
    checkpoint, match = found.contents.checkpoint, found.contents.match
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    of_root = f", root {checkpoint.root.path}" if checkpoint.root and checkpoint.root.keys else ""
    count = natural_count(len(found.contents.entries), "tensor")
    grid.add_row(Text(visible(checkpoint.path.name)), Text(visible(f"{count}{of_root}")))
    for label, text in match_rows(match) if match is not None else ():
        grid.add_row(label, text)
    for kind, label in _KINDS.items():
        if kind != "role" or match is not None:
            grid.add_row(label, _state(kind, found, checkpoint))
    return grid


def _state(kind: Kind, found: Check, checkpoint: Checkpoint) -> Text:
    count = sum(finding.kind == kind for finding in found.findings)
    if count:
        return Text(natural_count(count, "finding"), "red")
    if kind == "integrity":
        return Text(f"nothing found; {_crc(checkpoint)}", "green")
    tensors = natural_count(len(found.contents.entries), "tensor")
    return Text(f"nothing found in {tensors}", "green")


def _crc(checkpoint: Checkpoint) -> str:
    """How much of the file a CRC vouches for."""
    records = [extent for extent in checkpoint.container.records.values() if extent.size]
    recorded = sum(extent.crc is not None for extent in records)
    if not recorded:
        return "no CRC is recorded"
    return f"the CRC of {recorded:,} of {natural_count(len(records), 'record')} is right"


def _table(findings: Sequence[Finding], unfold: bool, *, shorten: bool) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("finding", "name", "detail"):
        table.add_column(heading, overflow="fold")
    by_code: dict[str, list[Fold[Finding]]] = {}
    for line in _lines(findings, unfold):
        by_code.setdefault(line.members[0].code, []).append(line)
    for code, lines in by_code.items():
        shown = lines[:_SHOWN_OF_A_CODE] if shorten else lines
        for line in shown:
            times = f"  x{len(line.members)}" if len(line.members) > 1 else ""
            table.add_row(
                Text(code, "red"),
                Text(visible(line.label) or "/").append(times, "bold"),
                Text(visible(line.members[0].detail)),
            )
        if len(shown) < len(lines):
            more = sum(len(line.members) for line in lines[len(shown) :])
            table.add_row("", Text(f"... and {more:,} more; --all lists them", "dim"), "")
    return table


def _lines(findings: Sequence[Finding], unfold: bool) -> list[Fold[Finding]]:
    def name_of(finding: Finding) -> str:
        return finding.path if finding.name is None else finding.name

    if unfold:
        return [Fold(name_of(finding), (finding,)) for finding in findings]
    return fold(findings, name_of=name_of, alike=lambda finding: (finding.code, finding.detail))


def _verdict(found: Check) -> Text:
    allowed = f", {len(found.allowed):,} allowed" if found.allowed else ""
    if found.is_passed:
        return Text(f"passed{allowed}", "bold green")
    codes = ", ".join(_counted(found.findings))
    return Text(f"{natural_count(len(found.findings), 'finding')}: {codes}{allowed}", "bold red")


def _counted(findings: Sequence[Finding]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + 1
    for code, count in counts.items():
        yield f"{count:,} {code}"
