"""Hashes of what a checkpoint holds, independent of how it is kept."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence

from ckptool.analysis.progress import UNWATCHED, Progress, side_by_side
from ckptool.classification.roles import ClassifiedEntry
from ckptool.tensors.refs import Components, NoData, TensorRef
from ckptool.values import read_bytes

__all__ = ["fingerprint", "hash_entries", "hash_tensor"]


def hash_tensor(tensor: TensorRef, progress: Progress = UNWATCHED) -> str | None:
    """Return the sha256 over a tensor's elements, None where the file has none of them.

    The elements come in row-major order, little-endian, without padding or unused storage;
    components in their order. A component that is one number counts as 8 bytes: a float64 for a
    scale, an int64 for a zero point.
    """
    if isinstance(tensor.data, NoData):
        return None
    digest = hashlib.sha256()
    for chunk in _content(tensor):
        digest.update(chunk)
        progress.advance(len(chunk))
    return digest.hexdigest()


def hash_entries(
    entries: Sequence[ClassifiedEntry], progress: Progress = UNWATCHED
) -> dict[int, str | None]:
    """Return the hash of every tensor, by the id of its classified entry."""
    tensors = {id(one): one.entry.tensor for one in entries if one.entry.tensor is not None}
    progress.expect(sum(tensor.nbytes for tensor in tensors.values()))
    return dict(zip(tensors, side_by_side(hash_tensor, tensors.values(), progress), strict=True))


def fingerprint(entries: Sequence[ClassifiedEntry], hashes: Mapping[int, str | None]) -> str | None:
    """Return the sha256 over one line per tensor of the root, sorted by name as UTF-8 bytes.

    A line is `name TAB dtype TAB shape TAB hash LF`. `hashes` is by the id of a classified entry.
    None where the file has no elements of one: two files that differ in it would look the same.
    """
    lines = []
    for one in entries:
        if one.name is not None and one.entry.tensor is not None:
            digest = hashes.get(id(one))
            if digest is None:
                return None
            lines.append(_line(one.name, one.entry.tensor, digest))
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def _line(name: str, tensor: TensorRef, digest: str) -> bytes:
    shape = str(list(tensor.shape))
    text = f"{name}\t{tensor.dtype}\t{shape}\t{digest}\n"
    return text.encode("utf-8", "surrogatepass")


def _content(tensor: TensorRef) -> Iterator[bytes]:
    if not isinstance(tensor.data, Components):
        yield from read_bytes(tensor)
        return
    for part in tensor.data.parts:
        if isinstance(part.value, TensorRef):
            yield from _content(part.value)
        elif isinstance(part.value, float):
            yield struct.pack("<d", part.value)
        else:
            yield struct.pack("<q", part.value)
