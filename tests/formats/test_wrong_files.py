"""Files and paths that are no checkpoint: each is called what it is, with the next step."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from ckptool import FileKind, open_checkpoint
from ckptool.errors import CkptoolError, InputError, NotACheckpointError, UnsupportedFormatError
from tests import builders
from tests.builders import Tensor, ZipRecord, torch_zip, zip_archive
from tests.running import SAMPLES, run

CHECKPOINT: Final = torch_zip({"w": Tensor("float32", (2,))})


def npz() -> bytes:
    written = io.BytesIO()
    np.savez(written, a=np.ones(2))
    return written.getvalue()


def tar_of(name: str) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(CHECKPOINT)
        tar.addfile(member, io.BytesIO(CHECKPOINT))
    return written.getvalue()


FILES: Final[dict[str, tuple[Callable[[], bytes], FileKind, str]]] = {
    "a Git LFS pointer": (builders.lfs_pointer, FileKind.GIT_LFS_POINTER, "sha256 4d7a2146"),
    "a login page": (builders.html_page, FileKind.HTML, "'Sign in'"),
    "a page without a title": (lambda: b"<html><body>", FileKind.HTML, "an HTML page"),
    "an error of a file store": (builders.s3_error_xml, FileKind.STORE_ERROR, "AccessDenied"),
    "XML": (lambda: b"<?xml version='1.0'?><a/>", FileKind.XML, "XML"),
    "JSON": (lambda: b'{"error": "not found"}', FileKind.JSON, '"error"'),
    "the index of shards": (
        lambda: b'{"metadata": {}, "weight_map": {"w": "model-00001-of-00002.bin"}}',
        FileKind.SHARD_INDEX,
        "sharded",
    ),
    "a spec": (
        (SAMPLES / "specs" / "my_model.json").read_bytes,
        FileKind.MODEL_SPEC,
        "spec of a model",
    ),
    "plain text": (lambda: b"Entry not found\n", FileKind.TEXT, "'Entry not found'"),
    "gzip": (lambda: gzip.compress(CHECKPOINT), FileKind.GZIP, "gzip"),
    "bzip2": (lambda: bz2.compress(CHECKPOINT), FileKind.BZIP2, "bzip2"),
    "xz": (lambda: lzma.compress(CHECKPOINT), FileKind.XZ, "xz"),
    "zstandard": (lambda: b"(\xb5/\xfd" + bytes(20), FileKind.ZSTANDARD, "zstandard"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(26), FileKind.SEVEN_ZIP, "7z"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\x00", FileKind.RAR, "rar"),
    "a tar": (lambda: tar_of("run/model.pth"), FileKind.TAR, "run/model.pth is inside"),
    "the tar of old torch": (builders.tar_of_old_torch, FileKind.OLD_TAR, "before 0.1.10"),
    "a zip around": (
        lambda: builders.zip_around(CHECKPOINT, "weights"),
        FileKind.ZIP_AROUND,
        "weights is inside",
    ),
    "a deflated zip around": (
        lambda: zip_archive([ZipRecord("a/b.pth", CHECKPOINT, compress=True)]),
        FileKind.ZIP_AROUND,
        "a/b.pth is inside",
    ),
    "another zip": (
        lambda: builders.zip_around(b"hello", "readme.txt"),
        FileKind.ZIP,
        "1 records without a data.pkl",
    ),
    "a zip without records": (lambda: b"PK\x05\x06" + bytes(18), FileKind.ZIP, "without records"),
    "a zip behind other bytes": (
        lambda: b"#!/bin/sh\n" + CHECKPOINT,
        FileKind.ZIP_BEHIND,
        "behind 10 other bytes",
    ),
    "ONNX": (lambda: b"\x08\x07\x12\x07pytorch", FileKind.ONNX, "ONNX"),
    "ONNX of another writer": (lambda: b"\x08\x09\x3a\x10" + bytes(20), FileKind.ONNX, "ONNX"),
    "GGUF": (lambda: b"GGUF" + bytes(20), FileKind.GGUF, "GGUF"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(20), FileKind.HDF5, "Keras"),
    "Keras": (
        lambda: zip_archive([ZipRecord("config.json", b"{}"), ZipRecord("model.weights.h5", b"")]),
        FileKind.KERAS,
        "Keras",
    ),
    "a numpy array": (builders.numpy_array, FileKind.NPY, "numpy"),
    "numpy arrays": (npz, FileKind.NPZ, "npz"),
    "a table of TensorFlow": (
        lambda: b"\0\0\1model" + bytes.fromhex("57fb808b247547db"),
        FileKind.TENSORFLOW,
        "index of a TensorFlow",
    ),
    "TensorFlow's list": (
        lambda: b'model_checkpoint_path: "model-1"\n',
        FileKind.TENSORFLOW,
        "list",
    ),
    "nothing": (lambda: b"", FileKind.EMPTY, "empty"),
    "zeros": (lambda: bytes(3_000_000), FileKind.ZEROS, "all of its 3,000,000 bytes are zero"),
    "zeros at first": (
        lambda: bytes(2_000_000) + b"\1",
        FileKind.ZEROS,
        "its first 2,000,000 bytes are zero",
    ),
    "a program": (lambda: b"\x7fELF\2\1\1", FileKind.ELF, "ELF"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n", FileKind.PNG, "PNG"),
    "a document": (lambda: b"%PDF-1.7", FileKind.PDF, "PDF"),
    "noise": (lambda: bytes(range(0xA0, 0xF0)), FileKind.UNKNOWN, "no format that is known"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    build, kind, words = FILES[name]
    path = tmp_path / "model.pt"
    path.write_bytes(build())
    with pytest.raises(CkptoolError) as caught:
        open_checkpoint(path)
    error = caught.value
    assert isinstance(error, NotACheckpointError | UnsupportedFormatError)
    assert error.file_kind is kind
    assert words in error.found
    result = run("inspect", path, "--json")
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {error}")
    told = json.loads(result.out)["error"]
    assert (told["file_kind"], told["path"]) == (kind.value, str(path))


def test_what_says_how_to_go_on_does_so(tmp_path: Path) -> None:
    path = tmp_path / "junk and archive.pt"
    path.write_bytes(b"#!/bin/sh\n" + CHECKPOINT)
    with pytest.raises(NotACheckpointError) as caught:
        open_checkpoint(path)
    command = (caught.value.hint or "").partition(" gives")[0]
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout == CHECKPOINT


def test_a_large_file_of_no_known_kind_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    with path.open("wb") as file:
        file.write(b"\xff\x01\x02")
        file.truncate(1 << 31)
    with pytest.raises(NotACheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.file_kind is FileKind.UNKNOWN


def test_tensors_of_tensorflow_are_known_by_the_index_beside_them(tmp_path: Path) -> None:
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(b"\xff" * 100)
    with pytest.raises(NotACheckpointError) as caught:
        open_checkpoint(data)
    assert caught.value.file_kind is FileKind.UNKNOWN
    (tmp_path / "model.index").write_bytes(b"")
    with pytest.raises(NotACheckpointError, match=r"of model\.index") as caught:
        open_checkpoint(data)
    assert caught.value.file_kind is FileKind.TENSORFLOW


@pytest.mark.parametrize(
    ("names", "kind", "hint"),
    [
        ((), FileKind.DIRECTORY, None),
        (("config.json",), FileKind.DIRECTORY, None),
        (("pytorch_model.bin", "config.json"), FileKind.DIRECTORY, "pytorch_model.bin"),
        (("a.pt", "b.pt", "c.pt", "d.pt", "e.pt"), FileKind.DIRECTORY, "a.pt, b.pt, c.pt and 2"),
        ((".metadata", "__0_0.distcp"), FileKind.DISTRIBUTED, None),
        (("data.pkl", "version"), FileKind.UNPACKED, "zip -0 -r"),
        (("saved_model.pb",), FileKind.TENSORFLOW, None),
    ],
    ids=str,
)
def test_a_directory_is_called_what_it_is(
    names: tuple[str, ...], kind: FileKind, hint: str | None, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(NotACheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.file_kind is kind
    assert caught.value.hint is None if hint is None else hint in (caught.value.hint or "")


def test_a_missing_file_comes_with_the_names_that_are_close(tmp_path: Path) -> None:
    (tmp_path / "my_model.pt").write_bytes(b"")
    (tmp_path / "other.txt").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "my_mdel.pt")
    assert caught.value.file_kind is FileKind.MISSING
    assert caught.value.hint == f"close: {tmp_path / 'my_model.pt'}"
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "missing" / "model.pt")
    assert (caught.value.file_kind, caught.value.hint) == (FileKind.MISSING, None)


def test_what_has_no_bytes_to_be_read_by_range_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket may not be long.
        server.bind(name := f"/tmp/{os.getpid()}.socket")
        try:
            for path in (tmp_path / "pipe", Path("/dev/null"), Path(name)):
                with pytest.raises(InputError) as caught:
                    open_checkpoint(path)
                assert caught.value.file_kind is FileKind.DEVICE
        finally:
            os.unlink(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(CHECKPOINT)
    path.chmod(0)
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    assert caught.value.file_kind is FileKind.NO_PERMISSION
