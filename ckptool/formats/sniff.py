"""Which format a file is of, by its content: its name is never asked.

The tests are asked in order; what none of them claims is named as what it really is, from its
first bytes. A reader is imported when a file is of its format: most files are torch's own zip.
"""

from __future__ import annotations

from typing import Final

from ckptool.errors import (
    CutShortError,
    FileKind,
    LimitExceededError,
    PickleStreamError,
    UnsupportedFormatError,
)
from ckptool.formats.archive import Archive, find_end, read_archive
from ckptool.formats.archive_layout import LOCAL_MAGIC
from ckptool.formats.container import Container, Damage
from ckptool.formats.torch_zip import PICKLE, read_torch_zip
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global
from ckptool.pickling.reader import read_pickle
from ckptool.sources import FileSource

__all__ = ["read_container"]

_HEAD_BYTES = 1024
_PROTOCOL: Final = b"\x80"
_DCP_METADATA: Final = Global("torch.distributed.checkpoint.metadata", "Metadata")


def read_container(source: FileSource, limits: Limits) -> Container:
    """Read a file as the format that its content has.

    Raises NotACheckpointError or UnsupportedFormatError with what the file really is.
    """
    head = source.read_up_to(0, _HEAD_BYTES)
    # Only here, as torch looks too: a zip behind other data would be read, and hide that data.
    if head.startswith(LOCAL_MAGIC):
        return _read_zip(source, limits)
    return _read_stream(source, head, limits)


def _read_stream(source: FileSource, head: bytes, limits: Limits) -> Container:
    from ckptool.formats.bare_pickle import read_bare_pickle
    from ckptool.formats.legacy import read_legacy, starts_as_legacy
    from ckptool.formats.safetensors import is_safetensors, read_safetensors
    from ckptool.formats.wrong_files import SUPPORTED, name_unknown, refuse_wrong_file

    # First of all: any byte, a magic number's too, can be the lowest one of a header's length.
    if is_safetensors(source):
        return read_safetensors(source, limits)
    if starts_as_legacy(source, limits):
        return read_legacy(source, limits)
    refuse_wrong_file(source, head)
    if not _begins_as_pickle(head, limits):
        raise name_unknown(source, head)
    try:
        container = read_bare_pickle(source, limits)
    except PickleStreamError as error:
        if head.startswith(_PROTOCOL):
            raise
        raise name_unknown(source, head) from error
    if _DCP_METADATA in container.globals:
        raise UnsupportedFormatError(
            "the metadata of a torch.distributed.checkpoint directory",
            supported=SUPPORTED,
            file_kind=FileKind.DISTRIBUTED,
        )
    return container


def _begins_as_pickle(head: bytes, limits: Limits) -> bool:
    """Whether a file can be a pickle, however long it is; all but old ones say so."""
    if head.startswith(_PROTOCOL):
        return True
    try:
        read_pickle(head, limits=limits)
    except PickleStreamError as error:
        return error.breaks_off
    except LimitExceededError:
        return True
    return True


def _read_zip(source: FileSource, limits: Limits) -> Container:
    from ckptool.formats.torch_package import is_torch_package, read_torch_package
    from ckptool.formats.torchscript import is_torchscript, read_torchscript

    is_cut = find_end(source) is None
    archive = _read_cut_archive(source) if is_cut else read_archive(source)
    if PICKLE in archive.records and is_torchscript(archive):
        return read_torchscript(source, archive, limits)
    if PICKLE in archive.records and archive.name is not None:
        return read_torch_zip(source, archive, limits)
    if is_torch_package(archive):
        return read_torch_package(source, archive, limits)
    from ckptool.formats.exported_program import is_exported_program
    from ckptool.formats.wrong_files import SUPPORTED, name_wrong_zip

    if is_exported_program(archive):
        raise UnsupportedFormatError(
            "a program of torch.export (.pt2)",
            supported=SUPPORTED,
            hint="it can be the model that a checkpoint is matched against: --model",
            file_kind=FileKind.EXPORTED_PROGRAM,
        )
    if archive.damage is not None:
        raise _cut_before_names(archive.damage)
    raise name_wrong_zip(archive)


def _cut_before_names(damage: Damage) -> CutShortError:
    return CutShortError(
        f"{damage.what}; the pickle that names the tensors is not whole",
        record=damage.record,
        offset=damage.offset,
        hint="download it or save it again",
    )


def _read_cut_archive(source: FileSource) -> Archive:
    from ckptool.formats.damaged_archive import read_cut_archive

    return read_cut_archive(source)
