"""What is run on each file: one line a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ckptool.analysis.check import check
from ckptool.analysis.details import details
from ckptool.analysis.overview import list_contents, overview
from ckptool.analysis.scan.scan import scan
from ckptool.checkpoint.opening import open_checkpoint
from ckptool.render.json import details_document, dumps, overview_document
from ckptool.render.scan_json import scan_document

__all__ = ["STEPS", "Step"]


class Step(NamedTuple):
    """Something that takes a path and ends or raises a CkptoolError; done with one in `every`."""

    name: str
    every: int
    run: Callable[[Path], object]


def open_only(path: Path) -> None:
    with open_checkpoint(path):
        pass


def list_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        contents = list_contents(checkpoint)
        dumps(overview_document(overview(contents), "inspect"))


def check_all(path: Path) -> None:
    with open_checkpoint(path, keep_defects=True) as checkpoint:
        found = check(checkpoint)
        dumps(overview_document(overview(found.contents), "check", found))


def show_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        dumps(details_document(checkpoint, details(checkpoint, ["*"])))


def scan_all(path: Path) -> None:
    found = scan(path)
    dumps(scan_document(found, "suspicious", is_failed=found.has_at_least("suspicious")))


STEPS: Final = (
    Step("open", 1, open_only),
    Step("list", 4, list_all),
    Step("check", 8, check_all),
    Step("show", 16, show_all),
    Step("scan", 2, scan_all),
)
