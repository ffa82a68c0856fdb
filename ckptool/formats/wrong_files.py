"""What a file is that is no checkpoint: its first bytes, in words, and the next step.

The magic numbers are those of the formats' own documents; `file` knows them too.
"""

from __future__ import annotations

import codecs
import re
import zlib
from contextlib import suppress
from shlex import quote
from typing import Final, NamedTuple

from ckptool.errors import (
    ArchiveError,
    CkptoolError,
    FileKind,
    MalformedCheckpointError,
    NotACheckpointError,
    UnsupportedFormatError,
)
from ckptool.formats.archive import Archive
from ckptool.formats.damaged_archive import find_archive
from ckptool.formats.tar import is_tar, tar_members
from ckptool.sources import Extent, FileSource, read_content

__all__ = ["CHECKPOINT_NAME", "SUPPORTED", "name_unknown", "name_wrong_zip", "refuse_wrong_file"]

SUPPORTED: Final = (
    "torch.save zip and legacy files",
    "TorchScript",
    "torch.package",
    "pickles",
    "safetensors",
)
_UNPACK: Final = "unpack it and open what is inside"
_BROKE_OFF: Final = "the download or the save broke off"
CHECKPOINT_NAME: Final = re.compile(
    r"\.(pt|pth|ckpt|bin|pkl|pickle|safetensors|tar)$", re.IGNORECASE
)
"""How people name checkpoints; what a file is decides its content all the same."""


class _Magic(NamedTuple):
    """The bytes that a kind of file has at an offset, and what people call it."""

    kind: FileKind
    magic: bytes
    found: str
    hint: str | None = None


_MAGICS: Final = (
    _Magic(FileKind.GZIP, b"\x1f\x8b", "gzip data", _UNPACK),
    _Magic(FileKind.BZIP2, b"BZh", "bzip2 data", _UNPACK),
    _Magic(FileKind.XZ, b"\xfd7zXZ\x00", "xz data", _UNPACK),
    _Magic(FileKind.ZSTANDARD, b"(\xb5/\xfd", "zstandard data", _UNPACK),
    _Magic(FileKind.SEVEN_ZIP, b"7z\xbc\xaf\x27\x1c", "7z data", _UNPACK),
    _Magic(FileKind.RAR, b"Rar!", "rar data", _UNPACK),
    _Magic(FileKind.HDF5, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, h5py)"),
    _Magic(FileKind.NPY, b"\x93NUMPY", "a numpy array (.npy)"),
    _Magic(FileKind.GGUF, b"GGUF", "a GGUF file (llama.cpp)"),
    _Magic(FileKind.ELF, b"\x7fELF", "a program (ELF)"),
    _Magic(FileKind.PDF, b"%PDF", "a PDF document"),
    _Magic(FileKind.PNG, b"\x89PNG", "a PNG picture"),
    _Magic(FileKind.ZIP, b"PK\x05\x06", "a zip archive without records"),
)
# A protobuf that begins with field 1, the version of ONNX's own format, and goes on with one of
# the model's other fields (onnx.proto: producer, domain, opset, graph, ...).
_ONNX: Final = re.compile(rb"\x08[\x01-\x20](?:[\x12\x1a\x22\x32\x3a\x42]|\x28[\x00-\x7f])", re.S)
# The last bytes of a table of LevelDB, which is how TensorFlow keeps the index of a checkpoint.
_TABLE_END: Final = bytes.fromhex("57fb808b247547db")
_TENSORFLOW_DATA: Final = re.compile(r"\.data-\d{5}-of-\d{5}$")
_TENSORFLOW_LIST: Final = b"model_checkpoint_path:"

_LFS_POINTER: Final = re.compile(rb"version https://git-lfs[^\n]*\noid sha256:(\w+)\nsize (\d+)")
_TITLE: Final = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title", re.IGNORECASE | re.DOTALL)
_STORE_CODE: Final = re.compile(rb"<Code>(\w+)</Code>")
_SHARD: Final = re.compile(rb'"weight_map"\s*:\s*\{\s*"[^"]*"\s*:\s*"([^"]*)"')
_TEXT_SHOWN: Final = 40
_CHUNK: Final = 1 << 20
_MAGIC_BYTES: Final = 16


