"""Pickles that do what no pickle may, and lengths that are not those of what follows."""

from __future__ import annotations

import struct
from typing import Final

from ckptool.errors import PickleStreamError
from tests import builders
from tests.builders import (
    ADDITEMS,
    APPEND,
    APPENDS,
    BUILD,
    DICT,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_SET,
    EMPTY_TUPLE,
    FROZENSET,
    MARK,
    MEMOIZE,
    NEWOBJ,
    NEWOBJ_EX,
    NONE,
    OBJ,
    POP,
    POP_MARK,
    READONLY_BUFFER,
    REDUCE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    TUPLE3,
    binget,
    binint1,
    global_,
    proto,
    stream,
)
from tests.hostile.case import FIRST_OPCODE, VALUES, Case, Opens, Refused, misuse, with_pickle

__all__ = ["CASES"]

_CLASS: Final = global_("m", "C")
_LIES: Final = "promptfoo/modelaudit#1524"


def _breaks_off(name: str, trick: str, *opcodes: bytes) -> Case:
    data = proto(2) + b"".join(opcodes)
    fields = {"offset": len(data), "opcode": None, "breaks_off": True}
    return Case(
        name,
        trick,
        lambda: with_pickle(data),
        Refused(PickleStreamError, fields),
        _LIES,
    )


def _tensor() -> bytes:
    """The opcodes of a real tensor."""
    return builders.to_pickle(VALUES, table=builders.StorageTable())[2:-1]


def _said(code: bytes, count: str, length: int) -> bytes:
    return code + struct.pack(count, length)


_ONE: Final = binint1(1)
_SECOND_STATE: Final = _CLASS + EMPTY_TUPLE + NEWOBJ + EMPTY_DICT + BUILD + EMPTY_DICT

