"""Small pickles that become large, deep or endless in a reader that copies, recurses or counts."""

from __future__ import annotations

from typing import Final

from ckptool.errors import LimitExceededError, PickleStreamError, TensorError
from tests import builders
from tests.builders import (
    APPEND,
    BINPERSID,
    BUILD,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    NONE,
    POP,
    REDUCE,
    SETITEM,
    TUPLE,
    TUPLE1,
    TUPLE2,
    Call,
    Global,
    binget,
    binint1,
    binput,
    binunicode,
    global_,
    legacy,
    long_binget,
    long_binput,
    stream,
    torch_zip,
)
from tests.hostile.case import (
    FIRST_OPCODE,
    VALUES,
    Case,
    Opens,
    Outcome,
    Refused,
    beside,
    with_pickle,
)

__all__ = ["CASES", "doubled", "doubled_list", "endless"]

MILLION: Final = 1_000_000
HUNDRED_THOUSAND: Final = 100_000
DEPTH_READ: Final = 500
"""How many levels of nesting are read."""
BOMB_BYTES: Final = 144
BILLIONS: Final = 60
MEGABYTE: Final = 1 << 20
_SPARSE: Final = Global("torch._utils", "_rebuild_sparse_tensor")
_BOMB: Final = "tracel-ai/burn#4965"
_CYCLE: Final = "trailofbits/fickling#196"
_SHARED: Final = "huggingface/candle#3620"

TOO_DEEP: Final = Refused(
    LimitExceededError, {"limit": "levels of nesting", "allowed": DEPTH_READ, "option": None}
)


# How many are read depends on the pickle's length; --limits does not raise it.
TOO_MANY: Final = Refused(LimitExceededError, {"limit": "leaves", "option": None})


def doubled(times: int) -> bytes:
    """Opcodes for a tuple of two that are the same tuple of two, and so on."""
    return binint1(1) + (DUP + TUPLE2) * times


def doubled_list(times: int) -> object:
    """A list of two that are the same list of two, and so on."""
    shared: list[object] = ["x"]
    for _ in range(times):
        shared = [shared, shared]
    return shared


def endless() -> Call:
    """An object whose `repr` would never end."""
    return Call(Global("m", "C"), (doubled_list(BILLIONS),))


