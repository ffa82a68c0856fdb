"""Mutations that know nothing of any format: bits, bytes and runs of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from tests.fuzz.edges import edge_bytes

__all__ = ["BLIND", "Mutator"]

Mutator: TypeAlias = Callable[[Random, bytes], bytes]
"""Makes another file of a file; gives it back as it is where there is nothing to change."""

_LONGEST_RUN = 64


def _span(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randint(1, _LONGEST_RUN))


def flip_bit(random: Random, data: bytes) -> bytes:
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]


def write_edge(random: Random, data: bytes) -> bytes:
    edge = edge_bytes(random)
    at = random.randrange(len(data) + 1)
    return data[:at] + edge + data[at + len(edge) :]


def insert_bytes(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randint(1, 16)) + data[at:]


def drop_bytes(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def repeat_bytes(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[start:end] * random.choice((2, 2, 3, 50)) + data[end:]


def swap_bytes(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    middle = (start + end) // 2
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


def copy_bytes(random: Random, data: bytes) -> bytes:
    start, end = _span(random, data)
    at = random.randrange(len(data) + 1)
    return data[:at] + data[start:end] + data[at + end - start :]


def cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def append_bytes(random: Random, data: bytes) -> bytes:
    return data + random.choice((b"\0" * 8, random.randbytes(20), data[: random.randrange(100)]))


BLIND: Final[dict[str, Mutator]] = {
    "flip_bit": flip_bit,
    "write_edge": write_edge,
    "insert_bytes": insert_bytes,
    "drop_bytes": drop_bytes,
    "repeat_bytes": repeat_bytes,
    "swap_bytes": swap_bytes,
    "copy_bytes": copy_bytes,
    "cut": cut,
    "append_bytes": append_bytes,
}
