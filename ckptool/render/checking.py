"""What `check` says to people: one line per question, then what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ckptool.analysis.check import Check
from ckptool.analysis.findings import Finding, Kind
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
    tensors = sum(one.entry.tensor is not None for one in found.contents.entries)
    count = natural_count(tensors, "tensor")
    grid.add_row(Text(visible(checkpoint.path.name)), Text(visible(f"{count}{of_root}")))
    for label, text in match_rows(match) if match is not None else ():
        grid.add_row(label, text)
    for kind, label in _KINDS.items():
        if kind != "role" or match is not None:
            grid.add_row(label, _state(kind, found))
    return grid


def _state(kind: Kind, found: Check) -> Text:
    """What one question came to: findings, allowed ones, and how much was looked at."""
    count = sum(finding.kind == kind for finding in found.findings)
    allowed = sum(finding.kind == kind for finding in found.allowed)
    parts = []
    if count:
        parts.append(natural_count(count, "finding"))
    if allowed:
        parts.append(f"{natural_count(allowed, 'finding')} allowed")
    text = Text("; ".join(parts) or "nothing found", "red" if count else "green")
    return text.append(f"; {_extent(kind, found)}" if kind != "role" else "", "default")


def _extent(kind: Kind, found: Check) -> str:
    """How much of the file an answer is about."""
    if kind == "numbers":
        return f"{natural_count(found.tensors_read, 'tensor')} read"
    records = found.records
    if not records.read:
        return "no CRC is recorded"
    return f"the CRC of {records.right:,} of {natural_count(records.total, 'record')} is right"


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
    untold = _untold(found)
    if found.is_passed:
        return Text(f"passed{allowed}{untold}", "bold yellow" if untold else "bold green")
    counts = Counter(finding.code for finding in found.findings)
    codes = ", ".join(f"{number:,} {code}" for code, number in counts.items())
    count = natural_count(len(found.findings), "finding")
    return Text(f"{count}: {codes}{allowed}{untold}", "bold red")


def _untold(found: Check) -> str:
    """What the last line must not hide: a load that fails elsewhere, or that cannot be told."""
    if found.strict_load is None or found.strict_load.is_ok:
        return ""
    if found.strict_load.is_ok is None:
        return "; whether it loads cannot be told"
    is_told = any(one.kind == "load" for one in (*found.findings, *found.allowed))
    return "" if is_told else "; it does not load for other names than those asked for"
