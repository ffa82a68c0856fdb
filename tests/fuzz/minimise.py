"""A file that fails to a small one that fails in the same way: delta debugging, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.builders import ZipRecord
from tests.fuzz.archives import records_of, rewrap
from tests.fuzz.opcodes import split

__all__ = ["minimise"]

Part = TypeVar("Part")

_SHORT_RUN = 12


def minimise(data: bytes, fails: Callable[[bytes], bool], seconds: float) -> bytes:
    """Return a smaller file that still fails, without any promise that it is the smallest.

    The pickle of an archive is tried alone, then records and opcodes are left out of a sound
    archive, then opcodes of a bare pickle, then bytes; after so many seconds nothing more is tried.
    """
    until = time.monotonic() + seconds
    return _smaller(data, lambda smaller: time.monotonic() < until and fails(smaller))


def _smaller(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    records = list(records_of(data))
    for record in records:
        if record.name.endswith(".pkl") and fails(record.data):
            return _smaller(record.data, fails)
    if records and fails(rewrap(records)):
        return rewrap(_fewer_records(records, fails))
    data = b"".join(_without(split(data), lambda kept: fails(b"".join(kept))))
    kept = _without([bytes((byte,)) for byte in data], lambda kept: fails(b"".join(kept)))
    return b"".join(kept)


def _fewer_records(records: list[ZipRecord], fails: Callable[[bytes], bool]) -> list[ZipRecord]:
    def fail(kept: Sequence[ZipRecord]) -> bool:
        return fails(rewrap(list(kept)))

    records = _without(records, fail)
    for at, record in enumerate(records):

        def archive(content: Sequence[bytes], at: int = at, record: ZipRecord = record) -> bytes:
            changed = replace(record, data=b"".join(content))
            return rewrap([*records[:at], changed, *records[at + 1 :]])

        parts = split(record.data) if record.name.endswith(".pkl") else (record.data,)
        kept = _without(parts, lambda kept, archive=archive: fails(archive(kept)))  # type: ignore[misc]
        records[at] = replace(record, data=b"".join(kept))
    return _without(records, fail)


def _without(parts: Sequence[Part], fails: Callable[[list[Part]], bool]) -> list[Part]:
    """Leave out runs of parts, long ones first, as long as what is left fails.

    Short runs are tried at every place, again and again: an opcode often goes only together with
    those that make its arguments, and once another is gone.
    """
    kept = list(parts)
    length = len(kept)
    while length > _SHORT_RUN:
        kept = _without_runs(kept, length, length, fails)
        length //= 2
    before = None
    while before != len(kept):
        before = len(kept)
        for length in range(_SHORT_RUN, 0, -1):
            kept = _without_runs(kept, length, 1, fails)
    return kept


def _without_runs(
    kept: list[Part], length: int, step: int, fails: Callable[[list[Part]], bool]
) -> list[Part]:
    at = 0
    while at < len(kept):
        fewer = kept[:at] + kept[at + length :]
        if fails(fewer):
            kept = fewer
        else:
            at += step
    return kept
