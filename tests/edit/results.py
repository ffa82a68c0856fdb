"""What torch says of a file before and after an edit, and what lies in its records."""

from __future__ import annotations

import argparse
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ckptool import Plan, open_checkpoint, plan_reset_buffers, plan_strip, write_checkpoint
from ckptool.spec.strict_load import Model
from tests.oracle import content_hash, tensors_in

__all__ = [
    "Record",
    "described",
    "load",
    "overhang",
    "pickle_of",
    "records",
    "reset",
    "same",
    "saved",
    "sharing",
    "strip",
    "without",
]


def strip(
    src: Path, dst: Path, model: Model | None = None, *, root: str | None = None, **options: Any
) -> Plan:
    """Write a stripped checkpoint, every byte verified."""
    with open_checkpoint(src, root=root) as checkpoint:
        plan = plan_strip(checkpoint, model, **options)
        write_checkpoint(plan, dst, verify=True)
    return plan


def reset(src: Path, dst: Path, model: Model | None = None, **options: Any) -> Plan:
    """Write a checkpoint with buffers reset, every byte verified."""
    with open_checkpoint(src) as checkpoint:
        plan = plan_reset_buffers(checkpoint, model, **options)
        write_checkpoint(plan, dst, verify=True)
    return plan


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


def load(path: Path, *, mmap: bool = False, trusted: bool = False) -> Any:
    """What torch loads; `trusted` files hold more than torch takes from strangers."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", mmap=mmap, weights_only=not trusted)


def without(tree: Any, key: Any) -> Any:
    """The same tree, one part of it deleted."""
    del tree[key]
    return tree


# Values -----------------------------------------------------------------------------------------


def same(before: object, after: object) -> None:
    """Assert that two trees are one to the bit: values, order, types, and what shares memory."""
    assert described(after) == described(before)
    assert sharing(after) == sharing(before)


def described(value: object) -> object:
    """A tree as plain values that can be compared, each with its type."""
    kind = type(value).__name__
    if isinstance(value, Tensor):
        # A jagged one has its parts as attributes, with symbols that are new each time.
        return kind, _told(value), None if value.is_nested else described(dict(vars(value)))
    if isinstance(value, dict):
        items = [(described(key), described(item)) for key, item in value.items()]
        # An OrderedDict of torch's has `_metadata` as an attribute.
        return kind, items, described(dict(getattr(value, "__dict__", {})) or None)
    if isinstance(value, list | tuple):
        return kind, [described(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return kind, str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, nn.Module | argparse.Namespace):
        return kind, described(dict(vars(value)))
    return kind, repr(value)


def _told(tensor: Tensor) -> object:
    told: list[object] = [str(tensor.dtype), str(tensor.layout), tensor.requires_grad]
    told += [tensor.is_nested, tensor.is_quantized, str(tensor.device)]
    if tensor.is_nested:
        parts = tensor.unbind()
        return told, tensor.size(0), [(tuple(one.shape), content_hash(one)) for one in parts]
    told.append(tuple(tensor.shape))
    if tensor.layout == torch.sparse_coo:
        return told, [_told(tensor._indices()), _told(tensor._values()), tensor.is_coalesced()]
    if tensor.layout != torch.strided:
        is_by_row = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
        names = ("crow_indices", "col_indices") if is_by_row else ("ccol_indices", "row_indices")
        return told, [_told(getattr(tensor, name)()) for name in (*names, "values")]
    told.append(tensor.stride())
    if tensor.is_quantized:
        scheme = tensor.qscheme()
        is_whole = scheme == torch.per_tensor_affine
        scales = tensor.q_scale() if is_whole else tensor.q_per_channel_scales()
        zeros = tensor.q_zero_point() if is_whole else tensor.q_per_channel_zero_points()
        return told, str(scheme), described([scales, zeros]), bytes(tensor.untyped_storage())
    return told, tensor.is_conj(), tensor.is_neg(), content_hash(tensor)


def _placed(tree: object) -> list[tuple[str, Tensor, int, int]]:
    """Tensors that have bytes in memory, with where these begin and end."""
    found = []
    for keys, tensor in tensors_in(tree):
        is_plain = not tensor.is_nested and tensor.layout == torch.strided
        if is_plain and tensor.numel() and tensor.device.type == "cpu":
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            reach = sum((size - 1) * step for size, step in steps) + 1
            start = tensor.data_ptr()
            found.append((repr(keys), tensor, start, start + reach * tensor.element_size()))
    return found


def sharing(tree: object) -> list[tuple[str, str, int, bool]]:
    """Which tensors overlap in memory: how far they are apart, and whether they are one object."""
    return [
        (name, other_name, other_start - start, tensor is other)
        for (name, tensor, start, end), (other_name, other, other_start, other_end) in combinations(
            _placed(tree), 2
        )
        if start < other_end and other_start < end
    ]


def overhang(tree: object) -> dict[str, int]:
    """How many bytes of each storage lie outside of what its tensors reach, by their names."""
    spans: dict[int, list[tuple[int, int, str, int]]] = defaultdict(list)
    for name, tensor, start, end in _placed(tree):
        storage = tensor.untyped_storage()
        spans[storage.data_ptr()].append((start, end, name, storage.nbytes()))
    return {
        ", ".join(name for _, _, name, _ in users): users[0][3] - _union(users)
        for users in spans.values()
    }


def _union(spans: list[tuple[int, int, str, int]]) -> int:
    covered, behind = 0, 0
    for start, end, _, _ in sorted(spans):
        covered += max(0, end - max(start, behind))
        behind = max(behind, end)
    return covered


# Records ----------------------------------------------------------------------------------------


class Record(NamedTuple):
    """A record of an archive: its content, the CRC that is noted for it, where its bytes begin."""

    data: bytes
    crc: int
    at: int
    is_deflated: bool


def records(path: Path) -> dict[str, Record]:
    """The records of an archive by name, in its order, whatever their CRC says."""
    raw = path.read_bytes()
    return dict(_records(path, raw))


def _records(path: Path, raw: bytes) -> Iterator[tuple[str, Record]]:
    with ZipFile(path) as archive:
        for info in archive.infolist():
            lengths = struct.unpack_from("<2H", raw, info.header_offset + 26)
            at = info.header_offset + 30 + sum(lengths)
            data = raw[at : at + info.compress_size]
            is_deflated = info.compress_type == ZIP_DEFLATED
            data = zlib.decompress(data, -15) if is_deflated else data
            yield info.filename, Record(data, info.CRC, at, is_deflated)


def pickle_of(path: Path) -> bytes:
    """The pickle of the tree."""
    (data,) = (one.data for name, one in records(path).items() if name.endswith("/data.pkl"))
    return data
