"""ckptool opens PyTorch checkpoints without running them.

    >>> from ckptool import list_contents, open_checkpoint
    >>> with open_checkpoint("model.pt") as checkpoint:
    ...     for one in list_contents(checkpoint).entries:
    ...         print(one.name, one.role, one.entry.tensor.shape)

Against a model:

    >>> from ckptool import check, load_model_spec, open_checkpoint
    >>> model = load_model_spec("models.py:MyModel(10, 5)")
    >>> with open_checkpoint("model.pt", keep_defects=True) as checkpoint:
    ...     print(check(checkpoint, model).strict_load)

Against another one:

    >>> from ckptool import diff, open_checkpoint
    >>> with open_checkpoint("base.pt") as a, open_checkpoint("tuned.pt") as b:
    ...     print(diff(a, b).statement)

What loading it would import and call:

    >>> from ckptool import scan
    >>> for file, finding in scan("model.pt").findings():
    ...     print(finding.severity, finding.name, finding.calls)

Edited, and written as a new file:

    >>> from ckptool import open_checkpoint, plan_strip, write_checkpoint
    >>> with open_checkpoint("last.ckpt") as checkpoint:
    ...     write_checkpoint(plan_strip(checkpoint, training=True), "model.ckpt")

The names below are loaded when they are first used: importing ckptool loads neither torch, numpy,
typer nor rich.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ckptool.analysis.check import Check, check
    from ckptool.analysis.diff.diff import diff
    from ckptool.analysis.diff.result import Diff, Figures, LeafDiff, Side, TensorDiff, Values
    from ckptool.analysis.findings import Finding
    from ckptool.analysis.fingerprint import hash_tensor
    from ckptool.analysis.overview import Contents, Overview, list_contents, overview
    from ckptool.analysis.scan.result import Scan, ScanFinding, ScannedFile, ScannedPickle
    from ckptool.analysis.scan.scan import scan
    from ckptool.checkpoint.entries import Entry
    from ckptool.checkpoint.opening import Checkpoint, open_checkpoint
    from ckptool.checkpoint.state_dict import StateDict
    from ckptool.classification.align import Alignment
    from ckptool.classification.classify import Classification, classify
    from ckptool.classification.matching import ModelMatch
    from ckptool.classification.roles import AbsentTensor, ClassifiedEntry
    from ckptool.edit.plan import Changed, Left, Plan, Removed
    from ckptool.edit.reset_buffers import plan_reset_buffers
    from ckptool.edit.strip import plan_strip
    from ckptool.edit.write import Written, write_checkpoint
    from ckptool.errors import (
        AmbiguousRootError,
        ArchiveError,
        CkptoolError,
        CutShortError,
        EditError,
        EntryConflictError,
        EntryNotFoundError,
        FileKind,
        InputError,
        LimitExceededError,
        MalformedCheckpointError,
        NotACheckpointError,
        OutputError,
        PickleStreamError,
        SharedStorageError,
        SpecError,
        TensorError,
        UnsupportedFormatError,
    )
    from ckptool.pickling.limits import Limits
    from ckptool.spec.loading import load_model_spec
    from ckptool.spec.model_spec import ModelSpec, ModuleSpec, TensorSpec
    from ckptool.spec.strict_load import Model, StrictLoad
    from ckptool.tensors.refs import StorageRef, TensorRef
    from ckptool.values import read_bytes, read_elements

__all__ = [
    "AbsentTensor",
    "Alignment",
    "AmbiguousRootError",
    "ArchiveError",
    "Changed",
    "Check",
    "Checkpoint",
    "CkptoolError",
    "Classification",
    "ClassifiedEntry",
    "Contents",
    "CutShortError",
    "Diff",
    "EditError",
    "Entry",
    "EntryConflictError",
    "EntryNotFoundError",
    "Figures",
    "FileKind",
    "Finding",
    "InputError",
    "LeafDiff",
    "Left",
    "LimitExceededError",
    "Limits",
    "MalformedCheckpointError",
    "Model",
    "ModelMatch",
    "ModelSpec",
    "ModuleSpec",
    "NotACheckpointError",
    "OutputError",
    "Overview",
    "PickleStreamError",
    "Plan",
    "Removed",
    "Scan",
    "ScanFinding",
    "ScannedFile",
    "ScannedPickle",
    "SharedStorageError",
    "Side",
    "SpecError",
    "StateDict",
    "StorageRef",
    "StrictLoad",
    "TensorDiff",
    "TensorError",
    "TensorRef",
    "TensorSpec",
    "UnsupportedFormatError",
    "Values",
    "Written",
    "check",
    "classify",
    "diff",
    "hash_tensor",
    "list_contents",
    "load_model_spec",
    "open_checkpoint",
    "overview",
    "plan_reset_buffers",
    "plan_strip",
    "read_bytes",
    "read_elements",
    "scan",
    "write_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_HOMES.get(name, _errors)(), name)


def __dir__() -> list[str]:
    return __all__


# Where the names are at home; all others are errors ---------------------------------------------


def _errors() -> ModuleType:
    from ckptool import errors

    return errors


def _check() -> ModuleType:
    from ckptool.analysis import check

    return check


def _diff() -> ModuleType:
    from ckptool.analysis.diff import diff

    return diff


def _diff_result() -> ModuleType:
    from ckptool.analysis.diff import result

    return result


def _fingerprint() -> ModuleType:
    from ckptool.analysis import fingerprint

    return fingerprint


def _findings() -> ModuleType:
    from ckptool.analysis import findings

    return findings


def _overview() -> ModuleType:
    from ckptool.analysis import overview

    return overview


def _plan() -> ModuleType:
    from ckptool.edit import plan

    return plan


def _reset_buffers() -> ModuleType:
    from ckptool.edit import reset_buffers

    return reset_buffers


def _strip() -> ModuleType:
    from ckptool.edit import strip

    return strip


def _write() -> ModuleType:
    from ckptool.edit import write

    return write


def _scan() -> ModuleType:
    from ckptool.analysis.scan import scan

    return scan


def _scan_result() -> ModuleType:
    from ckptool.analysis.scan import result

    return result


def _entries() -> ModuleType:
    from ckptool.checkpoint import entries

    return entries


def _opening() -> ModuleType:
    from ckptool.checkpoint import opening

    return opening


def _state_dict() -> ModuleType:
    from ckptool.checkpoint import state_dict

    return state_dict


def _align() -> ModuleType:
    from ckptool.classification import align

    return align


def _classify() -> ModuleType:
    from ckptool.classification import classify

    return classify


def _matching() -> ModuleType:
    from ckptool.classification import matching

    return matching


def _roles() -> ModuleType:
    from ckptool.classification import roles

    return roles


def _limits() -> ModuleType:
    from ckptool.pickling import limits

    return limits


def _loading() -> ModuleType:
    from ckptool.spec import loading

    return loading


def _model_spec() -> ModuleType:
    from ckptool.spec import model_spec

    return model_spec


def _strict_load() -> ModuleType:
    from ckptool.spec import strict_load

    return strict_load


def _refs() -> ModuleType:
    from ckptool.tensors import refs

    return refs


def _values() -> ModuleType:
    from ckptool import values

    return values


_HOMES: Final[dict[str, Callable[[], ModuleType]]] = {
    "AbsentTensor": _roles,
    "Alignment": _align,
    "Changed": _plan,
    "Check": _check,
    "Checkpoint": _opening,
    "Classification": _classify,
    "ClassifiedEntry": _roles,
    "Contents": _overview,
    "Diff": _diff_result,
    "Entry": _entries,
    "Figures": _diff_result,
    "Finding": _findings,
    "LeafDiff": _diff_result,
    "Left": _plan,
    "Limits": _limits,
    "Model": _strict_load,
    "ModelMatch": _matching,
    "ModelSpec": _model_spec,
    "ModuleSpec": _model_spec,
    "Overview": _overview,
    "Plan": _plan,
    "Removed": _plan,
    "Scan": _scan_result,
    "ScanFinding": _scan_result,
    "ScannedFile": _scan_result,
    "ScannedPickle": _scan_result,
    "Side": _diff_result,
    "StateDict": _state_dict,
    "StorageRef": _refs,
    "StrictLoad": _strict_load,
    "TensorDiff": _diff_result,
    "TensorRef": _refs,
    "TensorSpec": _model_spec,
    "Values": _diff_result,
    "Written": _write,
    "check": _check,
    "classify": _classify,
    "diff": _diff,
    "hash_tensor": _fingerprint,
    "list_contents": _overview,
    "load_model_spec": _loading,
    "open_checkpoint": _opening,
    "overview": _overview,
    "plan_reset_buffers": _reset_buffers,
    "plan_strip": _strip,
    "read_bytes": _values,
    "read_elements": _values,
    "scan": _scan,
    "write_checkpoint": _write,
}
