"""Mutations of a safetensors file: its JSON header as a value and as text, and its length."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from tests.fuzz.blind import BLIND, Mutator
from tests.fuzz.edges import JSON_VALUES, NAMES, edge_number

__all__ = ["SAFETENSORS"]

_LENGTH_BYTES: Final = 8
_DTYPES: Final = (
    "BOOL", "U8", "I8", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "BF16", "F32", "I64", "C64",
    "U64", "f32", "",
)  # fmt: skip


def _header(data: bytes) -> tuple[bytes, bytes]:
    """The header's text, and the tensors' bytes behind it."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return data[_LENGTH_BYTES:end], data[end:]


def _joined(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + rest


def change_json(random: Random, data: bytes) -> bytes:
    """Change one value somewhere in the header, and write its length as it is then."""
    text, rest = _header(data)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        return data
    if not isinstance(header, dict):
        return data
    _change_inside(random, header)
    return _joined(json.dumps(header).encode("utf-8", "surrogatepass"), rest)


def _change_inside(random: Random, container: Any) -> None:
    """Change something in a container, or in one that it holds."""
    while True:
        places = list(container if isinstance(container, dict) else range(len(container)))
        if not places:
            _fill(random, container)
            return
        place = random.choice(places)
        inner: Any = container[place]
        if not isinstance(inner, dict | list) or random.random() < 0.2:
            break
        container = inner
    match random.randrange(5):
        case 0:
            del container[place]
        case 1 if isinstance(container, dict):
            container[random.choice(NAMES)] = container.pop(place)
        case 2 if isinstance(container, dict):
            container[random.choice(NAMES)] = inner
        case _:
            container[place] = _other(random, inner)


def _fill(random: Random, container: Any) -> None:
    value = random.choice(JSON_VALUES)
    if isinstance(container, dict):
        container[random.choice(NAMES)] = value
    else:
        container.append(value)


def _other(random: Random, value: Any) -> object:
    if isinstance(value, str) and random.random() < 0.5:
        return random.choice(_DTYPES)
    if type(value) is int and random.random() < 0.6:
        return edge_number(random, 8, value) - random.choice((0, 0, 1 << 63))
    if isinstance(value, list) and random.random() < 0.5:
        return value + random.choice(([0], [1], value, value[:1] * 70))
    return random.choice(JSON_VALUES)


def change_text(random: Random, data: bytes) -> bytes:
    """Change the header's text, and write its length as it is then."""
    text, rest = _header(data)
    match random.randrange(4):
        case 0:
            text = text.replace(b'"shape"', random.choice((b'"dtype"', b'"shape":[],"shape"')), 1)
        case 1:
            depth = random.choice((10, 900, 5000))
            text = text.replace(b"[", b"[" * depth, 1).replace(b"]", b"]" * depth, 1)
        case 2:
            text = text.replace(b"0", random.choice((b"-0", b"00", b"9" * 5000, b"1e9", b"NaN")), 1)
        case _:
            text = random.choice(list(BLIND.values()))(random, text)
    return _joined(text, rest)


def change_length(random: Random, data: bytes) -> bytes:
    """Let the header have another length than it has."""
    old = int.from_bytes(data[:_LENGTH_BYTES], "little")
    length = random.choice((edge_number(random, 8, old), random.randrange(len(data) + 1)))
    return length.to_bytes(_LENGTH_BYTES, "little") + data[_LENGTH_BYTES:]


SAFETENSORS: Final[dict[str, Mutator]] = {
    "change_json": change_json,
    "change_text": change_text,
    "change_length": change_length,
}
