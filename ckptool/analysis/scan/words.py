"""A call in words: what it would call, with its arguments as far as they are literal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from ckptool.pickling.literals import literal
from ckptool.pickling.nodes import ExtensionCode, Global, Node, Opaque, PersistentId

__all__ = ["call_in_words", "name_in_words"]

# A payload is seldom longer; what is left out is counted.
_LONGEST: Final = 1_000
_DEEPEST: Final = 6
# Of a module it is everything in it.
_DEEPEST_IN_STATE: Final = 2
_MOST_ITEMS: Final = 32


def name_in_words(reference: Global | ExtensionCode) -> str:
    """Return a name as Python would write it; a number in a registry says that it is one."""
    if isinstance(reference, ExtensionCode):
        return f"copyreg extension {reference.code}"
    return str(reference)


def call_in_words(made: Opaque) -> str:
    """Return a call as Python would write it, cut where it is long.

    A state that the object is given stands behind it. What is no literal is shown in angle
    brackets.
    """
    written = ""
    for part in _call(made, _DEEPEST):
        written += part
        if len(written) > _LONGEST:
            return f"{written[:_LONGEST]}..."
    return written


def _call(made: Opaque, depth: int) -> Iterator[str]:
    yield from _node(made.callee, depth - 1)
    yield "("
    yield from _joined((_node(argument, depth - 1) for argument in made.args), len(made.args))
    for key, value in islice((made.kwargs or {}).items(), _MOST_ITEMS):
        yield f", {key}=" if made.args else f"{key}="
        yield from _node(value, depth - 1)
    yield ")"
    if made.has_state:
        yield " with state "
        yield from _node(made.state, min(depth - 1, _DEEPEST_IN_STATE))


def _node(node: Node, depth: int) -> Iterator[str]:
    plain = literal(node)
    kind = type(plain)
    if kind in (Global, ExtensionCode):
        yield name_in_words(plain)
    elif kind in _SCALARS:
        yield _scalar(plain)
    elif depth <= 0:
        yield "<...>"
    elif kind is Opaque:
        yield from _call(plain, depth)
    elif kind is PersistentId:
        yield "<storage>"
    else:
        yield from _container(plain, depth)


def _container(node: Node, depth: int) -> Iterator[str]:
    if type(node) is dict:
        yield "{"
        yield from _joined((_pair(key, value, depth) for key, value in node.items()), len(node))
        yield "}"
    elif type(node) in (list, tuple):
        first, last = "[]" if type(node) is list else "()"
        yield first
        yield from _joined((_node(item, depth - 1) for item in node), len(node))
        yield f",{last}" if type(node) is tuple and len(node) == 1 else last
    else:
        yield f"<{type(node).__name__}>"


def _pair(key: Node, value: Node, depth: int) -> Iterator[str]:
    yield from _node(key, depth - 1)
    yield ": "
    yield from _node(value, depth - 1)


def _joined(parts: Iterable[Iterator[str]], count: int) -> Iterator[str]:
    for index, part in enumerate(islice(parts, _MOST_ITEMS)):
        yield ", " if index else ""
        yield from part
    if count > _MOST_ITEMS:
        yield f", ... {count - _MOST_ITEMS:,} more"


_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})


def _scalar(value: Node) -> str:
    if type(value) in (str, bytes, bytearray) and len(value) > _LONGEST:
        return f"{value[:_LONGEST]!r}... {len(value) - _LONGEST:,} more"
    return repr(value)
