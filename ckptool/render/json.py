"""Results as JSON data: the documents that scripts rely on, every field always there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, get_args

from ckptool.analysis.details import Detail
from ckptool.analysis.overview import Overview
from ckptool.analysis.sizes import Total, TotalName
from ckptool.analysis.statistics import Statistics
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import display_key
from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry
from ckptool.errors import CkptoolError, FileKind, about
from ckptool.render.excerpts import excerpt_text
from ckptool.render.leaves import Repeats, leaf_type, plain
from ckptool.tensors.refs import Components, NoData, Strided, TensorRef

if TYPE_CHECKING:
    from ckptool.analysis.check import Check
    from ckptool.classification.matching import ModelMatch
    from ckptool.spec.model_spec import TensorSpec

__all__ = [
    "VERSION",
    "details_document",
    "dumps",
    "error_document",
    "overview_document",
    "usage_document",
]

VERSION: Final = 1
"""The version of the documents."""

# With every name in every entry, a file of kilobytes could make gigabytes.
_TIES_NAMED: Final = 100


def dumps(document: dict[str, Any]) -> str:
    """Return a document as strict JSON: no bare NaN."""
    return json.dumps(document, indent=2, allow_nan=False)


def error_document(error: CkptoolError) -> dict[str, Any]:
    """An error as scripts read it."""
    path = None if error.path is None else str(error.path)
    return _error(error.kind, error.message, path, error.hint, getattr(error, "file_kind", None))


def usage_document(message: str) -> dict[str, Any]:
    """An error in how the program was called, which is about no file."""
    return _error("usage", message, None)


def _error(
    kind: str,
    message: str,
    path: str | None,
    hint: str | None = None,
    file_kind: FileKind | None = None,
) -> dict[str, Any]:
    return {
        "ckptool": VERSION,
        "error": {
            "kind": kind,
            "message": message,
            "path": path,
            "hint": hint,
            "file_kind": file_kind,
        },
    }


def overview_document(
    overview: Overview, command: str, found: Check | None = None
) -> dict[str, Any]:
    """What `inspect` and `list` say, and `check` with what it found."""
    with about(overview.checkpoint.path):
        return _overview(overview, command, found)


def _overview(overview: Overview, command: str, found: Check | None) -> dict[str, Any]:
    checkpoint = overview.checkpoint
    repeats = Repeats()
    paths = {id(one.entry): one.entry.path for one in overview.entries}
    sizes = overview.sizes
    match = overview.contents.match
    return {
        "ckptool": VERSION,
        "command": command,
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "files": [
            {
                "path": str(file.path),
                "bytes": file.nbytes,
                "protocol": file.protocol,
                "byteorder": file.byteorder,
                "archive_name": file.archive_name,
                "crc": file.crc,
            }
            for file in checkpoint.files
        ],
        "roots": list(_roots(overview)),
        "training": [{"path": state.path, "kind": state.kind} for state in checkpoint.training],
        "globals": [str(name) for name in overview.foreign_globals],
        "model": match and _model(match),
        "strict_load": match and _strict_load(match),
        "entries": [_entry(one, overview, paths) for one in overview.entries if one.entry.tensor],
        "absent": [_absent(one) for one in overview.contents.absent],
        "leaves": [_leaf(entry, repeats) for entry in checkpoint.entries if entry.tensor is None],
        "totals": {
            name: {"count": total.count, "bytes": total.nbytes}
            for name in get_args(TotalName)
            for total in [sizes.totals.get(name, Total())]
        },
        "storages": {
            "count": len(sizes.storages),
            "bytes": sizes.nbytes,
            "used_bytes": sizes.used_bytes,
            "unreferenced": list(sizes.unreferenced),
        },
        "fingerprint": overview.contents.fingerprint,
        "findings": [] if found is None else list(_findings(found)),
        "warnings": [
            *checkpoint.warnings,
            *_warn_of_ties(overview),
            *(() if found is None else found.notes),
        ],
    }


def _model(match: ModelMatch) -> dict[str, Any]:
    alignment = match.alignment
    return {
        "source": match.model.spec.source,
        "prefix": {
            "strip": alignment.strip,
            "add": alignment.add,
            "matched": alignment.matched,
            "matched_as_is": alignment.matched_as_is,
        },
    }


def _strict_load(match: ModelMatch) -> dict[str, Any]:
    answer = match.strict_load
    return {
        "ok": answer.is_ok,
        "ok_with_prefix": match.strict_load_with_prefix.is_ok,
        "missing": list(answer.missing),
        "unexpected": list(answer.unexpected),
        "shape": list(answer.shape),
        "errors": [{"name": error.name, "problem": error.problem} for error in answer.errors],
        "why_unknown": answer.why_unknown,
    }


def _absent(one: AbsentTensor) -> dict[str, Any]:
    spec = one.spec
    return {
        "name": one.name,
        "role": one.role,
        "persistent": one.is_persistent,
        "status": one.status,
        "use": one.use,
        "dtype": None if spec is None else spec.dtype,
        "shape": None if spec is None or spec.shape is None else list(spec.shape),
    }


def _findings(found: Check) -> Iterator[dict[str, Any]]:
    for findings, is_allowed in ((found.findings, False), (found.allowed, True)):
        for finding in findings:
            yield {
                "kind": finding.kind,
                "code": finding.code,
                "path": finding.path,
                "name": finding.name,
                "message": finding.detail,
                "allowed": is_allowed,
            }


def _warn_of_ties(overview: Overview) -> Iterator[str]:
    most = max(map(len, overview.ties.values()), default=0)
    if most > _TIES_NAMED:
        yield f"up to {most:,} tensors are tied; tied_with names the first {_TIES_NAMED} only"


def details_document(checkpoint: Checkpoint, details: Sequence[Detail]) -> dict[str, Any]:
    """What `show` says: values are text, as a person would see them."""
    with about(checkpoint.path):
        return _details(checkpoint, details)


def _details(checkpoint: Checkpoint, details: Sequence[Detail]) -> dict[str, Any]:
    repeats = Repeats()
    return {
        "ckptool": VERSION,
        "command": "show",
        "path": str(checkpoint.path),
        "tensors": [
            {
                "keys": _keys(detail.entry),
                "path": detail.entry.path,
                **_tensor(detail.entry.tensor),
                "statistics": detail.statistics and _statistics(detail.statistics),
                "values": detail.excerpt and excerpt_text(detail.excerpt),
            }
            for detail in details
            if detail.entry.tensor is not None
        ],
        "leaves": [
            _leaf(detail.entry, repeats, whole=True)
            for detail in details
            if detail.entry.tensor is None
        ],
    }


def _roots(overview: Overview) -> Iterator[dict[str, Any]]:
    for root in overview.checkpoint.roots:
        total = overview.roots.get(root.keys, Total())
        yield {
            "path": root.path,
            "tensors": total.count,
            "bytes": total.nbytes,
            "chosen": root is overview.checkpoint.root,
        }


def _entry(one: ClassifiedEntry, overview: Overview, paths: Mapping[int, str]) -> dict[str, Any]:
    entry, tensor = one.entry, one.entry.tensor
    return {
        "keys": _keys(entry),
        "path": paths[id(entry)],
        "name": one.name,
        "in_root": one.name is not None,
        "role": one.role,
        "persistent": one.is_persistent,
        "status": one.status,
        "evidence": one.evidence,
        "certain": one.is_certain,
        "use": one.use,
        **({} if tensor is None else _tensor(tensor)),
        "tied_with": [
            paths.get(id(other)) or other.path
            for other in overview.ties.get(id(entry), ())[: _TIES_NAMED + 1]
            if other is not entry
        ],
        "expected": one.expected and _expected(one.expected),
        "sha256": overview.contents.hashes.get(id(one)),
    }


def _expected(spec: TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype, "shape": None if spec.shape is None else list(spec.shape)}


def _tensor(tensor: TensorRef) -> dict[str, Any]:
    data = tensor.data
    strided = data if isinstance(data, Strided) else None
    return {
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "stride": list(data.stride) if isinstance(data, Strided | NoData) else None,
        "offset": None if strided is None else strided.offset,
        "bytes": tensor.nbytes,
        "layout": tensor.layout,
        "storage": None if strided is None else strided.storage.key,
        "file": 0,
        "location": tensor.location,
        "requires_grad": tensor.requires_grad,
        "components": _components(data) if isinstance(data, Components) else None,
    }


def _components(data: Components) -> list[dict[str, Any]]:
    return [
        {"role": part.role, **_tensor(part.value)}
        if isinstance(part.value, TensorRef)
        else {"role": part.role, "value": plain(part.value)}
        for part in data.parts
    ]


def _leaf(entry: Entry, repeats: Repeats, *, whole: bool = False) -> dict[str, Any]:
    return {
        "keys": _keys(entry),
        "path": entry.path,
        "type": leaf_type(entry.node),
        "value": plain(entry.node, whole=whole, repeats=repeats),
    }


def _keys(entry: Entry) -> list[Any]:
    return [
        plain(key) if key is None or isinstance(key, str | bool | int | float) else display_key(key)
        for key in entry.keys
    ]


def _statistics(figures: Statistics) -> dict[str, Any]:
    return {
        "elements": figures.elements,
        "nan": figures.nan,
        "inf": figures.inf,
        "zero": figures.zero,
        "min": plain(figures.minimum),
        "max": plain(figures.maximum),
        "mean": plain(figures.mean),
        "std": plain(figures.deviation),
        "histogram": list(figures.histogram),
    }
