"""An edit as JSON data, the same document for a plan and for what was done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckptool.edit.plan import Plan
from ckptool.render.json import VERSION

__all__ = ["edit_document"]


def edit_document(
    plan: Plan, target: Path | None, notes: Sequence[str], *, is_written: bool
) -> dict[str, Any]:
    """What `strip` and `reset-buffers` say; `target` is None where a dry run was given none."""
    tensors, nbytes = plan.kept
    return {
        "ckptool": VERSION,
        "command": plan.command,
        "src": str(plan.checkpoint.path),
        "dst": None if target is None else str(target),
        "written": is_written,
        "removed": [
            {"path": one.path, "tensors": one.tensors, "bytes": one.nbytes} for one in plan.removed
        ],
        "changed": [{"path": one.path, "what": one.what, "to": one.to} for one in plan.changed],
        "left": [{"path": one.path, "why": one.why} for one in plan.left],
        "kept": {"entries": tensors, "bytes": nbytes},
        "bytes_before": plan.bytes_before,
        "bytes_after": plan.nbytes,
        "notes": list(notes),
        "warnings": list(plan.checkpoint.container.warnings),
    }
