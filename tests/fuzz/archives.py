"""Mutations of a zip: the fields of its headers, its headers as pieces, and its records."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any, Final, TypeAlias

from tests.builders import ZipRecord, zip_archive
from tests.fuzz.blind import BLIND, Mutator
from tests.fuzz.edges import NAMES, edge_number
from tests.fuzz.pickles import change_pickle

__all__ = ["ZIP", "records_of", "rewrap"]

Layout: TypeAlias = tuple[tuple[int, int], ...]
"""The fields of a header: where they are and how wide, in bytes."""

_HEADER: Final = re.compile(
    rb"PK(?:\x03\x04|\x01\x02|\x05\x06|\x06\x06|\x06\x07|\x07\x08)|\x01\0[\x08\x10\x18\x20]\0"
)
_LAYOUTS: Final[dict[bytes, Layout]] = {
    b"PK\3\4": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\1\2": (
        (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4),
    ),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\6\6": ((4, 8), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8), (48, 8)),
    b"PK\6\7": ((4, 4), (8, 8), (16, 4)),
    b"PK\7\b": ((4, 4), (8, 4), (12, 4), (8, 8), (16, 8)),
}  # fmt: skip
_EXTRA: Final[Layout] = ((0, 2), (2, 2), (4, 8), (12, 8), (20, 8))
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL_BYTES: Final = 30
_DEFLATED: Final = 8
_WIDE: Final = 0xFFFFFFFF
# Records can overlap and be deflated: changed again and again, they would outgrow the memory.
_MOST_RECORDS: Final = 50
_MOST_CONTENT: Final = 1 << 15


# Headers ---------------------------------------------------------------------------------------


def change_field(random: Random, data: bytes) -> bytes:
    """Set one field of a header to an edge, or to what stands in another field."""
    headers = list(_HEADER.finditer(data))
    if not headers:
        return data
    at, width = _field(random, random.choice(headers))
    if random.random() < 0.2:
        other, _ = _field(random, random.choice(headers))
        value = data[other : other + width]
    else:
        old = int.from_bytes(data[at : at + width], "little")
        value = edge_number(random, width, old).to_bytes(width, "little")
    return data[:at] + value + data[at + width :]


def _field(random: Random, header: re.Match[bytes]) -> tuple[int, int]:
    offset, width = random.choice(_LAYOUTS.get(header[0], _EXTRA))
    return header.start() + offset, width


def change_pieces(random: Random, data: bytes) -> bytes:
    """Drop, double, swap or move what stands between the starts of two headers."""
    starts = [found.start() for found in _HEADER.finditer(data)]
    pieces = [data[i:j] for i, j in zip([0, *starts], [*starts, len(data)], strict=True)]
    at, other = random.randrange(len(pieces)), random.randrange(len(pieces))
    match random.randrange(5):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(other, pieces[at])
        case 2:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces.insert(other, pieces.pop(at))
        case _:
            pieces[at] = random.choice(list(BLIND.values()))(random, pieces[at])
    return b"".join(pieces)


# Records ---------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def records_of(data: bytes) -> tuple[ZipRecord, ...]:
    """Return the records that an archive's directory names, as far as there is any sense in it."""
    return tuple(islice(_records(data), _MOST_RECORDS))


def _records(data: bytes) -> Iterator[ZipRecord]:
    at = _directory(data)
    while 0 <= at <= len(data) - _CENTRAL.size:
        (_, _, _, flags, method, _, _, crc, stored_size, _, name, extra, *_, offset) = (
            _CENTRAL.unpack_from(data, at)
        )
        start = at + _CENTRAL.size
        named = data[start : start + name].decode("utf-8", "surrogateescape")
        wide = data[start + name : start + name + extra]
        if _WIDE in (stored_size, offset) and len(wide) >= 28:
            stored_size, offset = struct.unpack_from("<QQ", wide, 12)
        lengths = data[offset + 26 : offset + _LOCAL_BYTES]
        content = b""
        if len(lengths) == 4:
            begin = offset + _LOCAL_BYTES + sum(struct.unpack("<HH", lengths))
            content = data[begin : begin + min(stored_size, _MOST_CONTENT)]
        yield ZipRecord(
            named.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            _inflated(content) if method == _DEFLATED else content,
            crc=0 if crc == 0 else None,
            compress=method == _DEFLATED,
            data_descriptor=bool(flags & 8),
            zip64=len(wide) >= 28,
        )
        at = data.find(b"PK\1\2", start)


