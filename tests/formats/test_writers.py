"""Containers written anew: the bytes that were read where nothing is edited."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from ckptool import UnsupportedFormatError, open_checkpoint
from ckptool.edit.storages import compact, keep_all
from ckptool.formats.archive import Archive, read_archive
from ckptool.formats.archive_writer import Record, write_archive
from ckptool.formats.content import (
    Content,
    Copy,
    EditedTree,
    Fresh,
    Piece,
    Rewrite,
    joined,
    piece_of,
    size_of,
)
from ckptool.formats.writers import check_writable, encode_tree, write_container
from ckptool.sources import BytesSource, Extent, FileSource
from tests import builders, strategies
from tests.builders import Tensor, ZipRecord
from tests.oracle import TREES, WRITERS
from tests.running import SAMPLES

WRITABLE = sorted(
    path
    for path in SAMPLES.iterdir()
    if path.suffix in (".pt", ".ckpt", ".safetensors") and path.is_file()
)


def bytes_of(pieces: Iterable[Piece]) -> bytes:
    return b"".join(chunk for piece in pieces for chunk in chunks_of(piece))


def chunks_of(piece: Piece) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        yield piece
    elif isinstance(piece, Copy):
        yield piece.source.read(piece.offset, piece.size)
    else:
        yield from piece.chunks()


def extent_of(data: bytes, *, deflate: bool = False) -> Extent:
    stored = data
    if deflate:
        packer = zlib.compressobj(wbits=-15)
        stored = packer.compress(data) + packer.flush()
    return Extent(BytesSource(b"?" + stored), 1, len(data), len(stored), deflate, zlib.crc32(data))


def with_id(archive: Archive) -> dict[str, Extent]:
    return {f"{archive.name}/{name}": extent for name, extent in archive.records.items()}


# Archives --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # torch announces betas
@pytest.mark.parametrize("tree", TREES)
def test_an_archive_of_torch_comes_out_again(tree: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    WRITERS["zip"](TREES[tree](), path)
    source = FileSource(path)
    records = [
        Record(name, Content(extent, 0, extent.size))
        for name, extent in with_id(read_archive(source)).items()
    ]
    pieces = list(write_archive(records))
    assert bytes_of(pieces) == path.read_bytes()
    # All of it is where it was, so that all but the directory is one copy.
    assert [type(piece) for piece in joined(pieces)][1:] == [Copy, bytes]
    source.close()


def test_an_archive_of_terabytes_comes_out_again_but_for_its_data(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    with FakeTensorMode():
        state = {"a": torch.empty(3), "b": torch.empty(5 << 30, dtype=torch.int8)}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({**state, "c": torch.zeros(2)}, path)
    source = FileSource(path)
    archive = read_archive(source)
    records = [
        Record(name, Content(extent, 0, extent.size)) for name, extent in with_id(archive).items()
    ]
    at = 0
    for piece in write_archive(records):
        if isinstance(piece, bytes):
            found = source.read(at, len(piece))
            # torch does not say the stored size of data that it skips.
            assert found == piece or b"large/data/1" in piece
        at += size_of(piece)
    assert at == source.size
    source.close()


@given(
    contents=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    alignment=st.sampled_from((1, 16, 64, 4096)),
)
def test_what_is_written_is_read_by_us_and_by_the_standard_library(
    contents: list[bytes], alignment: int, tmp_path: Path
) -> None:
    records = [Record(f"top/data/{n}", content) for n, content in enumerate(contents)]
    path = tmp_path / "archive.zip"
    path.write_bytes(bytes_of(write_archive(records, alignment)))
    source = FileSource(path)
    archive = read_archive(source)
    assert archive.name == "top"
    assert archive.stray_bytes == 0
    for content, extent in zip(contents, archive.records.values(), strict=True):
        assert extent.offset % alignment == 0
        assert source.read(extent.offset, extent.size) == content
    source.close()
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None


def test_compressed_records_stay_so_and_an_unrecorded_crc_stays_unrecorded() -> None:
    deflated = Content(extent_of(b"x" * 1000, deflate=True), 0, 1000)
    unknown = Content(extent_of(b"abc")._replace(crc=None), 0, 3)
    data = bytes_of(write_archive([Record("a/d", deflated), Record("a/u", unknown)]))
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.read("a/d") == b"x" * 1000
        facts = {one.filename: (one.compress_type, one.CRC) for one in opened.infolist()}
    assert facts == {"a/d": (8, zlib.crc32(b"x" * 1000)), "a/u": (0, 0)}


# Content and pieces ----------------------------------------------------------------------------


@given(data=st.data(), deflate=st.booleans())
def test_patches_go_to_their_places(data: st.DataObject, deflate: bool) -> None:
    whole = data.draw(st.binary(min_size=1, max_size=200))
    start = data.draw(st.integers(0, len(whole) - 1))
    size = data.draw(st.integers(0, len(whole) - start))
    expected = bytearray(whole[start : start + size])
    patches, at = [], 0
    while at < size and data.draw(st.booleans()):
        place = data.draw(st.integers(at, size - 1))
        patch = data.draw(st.binary(min_size=1, max_size=size - place))
        patches.append((place, patch))
        expected[place : place + len(patch)] = patch
        at = place + len(patch)
    content = Content(extent_of(whole, deflate=deflate), start, size, tuple(patches))
    fresh = Fresh(content)
    assert b"".join(fresh.chunks()) == expected
    assert (fresh.size, fresh.crc) == (size, zlib.crc32(expected))
    piece = piece_of(content)
    assert bytes_of([piece]) == expected
    assert isinstance(piece, Fresh if patches or deflate else Copy)


def test_a_patch_may_reach_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptool.sources.CHUNK_BYTES", 4)
    content = Content(extent_of(b"0123456789abcdef"), 1, 14, ((2, b"XXXXXXX"), (10, b"Y")))
    assert list(content.chunks()) == [b"12XX", b"XXXX", b"X" + b"aY" + b"c", b"de"]


@given(data=st.data())
def test_joined_pieces_are_the_same_bytes(data: st.DataObject) -> None:
    source = BytesSource(data.draw(st.binary(min_size=60, max_size=80)))
    cuts = st.tuples(st.integers(0, 40), st.integers(0, 20))
    copies = cuts.map(lambda cut: Copy(source, *cut))
    gaps = cuts.map(lambda cut: source.read_up_to(*cut))
    pieces = data.draw(st.lists(st.one_of(copies, gaps, st.binary(max_size=3)), max_size=8))
    found = list(joined(pieces))
    assert bytes_of(found) == bytes_of(pieces)
    assert len(found) <= len(pieces)


def test_copies_are_joined_over_what_stands_between_them() -> None:
    source = BytesSource(b"one, two, three")
    pieces: list[Piece] = [
        Copy(source, 0, 3),
        b", ",
        Copy(source, 5, 3),
        b"; ",
        Copy(source, 10, 5),
    ]
    assert list(joined(pieces)) == [Copy(source, 0, 8), b"; ", Copy(source, 10, 5)]


# Whole containers ------------------------------------------------------------------------------


def written_again(path: Path, *, tree: bool, is_compact: bool = False) -> bytes:
    """A container written from itself, its tree encoded again or copied."""
    with open_checkpoint(path) as checkpoint:
        container = checkpoint.container
        storages = keep_all(container)
        if is_compact:
            kept = compact(container, EditedTree(container.tree, {}))
            storages = kept.storages
        edited = EditedTree(container.tree, kept.moved if is_compact else {})
        encoded = encode_tree(container, edited, storages) if tree else None
        return bytes_of(write_container(container, Rewrite(encoded, storages)))


def without_id(path: Path) -> bytes:
    """An archive without the id that torch makes from its content."""
    source = FileSource(path)
    records = [
        Record(name, Content(extent, 0, extent.size))
        for name, extent in with_id(read_archive(source)).items()
        if not name.endswith(".data/serialization_id")
    ]
    data = bytes_of(write_archive(records))
    source.close()
    return data


@pytest.mark.parametrize("tree", [False, True], ids=["copied", "encoded"])
@pytest.mark.parametrize("path", WRITABLE, ids=lambda path: path.name)
def test_a_sample_comes_out_again(path: Path, tree: bool) -> None:
    is_zip = path.read_bytes()[:2] == b"PK"
    assert written_again(path, tree=tree) == (without_id(path) if is_zip else path.read_bytes())


@pytest.mark.parametrize("writer", ["zip", "legacy", "protocol 3", "protocol 4", "protocol 5"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tree", TREES)
def test_what_torch_writes_comes_out_again(writer: str, tree: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    try:
        WRITERS[writer](TREES[tree](), path)
    except (RuntimeError, NotImplementedError, AttributeError):
        pytest.skip("torch itself cannot write it")
    expected = path.read_bytes() if writer == "legacy" else without_id(path)
    assert written_again(path, tree=True) == expected


@given(tree=strategies.trees())
def test_another_picklers_file_is_stable_from_the_second_time_on(
    tree: object, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    first.write_bytes(builders.legacy({"t": tree, "w": Tensor("float32", (2,))}))
    second.write_bytes(written_again(first, tree=True, is_compact=True))
    assert written_again(second, tree=True, is_compact=True) == second.read_bytes()


def test_an_alignment_that_the_file_names_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "aligned.pt"
    records = builders.with_record(
        builders.torch_records({"w": Tensor("float32", (2,))}),
        ".storage_alignment",
        lambda record: replace(record, data=b"4096"),
    )
    path.write_bytes(builders.zip_archive(records, alignment=4096))
    data = written_again(path, tree=True)
    path.write_bytes(data)
    source = FileSource(path)
    assert {extent.offset % 4096 for extent in read_archive(source).records.values()} == {0}
    source.close()


@pytest.mark.parametrize("said", [b"0", b"-4", b"3", b"99999999", b"x", b""])
def test_an_alignment_that_cannot_be_is_torchs_own(said: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    records = [
        replace(record, data=said) if record.name.endswith(".storage_alignment") else record
        for record in builders.torch_records({"w": Tensor("float32", (2,))})
    ]
    path.write_bytes(builders.zip_archive([*records, ZipRecord("archive/notes", b"hello")]))
    path.write_bytes(written_again(path, tree=False))
    source = FileSource(path)
    archive = read_archive(source)
    assert {extent.offset % 64 for extent in archive.records.values()} == {0}
    assert source.read(archive.records["notes"].offset, 5) == b"hello"
    source.close()


@pytest.mark.parametrize(
    "data",
    [
        builders.torch_package({"model.pkl": {"w": Tensor("float32", (2,))}}),
        builders.to_pickle({"a": 1}),
        builders.torchscript(builders.script_module("Net", {}), b""),
    ],
    ids=["torch.package", "pickle", "TorchScript"],
)
def test_other_formats_are_refused_by_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(data)
    with open_checkpoint(path) as checkpoint, pytest.raises(UnsupportedFormatError) as caught:
        check_writable(checkpoint.container)
    assert "safetensors" in caught.value.supported
    assert "edits" in str(caught.value)
