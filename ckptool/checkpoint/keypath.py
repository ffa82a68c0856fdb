"""Key paths: where in the tree something stands, with the keys' types kept, and how it is shown."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeAlias

from ckptool.pickling.nodes import Global

__all__ = ["KeyPath", "ObjectKey", "display", "display_key"]

KeyPath: TypeAlias = tuple[Hashable, ...]


class ObjectKey(NamedTuple):
    """A key that is no plain value: the type of the object, and its place among the keys."""

    type: str
    place: int


def display(keys: KeyPath) -> str:
    """Return the path as it is shown: `/` between keys, a `/` or `\\` inside one escaped."""
    if len(keys) == 1:
        return _escaped(keys[0])
    return "/".join([_escaped(key) for key in keys])


def display_key(key: Hashable) -> str:
    """Return one key as text: a string as it is, anything else as Python writes it."""
    return key if isinstance(key, str) else _shown(key)


def _escaped(key: Hashable) -> str:
    text = key if type(key) is str else display_key(key)
    if "/" in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace("/", "\\/")
    return text


def _shown(key: Hashable) -> str:
    if isinstance(key, ObjectKey):
        return f"<{key.type} {key.place}>"
    return f"<{key}>" if isinstance(key, Global) else repr(key)
