"""Which formats can be written, each by its own module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from ckptool.errors import UnsupportedFormatError
from ckptool.formats.container import Container, FormatName
from ckptool.formats.content import EditedTree, NewStorage, Piece, Rewrite
from ckptool.formats.legacy import encode_legacy, write_legacy
from ckptool.formats.safetensors import encode_safetensors, write_safetensors
from ckptool.formats.torch_zip import encode_torch_zip, write_torch_zip

__all__ = ["check_writable", "encode_tree", "write_container"]


class _Writer(NamedTuple):
    """How a format writes a tree, and the container around it."""

    encode: Callable[[Container, EditedTree, Sequence[NewStorage]], bytes]
    write: Callable[[Container, Rewrite], Iterator[Piece]]


_WRITERS: Final[dict[FormatName, _Writer]] = {
    "torch-zip": _Writer(encode_torch_zip, write_torch_zip),
    "torch-legacy": _Writer(encode_legacy, write_legacy),
    "safetensors": _Writer(encode_safetensors, write_safetensors),
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


def encode_tree(container: Container, edited: EditedTree, storages: Sequence[NewStorage]) -> bytes:
    """Return an edited tree as the container's format writes it; `storages` are all that stay."""
    return _WRITERS[container.format].encode(container, edited, storages)


def write_container(container: Container, rewrite: Rewrite) -> Iterator[Piece]:
    """Yield the pieces of a file of the same format, in their order."""
    return _WRITERS[container.format].write(container, rewrite)