def memo_bomb() -> bytes:
    """144 bytes that stand for 2 ** 27 numbers: each tuple holds the one before it twice."""
    step = binput(0) + binget(0) + TUPLE2
    room = BOMB_BYTES - len(stream(binint1(1)))
    times, left = divmod(room, len(step))
    return stream(binint1(1), step * times, (NONE + POP) * (left // 2))


def _entwined_modules(count: int) -> Call:
    """Modules of which each holds the next one twice, without any tensor."""
    module: object = None
    for _ in range(count):
        module = builders.module(modules={"a": module, "b": module})
    assert isinstance(module, Call)
    return module


def _nested_objects(times: int) -> object:
    node: object = 1
    for _ in range(times):
        node = Call(Global("m", "C"), (node,), None)
    return node


def _wrapper(name: object) -> Call:
    """A subclass that wraps a tensor under this name."""
    cls = Global("mine", "Wrapped")
    cpu = Call(Global("torch", "device"), (endless(),))
    args = (cls, Global("torch", "float32"), (2,), (1,), 0, None, cpu, False)
    rebuild = Global("torch._utils", "_rebuild_wrapper_subclass")
    from_type = Global("torch._tensor", "_rebuild_from_type_v2")
    return Call(from_type, (rebuild, cls, args, {name: VALUES}))


def _cyclic_module() -> object:
    module = builders.module(parameters={"w": VALUES}, modules={})
    assert isinstance(module.state, dict)
    module.state["_modules"]["self"] = module
    return module


def _cyclic_root() -> dict[str, object]:
    root: dict[str, object] = {"w": VALUES}
    root["state_dict"] = root
    return root


def _cyclic_tensor() -> bytes:
    """A tensor that is its own attribute; BUILD gives it its state."""
    bare = builders.to_pickle(VALUES, table=builders.StorageTable())[2:-1]
    return with_pickle(
        stream(
            bare,
            long_binput(1000),
            EMPTY_DICT,
            binunicode("self"),
            long_binget(1000),
            SETITEM,
            BUILD,
        )
    )


def _repeated_text(times: int) -> dict[str, object]:
    text = "n" * MEGABYTE
    return {"w": VALUES, "x": [text] * times}


def _repeated_key(levels: int) -> bytes:
    """Dicts in dicts, each under the same long key: the path grows by it with each level."""
    key = binunicode("n" * MEGABYTE) + long_binput(1000) + POP
    down, up = EMPTY_DICT + long_binget(1000), SETITEM
    return beside(key, down * levels, NONE, up * levels)


def _stream_again_and_again(times: int) -> bytes:
    """A bare pickle in which one text of a megabyte is read as the stream of a storage."""
    inner = legacy(builders.Storage("uint8", bytes(MEGABYTE))).decode("latin1")
    text, kind = binunicode(inner) + binput(0) + POP, binunicode("latin1") + binput(1) + POP
    read = global_("torch.storage", "_load_from_bytes") + binput(2) + POP
    encode = global_("_codecs", "encode") + binput(3) + POP
    again = binget(2) + binget(3) + binget(0) + binget(1) + TUPLE2 + REDUCE + TUPLE1 + REDUCE
    return stream(text, kind, read, encode, EMPTY_LIST, (again + APPEND) * times)


MEMO_BOMBS: Final = (
    Case(
        "memo-bomb",
        "144 bytes whose tuples each hold the one before twice, through the memo",
        lambda: with_pickle(memo_bomb()),
        TOO_MANY,
        _BOMB,
    ),
    Case(
        "memo-bomb-bare",
        "the same without an archive around it",
        memo_bomb,
        TOO_MANY,
        _BOMB,
    ),
    Case(
        "memo-bomb-dup",
        "the same with DUP: 60 levels in 120 bytes",
        lambda: beside(doubled(BILLIONS)),
        TOO_MANY,
        _BOMB,
    ),
    Case(
        "memo-bomb-lists",
        "lists that double",
        lambda: torch_zip({"w": VALUES, "x": doubled_list(BILLIONS)}),
        TOO_MANY,
        _SHARED,
    ),
    Case(
        "memo-bomb-in-an-object",
        "lists that double in the state of an object, which is one leaf",
        lambda: torch_zip(
            {"w": VALUES, "x": Call(Global("m", "C"), (), {"x": doubled_list(BILLIONS)}, new=True)}
        ),
        stands_for=_SHARED,
    ),
    Case(
        "memo-bomb-modules",
        "modules that hold each other twice",
        lambda: torch_zip(_entwined_modules(30)),
        TOO_MANY,
        _SHARED,
    ),
    Case(
        "memo-bomb-callee",
        "a callee that takes forever to hash",
        lambda: with_pickle(stream(doubled(BILLIONS), EMPTY_TUPLE, REDUCE)),
        Opens(()),
        _BOMB,
    ),
    Case(
        "memo-bomb-key",
        "a key that takes forever to write",
        lambda: torch_zip({"w": VALUES, endless(): VALUES, (1, endless()): 1}),
        Opens(("w", "<m.C 1>")),
    ),
    Case(
        "memo-bomb-location",
        "a location that takes forever to write",
        lambda: with_pickle(
            stream(
                MARK,
                binunicode("storage"),
                global_("torch", "FloatStorage"),
                binunicode("0"),
                doubled(BILLIONS),
                binint1(2),
                TUPLE,
                BINPERSID,
            )
        ),
        Opens(()),
    ),
    Case(
        "memo-bomb-attribute",
        "an attribute whose name takes forever to write",
        lambda: torch_zip(
            {"w": builders.with_attributes(VALUES, {endless(): VALUES})}  # type: ignore[dict-item]
        ),
        Opens(("w", "w/<m.C 0>")),
    ),
    Case(
        "memo-bomb-part",
        "a part of a tensor whose name takes forever to write",
        lambda: torch_zip({"w": _wrapper(endless())}),
        Opens(("w", "w/<m.C 0>")),
    ),
    Case(
        "memo-bomb-parameter",
        "a parameter whose name takes forever to write",
        lambda: torch_zip(
            builders.module(parameters={endless(): VALUES, "w": VALUES})  # type: ignore[dict-item]
        ),
        Opens(("<m.C 0>", "w")),
    ),
    Case(
        "memo-bomb-layout",
        "a layout that takes forever to write",
        lambda: torch_zip(
            {"w": VALUES, "x": Call(_SPARSE, (endless(), (2, 2), False, VALUES, VALUES, {}))}
        ),
        Refused(TensorError, {"key_path": "x", "code": None}),
    ),
    Case(
        "long-binput-4294967295",
        "a memo index of 2**32 - 1, for a memo that is an array",
        lambda: beside(binunicode("x"), long_binput(0xFFFFFFFF)),
        stands_for="huggingface/candle#3617",
    ),
    Case(
        "put-index-of-ten-thousand-digits",
        "a memo index in decimal, longer than Python reads",
        lambda: with_pickle(stream(NONE, b"p" + b"9" * 10_000 + b"\n")),
        Refused(PickleStreamError, {"offset": 3, "opcode": "PUT"}),
    ),
    Case(
        "text-in-forty-places",
        "one text of a megabyte, forty times in a list",
        lambda: torch_zip(_repeated_text(40)),
    ),
    Case(
        "key-in-every-level",
        "one key of a megabyte, in each of forty dicts inside each other",
        lambda: _repeated_key(40),
        Refused(LimitExceededError, {"limit": "characters of paths", "option": None}),
    ),
    Case(
        "stream-in-three-hundred-places",
        "one text of a megabyte, read as the stream of a storage three hundred times",
        lambda: _stream_again_and_again(300),
        Opens(()),
    ),
)

CYCLES: Final = (
    Case(
        "cycle-list",
        "a list that holds itself",
        lambda: beside(EMPTY_LIST, binput(200), binget(200), APPEND),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-dict",
        "a dict that holds itself",
        lambda: beside(EMPTY_DICT, binput(200), binunicode("self"), binget(200), SETITEM),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-state",
        "an object that is its own state",
        lambda: beside(global_("m", "C"), EMPTY_TUPLE, NEWOBJ, binput(200), binget(200), BUILD),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-items",
        "an object that is an item of its own",
        lambda: beside(global_("m", "C"), EMPTY_TUPLE, NEWOBJ, binput(200), binget(200), APPEND),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-tuple",
        "a tuple that holds a list that holds the tuple",
        lambda: beside(EMPTY_LIST, DUP, TUPLE1, binput(200), APPEND, POP, binget(200)),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-persistent-id",
        "a persistent id that is a list that holds the persistent id",
        lambda: beside(EMPTY_LIST, binput(200), DUP, BINPERSID, APPEND),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-module",
        "a module that is its own submodule",
        lambda: torch_zip(_cyclic_module()),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-root",
        "a state_dict that is in itself, under the name that state_dicts have",
        lambda: torch_zip(_cyclic_root()),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-tensor",
        "a tensor that is an attribute of its own",
        _cyclic_tensor,
        Refused(PickleStreamError, {"opcode": "BUILD"}),
        stands_for=_CYCLE,
    ),
    Case(
        "cycle-argument",
        "an object whose argument is a list that has the object as an item",
        lambda: beside(
            EMPTY_LIST, binput(200), global_("m", "C"), binget(200), TUPLE1, REDUCE, APPEND
        ),
        stands_for=_CYCLE,
    ),
)


def _deep(name: str, trick: str, *opcodes: bytes, outcome: Outcome = TOO_DEEP) -> Case:
    return Case(name, trick, lambda: with_pickle(stream(*opcodes)), outcome, _BOMB)


DEPTHS: Final = (
    _deep(
        "deep-lists",
        "a million lists inside each other",
        EMPTY_LIST * MILLION,
        APPEND * (MILLION - 1),
    ),
    _deep("deep-tuples", "a million tuples, from the inside out", NONE, TUPLE1 * MILLION),
    _deep(
        "deep-dicts",
        "a hundred thousand dicts inside each other",
        (EMPTY_DICT + NONE) * (HUNDRED_THOUSAND - 1),
        EMPTY_DICT,
        SETITEM * (HUNDRED_THOUSAND - 1),
    ),
    _deep(
        "deep-callees",
        "a call of what a call gives, a hundred thousand times",
        global_("m", "C"),
        (EMPTY_TUPLE + REDUCE) * HUNDRED_THOUSAND,
    ),
    _deep(
        "deep-states",
        "objects whose states are objects",
        *[(global_("m", "C") + EMPTY_TUPLE + NEWOBJ) * 100_000, BUILD * 99_999],
    ),
    _deep(
        "deep-persistent-ids",
        "persistent ids of persistent ids",
        NONE,
        BINPERSID * HUNDRED_THOUSAND,
    ),
    _deep(
        "deep-marks",
        "a million marks, and nothing above them",
        MARK * MILLION,
        outcome=Refused(PickleStreamError, {"offset": FIRST_OPCODE + MILLION, "opcode": "STOP"}),
    ),
    Case(
        "deep-key",
        "a key of a hundred thousand tuples inside each other",
        lambda: with_pickle(stream(EMPTY_DICT, NONE, TUPLE1 * 100_000, NONE, SETITEM)),
        Refused(PickleStreamError, {"offset": 100_005, "opcode": "SETITEM"}),
        _BOMB,
    ),
    Case(
        "deep-as-is-read",
        "objects nested as deep as is just read",
        lambda: torch_zip({"w": VALUES, "x": _nested_objects(160)}),
    ),
)

WIDTHS: Final = (
    Case(
        "names-three-hundred",
        "a tensor under three hundred names",
        lambda: torch_zip({f"n{n}": VALUES for n in range(300)}),
        Opens(tuple(f"n{n}" for n in range(300))),
    ),
    Case(
        "roots-two-hundred",
        "two hundred state_dicts to choose from",
        lambda: torch_zip([{"w": VALUES} for _ in range(200)]),
        Opens(tuple(f"{n}/w" for n in range(200))),
    ),
    Case(
        "names-of-many-numbers",
        "fifty names of a thousand numbers each, as of layers in layers",
        lambda: torch_zip({".".join(["1"] * 1_100 + [str(n)]): VALUES for n in range(50)}),
        Opens(tuple(".".join(["1"] * 1_100 + [str(n)]) for n in range(50))),
    ),
    Case(
        "script-of-quotes",
        "TorchScript source whose names are all quotes",
        lambda: builders.torchscript(
            builders.script_module("Net", {"w": VALUES}),
            b"class Net(Module):\n  __parameters__ = [" + b'"\\"' * 40_000 + b"]\n",
        ),
    ),
    Case(
        "opcodes-without-an-end",
        "a hundred thousand values put on the stack and taken off again",
        lambda: beside((NONE + POP) * HUNDRED_THOUSAND, NONE),
    ),
)

CASES: Final = (*MEMO_BOMBS, *CYCLES, *DEPTHS, *WIDTHS)