MISUSES: Final = (
    misuse(
        "setitem-on-a-list",
        "SETITEM puts a key into a list",
        "SETITEM",
        EMPTY_LIST + _ONE * 2,
        SETITEM,
    ),
    misuse("setitem-on-none", "SETITEM puts a key into None", "SETITEM", NONE * 3, SETITEM),
    misuse(
        "setitem-on-a-tuple",
        "SETITEM puts a key into a tuple",
        "SETITEM",
        EMPTY_TUPLE + _ONE * 2,
        SETITEM,
    ),
    misuse(
        "setitem-on-a-global",
        "SETITEM puts a key into what a name names",
        "SETITEM",
        _CLASS + _ONE * 2,
        SETITEM,
    ),
    misuse(
        "setitems-on-text",
        "SETITEMS puts keys into text",
        "SETITEMS",
        builders.binunicode("x") + MARK + _ONE * 2,
        SETITEMS,
    ),
    misuse(
        "setitems-odd",
        "SETITEMS has a key without a value",
        "SETITEMS",
        EMPTY_DICT + MARK + _ONE * 3,
        SETITEMS,
    ),
    misuse("dict-odd", "DICT has a key without a value", "DICT", MARK + _ONE, DICT),
    misuse(
        "append-to-a-dict", "APPEND puts an item into a dict", "APPEND", EMPTY_DICT + _ONE, APPEND
    ),
    misuse(
        "append-to-a-tuple",
        "APPEND puts an item into a tuple",
        "APPEND",
        EMPTY_TUPLE + _ONE,
        APPEND,
    ),
    misuse(
        "appends-to-a-number",
        "APPENDS puts items into a number",
        "APPENDS",
        _ONE + MARK + _ONE,
        APPENDS,
    ),
    misuse(
        "additems-to-a-list",
        "ADDITEMS puts items of a set into a list",
        "ADDITEMS",
        EMPTY_LIST + MARK + _ONE,
        ADDITEMS,
    ),
    misuse("build-a-list", "BUILD gives a list a state", "BUILD", EMPTY_LIST + EMPTY_DICT, BUILD),
    misuse(
        "build-a-frozenset",
        "BUILD gives a frozenset a state",
        "BUILD",
        MARK + FROZENSET + EMPTY_DICT,
        BUILD,
    ),
    misuse("build-twice", "BUILD gives an object a second state", "BUILD", _SECOND_STATE, BUILD),
    misuse("key-list", "a list is a key", "SETITEM", EMPTY_DICT + EMPTY_LIST + NONE, SETITEM),
    misuse("key-dict", "a dict is a key", "SETITEM", EMPTY_DICT * 2 + NONE, SETITEM),
    misuse(
        "key-bytearray",
        "a bytearray is a key",
        "SETITEM",
        EMPTY_DICT + builders.bytearray8(b"x") + NONE,
        SETITEM,
    ),
    misuse(
        "key-tuple-of-a-list",
        "a tuple with a list in it is a key",
        "SETITEM",
        EMPTY_DICT + EMPTY_LIST + TUPLE1 + NONE,
        SETITEM,
    ),
    misuse(
        "set-of-lists",
        "a list is an item of a set",
        "ADDITEMS",
        EMPTY_SET + MARK + EMPTY_LIST,
        ADDITEMS,
    ),
    misuse(
        "reduce-with-a-list",
        "REDUCE calls with a list in place of a tuple",
        "REDUCE",
        _CLASS + EMPTY_LIST,
        REDUCE,
    ),
    misuse(
        "newobj-with-a-number",
        "NEWOBJ is given a number in place of a tuple",
        "NEWOBJ",
        _CLASS + _ONE,
        NEWOBJ,
    ),
    misuse(
        "newobj-ex-with-a-list",
        "NEWOBJ_EX is given a list in place of a dict",
        "NEWOBJ_EX",
        _CLASS + EMPTY_TUPLE + EMPTY_LIST,
        NEWOBJ_EX,
    ),
    misuse(
        "stack-global-of-numbers",
        "STACK_GLOBAL names a global by two numbers",
        "STACK_GLOBAL",
        _ONE * 2,
        STACK_GLOBAL,
    ),
    misuse("obj-without-a-class", "OBJ has nothing above the mark", "OBJ", MARK, OBJ),
    misuse("pop-mark-without-a-mark", "POP_MARK, and there is no mark", "POP_MARK", _ONE, POP_MARK),
    misuse("tuple-without-a-mark", "TUPLE, and there is no mark", "TUPLE", _ONE, TUPLE),
    misuse("pop-nothing", "POP on an empty stack", "POP", b"", POP),
    misuse("dup-nothing", "DUP on an empty stack", "DUP", b"", DUP),
    misuse("memoize-nothing", "MEMOIZE on an empty stack", "MEMOIZE", b"", MEMOIZE),
    misuse("tuple3-of-two", "TUPLE3 with two values below it", "TUPLE3", _ONE * 2, TUPLE3),
    misuse(
        "tuple2-across-a-mark", "TUPLE2 reaches below a mark", "TUPLE2", _ONE + MARK + _ONE, TUPLE2
    ),
    misuse(
        "get-what-is-not-there", "BINGET of an entry that was never made", "BINGET", b"", binget(7)
    ),
    misuse(
        "readonly-number",
        "READONLY_BUFFER behind a number",
        "READONLY_BUFFER",
        _ONE,
        READONLY_BUFFER,
    ),
    misuse("protocol-255", "PROTO names a protocol that there is not", "PROTO", b"", proto(255)),
    misuse("int-of-letters", "INT with letters", "INT", b"", builders.int_("x")),
    misuse(
        "long-of-ten-thousand-digits",
        "LONG with more digits than Python reads",
        "LONG",
        b"",
        b"L" + b"9" * 10_000 + b"L\n",
    ),
    misuse("float-of-letters", "FLOAT with letters", "FLOAT", b"", b"Fx\n"),
    misuse("string-without-quotes", "STRING without quotes", "STRING", b"", b"Sx\n"),
    misuse("string-of-half-an-escape", "STRING with half an escape", "STRING", b"", b"S'\\x4'\n"),
    misuse("unicode-of-half-an-escape", "UNICODE with half an escape", "UNICODE", b"", b"V\\u12\n"),
    misuse(
        "text-that-is-not-utf-8",
        "BINUNICODE with bytes that are no text",
        "BINUNICODE",
        b"",
        b"X\2\0\0\0\xff\xfe",
    ),
    misuse(
        "global-that-is-not-utf-8",
        "GLOBAL with bytes that are no text",
        "GLOBAL",
        b"",
        b"c\xff\nx\n",
    ),
    misuse(
        "persistent-id-not-ascii", "PERSID with bytes that are no ASCII", "PERSID", b"", b"P\xff\n"
    ),
    Case(
        "unknown-opcode",
        "a byte that is no opcode",
        lambda: with_pickle(stream(b"\xff", NONE)),
        Refused(PickleStreamError, {"offset": FIRST_OPCODE, "opcode": None}),
        "pytorch/pytorch#190888",
    ),
    Case(
        "stop-on-nothing",
        "STOP on an empty stack",
        lambda: with_pickle(stream()),
        Refused(PickleStreamError, {"offset": FIRST_OPCODE, "opcode": "STOP"}),
        "pytorch/pytorch#190888",
    ),
    Case(
        "stop-above-a-mark",
        "STOP with a mark on the top",
        lambda: with_pickle(stream(NONE, MARK)),
        Refused(PickleStreamError, {"offset": FIRST_OPCODE + 2, "opcode": "STOP"}),
        "pytorch/pytorch#190888",
    ),
    Case(
        "CVE-2026-24747-setitem",
        "SETITEM puts an item into a tensor, which changes its elements in whatever loads it",
        lambda: with_pickle(stream(_tensor(), binint1(0), binint1(7), SETITEM)),
        Refused(
            PickleStreamError, {"offset": FIRST_OPCODE + len(_tensor()) + 4, "opcode": "SETITEM"}
        ),
        "CVE-2026-24747 (promptfoo/modelaudit#595)",
    ),
    Case(
        "append-to-a-tensor",
        "APPEND puts an item into a tensor",
        lambda: with_pickle(stream(_tensor(), binint1(7), APPEND)),
        Refused(
            PickleStreamError, {"offset": FIRST_OPCODE + len(_tensor()) + 2, "opcode": "APPEND"}
        ),
        "CVE-2026-24747 (promptfoo/modelaudit#595)",
    ),
    Case(
        "build-swaps-a-tensor",
        "BUILD gives a tensor another storage, which is the one that torch.load then takes",
        lambda: _swapped_tensor(),
        Refused(PickleStreamError, {"opcode": "BUILD"}),
    ),
    Case(
        "global-and-its-pair",
        "a name and the pair of its parts are two keys of one dict",
        lambda: _global_and_pair(),
        Opens(("w", "<m.C>", "('m', 'C')")),
    ),
)


