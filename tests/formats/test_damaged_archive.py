"""Archives that end too early: what is whole is found, what is not is named, nothing is made up."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import check, open_checkpoint, read_bytes
from ckptool.errors import CutShortError
from ckptool.formats.archive import read_archive
from ckptool.formats.damaged_archive import find_archive, read_cut_archive
from ckptool.sources import BytesSource
from tests.builders import Tensor, ZipRecord, torch_zip, zip_archive
from tests.running import run

TENSORS: Final = {f"layer{n}.weight": Tensor("float32", (5, n + 1)) for n in range(6)}
WAYS: Final[dict[str, dict[str, Any]]] = {
    "with descriptors": {},
    "without descriptors": {"data_descriptor": False},
    "wide": {"zip64": True},
    "wide without descriptors": {"zip64": True, "data_descriptor": False},
    "without CRCs": {"crc": False},
    "deflated": {"compress": True},
    "storages first": {"order": [f"data/{n}" for n in range(6)]},
}


def saved_by_torch() -> bytes:
    written = io.BytesIO()
    torch.save({name: torch.ones(tensor.shape) for name, tensor in TENSORS.items()}, written)
    return written.getvalue()


def ends_of_storages(whole: bytes) -> list[int]:
    records = read_archive(BytesSource(whole)).records
    return [
        records[f"data/{n}"].offset + records[f"data/{n}"].stored_size for n in range(len(TENSORS))
    ]


@pytest.mark.parametrize("way", [*WAYS, "by torch"])
@given(data=st.data())
def test_an_archive_cut_anywhere_says_which_tensors_have_all_their_bytes(
    way: str, data: st.DataObject, tmp_path: Path
) -> None:
    whole = saved_by_torch() if way == "by torch" else torch_zip(TENSORS, **WAYS[way])
    length = data.draw(st.integers(4, len(whole) - 23))
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[:length])
    with pytest.raises(CutShortError) as caught:
        open_checkpoint(path)
    error = caught.value
    assert error.offset == length
    if error.tensors is None:
        return
    assert error.tensors == len(TENSORS)
    lengths = [end <= length for end in ends_of_storages(whole)]
    if way == "deflated":
        # Where a deflated record ends is known by its descriptor only.
        assert error.whole is not None
        assert error.whole <= sum(lengths)
    else:
        assert error.whole == sum(lengths)
    with open_checkpoint(path, keep_defects=True) as checkpoint:
        broken = {id(defect.entry) for defect in checkpoint.defects}
        for entry in checkpoint.entries:
            if id(entry) not in broken and entry.tensor is not None:
                expected = TENSORS[entry.path].elements() if way != "by torch" else None
                read = b"".join(read_bytes(entry.tensor))
                assert read == (expected or struct.pack("<f", 1) * (len(read) // 4))


def test_a_cut_archive_fails_its_check_even_where_all_tensors_are_whole(tmp_path: Path) -> None:
    whole = torch_zip(TENSORS)
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: len(whole) - 30])
    with open_checkpoint(path, keep_defects=True) as checkpoint:
        assert checkpoint.defects == ()
        assert [finding.code for finding in check(checkpoint).findings] == ["cut-short"]
    result = run("check", path)
    assert result.code == 1
    assert "warning: cut short" in result.err


def test_the_check_of_a_cut_archive_names_each_tensor_without_its_bytes(tmp_path: Path) -> None:
    whole = torch_zip(TENSORS)
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: ends_of_storages(whole)[3] - 1])
    with open_checkpoint(path, keep_defects=True) as checkpoint:
        found = {finding.path: finding.code for finding in check(checkpoint).findings}
    assert found == {
        "archive/data/3": "cut-short",
        "layer3.weight": "size",
        "layer4.weight": "record",
        "layer5.weight": "record",
    }


def test_the_crc_behind_a_record_vouches_for_it_in_a_cut_archive(tmp_path: Path) -> None:
    whole = bytearray(torch_zip(TENSORS))
    first, *_, last = ends_of_storages(bytes(whole))
    whole[first - 1] ^= 1
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: last - 1])
    with open_checkpoint(path, keep_defects=True) as checkpoint:
        found = {finding.path: finding.code for finding in check(checkpoint).findings}
    assert found == {
        "archive/data/5": "cut-short",
        "layer0.weight": "crc",
        "layer5.weight": "size",
    }


def test_what_looks_like_a_descriptor_inside_the_data_ends_no_record() -> None:
    decoys = struct.pack("<4sIII", b"PK\7\x08", 0, 7, 7) + b"PK\3\4"
    # This one even has the right distance, but nothing that could follow a record.
    data = decoys + struct.pack("<4sIII", b"PK\7\x08", 0, len(decoys), len(decoys)) + bytes(90)
    whole = zip_archive([ZipRecord("a/x", data), ZipRecord("a/y", b"123")])
    records = read_cut_archive(BytesSource(whole[:-60])).records
    assert (records["x"].size, records["x"].crc) == (len(data), zlib.crc32(data))


def test_a_descriptor_that_lies_across_two_reads_is_found() -> None:
    for length in range((1 << 20) - 30, (1 << 20) + 30, 3):
        whole = zip_archive([ZipRecord("a/x", bytes(length)), ZipRecord("a/y", b"1")])
        assert read_cut_archive(BytesSource(whole[:-40])).records["x"].size == length


def test_bytes_that_are_no_header_end_the_walk() -> None:
    archive = read_cut_archive(BytesSource(b"PK\3\4" + b"\xff" * 40))
    assert (archive.name, dict(archive.records)) == (None, {})
    assert archive.damage is not None
    assert dict(read_cut_archive(BytesSource(b"PK\3\4")).records) == {}
    method_12 = bytearray(zip_archive([ZipRecord("a/x", b"1")]))
    method_12[8] = 12
    assert dict(read_cut_archive(BytesSource(bytes(method_12[:60]))).records) == {}


def test_an_archive_of_another_kind_that_is_cut_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "cut.zip"
    path.write_bytes(zip_archive([ZipRecord("readme.txt", b"hello")])[:60])
    with pytest.raises(CutShortError) as caught:
        open_checkpoint(path)
    assert caught.value.tensors is None


@pytest.mark.parametrize("junk", [b"x", b"#!/bin/sh\n", bytes(100_000)])
@pytest.mark.parametrize("zip64_end", [True, False])
def test_an_archive_behind_other_bytes_is_found(junk: bytes, zip64_end: bool) -> None:
    whole = torch_zip(TENSORS, zip64_end=zip64_end)
    assert find_archive(BytesSource(whole)) == 0
    assert find_archive(BytesSource(junk + whole)) == len(junk)


@given(st.binary(max_size=200))
def test_no_archive_is_found_where_there_is_none(data: bytes) -> None:
    assert find_archive(BytesSource(data)) is None
    assert find_archive(BytesSource(data + b"PK\5\6" + bytes(18))) is None


@pytest.mark.parametrize("command", ["inspect", "list", "show", "diff", "strip", "reset-buffers"])
def test_no_command_but_check_and_scan_reads_a_cut_file(command: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    whole = torch_zip(TENSORS)
    path.write_bytes(whole[: ends_of_storages(whole)[4]])
    more: dict[str, tuple[str | Path, ...]] = {
        "show": ("*",),
        "diff": (path,),
        "strip": ("--dry-run", "--drop", "*"),
        "reset-buffers": ("--dry-run",),
    }
    result = run(command, path, *more.get(command, ()))
    assert result.code == 2
    assert "cut short" in result.err
    assert f"hint: ckptool check {path} names all" in result.err
