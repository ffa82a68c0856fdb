"""The zip directory, and every way in which a record can contradict it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import open_checkpoint
from ckptool.errors import ArchiveError, CkptoolError, LimitExceededError
from ckptool.formats.archive import read_archive, read_record
from ckptool.pickling.limits import Limits
from ckptool.sources import BytesSource
from tests import strategies
from tests.builders import ZipRecord, zip_archive

LIMITS = Limits()


def contents(data: bytes) -> dict[str, bytes]:
    archive = read_archive(BytesSource(data))
    return {name: read_record(extent, LIMITS) for name, extent in archive.records.items()}


RECORDS = st.lists(
    st.builds(
        ZipRecord,
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
        st.binary(max_size=200),
        compress=st.booleans(),
        data_descriptor=st.booleans(),
        zip64=st.booleans(),
    ),
    unique_by=lambda record: record.name,
    max_size=6,
)


@given(RECORDS, st.booleans(), st.sampled_from((0, 64)))
def test_records_come_back_as_they_were_written(
    records: list[ZipRecord], zip64_end: bool, alignment: int
) -> None:
    inside = [replace(record, name=f"top/{record.name}") for record in records]
    data = zip_archive(inside, zip64_end=zip64_end, alignment=alignment)
    assert contents(data) == {record.name: record.data for record in records}


def test_python_s_own_zip_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"x" * 1000)
        archive.writestr("a/version", b"3\n")
    assert contents(path.read_bytes()) == {"data.pkl": b"x" * 1000, "version": b"3\n"}


def test_records_that_share_no_folder_keep_their_names() -> None:
    data = zip_archive([ZipRecord("a/x", b"1"), ZipRecord("b/x", b"2")])
    archive = read_archive(BytesSource(data))
    assert archive.name is None
    assert list(archive.records) == ["a/x", "b/x"]


def test_an_archive_is_found_before_a_comment() -> None:
    data = zip_archive([ZipRecord("a/x", b"1")], zip64_end=False)
    with_comment = data[:-2] + b"\x05\x00hello"
    assert contents(with_comment) == {"x": b"1"}
    assert read_archive(BytesSource(with_comment)).warnings == ()
    for cut in (b"PK\x05\x06", b""):
        with pytest.raises(ArchiveError, match="the directory at its end is not there"):
            read_archive(BytesSource(cut))


@pytest.mark.parametrize("junk", [b"\0", b"1234", bytes(1_000)])
def test_bytes_behind_an_archive_are_told(junk: bytes, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "t.pt")
    data = (tmp_path / "t.pt").read_bytes() + junk
    (warning,) = read_archive(BytesSource(data)).warnings
    assert warning == f"{len(junk):,} bytes follow the archive"
    (tmp_path / "t.pt").write_bytes(data)
    assert torch.load(tmp_path / "t.pt", weights_only=True).keys() == {"w"}


def test_of_two_directories_the_last_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    torch.save({"first": torch.ones(2)}, tmp_path / "a.pt")
    torch.save({"second": torch.ones(2)}, tmp_path / "b.pt")
    first = (tmp_path / "a.pt").read_bytes()
    both = first[:-2] + len((tmp_path / "b.pt").read_bytes()).to_bytes(2, "little")
    (tmp_path / "t.pt").write_bytes(both + (tmp_path / "b.pt").read_bytes())
    try:
        theirs = list(torch.load(tmp_path / "t.pt", weights_only=True))
    except RuntimeError:
        theirs = None
    try:
        with open_checkpoint(tmp_path / "t.pt") as checkpoint:
            ours = [entry.path for entry in checkpoint.entries]
    except CkptoolError:
        ours = None
    assert ours == theirs


def test_a_crc_of_zero_stands_for_none_recorded() -> None:
    data = zip_archive([ZipRecord("a/x", b"1", crc=0), ZipRecord("a/y", b"1")])
    records = read_archive(BytesSource(data)).records
    assert records["x"].crc is None
    assert records["y"].crc is not None


def changed(**fields: Any) -> bytes:
    first = replace(ZipRecord("a/x", b"content"), **fields)
    return zip_archive([first, ZipRecord("a/y", b"more")])


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (changed(local_name="a/z"), "another name"),
        (changed(local_offset=5), "local header"),
        (changed(size=3), "two different sizes"),
        (changed(method=12), "compression method 12"),
        (changed(local_offset=10**9), "local header"),
        (zip_archive([ZipRecord("a/x", b"1"), ZipRecord("a/x", b"2")]), "twice"),
        (zip_archive([ZipRecord("a/x", b"1"), ZipRecord("a/y", b"2", local_offset=0)]), "name"),
    ],
)
def test_a_contradiction_is_an_error(data: bytes, problem: str) -> None:
    with pytest.raises(ArchiveError, match=problem):
        read_archive(BytesSource(data))


def test_records_that_overlap_are_refused() -> None:
    inner = zip_archive([ZipRecord("a/y", b"in")], alignment=0)
    local_part = inner[: inner.index(b"PK\x01\x02")]
    outer = ZipRecord("a/x", local_part, data_descriptor=False)
    at = zip_archive([outer], alignment=0).index(local_part)
    data = zip_archive([outer, ZipRecord("a/y", b"in", local_offset=at)], alignment=0)
    with pytest.raises(ArchiveError) as caught:
        read_archive(BytesSource(data))
    assert caught.value.record in ("a/x", "a/y")


def test_content_that_does_not_have_its_crc_is_refused() -> None:
    data = changed(crc=12345)
    extent = read_archive(BytesSource(data)).records["x"]
    with pytest.raises(ArchiveError, match="CRC"):
        read_record(extent, LIMITS)


@pytest.mark.parametrize("wrong", [{"compressed_size": 2}, {"size": 50}, {"size": 150}])
def test_deflated_content_of_another_size_is_refused(wrong: dict[str, Any]) -> None:
    record = replace(ZipRecord("a/x", b"x" * 100, compress=True), **wrong)
    extent = read_archive(BytesSource(zip_archive([record]))).records["x"]
    with pytest.raises(ArchiveError, match="inflate"):
        read_record(extent, LIMITS)


def test_deflated_nonsense_is_refused() -> None:
    record = ZipRecord("a/x", b"\xff" * 20, method=8, size=500)
    extent = read_archive(BytesSource(zip_archive([record]))).records["x"]
    with pytest.raises(ArchiveError, match="inflated"):
        read_record(extent, LIMITS)


def test_a_bomb_is_not_inflated() -> None:
    record = ZipRecord("a/data.pkl", bytes(50_000_000), compress=True)
    extent = read_archive(BytesSource(zip_archive([record]))).records["data.pkl"]
    with pytest.raises(LimitExceededError) as caught:
        read_record(extent, LIMITS)
    assert caught.value.limit == "bytes per deflated byte"
    with pytest.raises(LimitExceededError, match="bytes in one record"):
        read_record(extent, LIMITS, most=1_000)


def test_a_mark_of_encryption_is_told() -> None:
    flagged = zip_archive([ZipRecord("a/x", b"1", flags=1)])
    (warning,) = read_archive(BytesSource(flagged)).warnings
    assert "encrypted" in warning


END = b"PK\x05\x06"


def _patched(data: bytes, offset_in_end: int, value: bytes) -> bytes:
    at = data.rindex(END) + offset_in_end
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: _patched(data, 4, b"\1\0"), "split"),
        (lambda data: _patched(data, 10, b"\7\0"), "fewer records"),
        (lambda data: _patched(data, 10, b"\1\0"), "more records"),
        (lambda data: _patched(data, 16, b"\xff\xff\xff\x7f"), "end record"),
        (lambda data: data.replace(b"PK\x01\x02", b"PK\x00\x02"), "breaks off"),
        (lambda data: data[:-30], "is not there"),
    ],
)
def test_a_broken_directory_is_an_error(change: Callable[[bytes], bytes], problem: str) -> None:
    data = zip_archive([ZipRecord("a/x", b"1"), ZipRecord("a/y", b"2")], zip64_end=False)
    with pytest.raises(ArchiveError, match=problem):
        read_archive(BytesSource(change(data)))


def test_a_zip64_end_that_says_otherwise_is_refused() -> None:
    data = zip_archive([ZipRecord("a/x", b"1")], zip64_end=True)
    read_archive(BytesSource(data))
    for change, problem in (
        (_patched(data, 10, b"\7\0"), "differ"),
        (data.replace(b"PK\x06\x06", b"PK\x06\x00"), "where it should be"),
        (
            data[: data.index(b"PK\x06\x07") + 8] + b"\xff" * 7 + b"\0" + data[-26:],
            "not in the file",
        ),
    ):
        with pytest.raises(ArchiveError, match=problem):
            read_archive(BytesSource(change))


def test_zip64_sizes_that_are_missing_are_named() -> None:
    record = ZipRecord("a/x", b"1", compressed_size=0xFFFFFFFF, size=0xFFFFFFFF)
    with pytest.raises(ArchiveError, match="ZIP64 sizes are missing"):
        read_archive(BytesSource(zip_archive([record])))


@given(st.data())
def test_mutated_archives_give_records_or_an_error(data: st.DataObject) -> None:
    whole = zip_archive(
        [ZipRecord("a/x", b"content", zip64=True), ZipRecord("a/y", b"x" * 90, compress=True)],
        alignment=0,
    )
    try:
        contents(data.draw(strategies.mutations(whole)))
    except CkptoolError:
        return
