"""Mutations of a legacy stream: its five pickles, and the counts of its storages."""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random
from typing import Final

from tests.fuzz.blind import Mutator
from tests.fuzz.edges import edge_number
from tests.fuzz.opcodes import split_first
from tests.fuzz.pickles import change_pickle

__all__ = ["LEGACY", "parts_of"]

_PICKLES: Final = 5
_OBJECT: Final = 3
# A small number in eight bytes: what a count looks like, wherever the storages may be.
_COUNT: Final = re.compile(rb"(?=[\x01-\xff][\0-\xff]\0{6})")


@lru_cache(maxsize=128)
def parts_of(data: bytes) -> tuple[bytes, ...]:
    """Return the five pickles and what follows them, as far as they are there."""
    parts, at = [], 0
    for _ in range(_PICKLES):
        start = at
        _, at = split_first(data, start)
        parts.append(data[start:at])
    return (*parts, data[at:])


def change_part(random: Random, data: bytes) -> bytes:
    """Change one of the pickles, mostly the object."""
    parts = list(parts_of(data))
    at = random.choice((_OBJECT, _OBJECT, _OBJECT, *range(_PICKLES)))
    parts[at] = change_pickle(random, parts[at])
    return b"".join(parts)


def change_count(random: Random, data: bytes) -> bytes:
    """Let a storage have another number of elements."""
    *pickles, rest = parts_of(data)
    places = [found.start() for found in _COUNT.finditer(rest)]
    if not places:
        return data
    at = random.choice(places)
    old = int.from_bytes(rest[at : at + 8], "little")
    count = edge_number(random, 8, old).to_bytes(8, "little")
    return b"".join((*pickles, rest[:at], count, rest[at + 8 :]))


def change_parts(random: Random, data: bytes) -> bytes:
    """Drop, double, swap or cut the parts of the stream."""
    parts = list(parts_of(data))
    at, other = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(4):
        case 0:
            del parts[at]
        case 1:
            parts.insert(other, parts[at])
        case 2:
            parts[at], parts[other] = parts[other], parts[at]
        case _:
            parts[at:] = [parts[at][: random.randrange(len(parts[at]) + 1)]]
    return b"".join(parts)


LEGACY: Final[dict[str, Mutator]] = {
    "change_part": change_part,
    "change_count": change_count,
    "change_parts": change_parts,
}
