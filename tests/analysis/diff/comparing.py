"""Two values, saved and compared; and what a comparison comes to, in short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any, Final, TypeAlias

import torch

from ckptool import Diff, diff, open_checkpoint
from ckptool.analysis.diff.result import Change

__all__ = ["Saved", "changed_leaves", "changes", "compared", "mirrored", "placed"]

Saved: TypeAlias = object | bytes | Callable[[Path], None]
"""A value for torch to save, the bytes of a file, or what writes one."""

_TURNED: Final[dict[Change, Change]] = {"added": "removed", "removed": "added"}


def compared(
    a: Saved, b: Saved, *, root_a: str | None = None, root_b: str | None = None, **options: Any
) -> Diff:
    """Save both and compare them; the result outlives the files."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.pt", "b.pt")]
        for path, saved in zip(paths, (a, b), strict=True):
            _save(saved, path)
        with (
            open_checkpoint(paths[0], root=root_a) as left,
            open_checkpoint(paths[1], root=root_b) as right,
        ):
            return diff(left, right, **options)


def _save(saved: Saved, path: Path) -> None:
    if isinstance(saved, bytes):
        path.write_bytes(saved)
    elif isinstance(saved, FunctionType | partial):
        saved(path)
    else:
        torch.save(saved, path)


def changes(found: Diff) -> dict[str, Change]:
    """The tensors that are not the same, as they are labelled."""
    return {one.label: one.change for one in found.entries if one.change != "same"}


def changed_leaves(found: Diff) -> dict[str, Change]:
    """The leaves that are not the same."""
    return {leaf.path: leaf.change for leaf in found.leaves if leaf.change != "same"}


def placed(found: Diff) -> set[tuple[str | None, str | None, Change]]:
    """Each tensor by its paths in both files, with what became of it."""
    return {
        (one.a and one.a.entry.path, one.b and one.b.entry.path, one.change)
        for one in found.entries
    }


def mirrored(found: Diff) -> set[tuple[str | None, str | None, Change]]:
    """What the comparison the other way round has to place."""
    return {(b, a, _TURNED.get(change, change)) for a, b, change in placed(found)}
