"""What `scan` says to people: each finding with its call, and what was looked into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from ckptool.analysis.scan.result import Scan, ScanFinding, ScannedFile, ScannedName
from ckptool.analysis.scan.verdicts import SEVERITIES, Severity
from ckptool.analysis.scan.words import name_in_words
from ckptool.render.columns import Column, in_columns
from ckptool.render.escape import visible
from ckptool.render.natural import natural_count, natural_size

__all__ = ["PROMISE", "scan_view"]

PROMISE: Final = (
    "nothing was imported or called; this tells what loading would do as far as the file shows it, "
    "and does not promise that a file is safe"
)

_STYLES: Final[dict[Severity, str]] = {
    "dangerous": "bold red",
    "suspicious": "yellow",
    "unknown": "cyan",
    "harmless": "green",
}
_OF_FINDINGS: Final[tuple[Column, ...]] = (
    ("severity", "left"),
    ("what", "left"),
    ("why", "left"),
    ("where", "left"),
)
_OF_NAMES: Final[tuple[Column, ...]] = (("harmless", "left"), ("calls", "right"), ("why", "left"))
_SHOWN_OF_A_CALL: Final = 200


def scan_view(found: Scan, *, unfold: bool = False, width: int | None = None) -> Group:
    """Everything `scan` says; `width` is that of the terminal, None in a pipe.

    With `unfold` the harmless names too, and the files of a directory that were not looked into.
    """
    parts: list[RenderableType] = [_heading(found)]
    rows = list(_findings(found, unfold))
    if rows:
        parts += ["", in_columns(_OF_FINDINGS, rows, width, (1, 2, 3))]
    if unfold:
        parts += list(_harmless(found, width))
    return Group(*parts, "", _summary(found))


def _heading(found: Scan) -> Text:
    looked_into = [file for file in found.files if file.not_read is None]
    pickles = sum(len(file.pickles) for file in found.files)
    nbytes = sum(file.nbytes for file in looked_into)
    facts = [natural_count(pickles, "pickle"), natural_size(nbytes)]
    if len(found.files) != 1 or found.files[0].path != found.path:
        facts.insert(0, f"{natural_count(len(looked_into), 'file')} looked into")
        others = len(found.files) - len(looked_into)
        facts += [f"{natural_count(others, 'file')} of other kinds"] if others else []
    name = visible(found.path.name or str(found.path))
    return Text.assemble((name, "bold"), f"  {', '.join(facts)}")


def _findings(found: Scan, unfold: bool) -> Iterator[list[Text]]:
    """The worst first; within a severity in the order of the files. A line for each call."""
    for severity in reversed(SEVERITIES):
        for file, finding in found.findings():
            if finding.severity == severity:
                first, *others = _what(finding, unfold)
                where = Text(visible(_place(found, file, finding.where)), "dim")
                label = Text(severity, _STYLES[severity])
                yield [label, first, Text(visible(finding.message)), where]
                yield from ([Text(), other, Text(), Text()] for other in others)


def _what(finding: ScanFinding, unfold: bool) -> list[Text]:
    """The calls in words; a name that is not called; or what the finding is about."""
    if not finding.calls:
        return [Text(visible(f"imports {finding.name}" if finding.name else finding.code))]
    calls = [visible(call) for call in finding.calls]
    lines = [Text(f"calls {call if unfold else _cut(call)}") for call in calls]
    if finding.times > len(calls):
        lines[-1].append(f"  x{finding.times:,}", "bold")
    return lines


def _cut(call: str) -> str:
    left_out = len(call) - _SHOWN_OF_A_CALL
    return f"{call[:_SHOWN_OF_A_CALL]} ... --all has more" if left_out > 0 else call


def _place(found: Scan, file: ScannedFile, where: str) -> str:
    """The file, unless there is but one, and the part of it."""
    name = "" if file.path == found.path else str(_below(found.path, file.path))
    return "::".join(part for part in (name, where) if part)


def _below(path: Path, file: Path) -> Path:
    return file.relative_to(path) if file.is_relative_to(path) else file


def _harmless(found: Scan, width: int | None) -> Iterator[RenderableType]:
    """Harmless names of all files together, and the files that are of other kinds."""
    calls: Counter[tuple[str, str]] = Counter()
    for one in _harmless_names(found):
        calls[name_in_words(one.reference), one.reason] += one.times
    rows = [
        [Text(visible(name)), Text(f"{times:,}"), Text(reason)]
        for (name, reason), times in calls.items()
    ]
    if rows:
        yield from ("", in_columns(_OF_NAMES, rows, width, (0, 2)))
    others = [file for file in found.files if file.not_read is not None]
    if others:
        cells = [
            [Text(visible(str(_below(found.path, file.path)))), Text(visible(file.not_read or ""))]
            for file in others
        ]
        yield from ("", in_columns((("not looked into", "left"), ("", "left")), cells, width))


def _harmless_names(found: Scan) -> Iterator[ScannedName]:
    for file in found.files:
        for pickle in file.pickles:
            yield from (one for one in pickle.names if one.severity == "harmless")


def _summary(found: Scan) -> Text:
    counts = Counter(finding.severity for _, finding in found.findings())
    told = [
        Text(f"{counts[severity]:,} {severity}", _STYLES[severity])
        for severity in reversed(SEVERITIES)
        if counts[severity]
    ]
    names = len({one.reference for one in _harmless_names(found)})
    has_pickles = any(file.pickles for file in found.files)
    clean = Text("nothing found", "green") if has_pickles else Text("no pickles")
    harmless = f"{natural_count(names, 'harmless name')}"
    return Text(", ").join([*(told or [clean]), Text(harmless)])
