"""Key paths: where in the tree something stands, with the keys' types kept, and how it is shown."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeAlias

from ckptool.pickling.nodes import Global

__all__ = ["KeyPath", "display", "display_key"]

KeyPath: TypeAlias = tuple[Hashable, ...]


def display(keys: KeyPath) -> str:
    """Return the path as it is shown: `/` between keys, a `/` or `\\` inside one escaped."""
    return "/".join(
        key if type(key) is str and "/" not in key and "\\" not in key else _escaped(key)
        for key in keys
    )


def display_key(key: Hashable) -> str:
    """Return one key as text: a string as it is, anything else as Python writes it."""
    return key if isinstance(key, str) else _shown(key)


def _escaped(key: Hashable) -> str:
    return display_key(key).replace("\\", "\\\\").replace("/", "\\/")


def _shown(key: Hashable) -> str:
    if isinstance(key, Global):
        return f"<{key}>"
    # Other nodes of the tree can be keys too; their class says more than a memory address.
    if key is None or isinstance(key, bool | int | float | bytes | tuple):
        return repr(key)
    return f"<{type(key).__name__}>"
