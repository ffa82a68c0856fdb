"""The one way by which text from a file reaches a terminal."""

from __future__ import annotations

__all__ = ["visible"]


def visible(text: str) -> str:
    """Return text without anything that a terminal would act on.

    Control characters, bidirectional marks, lone surrogates and whatever else does not print are
    written as `\\x1b`, `\\u202e`, `\\ud800`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
