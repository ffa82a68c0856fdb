"""Equality from the bytes, and from what is recorded of them."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import Checkpoint, Figures, diff, open_checkpoint, sources, values
from ckptool.analysis.diff import equality
from ckptool.analysis.diff.equality import are_same_bytes, is_same_stream
from ckptool.analysis.diff.tensor_pair import TensorPair
from ckptool.analysis.progress import UNWATCHED
from tests import builders, oracle
from tests.analysis.diff.tensor_pairs import compare_files, compare_saved
from tests.builders import Storage, Tensor, ZipRecord, torch_records, torch_zip

NUMEL: Final = 3000
CONTAINERS: Final[dict[str, Callable[[Tensor], bytes]]] = {
    "stored": lambda tensor: torch_zip({"t": tensor}),
    "without CRC": lambda tensor: torch_zip({"t": tensor}, crc=False),
    "deflated": lambda tensor: torch_zip({"t": tensor}, compress=True, data_descriptor=False),
    "big-endian": lambda tensor: torch_zip({"t": tensor}, byteorder="big"),
    "legacy": lambda tensor: builders.legacy({"t": tensor}),
    "safetensors": lambda tensor: builders.safetensors({"t": tensor}),
}


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "CHUNK_BYTES", 256)
    monkeypatch.setattr(sources, "CHUNK_BYTES", 256)
    monkeypatch.setattr(equality, "CHUNK_BYTES", 256)
    monkeypatch.setattr(equality, "_BEGINNING", 16)
    monkeypatch.setattr(equality, "_PIECE", 1000)


def content(numel: int = NUMEL, width: int = 4) -> bytes:
    return bytes((7 * at + at // 251) % 251 for at in range(numel * width))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def pair_of(a: Checkpoint, b: Checkpoint) -> TensorPair:
    (first,), (second,) = a.entries, b.entries
    assert first.tensor is not None
    assert second.tensor is not None
    return TensorPair(first.tensor, second.tensor)


def has_same_bytes(folder: Path, a: bytes, b: bytes) -> bool:
    (folder / "a").write_bytes(a)
    (folder / "b").write_bytes(b)
    with open_checkpoint(folder / "a") as first, open_checkpoint(folder / "b") as second:
        (is_same,) = are_same_bytes([pair_of(first, second)], UNWATCHED)
    return is_same


# Bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", CONTAINERS)
@pytest.mark.parametrize("second", CONTAINERS)
@pytest.mark.usefixtures("_small_chunks")
def test_the_same_content_is_equal_whatever_it_is_stored_in(
    first: str, second: str, tmp_path: Path
) -> None:
    a, b = (Tensor("int32", (30, 100), content()) for _ in "ab")
    found = compare_files(tmp_path, CONTAINERS[first](a), CONTAINERS[second](b))
    assert (found.verdict, found.figures) == ("equal", Figures(0, 0, 0, 0))
    other = Tensor("int32", (30, 100), flipped(content(), 8 * 11_999))
    found = compare_files(tmp_path, CONTAINERS[first](a), CONTAINERS[second](other))
    assert (found.verdict, found.figures.changed_elements) == ("changed", 1)


@pytest.mark.parametrize("second", CONTAINERS)
@given(bit=st.integers(0, 32 * NUMEL - 1))
def test_one_flipped_bit_anywhere_is_found(second: str, bit: int, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(values, "CHUNK_BYTES", 256)
        patched.setattr(sources, "CHUNK_BYTES", 256)
        patched.setattr(equality, "CHUNK_BYTES", 256)
        patched.setattr(equality, "_BEGINNING", 16)
        patched.setattr(equality, "_PIECE", 1000)
        a = CONTAINERS["stored"](Tensor("int32", (NUMEL,), content()))
        b = CONTAINERS[second](Tensor("int32", (NUMEL,), flipped(content(), bit)))
        assert not has_same_bytes(tmp_path, a, b)


@pytest.mark.usefixtures("_small_chunks")
def test_a_difference_on_either_side_of_each_boundary_is_found(tmp_path: Path) -> None:
    edges = (64, 256, 320, 4000, 4064, 8000)
    for at in (0, *(edge + step for edge in edges for step in (-1, 0)), 4 * NUMEL - 1):
        for name in ("without CRC", "deflated"):
            a = CONTAINERS["without CRC"](Tensor("int32", (NUMEL,), content()))
            b = CONTAINERS[name](Tensor("int32", (NUMEL,), flipped(content(), 8 * at)))
            assert not has_same_bytes(tmp_path, a, b), (at, name)


@pytest.mark.parametrize("numel", [0, 1, 15, 16, 17, 63, 64, 65, 80, 999, 1000, 1001, 2001])
@pytest.mark.usefixtures("_small_chunks")
def test_no_length_of_a_tensor_is_special(numel: int, tmp_path: Path) -> None:
    plain = Tensor("int32", (numel,), content(numel))
    a, b = CONTAINERS["stored"](plain), CONTAINERS["legacy"](plain)
    assert has_same_bytes(tmp_path, a, b)
    if numel:
        last = flipped(content(numel), 32 * numel - 1)
        b = CONTAINERS["legacy"](Tensor("int32", (numel,), last))
        assert not has_same_bytes(tmp_path, a, b)


def test_a_flipped_bit_in_a_large_tensor_is_found_with_the_chunks_as_they_are(
    tmp_path: Path,
) -> None:
    numel = (1 << 22) + 3
    data = bytes(numel)
    a = CONTAINERS["without CRC"](Tensor("uint8", (numel,), data))
    for at in (0, 1023, 1024, (1 << 20) + 1023, (1 << 20) + 1024, (1 << 22) - 1, numel - 1):
        b = CONTAINERS["without CRC"](Tensor("uint8", (numel,), flipped(data, 8 * at)))
        found = compare_files(tmp_path, a, b)
        assert (found.verdict, found.figures.changed_elements) == ("changed", 1)


@pytest.mark.usefixtures("_small_chunks")
def test_each_of_many_pairs_has_its_own_answer(tmp_path: Path) -> None:
    tensors = {str(at): Tensor("int32", (2500,), content(2500)) for at in range(9)}
    changed = dict(tensors)
    for at in (1, 4, 8):
        changed[str(at)] = Tensor("int32", (2500,), flipped(content(2500), 9000 * at + 5))
    (tmp_path / "a").write_bytes(torch_zip(tensors, crc=False))
    (tmp_path / "b").write_bytes(torch_zip(changed, crc=False))
    found = compare_saved(tmp_path / "a", tmp_path / "b")
    different = {name for name, one in found.items() if one.verdict != "equal"}
    assert different == {"1", "4", "8"}


def chunks(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = (data[start:stop] for start, stop in itertools.pairwise(at))
    yield from filter(None, parts)


CUTS = st.lists(st.integers(0, 1000), max_size=6)


@given(a=st.binary(max_size=40), b=st.binary(max_size=40), first=CUTS, second=CUTS)
def test_streams_are_the_same_however_they_are_cut(
    a: bytes, b: bytes, first: list[int], second: list[int]
) -> None:
    assert is_same_stream(chunks(a, first), chunks(a, second))
    assert is_same_stream(chunks(a, first), chunks(b, second)) is (a == b)
    assert is_same_stream(chunks(a, first), chunks(a + b, second)) is (not b)
    assert is_same_stream(chunks(a + b, first), chunks(a, second)) is (not b)


# What is recorded --------------------------------------------------------------------------------


def zip_of(tensor: object, *, data: bytes | None = None, crc: int | None = None) -> bytes:
    """An archive whose storage has other bytes, or another CRC, than is recorded of the tensor."""

    def change(record: ZipRecord) -> ZipRecord:
        recorded = zlib.crc32(record.data) if crc is None else crc
        return replace(record, data=record.data if data is None else data, crc=recorded)

    return builders.zip_archive(
        builders.with_record(torch_records({"t": tensor}), "data/0", change)
    )


ONES: Final = b"\0\0\x80\x3f" * 50
TWOS: Final = b"\0\0\0\x40" * 50


def ones() -> Tensor:
    return Tensor("float32", (5, 10), ONES)


def test_quick_trusts_an_equal_crc_and_does_not_read(tmp_path: Path) -> None:
    a, b = zip_of(ones()), zip_of(ones(), data=TWOS)
    assert compare_files(tmp_path, a, b, quick=True).verdict == "equal"
    assert compare_files(tmp_path, a, b).verdict == "changed"


def test_quick_says_changed_where_the_crc_of_whole_storages_differs(tmp_path: Path) -> None:
    found = compare_files(tmp_path, zip_of(ones()), zip_of(ones(), crc=1), quick=True)
    assert (found.verdict, found.figures) == ("changed", Figures())
    other = Tensor("float32", (5, 10), TWOS)
    found = compare_files(tmp_path, zip_of(ones()), zip_of(other), quick=True)
    assert (found.verdict, found.figures) == ("changed", Figures())


def test_a_tolerance_is_only_told_by_reading(tmp_path: Path) -> None:
    other = Tensor("float32", (5, 10), TWOS)
    found = compare_files(tmp_path, zip_of(ones()), zip_of(other), quick=True, atol=1)
    assert (found.verdict, found.figures.max_abs) == ("close", 1)


def test_a_wrong_crc_does_not_make_equal_bytes_differ(tmp_path: Path) -> None:
    found = compare_files(tmp_path, zip_of(ones()), zip_of(ones(), crc=1))
    assert (found.verdict, found.figures) == ("equal", Figures(0, 0, 0, 0))


@pytest.mark.parametrize("options", [{"crc": False}, {"crc": False, "compress": True}])
def test_quick_reads_where_no_crc_is_recorded(options: dict[str, bool], tmp_path: Path) -> None:
    a = torch_zip({"t": ones()})
    for data, verdict in ((ONES, "equal"), (TWOS, "changed")):
        tensor = Tensor("float32", (5, 10), data)
        for b in (torch_zip({"t": tensor}, **options), builders.legacy({"t": tensor})):  # type: ignore[arg-type]
            found = compare_files(tmp_path, a, b, quick=True)
            assert found.verdict == verdict
            assert found.figures.changed_elements == (50 if verdict == "changed" else 0)


def test_quick_reads_what_is_only_a_part_of_its_storage(tmp_path: Path) -> None:
    storages = [Storage("float32", ONES + tail) for tail in (ONES, TWOS)]
    for offset, verdict in ((0, "equal"), (50, "changed")):
        a, b = (Tensor("float32", (50,), storage=storage, offset=offset) for storage in storages)
        found = compare_files(tmp_path, zip_of(a), zip_of(b), quick=True)
        assert (found.verdict, found.figures.changed_elements) == (verdict, offset)


def test_quick_trusts_an_equal_crc_of_a_part_as_well(tmp_path: Path) -> None:
    a, b = (Tensor("float32", (20,), ONES, offset=3) for _ in "ab")
    found = compare_files(tmp_path, zip_of(a), zip_of(b, data=TWOS), quick=True)
    assert found.verdict == "equal"


@pytest.mark.parametrize(
    "other",
    [
        Tensor("float32", (5, 10), ONES, stride=(1, 5)),
        Tensor("int32", (5, 10), ONES),
        Tensor("float32", (5, 5), ONES),
    ],
)
def test_an_equal_crc_says_nothing_of_other_views(other: Tensor, tmp_path: Path) -> None:
    a = Tensor("float32", (5, 10), range(50))
    b = Tensor(other.dtype, other.shape, a.storage.data, stride=other.stride)
    quick = compare_files(tmp_path, zip_of(a), zip_of(b), quick=True)
    assert quick.verdict == compare_files(tmp_path, zip_of(a), zip_of(b)).verdict != "equal"


def test_quick_says_so(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(zip_of(ones()))
    with open_checkpoint(tmp_path / "a") as a, open_checkpoint(tmp_path / "b") as b:
        quick, whole = diff(a, b, quick=True), diff(a, b)
    assert (quick.is_quick, whole.is_quick) == (True, False)
    assert (len(quick.notes), len(whole.notes)) == (1, 0)


# torch warns of sparse, quantized and nested tensors, and of how it saves them.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [oracle.every_dtype, oracle.tensors_of_several_parts])
def test_a_wrong_crc_does_not_make_any_kind_of_tensor_differ(
    make: Callable[[], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    tensors = make()
    torch.save(tensors, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = [ZipRecord(name, archive.read(name)) for name in archive.namelist()]
    wrong = [
        replace(one, crc=zlib.crc32(one.data) ^ 0xFF) if "/data/" in one.name else one
        for one in records
    ]
    (tmp_path / "b.pt").write_bytes(builders.zip_archive(wrong))
    found = compare_saved(tmp_path / "a.pt", tmp_path / "b.pt")
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(tensors, "equal")


def test_bytes_that_differ_against_equal_crcs_are_warned_of(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(4.0), "v": torch.arange(3.0)}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    number = torch.tensor([3.0]).numpy().tobytes()
    assert data.count(number) == 1
    (tmp_path / "b.pt").write_bytes(data.replace(number, torch.tensor([5.0]).numpy().tobytes()))
    with open_checkpoint(tmp_path / "a.pt") as a, open_checkpoint(tmp_path / "b.pt") as b:
        found = diff(a, b)
    assert [one.label for one in found.entries if one.change == "changed"] == ["w"]
    (warning,) = found.warnings
    assert "the bytes of w differ" in warning