def _directory(data: bytes) -> int:
    """Where the end record says that the directory is, or where there first seems to be one."""
    end = data.rfind(b"PK\5\6")
    at = int.from_bytes(data[end + 16 : end + 20], "little")
    return at if data[at : at + 4] == b"PK\1\2" else data.find(b"PK\1\2")


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, _MOST_CONTENT)
    except zlib.error:
        return content


def rewrap(records: tuple[ZipRecord, ...] | list[ZipRecord]) -> bytes:
    """Write records as an archive in which everything agrees, unless they say otherwise."""
    return zip_archive(records)


def change_content(random: Random, data: bytes) -> bytes:
    """Change what is in one record and write a sound archive around it."""
    records = list(records_of(data))
    wanted = [at for at, one in enumerate(records) if one.name.endswith(".pkl")]
    if not records:
        return data
    at = random.choice(wanted) if wanted and random.random() < 0.8 else None
    if at is None:
        at = random.randrange(len(records))
        change = random.choice((*BLIND.values(), _other_content))
        records[at] = replace(records[at], data=change(random, records[at].data))
    else:
        records[at] = replace(records[at], data=change_pickle(random, records[at].data))
    return rewrap(records)


def _other_content(random: Random, _: bytes) -> bytes:
    return random.choice((b"", b"little", b"big", b"3\n", b"-1", b"64", b"\xff" * 9, b"0" * 5000))


def change_records(random: Random, data: bytes) -> bytes:
    """Drop, double, rename or move records, or let one lie about itself."""
    records = list(records_of(data))
    for _ in range(random.choice((1, 1, 2, 3))):
        if not records:
            break
        at = random.randrange(len(records))
        match random.randrange(6):
            case 0:
                del records[at]
            case 1:
                records.insert(random.randrange(len(records)), records[at])
            case 2:
                records.insert(random.randrange(len(records)), records.pop(at))
            case 3:
                records[at] = replace(records[at], name=_other_name(random, records))
            case _:
                records[at] = replace(records[at], **_lie(random, records[at]))
    return _written(random, records) if records else data


def _other_name(random: Random, records: list[ZipRecord]) -> str:
    name = random.choice(records).name
    edge = random.choice(NAMES)
    folder, _, rest = name.partition("/")
    return random.choice((name, edge, f"{folder}/{edge}", f"{edge}/{rest}", rest, name + edge))


def _lie(random: Random, record: ZipRecord) -> dict[str, Any]:
    size = len(record.data)
    lies: dict[str, Callable[[], object]] = {
        "crc": lambda: random.choice((0, 1, _WIDE)),
        "compress": lambda: not record.compress,
        "data_descriptor": lambda: not record.data_descriptor,
        "local_name": lambda: random.choice(NAMES[:20]),
        "local_offset": lambda: edge_number(random, 4, 64),
        "size": lambda: edge_number(random, 4, size),
        "compressed_size": lambda: edge_number(random, 4, size),
        "method": lambda: random.choice((0, 8, 9, 12, 99, 0xFFFF)),
        "flags": lambda: edge_number(random, 2, 0x0800),
        "extra": lambda: random.choice((b"\1\0\x10\0" + bytes(16), b"FB\xff\xff", b"\1", b"x" * 9)),
        "in_central": lambda: False,
        "in_local": lambda: False,
        "zip64": lambda: not record.zip64,
    }
    said = random.choice(tuple(lies))
    told: dict[str, object] = {said: lies[said]()}
    if said == "size" and random.random() < 0.7:  # so that a stored record's two sizes agree
        told["compressed_size"] = told["size"]
    return told


def _written(random: Random, records: list[ZipRecord]) -> bytes:
    if random.random() < 0.7:
        return rewrap(records)
    return zip_archive(
        records,
        alignment=random.choice((0, 1, 64, 4096)),
        zip64_end=random.random() < 0.5,
        comment=random.choice((b"", b"x", b"PK\5\6" + bytes(18))),
        prefix=random.choice((b"", b"", b"\0", b"PK\3\4")),
        entries=random.choice((None, 0, len(records) + 1, 0xFFFF)),
    )


ZIP: Final[dict[str, Mutator]] = {
    "change_field": change_field,
    "change_pieces": change_pieces,
    "change_content": change_content,
    "change_records": change_records,
}
