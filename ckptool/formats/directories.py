"""What a directory is that was given in place of a checkpoint, and what to name instead."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Final

from ckptool.errors import FileKind, InputError, NotACheckpointError
from ckptool.formats.wrong_files import CHECKPOINT_NAME

__all__ = ["name_directory"]

_NAMES_SHOWN: Final = 3


def name_directory(path: Path) -> NotACheckpointError:
    """Return the error for a directory; raise InputError where it cannot be listed."""
    try:
        names = sorted(child.name for child in path.iterdir())
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", file_kind=FileKind.NO_PERMISSION
        ) from error
    if ".metadata" in names:
        return NotACheckpointError(
            FileKind.DISTRIBUTED, "a torch.distributed.checkpoint directory, not read yet"
        )
    if "data.pkl" in names:
        return NotACheckpointError(FileKind.UNPACKED, "an unpacked one", hint=_zip_again(path))
    if "saved_model.pb" in names:
        return NotACheckpointError(FileKind.TENSORFLOW, "a model that TensorFlow saved")
    inside = [name for name in names if CHECKPOINT_NAME.search(name)]
    if not inside:
        return NotACheckpointError(FileKind.DIRECTORY, "a directory without a checkpoint in it")
    more = f" and {len(inside) - _NAMES_SHOWN:,} more" if len(inside) > _NAMES_SHOWN else ""
    return NotACheckpointError(
        FileKind.DIRECTORY,
        "a directory",
        hint=f"name a file in it: {', '.join(inside[:_NAMES_SHOWN])}{more}",
    )


def _zip_again(path: Path) -> str:
    whole = path.resolve()
    return f"zip it again: cd {quote(str(whole.parent))} && zip -0 -r new.pt {quote(whole.name)}"
