"""Keys that stand twice in one object of a JSON text; parsers keep the last and say nothing."""

from __future__ import annotations

import json
import re
from typing import Final

from ckptool.checkpoint.keypath import KeyPath

__all__ = ["find_duplicate_key"]

_KEY_ENDS: Final = re.compile(rb'"\s*:')


def find_duplicate_key(data: bytes, keys: int) -> KeyPath | None:
    """Return where a key stands for the second time, None where none does.

    `keys` is how many keys the parsed document has in all. A count of the ends of keys in the text
    tells nearly always that there are no others: five times as fast as to parse it again. It can
    count too many, within strings, and never too few.
    """
    return None if len(_KEY_ENDS.findall(data)) == keys else _find_by_parsing(data)


def _find_by_parsing(data: bytes) -> KeyPath | None:
    found: list[tuple[dict[str, object], str]] = []

    def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value: dict[str, object] = {}
        for key, inner in pairs:
            if key in value:
                found.append((value, key))
            value[key] = inner
        return value

    document: object = json.loads(data, object_pairs_hook=note)
    # The last one: an earlier one can be within what the later one has replaced.
    return _path_to(document, *found[-1]) if found else None


def _path_to(document: object, wanted: dict[str, object], key: str) -> KeyPath:
    """The path to a key of an object that is somewhere in a document."""
    pending: list[tuple[KeyPath, object]] = [((), document)]
    while True:
        path, value = pending.pop()
        if value is wanted:
            return (*path, key)
        if isinstance(value, dict):
            pending += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [((*path, index), inner) for index, inner in enumerate(value)]