def refuse_wrong_file(source: FileSource, head: bytes) -> None:
    """Raise NotACheckpointError or UnsupportedFormatError for a file of another kind.

    `head` are its first bytes. What is none of the known kinds may still be a pickle.
    """
    if not head:
        raise NotACheckpointError(FileKind.EMPTY, "the file is empty", hint=_BROKE_OFF)
    if not head.strip(b"\0"):
        raise _name_zeros(source)
    pointer = _LFS_POINTER.match(head)
    if pointer:
        raise NotACheckpointError(
            FileKind.GIT_LFS_POINTER,
            f"a Git LFS pointer to a file of {int(pointer[2]):,} bytes, "
            f"sha256 {pointer[1].decode()}",
            hint="run `git lfs pull`",
        )
    for kind, magic, found, hint in _MAGICS:
        if head.startswith(magic):
            raise NotACheckpointError(kind, found, hint=hint)
    if _ONNX.match(head):
        raise NotACheckpointError(FileKind.ONNX, "an ONNX model")
    if is_tar(head):
        raise _name_tar(source)
    _refuse_tensorflow(source, head)
    _refuse_markup(head)


def name_unknown(source: FileSource, head: bytes) -> CkptoolError:
    """The error for a file that is of no known kind, and no pickle either."""
    start = find_archive(source)
    if start:
        return NotACheckpointError(
            FileKind.ZIP_BEHIND,
            f"a zip archive behind {start:,} other bytes, where torch does not look for it",
            hint=f"tail -c +{start + 1} {quote(str(source.path))} gives the archive",
        )
    text = _as_text(head)
    if text is None:
        found = f"its first bytes, {head[:8]!r}, begin no format that is known"
        return NotACheckpointError(FileKind.UNKNOWN, found)
    if text[:1] in ("{", "["):
        return _name_json(head, text)
    return NotACheckpointError(FileKind.TEXT, f"a text file that begins with {_first_line(text)}")


def _as_text(head: bytes) -> str | None:
    try:
        # Not all at once: the last character can be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head).strip()
    except UnicodeDecodeError:
        return None
    is_text = text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    return text if text and is_text else None


def _first_line(text: str) -> str:
    return repr(text.partition("\n")[0].rstrip()[:_TEXT_SHOWN])


def _name_json(head: bytes, text: str) -> NotACheckpointError:
    if b'"ckptool_spec"' in head:
        return NotACheckpointError(
            FileKind.MODEL_SPEC,
            "the spec of a model",
            hint="give it as the model that a checkpoint is held against: --model",
        )
    if b'"weight_map"' in head:
        shard = _SHARD.search(head)
        first = f", {shard[1].decode('utf-8', 'replace')} for one" if shard else ""
        return NotACheckpointError(
            FileKind.SHARD_INDEX,
            "the index of a sharded checkpoint, without its tensors",
            hint=f"open the shards that it names, each by itself{first}",
        )
    return NotACheckpointError(FileKind.JSON, f"a JSON file that begins with {_first_line(text)}")


def _name_zeros(source: FileSource) -> NotACheckpointError:
    zeros = 0
    while chunk := source.read_up_to(zeros, _CHUNK):
        leading = len(chunk) - len(chunk.lstrip(b"\0"))
        zeros += leading
        if leading < len(chunk):
            break
    which = f"all of its {zeros:,} bytes" if zeros == source.size else f"its first {zeros:,} bytes"
    return NotACheckpointError(FileKind.ZEROS, f"{which} are zero", hint=_BROKE_OFF)


