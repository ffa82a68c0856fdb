"""Which format a file is of, by its content: its name is never asked.

The tests are asked in order; what none of them claims is named as what it really is, from its
first bytes. A reader is imported when a file is of its format: most files are torch's own zip.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from ckptool.errors import NotACheckpointError, PickleStreamError, UnsupportedFormatError
from ckptool.formats.archive import LOCAL_MAGIC, read_archive
from ckptool.formats.container import Container
from ckptool.formats.torch_zip import PICKLE, read_torch_zip
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global
from ckptool.sources import FileSource

__all__ = ["read_container"]

_SUPPORTED: Final = (
    "torch.save zip and legacy files",
    "TorchScript",
    "torch.package",
    "pickles",
    "safetensors",
)
_HEAD_BYTES = 1024
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

    # First of all: any byte, a magic number's too, can be the lowest one of a header's length.
    if is_safetensors(source):
        return read_safetensors(source, limits)
    if starts_as_legacy(source, limits):
        return read_legacy(source, limits)
    _refuse_by_content(source, head)
    try:
        container = read_bare_pickle(source, limits)
    except PickleStreamError as error:
        if head.startswith(b"\x80"):
            raise
        raise NotACheckpointError(_name_unknown(head)) from error
    if _DCP_METADATA in container.globals:
        raise UnsupportedFormatError(
            "the metadata of a torch.distributed.checkpoint directory", supported=_SUPPORTED
        )
    return container


_CHECKPOINT_NAME = re.compile(r"\.(pt|pth|ckpt|bin|pkl|safetensors|tar)$")


def _read_zip(source: FileSource, limits: Limits) -> Container:
    from ckptool.formats.torch_package import is_torch_package, read_torch_package
    from ckptool.formats.torchscript import is_torchscript, read_torchscript

    archive = read_archive(source)
    if PICKLE in archive.records and is_torchscript(archive):
        return read_torchscript(source, archive, limits)
    if PICKLE in archive.records and archive.name is not None:
        return read_torch_zip(source, archive, limits)
    if is_torch_package(archive):
        return read_torch_package(source, archive, limits)
    from ckptool.formats.exported_program import is_exported_program

    if is_exported_program(archive):
        raise UnsupportedFormatError(
            "a program of torch.export (.pt2)",
            supported=_SUPPORTED,
            hint="it can be the model that a checkpoint is matched against: --model",
        )
    names = list(archive.records)
    inside = [name for name in names if _CHECKPOINT_NAME.search(name)]
    if inside:
        raise NotACheckpointError(
            f"a zip around one: {inside[0]} is inside", hint="unzip it and open what is inside"
        )
    raise NotACheckpointError(f"a zip archive of {len(names)} records without a {PICKLE}")


# Wrong files -----------------------------------------------------------------------------------

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"(\xb5/\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OTHERS: Final = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras, h5py)",
    b"\x93NUMPY": "a numpy array (.npy)",
    b"GGUF": "a GGUF file (llama.cpp)",
    b"\x08\x07\x12": "an ONNX model",
    b"\x7fELF": "a program (ELF)",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
}
_LFS_POINTER = re.compile(rb"version https://git-lfs[^\n]*\noid sha256:(\w+)\nsize (\d+)")
_TITLE = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title", re.IGNORECASE | re.DOTALL)
_S3_CODE = re.compile(rb"<Code>(\w+)</Code>")
_TEXT_SHOWN = 40
_TAR_MAGIC_AT = 257
_TAR_BLOCK = 512
_TAR_MEMBERS = 16


def _refuse_by_content(source: FileSource, head: bytes) -> None:
    if not head:
        raise NotACheckpointError("the file is empty", hint="the download or the save broke off")
    if not head.strip(b"\0"):
        raise NotACheckpointError(f"its first {len(head):,} bytes are zero")
    pointer = _LFS_POINTER.match(head)
    if pointer:
        raise NotACheckpointError(
            f"a Git LFS pointer to a file of {int(pointer[2]):,} bytes", hint="run `git lfs pull`"
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise NotACheckpointError(f"{name} data", hint="unpack it and open what is inside")
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise NotACheckpointError(what)
    if head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        _refuse_tar(source)
    _refuse_text(head)


def _name_unknown(head: bytes) -> str:
    try:
        # Not all at once: the last character can be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = ""
    if not text or not text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return f"its first bytes, {head[:8]!r}, begin no format that is known"
    first = text.strip().partition("\n")[0][:_TEXT_SHOWN]
    return f"a {'JSON' if first[:1] in ('{', '[') else 'text'} file that begins with {first!r}"


def _refuse_tar(source: FileSource) -> None:
    if {"storages", "tensors", "pickle"} <= set(_names_in_tar(source)):
        raise UnsupportedFormatError(
            "the tar that torch wrote before 0.1.10",
            supported=_SUPPORTED,
            hint="load it with torch and save it anew: torch.save(torch.load(path), new_path)",
        )
    raise NotACheckpointError("a tar archive", hint="unpack it and open what is inside")


def _names_in_tar(source: FileSource) -> Iterator[str]:
    """The first names, as POSIX lays out their headers; the old format has four members."""
    at = 0
    for _ in range(_TAR_MEMBERS):
        header = source.read_up_to(at, _TAR_BLOCK)
        name, size = header[:100].rstrip(b"\0"), header[124:136].strip(b"\0 ")
        if not name or not re.fullmatch(rb"[0-7]+", size):
            return
        yield name.decode("utf-8", "replace")
        at += _TAR_BLOCK * (1 + -(-int(size, 8) // _TAR_BLOCK))


def _refuse_text(head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith(b"<"):
        return
    code = _S3_CODE.search(head)
    if code:
        raise NotACheckpointError(
            f"an XML error of a file store: {code[1].decode('ascii', 'replace')}",
            hint="the download was refused",
        )
    title = _TITLE.search(head)
    named = f", title {title[1].decode('utf-8', 'replace')!r}" if title else ""
    raise NotACheckpointError(
        f"an HTML page{named}" if b"html" in text[:200].lower() else "an XML document",
        hint="the address led to a page, not to the file",
    )
