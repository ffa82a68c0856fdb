"""Sizes, counts and roles as people read them."""

from __future__ import annotations

from typing import Final

from ckptool.classification.roles import AbsentTensor, ClassifiedEntry
from ckptool.formats.container import FormatName

__all__ = ["FORMAT_NAMES", "natural_count", "natural_role", "natural_size"]

FORMAT_NAMES: Final[dict[FormatName, str]] = {
    "torch-zip": "torch.save zip",
    "torch-legacy": "legacy torch.save stream",
    "torchscript": "TorchScript archive",
    "torch-package": "torch.package archive",
    "pickle": "pickle that torch did not write",
    "safetensors": "safetensors",
}
"""The formats as people know them."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def natural_size(nbytes: int) -> str:
    """Return bytes in decimal units: `17 B`, `1.2 kB`, `83.3 MB`."""
    size = float(nbytes)
    for unit in _UNITS:
        if size < 999.95 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{nbytes} B" if unit == "B" else f"{size:.1f} {unit}"


def natural_count(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 tensor`, `1,234 tensors`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def natural_role(one: ClassifiedEntry | AbsentTensor) -> str:
    """Return a role with persistence and use, as far as they are known.

    `non-persistent buffer, mask`.
    """
    if one.role != "buffer":
        return one.role
    persistence = {True: "persistent ", False: "non-persistent ", None: ""}[one.is_persistent]
    return f"{persistence}buffer" + (f", {one.use}" if one.use is not None else "")
