"""Files that torch itself writes, and what torch says of every tensor in them."""

from __future__ import annotations

import argparse
import functools
import hashlib
import pathlib
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ckptool import TensorRef, open_checkpoint
from ckptool.tensors.refs import Components, storages_of

__all__ = ["TREES", "WRITERS", "Facts", "content_hash", "facts", "tensors_in"]

PLAIN_DTYPES: Final = (
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
    "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "bits8", "bits16",
)  # fmt: skip


class Facts(NamedTuple):
    """What torch says of one tensor; what a layout does not have is None."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    layout: str
    requires_grad: bool
    sha256: str | None


def facts(tensor: Tensor) -> Facts:
    is_plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
    shape = tuple(tensor.shape) if not tensor.is_nested else (tensor.size(0),)
    return Facts(
        str(tensor.dtype).removeprefix("torch."),
        shape,
        tuple(tensor.stride()) if is_plain else None,
        _layout(tensor),
        tensor.requires_grad,
        content_hash(tensor) if is_plain else None,
    )


def _layout(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested:
        return "jagged" if tensor.layout == torch.jagged else "nested"
    return str(tensor.layout).removeprefix("torch.")


def content_hash(tensor: Tensor) -> str | None:
    """The content hash of a strided tensor, None on the meta device."""
    if tensor.device.type == "meta":
        return None
    flat = tensor.detach().resolve_conj().resolve_neg().flatten()
    plain = flat.new_empty(flat.shape).copy_(flat)
    raw = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return hashlib.sha256(raw).hexdigest()


def tensors_in(value: object, keys: tuple[object, ...] = ()) -> Iterator[tuple[object, Tensor]]:
    """Every tensor of plain containers, by its key path."""
    if isinstance(value, Tensor):
        yield keys, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, (*keys, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors_in(item, (*keys, index))


def every_dtype() -> dict[str, Tensor]:
    """Six random elements of each dtype."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in PLAIN_DTYPES:
        dtype = getattr(torch, name)
        raw = torch.randint(0, 256, (6 * dtype.itemsize,), dtype=torch.uint8, generator=generator)
        found[name] = (raw % 2 if name == "bool" else raw).view(dtype).reshape(2, 3)
    return found


def views_of_all_kinds() -> dict[str, Tensor]:
    """Tensors that do not lie in their storage one element behind the other."""
    base = torch.arange(120.0).reshape(10, 12)
    wave = torch.complex(torch.arange(20.0), -torch.arange(20.0)).reshape(4, 5)
    scalar = torch.tensor(3.0)
    return {
        "transposed": base.t(),
        "block": base[2:5, ::3],
        "expanded": torch.arange(3.0).reshape(3, 1).expand(3, 4),
        "diagonal": base.diagonal(),
        "every seventh": torch.arange(100)[5::7],
        "0-d": scalar,
        "tied": scalar,
        "empty": torch.empty(0, 3),
        "empty view": base[4:4],
        "conjugate": wave.conj(),
        "conjugate transposed": wave.conj().t(),
        "negative": wave.clone().conj().imag,
        "half conjugate": torch.view_as_complex(torch.randn(3, 2).half()).conj(),
    }


def marked_tensors() -> dict[str, Tensor]:
    """Parameters, buffers and tensors with attributes, saved as what they are."""
    noted = torch.ones(2)
    noted.note = "by hand"  # type: ignore[attr-defined]
    return {
        "parameter": nn.Parameter(torch.ones(2)),
        "frozen": nn.Parameter(torch.ones(2), requires_grad=False),
        "leaf": torch.ones(2, requires_grad=True),
        "buffer": nn.Buffer(torch.ones(3)),
        "noted": noted,
        "meta": torch.ones(2, 3, device="meta"),
    }


def tensors_of_several_parts() -> dict[str, Tensor]:
    """Sparse in every layout, quantized in every way, nested in both."""
    matrix = torch.eye(4)
    return {
        "coo": matrix.to_sparse(),
        "csr": matrix.to_sparse_csr(),
        "csc": matrix.to_sparse_csc(),
        "bsr": matrix.to_sparse_bsr((2, 2)),
        "bsc": matrix.to_sparse_bsc((2, 2)),
        "per tensor": torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.qint8),
        "per channel": torch.quantize_per_channel(
            torch.randn(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8
        ),
        "in four bits": torch.quantize_per_channel(
            torch.randn(2, 6), torch.tensor([0.1, 0.2]), torch.tensor([0.0, 1]), 0, torch.quint4x2
        ),
        "nested": torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)]),
        "jagged": torch.nested.nested_tensor(
            [torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged
        ),
    }


def training_state() -> dict[object, object]:
    """What training scripts save besides tensors."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x")),
        "rng": torch.get_rng_state(),
        "history": [1, 2.5, None],
        "array": np.arange(6).reshape(2, 3),
        "number": np.float64(3.5),
        "table": defaultdict(list, {"a": [torch.ones(1)]}),
        "ordered": OrderedDict(b=torch.zeros(2)),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        3: {(1, 2): torch.ones(1)},
    }


TREES: Final[dict[str, Callable[[], object]]] = {
    "every dtype": every_dtype,
    "views": views_of_all_kinds,
    "marked": marked_tensors,
    "several parts": tensors_of_several_parts,
    "training": training_state,
    "bare tensor": lambda: torch.arange(6.0).reshape(2, 3),
    "pairs": lambda: list(nn.Linear(2, 3).state_dict().items()),
}


def _big_endian(tree: object, path: Path) -> None:
    """What a big-endian machine writes: torch's file with the bytes of every number turned."""
    little = path.with_suffix(".little")
    torch.save(tree, little)
    with open_checkpoint(little) as checkpoint:
        tensors = [entry.tensor for entry in checkpoint.entries if entry.tensor is not None]
    widths = {key: width for tensor in tensors for key, width in _number_widths(tensor)}
    with zipfile.ZipFile(little) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            name = record.filename.partition("/")[2]
            if name == "byteorder":
                data = b"big"
            width = widths.get(name.removeprefix("data/"), 1) if name.startswith("data/") else 1
            data = np.frombuffer(data, f"u{width}").byteswap().tobytes() if width > 1 else data
            target.writestr(record.filename, data)


def _number_widths(tensor: TensorRef) -> Iterator[tuple[str, int]]:
    if isinstance(tensor.data, Components):
        for part in tensor.data.parts:
            if isinstance(part.value, TensorRef):
                yield from _number_widths(part.value)
        return
    for storage in storages_of(tensor):
        yield storage.key, tensor.dtype.itemsize // (2 if tensor.dtype.kind == "complex" else 1)


@contextmanager
def _without_crc() -> Iterator[None]:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _save_without_crc(tree: object, path: Path) -> None:
    with _without_crc():
        torch.save(tree, path)


def _save_legacy(tree: object, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(tree, path, _use_new_zipfile_serialization=False)


def _save_with_protocol(protocol: int, tree: object, path: Path) -> None:
    torch.save(tree, path, pickle_protocol=protocol)


WRITERS: Final[dict[str, Callable[[object, Path], None]]] = {
    "zip": torch.save,
    "legacy": _save_legacy,
    "big-endian": _big_endian,
    "without CRC": _save_without_crc,
    **{f"protocol {n}": functools.partial(_save_with_protocol, n) for n in (3, 4, 5)},
}
