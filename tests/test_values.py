"""Elements through strides, offsets and byte order, against torch."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import open_checkpoint, read_bytes, read_elements, sources, values
from ckptool.errors import ArchiveError, LimitExceededError, TensorError
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import Strided, TensorRef
from ckptool.values import numpy_dtype
from tests import builders, strategies
from tests.builders import Storage, Tensor, torch_zip


def tensor_of(path: Path, tree: object, **options: object) -> TensorRef:
    path.write_bytes(torch_zip({"t": tree}, **options))  # type: ignore[arg-type]
    checkpoint = open_checkpoint(path)
    (entry,) = checkpoint.entries
    assert entry.tensor is not None
    return entry.tensor


@given(tensor=strategies.tensors())
def test_elements_come_in_row_major_order(
    tensor: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = tensor_of(tmp_path_factory.mktemp("t") / "t.pt", tensor)
    assert b"".join(read_bytes(found)) == tensor.elements()
    chunks = list(read_elements(found))
    assert b"".join(chunk.tobytes() for chunk in chunks) == tensor.elements()


@pytest.mark.parametrize("chunk", [8, 24, 1 << 20])
def test_no_chunk_is_larger_than_the_bound(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(sources, "CHUNK_BYTES", chunk)
    kept = torch.arange(60, dtype=torch.float64).reshape(3, 20)
    for tensor in (kept, kept.t(), kept[:, ::3], kept[1]):
        path = tmp_path / "t.pt"
        torch.save({"t": tensor}, path)
        with open_checkpoint(path) as checkpoint:
            (entry,) = checkpoint.entries
            assert entry.tensor is not None
            chunks = list(read_elements(entry.tensor))
        assert all(0 < part.nbytes <= chunk for part in chunks)
        np.testing.assert_array_equal(np.concatenate(chunks), tensor.contiguous().flatten())


@given(tensor=strategies.tensors(), held=st.sampled_from([16, 100]))
def test_what_is_too_large_to_hold_is_gathered_piece_by_piece(
    tensor: Tensor, held: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = tensor_of(tmp_path_factory.mktemp("t") / "t.pt", tensor)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(values, "_HELD_BYTES", held)
        patched.setattr(values, "_SHORT_RUN_BYTES", held // 2)
        assert b"".join(read_bytes(found)) == tensor.elements()


def test_gathering_holds_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_HELD_BYTES", 1 << 14)
    monkeypatch.setattr(values, "_SHORT_RUN_BYTES", 1 << 10)
    kept = torch.arange(1 << 17, dtype=torch.int32).reshape(8, 128, 128)
    torch.save({"t": kept.permute(2, 0, 1)}, tmp_path / "t.pt")
    digest = hashlib.sha256()
    with open_checkpoint(tmp_path / "t.pt") as checkpoint:
        tensor = checkpoint.entries[0].tensor
        assert tensor is not None
        tracemalloc.start()
        for part in read_bytes(tensor):
            digest.update(part)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(kept.permute(2, 0, 1).numpy().tobytes()).digest()
    assert peak < kept.nbytes // 2


def test_a_large_compressed_storage_is_not_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_HELD_BYTES", 64)
    storage = Tensor("int32", (500,)).storage
    tensor = Tensor("int32", (100,), storage=storage, stride=(3,))
    found = tensor_of(tmp_path / "t.pt", tensor, compress=True)
    with pytest.raises(LimitExceededError, match="compressed"):
        list(read_bytes(found))


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("dtype", sorted(builders.STORAGE_CLASSES))
def test_both_byte_orders_give_the_same_elements(
    dtype: str, byteorder: builders.ByteOrder, tmp_path: Path
) -> None:
    tensor = Tensor(dtype, (2, 3))
    found = tensor_of(tmp_path / "t.pt", tensor, byteorder=byteorder)
    assert b"".join(read_bytes(found)) == tensor.elements()


def test_compressed_storages_are_inflated_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "CHUNK_BYTES", 64)
    monkeypatch.setattr(sources, "CHUNK_BYTES", 64)
    storage = Tensor("int32", (500,)).storage
    tensor = Tensor("int32", (100,), storage=storage, offset=30, stride=(3,))
    found = tensor_of(tmp_path / "t.pt", tensor, compress=True)
    assert b"".join(read_bytes(found)) == tensor.elements()
    plain = Tensor("int32", (100,), storage=storage, offset=30)
    found = tensor_of(tmp_path / "t.pt", plain, compress=True)
    assert b"".join(read_bytes(found)) == plain.elements()


def test_a_compressed_storage_that_cannot_be_inflated_is_an_error(tmp_path: Path) -> None:
    for stored, problem in ((b"\xff" * 40, "cannot be inflated"), (b"\x03\x00", "less than")):
        records = builders.with_record(
            builders.torch_records({"t": Tensor("int32", (100,))}),
            "data/0",
            lambda record, stored=stored: builders.ZipRecord(  # type: ignore[misc]
                record.name, stored, method=8, size=400
            ),
        )
        path = tmp_path / "t.pt"
        path.write_bytes(builders.zip_archive(records))
        with open_checkpoint(path) as checkpoint:
            (entry,) = checkpoint.entries
            assert entry.tensor is not None
            with pytest.raises(ArchiveError, match=problem):
                list(read_bytes(entry.tensor))


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    found = tensor_of(path, Tensor("int32", (1000,)))
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Exception, match="cut short"):
        list(read_bytes(found))


def test_tensors_without_elements_of_their_own_say_so(tmp_path: Path) -> None:
    torch.save({"t": torch.ones(2, device="meta")}, tmp_path / "meta.pt")
    torch.save({"t": torch.eye(2).to_sparse()}, tmp_path / "sparse.pt")
    for name, problem in (("meta", "meta device"), ("sparse", "components")):
        with open_checkpoint(tmp_path / f"{name}.pt") as checkpoint:
            (entry,) = checkpoint.entries
            assert entry.tensor is not None
            for read in (read_bytes, read_elements):
                with pytest.raises(TensorError, match=problem):
                    list(read(entry.tensor))


def test_elements_that_share_bytes_are_read_in_a_row_or_not_at_all(tmp_path: Path) -> None:
    packed = DTYPES["quint4x2"]
    plain = tensor_of(tmp_path / "t.pt", Tensor("uint8", (8,)))
    assert isinstance(plain.data, Strided)
    in_a_row = replace(plain, dtype=packed, shape=(4, 4), data=plain.data._replace(stride=(4, 1)))
    assert b"".join(read_bytes(in_a_row)) == b"".join(read_bytes(plain))
    turned = replace(in_a_row, data=plain.data._replace(stride=(1, 4)))
    with pytest.raises(TensorError, match="share a byte"):
        list(read_bytes(turned))


def test_a_stride_of_zero_is_read_up_to_a_bound(tmp_path: Path) -> None:
    call = builders.Call(
        builders.Global("torch._utils", "_rebuild_tensor_v2"),
        (Tensor("float32", (1,)).storage, 0, (1 << 40,), (0,), False, {}),
    )
    with pytest.raises(LimitExceededError):
        list(read_bytes(tensor_of(tmp_path / "t.pt", call)))


def test_an_empty_storage_needs_no_record(tmp_path: Path) -> None:
    tensor = Tensor("float32", (0, 3), storage=Storage("float32", b""))
    found = tensor_of(tmp_path / "t.pt", tensor, without=["data/0"])
    assert list(read_bytes(found)) == []
    assert list(read_elements(found)) == []


def test_every_dtype_has_a_numpy_dtype_of_its_size() -> None:
    for name, dtype in DTYPES.items():
        parts = 2 if name == "complex32" else 1
        assert numpy_dtype(dtype).itemsize * parts == dtype.itemsize, name


def test_extension_floats_have_the_values_that_torch_gives_them(tmp_path: Path) -> None:
    names = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
             "float8_e8m0fnu")  # fmt: skip
    every = torch.arange(256, dtype=torch.uint8)
    for name in names:
        bits = every if name != "bfloat16" else every.repeat_interleave(2)
        tensor = bits.view(getattr(torch, name))
        torch.save({"t": tensor}, tmp_path / "t.pt")
        with open_checkpoint(tmp_path / "t.pt") as checkpoint:
            (entry,) = checkpoint.entries
            assert entry.tensor is not None
            found = list(itertools.chain(*read_elements(entry.tensor)))
        np.testing.assert_array_equal(np.array(found, np.float32), tensor.float().numpy())