def _refuse_tensorflow(source: FileSource, head: bytes) -> None:
    is_index = source.read_up_to(max(0, source.size - len(_TABLE_END)), len(_TABLE_END))
    if is_index == _TABLE_END:
        raise NotACheckpointError(FileKind.TENSORFLOW, "the index of a TensorFlow checkpoint")
    if head.startswith(_TENSORFLOW_LIST):
        raise NotACheckpointError(FileKind.TENSORFLOW, "TensorFlow's list of its checkpoints")
    # The tensors stand there without any mark; it is the file beside them that says whose they are.
    name = source.path.name
    if _TENSORFLOW_DATA.search(name):
        index = source.path.with_name(_TENSORFLOW_DATA.sub(".index", name))
        if index.exists():
            raise NotACheckpointError(
                FileKind.TENSORFLOW, f"the tensors of a TensorFlow checkpoint, of {index.name}"
            )


def _refuse_markup(head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith(b"<"):
        return
    code = _STORE_CODE.search(head)
    if code:
        raise NotACheckpointError(
            FileKind.STORE_ERROR,
            f"an XML error of a file store: {code[1].decode('ascii', 'replace')}",
            hint="the download was refused",
        )
    if b"html" not in text[:200].lower():
        raise NotACheckpointError(FileKind.XML, "an XML document")
    title = _TITLE.search(head)
    named = f", title {title[1].decode('utf-8', 'replace')!r}" if title else ""
    raise NotACheckpointError(
        FileKind.HTML,
        f"an HTML page{named}",
        hint="the address led to a page, not to the file",
    )


# Archives of other things ----------------------------------------------------------------------


def name_wrong_zip(archive: Archive) -> CkptoolError:
    """The error for a zip that holds no checkpoint as torch writes them."""
    names = [name for name in archive.records if not name.endswith("/")]
    pickle = next((name for name in names if name.endswith("/data.pkl")), None)
    if pickle is not None:
        folder = pickle.removesuffix("data.pkl")
        other = next(name for name in archive.records if not name.startswith(folder))
        problem = f"is not in {folder}, where torch needs all records to be"
        return ArchiveError(problem, record=other, offset=archive.records[other].offset)
    inside = _checkpoint_in(archive)
    if inside is not None:
        return NotACheckpointError(
            FileKind.ZIP_AROUND,
            f"a zip around one: {inside} is inside",
            hint="unzip it and open what is inside",
        )
    if "model.weights.h5" in names:
        return NotACheckpointError(FileKind.KERAS, "a Keras model (.keras)")
    if names and all(name.endswith(".npy") for name in names):
        return NotACheckpointError(FileKind.NPZ, "numpy arrays (.npz)")
    return NotACheckpointError(
        FileKind.ZIP, f"a zip archive of {len(names):,} records without a data.pkl"
    )


def _checkpoint_in(archive: Archive) -> str | None:
    """The first record that is a checkpoint by its first bytes, else by its name."""
    names = [name for name in archive.records if not name.endswith("/")]
    within = "" if archive.name is None else f"{archive.name}/"
    for name in names:
        # What torch and safetensors write; a zip of pictures begins like neither.
        if re.match(rb"PK\x03\x04|\x80\x02\x8a\x0a\x6c\xfc", _head_of(archive.records[name])):
            return within + name
    return next((within + name for name in names if CHECKPOINT_NAME.search(name)), None)


def _head_of(extent: Extent) -> bytes:
    with suppress(MalformedCheckpointError, zlib.error):
        for chunk in read_content(extent, 0, min(_MAGIC_BYTES, extent.size)):
            return chunk
    return b""


def _name_tar(source: FileSource) -> CkptoolError:
    names = [name for name, _ in tar_members(source)]
    if {"storages", "tensors", "pickle"} <= set(names):
        return UnsupportedFormatError(
            "the tar that torch wrote before 0.1.10",
            supported=SUPPORTED,
            hint="load it with torch and save it anew: torch.save(torch.load(path), new_path)",
            file_kind=FileKind.OLD_TAR,
        )
    inside = next((name for name in names if CHECKPOINT_NAME.search(name)), None)
    named = "" if inside is None else f": {inside} is inside"
    return NotACheckpointError(FileKind.TAR, f"a tar archive{named}", hint=_UNPACK)
