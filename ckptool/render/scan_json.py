"""The JSON of `scan`: every field always there."""

from __future__ import annotations

from typing import Any

from ckptool.analysis.scan.result import Scan, ScanFinding, ScannedFile, ScannedPickle
from ckptool.analysis.scan.verdicts import SEVERITIES
from ckptool.analysis.scan.words import name_in_words
from ckptool.render.json import VERSION

__all__ = ["scan_document"]


def scan_document(found: Scan, fail_on: str, *, is_failed: bool) -> dict[str, Any]:
    """Return what a scan found, harmless names and files that were not looked into included."""
    return {
        "ckptool": VERSION,
        "command": "scan",
        "path": str(found.path),
        "fail_on": fail_on,
        "failed": is_failed,
        "summary": {
            "files": len(found.files),
            "not_read": sum(file.not_read is not None for file in found.files),
            "pickles": sum(len(file.pickles) for file in found.files),
            **{severity: found.count(severity) for severity in SEVERITIES[1:]},
        },
        "files": [_file(file) for file in found.files],
        "findings": [
            {"path": str(file.path), **_finding(finding)} for file, finding in found.findings()
        ],
    }


def _file(file: ScannedFile) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "bytes": file.nbytes,
        "not_read": file.not_read,
        "file_kind": file.file_kind,
        "pickles": [_pickle(pickle) for pickle in file.pickles],
    }


def _pickle(pickle: ScannedPickle) -> dict[str, Any]:
    return {
        "where": pickle.where,
        "offset": pickle.offset,
        "bytes": pickle.nbytes,
        "protocol": pickle.protocol,
        "whole": pickle.is_whole,
        "names": [
            {
                "name": name_in_words(one.reference),
                "severity": one.severity,
                "reason": one.reason,
                "calls": one.times,
            }
            for one in pickle.names
        ],
    }


def _finding(finding: ScanFinding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "code": finding.code,
        "where": finding.where,
        "offset": finding.offset,
        "name": finding.name,
        "calls": list(finding.calls),
        "times": finding.times,
        "message": finding.message,
    }
