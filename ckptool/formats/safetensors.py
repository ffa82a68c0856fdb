"""safetensors: an 8-byte header length, a JSON header, and the data behind it.

The rules, and their order, are those of the reference implementation (safetensors 0.8,
`tensor.rs`): the header's length, its JSON, then each tensor, then that the data is covered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Final

from ckptool.errors import ArchiveError, CutShortError, LimitExceededError, TensorError
from ckptool.formats.container import Container, Damage, FileFacts
from ckptool.formats.content import EditedTree, NewStorage, Piece, Rewrite, piece_of
from ckptool.pickling.limits import Limits
from ckptool.sources import Extent, FileSource, Source
from ckptool.tensors.dtypes import SAFETENSORS_DTYPES
from ckptool.tensors.refs import (
    LARGEST_COUNT,
    StorageRef,
    Strided,
    TensorRef,
    checked_shape,
    row_major_stride,
)

__all__ = ["encode_safetensors", "is_safetensors", "read_safetensors", "write_safetensors"]

_METADATA: Final = "__metadata__"
_LENGTH_BYTES = 8
_ALIGNMENT: Final = 8
# A length of a terabyte is none; text that has a brace at this place has letters before it.
_LARGEST_LENGTH_BYTES = 5
_PACKED = "F4"


def is_safetensors(source: Source) -> bool:
    """Whether the file begins with a header length and the brace of a JSON object."""
    head = source.read_up_to(0, _LENGTH_BYTES + 1)
    return head[_LENGTH_BYTES:] == b"{" and head[_LARGEST_LENGTH_BYTES:_LENGTH_BYTES] == bytes(3)


def read_safetensors(source: FileSource, limits: Limits) -> Container:
    """Read the header; every tensor becomes the one owner of a storage of its own name."""
    length = int.from_bytes(source.read(0, _LENGTH_BYTES), "little")
    start = _LENGTH_BYTES + length
    if length > limits.header_bytes:
        raise LimitExceededError(
            "bytes in the header",
            allowed=limits.header_bytes,
            actual=length,
            option="header-bytes",
        )
    if start > source.size:
        raise CutShortError(
            f"the file ends at byte {source.size:,}, inside the header of {length:,} bytes",
            offset=source.size,
        )
    header = _parse(source.read(_LENGTH_BYTES, length))
    extents: dict[str, Extent] = {}
    tree: dict[str, Any] = {}
    for name, facts in header.items():
        tree[name] = (
            _metadata(facts) if name == _METADATA else _tensor(name, facts, source, start, extents)
        )
    end = _check_coverage(extents, start)
    if end < source.size:
        raise ArchiveError(f"{source.size - end:,} bytes belong to no tensor", offset=end)
    damage = _cut_short(extents, source.size, end) if end > source.size else None
    return Container(
        source=source,
        format="safetensors",
        file=FileFacts(source.path, source.size, byteorder="little"),
        tree=tree,
        tree_bytes=length,
        extents=extents,
        damage=damage,
        referenced=frozenset(extents),
    )


def encode_safetensors(
    container: Container, edited: EditedTree, storages: Sequence[NewStorage]
) -> bytes:
    """Return the header of what stays, filled up with blanks so that the data is aligned.

    It keeps the order that it has, and what the file says of itself.
    """
    old = _parse(container.source.read(_LENGTH_BYTES, container.tree_bytes))
    ends = list(accumulate((one.content.size for one in storages), initial=0))
    places = dict(zip((one.old_key for one in storages), pairwise(ends), strict=True))
    header = {}
    for name, node in edited.top.items():
        if name == _METADATA:
            header[name] = edited.replaced.get(id(node), node)
        else:
            key = node.data.storage.key
            header[name] = {**old[key], "data_offsets": places[key]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def write_safetensors(container: Container, rewrite: Rewrite) -> Iterator[Piece]:
    """Yield the pieces of a file with the tensors that stay: the header, then their data."""
    header = rewrite.encoded
    if header is None:
        header = container.source.read(_LENGTH_BYTES, container.tree_bytes)
    yield len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for storage in rewrite.storages:
        yield piece_of(storage.content)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ArchiveError("the header is nested too deeply") from error
    except ValueError as error:
        raise ArchiveError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ArchiveError("the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is in it twice")
    return table


def _metadata(facts: Any) -> dict[str, str]:
    if not isinstance(facts, dict) or not all(isinstance(text, str) for text in facts.values()):
        raise ArchiveError("is not a table of strings", record=_METADATA)
    return facts


def _tensor(
    name: str, facts: Any, source: Source, start: int, extents: dict[str, Extent]
) -> TensorRef:
    match facts:
        case {"dtype": str() as code, "shape": list() as shape, "data_offsets": [begin, end]}:
            pass
        case _:
            raise ArchiveError("has no dtype, shape and data_offsets", record=name)
    dtype = SAFETENSORS_DTYPES.get(code)
    if dtype is None:
        raise ArchiveError(f"its dtype {code!r} is not known", record=name)
    if not all(type(size) is int and 0 <= size <= LARGEST_COUNT for size in (*shape, begin, end)):
        raise ArchiveError("its shape or offsets are not counts", record=name)
    try:
        checked_shape(tuple(shape))
    except TensorError as error:
        raise ArchiveError(error.problem, record=name) from error
    if code == _PACKED:
        shape = _in_pairs(name, shape)
    size = prod(shape) * dtype.itemsize
    if end - begin != size:
        raise ArchiveError(f"has {end - begin:,} bytes where its shape needs {size:,}", record=name)
    extents[name] = Extent(source, start + begin, size, size)
    storage = StorageRef(name, dtype, None, prod(shape), "little", extents)
    return TensorRef(dtype, tuple(shape), False, Strided(storage, 0, row_major_stride(shape)))


def _in_pairs(name: str, shape: list[int]) -> list[int]:
    # torch keeps two 4-bit floats in one element, safetensors counts each.
    if not shape or shape[-1] % 2:
        raise ArchiveError("has an odd number of 4-bit elements in a row", record=name)
    return [*shape[:-1], shape[-1] // 2]


def _check_coverage(extents: dict[str, Extent], start: int) -> int:
    """Return where the last tensor ends, after each begins where the one before it ends."""
    at = start
    for name, extent in sorted(extents.items(), key=lambda item: (item[1].offset, item[1].size)):
        if extent.offset != at:
            what = "overlaps the tensor before it" if extent.offset < at else "follows a hole"
            raise ArchiveError(what, record=name, offset=extent.offset)
        at += extent.size
    return at


def _cut_short(extents: dict[str, Extent], size: int, end: int) -> Damage:
    """Take out of the extents what a file of this size does not have."""
    cut = [name for name, extent in extents.items() if extent.offset + extent.size > size]
    inside = min(cut, key=lambda name: extents[name].offset)
    for name in cut:
        extent = extents.pop(name)
        left = size - extent.offset
        if left > 0:
            extents[name] = extent._replace(size=left, stored_size=left)
    what = f"the file ends at byte {size:,}, inside {inside!r}, {end - size:,} bytes too early"
    return Damage(what, size, inside)
