"""A comparison as JSON data."""

from __future__ import annotations

from typing import Any, get_args

from ckptool.analysis.diff.result import Change, Diff, LeafDiff, Side, TensorDiff
from ckptool.classification.roles import ClassifiedEntry
from ckptool.render.json import VERSION
from ckptool.render.leaves import Leaves, plain

__all__ = ["diff_document"]


def diff_document(found: Diff) -> dict[str, Any]:
    """What `diff` says: every tensor and every leaf, those that are the same too."""
    leaves = Leaves()
    return {
        "ckptool": VERSION,
        "command": "diff",
        "a": _side(found.a),
        "b": _side(found.b),
        "summary": {
            **{change: found.count(change) for change in get_args(Change)},
            "leaves_changed": found.leaves_changed,
            "statement": found.statement,
            "quick": found.is_quick,
        },
        "entries": [_entry(one) for one in found.entries],
        "leaves": [_leaf(leaf, leaves) for leaf in found.leaves],
        "unchanged": None if found.unchanged is None else list(found.unchanged),
        "warnings": [*found.warnings, *found.notes],
    }


def _side(side: Side) -> dict[str, Any]:
    checkpoint = side.contents.checkpoint
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "root": None if checkpoint.root is None else checkpoint.root.path,
        "prefix": side.prefix,
    }


def _entry(one: TensorDiff) -> dict[str, Any]:
    figures, values = one.figures, one.values
    return {
        "name": one.name,
        "path_a": _path(one.a),
        "path_b": _path(one.b),
        "role": one.role,
        "persistent": one.best.is_persistent,
        "evidence": one.best.evidence,
        "certain": one.best.is_certain,
        "change": one.change,
        "verdict": one.verdict,
        "rounded_to": None if values is None else values.rounded_to,
        "dtype": list(one.dtypes),
        "shape": [_shape(one.a), _shape(one.b)],
        "elements": one.elements,
        "changed_elements": figures.changed_elements,
        "max_abs": plain(figures.max_abs),
        "mean_abs": plain(figures.mean_abs),
        "rel_l2": plain(figures.rel_l2),
        "cosine": plain(figures.cosine),
        "nan": list(figures.nan),
        "inf": list(figures.inf),
        "numbers": None if values is None else plain(values.numbers),
    }


def _path(one: ClassifiedEntry | None) -> str | None:
    return None if one is None else one.entry.path


def _shape(one: ClassifiedEntry | None) -> list[int] | None:
    return None if one is None or one.entry.tensor is None else list(one.entry.tensor.shape)


def _leaf(leaf: LeafDiff, shown: Leaves) -> dict[str, Any]:
    a, b = shown.plain(leaf.a), shown.plain(leaf.b)
    return {"path": leaf.path, "change": leaf.change, "a": a, "b": b}
