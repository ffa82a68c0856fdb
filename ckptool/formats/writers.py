"""Which formats can be written, each by its own module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ckptool.errors import UnsupportedFormatError
from ckptool.formats.container import Container, FormatName
from ckptool.formats.content import Piece, Rewrite
from ckptool.formats.legacy import write_legacy
from ckptool.formats.safetensors import write_safetensors
from ckptool.formats.torch_zip import write_torch_zip

__all__ = ["check_writable", "write_container"]

_WRITERS: Final[dict[FormatName, Callable[[Container, Rewrite], Iterator[Piece]]]] = {
    "torch-zip": write_torch_zip,
    "torch-legacy": write_legacy,
    "safetensors": write_safetensors,
}
_OTHERS: Final[dict[FormatName, str]] = {
    "torchscript": "a TorchScript archive",
    "torch-package": "a torch.package archive",
    "pickle": "a pickle that torch did not write",
}


def check_writable(container: Container) -> None:
    """Raise UnsupportedFormatError for a container that is only read."""
    if container.format not in _WRITERS:
        raise UnsupportedFormatError(
            _OTHERS[container.format],
            verb="edits",
            supported=("torch.save zip and legacy files", "safetensors"),
        )


def write_container(container: Container, rewrite: Rewrite) -> Iterator[Piece]:
    """Yield the pieces of a file of the same format, in their order."""
    check_writable(container)
    return _WRITERS[container.format](container, rewrite)
