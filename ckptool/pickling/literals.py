"""Plain values that older protocols have no opcode for and write as calls.

Protocol 2 has no bytes, protocols below 5 have no bytearray, none has complex numbers. The calls
are those of CPython's `Lib/pickle.py`.
"""

from __future__ import annotations

from ckptool.pickling.nodes import Global, Node, Opaque

__all__ = ["BUILTINS", "literal"]

BUILTINS = frozenset({"builtins", "__builtin__"})
"""The module of Python's own types, by its name in Python 3 and in Python 2."""

_ENCODE = Global("_codecs", "encode")
_EMPTY_BYTES = tuple(Global(module, "bytes") for module in BUILTINS)
_LATIN_1 = ("latin1", "latin-1")


def literal(node: Node) -> Node:
    """Return the bytes, bytearray or complex number that a call stands for, else the node."""
    if type(node) is not Opaque or type(node.callee) is not Global:
        return node
    if node.callee == _ENCODE:
        return _encoded(node)
    if node.callee.module not in BUILTINS:
        return node
    match node.callee.name, node.args:
        case "bytes", ():
            return b""
        case "bytearray", ():
            return bytearray()
        case "bytearray", (str(), str()):
            data = _encoded(node)
            return bytearray(data) if type(data) is bytes else node
        case "bytearray", (argument,) if type(data := _bytes(argument)) is bytes:
            return bytearray(data)
        case "complex", (int() | float() as real, int() | float() as imaginary):
            try:
                return complex(real, imaginary)
            except OverflowError:  # an integer that is no float
                return node
    return node


def _bytes(node: Node) -> Node:
    """The bytes that an argument is, or that a call in it makes; calls in calls are no literals."""
    if type(node) is Opaque and node.callee == _ENCODE:
        return _encoded(node)
    is_empty = type(node) is Opaque and node.callee in _EMPTY_BYTES and not node.args
    return b"" if is_empty else node


def _encoded(node: Opaque) -> Node:
    match node.args:
        case (str() as text, str() as encoding) if encoding in _LATIN_1:
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                return node
    return node