def _swapped_tensor() -> bytes:
    """Torch reads a tuple as the state of a tensor: storage, offset, shape, stride."""
    other = builders.Tensor("float32", (2,), [7, 8])
    swap = (other.storage, 0, builders.torch_size((2,)), (1,))
    call = VALUES.lowered()
    return builders.torch_zip({"w": builders.Call(call.function, call.args, swap), "x": other})


def _global_and_pair() -> bytes:
    cls = builders.Global("m", "C")
    return builders.torch_zip({"w": VALUES, cls: VALUES, ("m", "C"): VALUES})


LENGTHS: Final = (
    _breaks_off(
        "binunicode8-2-63",
        "text of 2**63 bytes",
        _said(b"\x8d", "<Q", 1 << 63),
        b"x",
    ),
    _breaks_off(
        "binbytes8-2-63",
        "bytes, 2**63 of them",
        _said(b"\x8e", "<Q", 1 << 63),
        b"x",
    ),
    _breaks_off(
        "bytearray8-2-64",
        "a bytearray of 2**64 - 1 bytes",
        _said(b"\x96", "<Q", (1 << 64) - 1),
    ),
    _breaks_off(
        "long4-2-31",
        "an integer of 2**31 - 1 bytes",
        _said(b"\x8b", "<I", (1 << 31) - 1),
        b"x",
    ),
    _breaks_off(
        "long4-negative",
        "an integer of -1 bytes",
        _said(b"\x8b", "<i", -1),
        b"x",
    ),
    _breaks_off(
        "binstring-negative",
        "a string of -1 bytes",
        _said(b"T", "<i", -1),
        b"x",
    ),
    _breaks_off(
        "binunicode-2-32",
        "text of 2**32 - 1 bytes",
        _said(b"X", "<I", (1 << 32) - 1),
        b"x",
    ),
    _breaks_off("frame-2-63", "a frame of 2**63 bytes", builders.frame(1 << 63), NONE, STOP),
    _breaks_off(
        "frame-2-64", "a frame of 2**64 - 1 bytes", builders.frame((1 << 64) - 1), NONE, STOP
    ),
    _breaks_off(
        "long1-too-long",
        "an integer that is longer than the pickle",
        _said(b"\x8a", "<B", 255),
        b"x",
    ),
    _breaks_off(
        "text-too-long", "text that is longer than the pickle", _said(b"\x8c", "<B", 255), b"x"
    ),
    _breaks_off("no-stop", "a pickle without STOP", NONE),
    _breaks_off("half-an-argument", "a pickle that ends inside an argument", b"G\0\0"),
    _breaks_off("global-without-a-line-end", "a name without an end", b"cos\nsystem"),
    Case(
        "pickle-of-nothing",
        "data.pkl is empty",
        lambda: with_pickle(b""),
        Refused(PickleStreamError, {"offset": 0, "breaks_off": True}),
        _LIES,
    ),
)

CASES: Final = (*MISUSES, *LENGTHS)
