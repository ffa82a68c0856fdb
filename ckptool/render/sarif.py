"""The findings of `scan` as SARIF 2.1.0 (OASIS), which code hosts and editors show."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import quote

from ckptool.analysis.scan.result import Scan, ScanCode, ScanFinding, ScannedFile
from ckptool.analysis.scan.verdicts import Severity

__all__ = ["sarif_document"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final[dict[Severity, str]] = {
    "dangerous": "error",
    "suspicious": "warning",
    "unknown": "note",
    "harmless": "none",
}
_RULES: Final[dict[ScanCode, str]] = {
    "call": "Loading the pickle would call this.",
    "import": "Loading the pickle would import this.",
    "nested-call": "Loading the pickle would call what another call gives.",
    "internal-state": "Loading the pickle would set attributes of Python's own.",
    "malformed": "The file breaks the rules of its format.",
    "limit": "The file asks for more than a scan should spend on it.",
    "hidden-pickle": "A pickle stands where torch.load does not read one.",
    "hidden-archive": "Records stand where no directory names them.",
    "record-name": "A record's name leads out of its folder.",
    "encrypted": "Records are marked as encrypted and are not.",
    "stray-bytes": "Bytes belong to no part of the format.",
    "not-read": "This was not looked into.",
}


def sarif_document(found: Scan) -> dict[str, Any]:
    """Return one run with a result per finding."""
    rules = [
        {"id": code, "shortDescription": {"text": _RULES[code]}} for code in get_args(ScanCode)
    ]
    driver = {"name": "ckptool", "version": version("ckptool"), "rules": rules}
    results = [_result(file, finding) for file, finding in found.findings()]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _result(file: ScannedFile, finding: ScanFinding) -> dict[str, Any]:
    what = "; ".join(finding.calls) or finding.name
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(file.path)}}
    if finding.offset is not None:
        place["region"] = {"byteOffset": finding.offset}
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.where:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.where}]
    return {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{what}: {finding.message}" if what else finding.message},
        "locations": [location],
        "properties": {"severity": finding.severity, "times": finding.times},
    }


def _uri(path: Path) -> str:
    """A path as a URI; one that does not begin at the root stays relative."""
    uri = quote(path.as_posix(), errors="surrogateescape")
    return f"file://{uri}" if path.is_absolute() else uri
