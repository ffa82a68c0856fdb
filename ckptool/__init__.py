"""ckptool opens PyTorch checkpoints without running them.

    >>> from ckptool import list_contents, open_checkpoint
    >>> with open_checkpoint("model.pt") as checkpoint:
    ...     for one in list_contents(checkpoint).entries:
    ...         print(one.name, one.role, one.entry.tensor.shape)

The names below are loaded when they are first used: importing ckptool loads neither torch, numpy,
typer nor rich.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckptool.analysis.fingerprint import hash_tensor
    from ckptool.analysis.overview import Contents, Overview, list_contents, overview
    from ckptool.checkpoint.entries import Entry
    from ckptool.checkpoint.opening import Checkpoint, open_checkpoint
    from ckptool.classification.roles import ClassifiedEntry
    from ckptool.errors import (
        ArchiveError,
        CkptoolError,
        EntryNotFoundError,
        InputError,
        LimitExceededError,
        MalformedCheckpointError,
        NotACheckpointError,
        OutputError,
        PickleStreamError,
        TensorError,
        UnsupportedFormatError,
    )
    from ckptool.pickling.limits import Limits
    from ckptool.tensors.refs import StorageRef, TensorRef
    from ckptool.values import read_bytes, read_elements

__all__ = [
    "ArchiveError",
    "Checkpoint",
    "CkptoolError",
    "ClassifiedEntry",
    "Contents",
    "Entry",
    "EntryNotFoundError",
    "InputError",
    "LimitExceededError",
    "Limits",
    "MalformedCheckpointError",
    "NotACheckpointError",
    "OutputError",
    "Overview",
    "PickleStreamError",
    "StorageRef",
    "TensorError",
    "TensorRef",
    "UnsupportedFormatError",
    "hash_tensor",
    "list_contents",
    "open_checkpoint",
    "overview",
    "read_bytes",
    "read_elements",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    match name:
        case "Checkpoint" | "open_checkpoint":
            from ckptool.checkpoint import opening

            return getattr(opening, name)
        case "ClassifiedEntry":
            from ckptool.classification.roles import ClassifiedEntry

            return ClassifiedEntry
        case "Entry":
            from ckptool.checkpoint.entries import Entry

            return Entry
        case "Limits":
            from ckptool.pickling.limits import Limits

            return Limits
        case "Contents" | "Overview" | "list_contents" | "overview":
            from ckptool.analysis import overview

            return getattr(overview, name)
        case "StorageRef" | "TensorRef":
            from ckptool.tensors import refs

            return getattr(refs, name)
        case "hash_tensor":
            from ckptool.analysis.fingerprint import hash_tensor

            return hash_tensor
        case "read_bytes" | "read_elements":
            from ckptool import values

            return getattr(values, name)
    from ckptool import errors

    return getattr(errors, name)


def __dir__() -> list[str]:
    return __all__
