"""Pickle bytes to an inert tree: every opcode, every limit, and what no pickle may do."""

from __future__ import annotations

import gc
import io
import math
import pickle
import pickletools
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.errors import LimitExceededError, PickleStreamError
from ckptool.pickling.limits import Limits
from ckptool.pickling.literals import literal
from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Opaque,
    OutOfBandBuffer,
    PersistentId,
    children,
)
from ckptool.pickling.opcodes import HANDLERS, NAMES
from ckptool.pickling.reader import read_pickle
from tests import builders, strategies
from tests.builders import Call, stream, to_pickle

PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 2000), 1 << 2000),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.binary().map(bytearray),
    ),
    lambda below: st.one_of(
        st.lists(below),
        st.lists(below).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.tuples(st.text())), below),
    ),
    max_leaves=30,
)


def tree_of(*opcodes: bytes, protocol: int = 2) -> Any:
    return read_pickle(stream(*opcodes, protocol=protocol)).tree


@given(PLAIN, st.integers(0, 5))
def test_plain_values_come_back_as_the_standard_library_gives_them(
    value: object, protocol: int
) -> None:
    if protocol < 3:  # these write bytes as calls
        value = _without_bytes(value)
    read = read_pickle(pickle.dumps(value, protocol=protocol))
    if protocol == 3 or protocol == 4:
        value = _without_bytearrays(value)
    if protocol >= 3:
        assert _without_bytearrays(read.tree) == _without_bytearrays(value)
    else:
        assert read.tree == value
    assert read.protocol == (protocol if protocol > 1 else 0)


def _without_bytes(value: Any) -> Any:
    return _mapped(value, lambda leaf: None if isinstance(leaf, bytes | bytearray) else leaf)


def _without_bytearrays(value: Any) -> Any:
    return _mapped(
        value, lambda leaf: None if isinstance(leaf, bytearray) or type(leaf) is Opaque else leaf
    )


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return change(value)


def test_every_opcode_of_the_standard_library_has_a_handler() -> None:
    known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    assert known == NAMES
    assert all(HANDLERS[code] is not HANDLERS[0] for code in known)


@pytest.mark.parametrize(
    ("opcodes", "expected"),
    [
        ((builders.NONE,), None),
        ((builders.NEWTRUE,), True),
        ((builders.NEWFALSE,), False),
        ((b"I01\n",), True),
        ((b"I00\n",), False),
        ((builders.int_(-12),), -12),
        ((builders.long_(1 << 80),), 1 << 80),
        ((b"L7\n",), 7),
        ((builders.binint(-5),), -5),
        ((builders.binint1(255),), 255),
        ((builders.binint2(65535),), 65535),
        ((builders.long1(-(1 << 63)),), -(1 << 63)),
        ((builders.long1(0),), 0),
        ((builders.long4(1 << 300),), 1 << 300),
        ((builders.float_(1.5),), 1.5),
        ((builders.binfloat(-0.1),), -0.1),
        ((builders.string("it's"),), "it's"),
        ((b"S'\\xff'\n",), b"\xff"),
        ((builders.binstring(b"abc"),), "abc"),
        ((builders.binstring(b"\xff\xfe"),), b"\xff\xfe"),
        ((builders.short_binstring(b"abc"),), "abc"),
        ((builders.unicode_("a\\ü\n"),), "a\\ü\n"),
        ((builders.short_binunicode("ü"),), "ü"),
        ((builders.binunicode("ü\ud800"),), "ü\ud800"),
        ((builders.binunicode8("x"),), "x"),
        ((builders.short_binbytes(b"\0"),), b"\0"),
        ((builders.binbytes(b"\0"),), b"\0"),
        ((builders.binbytes8(b"\0"),), b"\0"),
        ((builders.bytearray8(b"\0"),), bytearray(b"\0")),
        ((builders.EMPTY_LIST, builders.NONE, builders.APPEND), [None]),
        ((builders.MARK, builders.NONE, builders.NONE, builders.LIST), [None, None]),
        ((builders.EMPTY_TUPLE,), ()),
        ((builders.MARK, builders.NONE, builders.TUPLE), (None,)),
        ((builders.NONE, builders.TUPLE1), (None,)),
        ((builders.NONE, builders.NEWTRUE, builders.TUPLE2), (None, True)),
        ((builders.NONE, builders.NEWTRUE, builders.NONE, builders.TUPLE3), (None, True, None)),
        ((builders.MARK, builders.binint1(1), builders.NONE, builders.DICT), {1: None}),
        (
            (builders.EMPTY_DICT, builders.binint1(1), builders.NONE, builders.SETITEM),
            {1: None},
        ),
        ((builders.NONE, builders.NEWTRUE, builders.POP), None),
        ((builders.NONE, builders.MARK, builders.NEWTRUE, builders.POP_MARK), None),
        ((builders.NONE, builders.MARK, builders.POP), None),
        ((builders.NONE, builders.DUP, builders.TUPLE2), (None, None)),
        ((builders.binint1(3), builders.put(9), builders.POP, builders.get(9)), 3),
        ((builders.binint1(3), builders.binput(9), builders.POP, builders.binget(9)), 3),
        (
            (builders.binint1(3), builders.long_binput(999), builders.POP,
             builders.long_binget(999)),
            3,
        ),
        ((builders.binint1(3), builders.MEMOIZE, builders.POP, builders.binget(0)), 3),
        ((builders.ext1(7),), ExtensionCode(7)),
        ((builders.ext2(700),), ExtensionCode(700)),
        ((builders.ext4(70000),), ExtensionCode(70000)),
        ((builders.global_("os", "system"),), Global("os", "system")),
        (
            (builders.binunicode("os"), builders.binunicode("system"), builders.STACK_GLOBAL),
            Global("os", "system"),
        ),
    ],
)  # fmt: skip
def test_an_opcode_makes_its_value(opcodes: tuple[bytes, ...], expected: object) -> None:
    tree = tree_of(*opcodes)
    assert tree == expected
    assert type(tree) is type(expected)


def test_a_call_becomes_an_opaque_object_and_nothing_is_called() -> None:
    tree = tree_of(
        builders.global_("os", "system"), builders.binunicode("true"), builders.TUPLE1,
        builders.REDUCE,
    )  # fmt: skip
    assert (tree.callee, tree.args, tree.construction) == (
        Global("os", "system"),
        ("true",),
        "reduce",
    )


@pytest.mark.parametrize(
    ("opcodes", "construction", "args", "kwargs"),
    [
        (
            (builders.global_("m", "C"), builders.EMPTY_TUPLE, builders.NEWOBJ),
            "newobj",
            (),
            None,
        ),
        (
            (builders.global_("m", "C"), builders.EMPTY_TUPLE, builders.EMPTY_DICT,
             builders.NEWOBJ_EX),
            "newobj_ex",
            (),
            {},
        ),
        ((builders.MARK, builders.NONE, builders.inst("m", "C")), "inst", (None,), None),
        (
            (builders.MARK, builders.global_("m", "C"), builders.NONE, builders.OBJ),
            "obj",
            (None,),
            None,
        ),
    ],
)  # fmt: skip
def test_every_way_to_make_an_object_is_kept_apart(
    opcodes: tuple[bytes, ...],
    construction: str,
    args: tuple[object, ...],
    kwargs: dict[str, object] | None,
) -> None:
    tree = tree_of(*opcodes)
    assert tree.type == Global("m", "C")
    assert (tree.construction, tree.args, tree.kwargs) == (construction, args, kwargs)


def test_a_set_keeps_its_items_as_they_stand_in_the_stream() -> None:
    items = (builders.MARK, builders.binint1(2), builders.binint1(1), builders.ADDITEMS)
    tree = read_pickle(stream(builders.EMPTY_SET, *items, protocol=4)).tree
    assert (tree.type, tree.construction) == (Global("builtins", "set"), "set")
    assert tree.added == [2, 1]


def test_a_frozenset_keeps_its_items_as_they_stand_in_the_stream() -> None:
    tree = tree_of(builders.MARK, builders.binint1(1), builders.FROZENSET)
    assert (tree.type, tree.added) == (Global("builtins", "frozenset"), [1])


def test_an_object_keeps_its_state_its_items_and_what_was_appended() -> None:
    made = Call(builders.Global("m", "C"), (), {"a": 1}, appends=[2], items=[("b", 3)])
    tree = read_pickle(to_pickle(made)).tree
    assert (tree.state, tree.listed, tree.keyed) == ({"a": 1}, [2], {"b": 3})
    assert tree.has_state


def test_a_state_of_none_is_a_state() -> None:
    tree = tree_of(
        builders.global_("m", "C"), builders.EMPTY_TUPLE, builders.NEWOBJ, builders.NONE,
        builders.BUILD,
    )  # fmt: skip
    assert tree.has_state
    assert tree.state is None


@pytest.mark.parametrize("module", ["copyreg", "copy_reg"])
def test_an_object_made_through_copyreg_is_of_the_class_it_names(module: str) -> None:
    tree = tree_of(
        builders.global_(module, "_reconstructor"), builders.global_("m", "C"),
        builders.global_("builtins", "object"), builders.NONE, builders.TUPLE3, builders.REDUCE,
    )  # fmt: skip
    assert tree.type == Global("m", "C")


def test_persistent_ids_are_resolved_by_whoever_knows_them() -> None:
    binary = stream(builders.binunicode("key"), builders.BINPERSID)
    text = stream(builders.persid("key"), protocol=0)
    for data in (binary, text):
        assert read_pickle(data, resolve=lambda value: ["resolved", value]).tree == [
            "resolved",
            "key",
        ]
        assert read_pickle(data).tree.value == "key"


def test_out_of_band_buffers_are_named_as_such() -> None:
    assert type(tree_of(builders.NEXT_BUFFER, protocol=5)) is OutOfBandBuffer
    assert tree_of(builders.NEXT_BUFFER, builders.READONLY_BUFFER, protocol=5).is_readonly
    with pytest.raises(PickleStreamError, match="buffer"):
        tree_of(builders.NONE, builders.READONLY_BUFFER, protocol=5)


def test_a_format_reads_the_calls_that_it_knows() -> None:
    made = Call(builders.Global("m", "known"), (1,))
    other = Call(builders.Global("m", "other"), (2,))
    calls = {Global("m", "known"): lambda node: {"read": node.args}}
    tree = read_pickle(to_pickle([made, other]), calls=calls).tree
    assert tree[0] == {"read": (1,)}
    assert tree[1].args == (2,)


def test_what_is_shared_in_the_file_is_shared_in_the_tree() -> None:
    inner = [1]
    tree = read_pickle(pickle.dumps([inner, inner, [1]])).tree
    assert tree[0] is tree[1]
    assert tree[0] is not tree[2]


def test_a_cycle_stays_a_cycle() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    tree = read_pickle(pickle.dumps(cycle)).tree
    assert tree[0] is tree
    table: dict[str, object] = {}
    table["self"] = (table,)
    tree = read_pickle(pickle.dumps(table)).tree
    assert tree["self"][0] is tree


def test_globals_are_named_in_the_order_of_their_first_use() -> None:
    value = [builders.Global("b", "x"), builders.Global("a", "y"), builders.Global("b", "x")]
    assert list(map(str, read_pickle(to_pickle(value)).globals)) == ["b.x", "a.y"]


def test_what_follows_the_end_is_left_alone() -> None:
    data = to_pickle([1])
    read = read_pickle(data + b"more")
    assert (read.tree, read.size) == ([1], len(data))


def test_frames_may_be_of_any_length_within_the_stream() -> None:
    assert tree_of(builders.frame(2), builders.NONE, protocol=4) is None
    with pytest.raises(PickleStreamError) as caught:
        tree_of(builders.frame(1000), builders.NONE, protocol=4)
    assert caught.value.breaks_off


@pytest.mark.parametrize(
    ("opcodes", "opcode"),
    [
        ((builders.APPEND,), "APPEND"),
        ((builders.NONE, builders.NONE, builders.APPEND), "APPEND"),
        ((builders.MARK, builders.NONE, builders.APPENDS), "APPENDS"),
        ((builders.NONE, builders.NONE, builders.NONE, builders.SETITEM), "SETITEM"),
        (
            (builders.EMPTY_DICT, builders.MARK, builders.NONE, builders.SETITEMS),
            "SETITEMS",
        ),
        (
            (builders.EMPTY_DICT, builders.EMPTY_LIST, builders.NONE, builders.SETITEM),
            "SETITEM",
        ),
        (
            (builders.EMPTY_DICT, builders.EMPTY_LIST, builders.TUPLE1, builders.NONE,
             builders.SETITEM),
            "SETITEM",
        ),
        (
            (builders.EMPTY_SET, builders.MARK, builders.EMPTY_DICT, builders.ADDITEMS),
            "ADDITEMS",
        ),
        ((builders.NONE, builders.MARK, builders.NONE, builders.ADDITEMS), "ADDITEMS"),
        ((builders.global_("m", "f"), builders.NONE, builders.REDUCE), "REDUCE"),
        ((builders.global_("m", "f"), builders.NONE, builders.NEWOBJ), "NEWOBJ"),
        (
            (builders.global_("m", "f"), builders.NONE, builders.NONE, builders.NEWOBJ_EX),
            "NEWOBJ_EX",
        ),
        ((builders.EMPTY_LIST, builders.NONE, builders.BUILD), "BUILD"),
        (
            (builders.global_("m", "f"), builders.EMPTY_TUPLE, builders.NEWOBJ,
             builders.NONE, builders.BUILD, builders.NONE, builders.BUILD),
            "BUILD",
        ),
        ((builders.NONE, builders.NONE, builders.STACK_GLOBAL), "STACK_GLOBAL"),
        ((builders.binget(5), builders.NONE), "BINGET"),
        ((builders.get(5), builders.NONE), "GET"),
        ((builders.TUPLE3, builders.NONE), "TUPLE3"),
        ((builders.TUPLE, builders.NONE), "TUPLE"),
        ((b"Ix\n", builders.NONE), "INT"),
        ((b"Sx\n", builders.NONE), "STRING"),
        ((b"X\x01\0\0\0\xff", builders.NONE), "BINUNICODE"),
    ],
)  # fmt: skip
def test_misuse_is_an_error_with_the_opcode_and_its_offset(
    opcodes: tuple[bytes, ...], opcode: str
) -> None:
    data = stream(*opcodes)
    with pytest.raises(PickleStreamError) as caught:
        read_pickle(data)
    assert caught.value.opcode == opcode
    at = caught.value.offset
    assert NAMES[data[at]] == opcode
    assert not caught.value.breaks_off


def test_a_byte_that_is_no_opcode_is_named() -> None:
    with pytest.raises(PickleStreamError, match="0xff"):
        read_pickle(b"\x80\x02\xff.")


def test_a_protocol_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PickleStreamError, match="protocol 6"):
        read_pickle(stream(builders.NONE, protocol=6))


def test_a_stream_without_a_value_is_refused() -> None:
    for data in (b".", b"\x80\x02.", b"N(."):
        with pytest.raises(PickleStreamError, match="no value"):
            read_pickle(data)


@given(PLAIN, st.integers(0, 5), st.data())
def test_a_stream_that_breaks_off_says_so(
    value: object, protocol: int, data: st.DataObject
) -> None:
    whole = pickle.dumps(value, protocol=protocol)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PickleStreamError) as caught:
        read_pickle(whole[:cut])
    assert caught.value.breaks_off
    assert caught.value.offset == cut


@given(st.binary(max_size=200))
def test_any_bytes_give_a_tree_or_an_error(data: bytes) -> None:
    try:
        read = read_pickle(data)
    except (PickleStreamError, LimitExceededError):
        return
    assert read.size <= len(data)


@given(strategies.trees(), st.data())
def test_mutated_pickles_give_a_tree_or_an_error(tree: object, data: st.DataObject) -> None:
    changed = data.draw(strategies.mutations(to_pickle(tree)))
    try:
        read_pickle(changed)
    except (PickleStreamError, LimitExceededError):
        return


class _Refusing(pickle.Unpickler):
    """The standard library's machine, with names and persistent ids that stay what they are."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError("a global")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id")


@given(st.lists(st.sampled_from(sorted(NAMES)), max_size=12), st.binary(max_size=12))
def test_what_the_standard_library_reads_is_read_alike(codes: list[int], rest: bytes) -> None:
    data = bytes(codes) + rest + b"."
    try:
        expected = _Refusing(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - whatever it raises, it has no answer to compare with
        return
    if not _holds_nan(expected):
        assert _plain(read_pickle(data).tree) == expected


def _plain(tree: Any) -> Any:
    """Sets as Python's own; everything else is plain already."""
    if type(tree) is Opaque and tree.construction in ("set", "frozenset"):
        make = set if tree.construction == "set" else frozenset
        return make(map(_plain, tree.added or ()))
    return tree


def _holds_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


# Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "limits", "limit"),
    [
        (stream(builders.NONE * 50), Limits(opcodes=20), "opcodes"),
        (
            stream(builders.NONE, *(builders.long_binput(n) for n in range(100))),
            Limits(memo=50),
            "memo entries",
        ),
        (stream(b"]" * 30, b"a" * 29), Limits(depth=20), "levels of nesting"),
        (
            stream(builders.binunicode("x" * 100)),
            Limits(string_bytes=50),
            "bytes in one string",
        ),
        (stream(builders.long4(1 << 900)), Limits(integer_bytes=50), "bytes in one integer"),
    ],
)
def test_every_limit_is_enforced(data: bytes, limits: Limits, limit: str) -> None:
    read_pickle(data)
    with pytest.raises(LimitExceededError) as caught:
        read_pickle(data, limits=limits)
    assert caught.value.limit == limit
    assert caught.value.actual > caught.value.allowed


def test_a_length_beyond_the_end_takes_no_memory() -> None:
    for code in (b"B\xff\xff\xff\x0f", b"\x8e" + b"\xff" * 7 + b"\0", b"\x8b\xff\xff\xff\x7f"):
        with pytest.raises((PickleStreamError, LimitExceededError)):
            read_pickle(b"\x80\x04" + code + b".")


def test_nesting_that_would_break_recursion_is_refused() -> None:
    for data in (
        b"]" * 5_000 + b"a" * 4_999 + b".",
        b"\x80\x02)" + builders.TUPLE1 * 100_000 + b".",
        b"\x80\x02" + builders.global_("m", "f") + b")R" + b"\x85\x85" * 5_000 + b".",
    ):
        with pytest.raises(LimitExceededError) as caught:
            read_pickle(data)
        assert caught.value.limit == "levels of nesting"


def test_a_hostile_key_is_refused_before_it_is_hashed() -> None:
    doubling = builders.TUPLE1 + (builders.DUP + builders.TUPLE2) * 40
    data = stream(builders.EMPTY_DICT, builders.NONE, doubling, builders.NONE, builders.SETITEM)
    with pytest.raises(PickleStreamError) as caught:
        read_pickle(data)
    assert caught.value.opcode == "SETITEM"


def test_the_collector_runs_again_after_reading() -> None:
    assert gc.isenabled()
    read_pickle(to_pickle([1]))
    assert gc.isenabled()
    with pytest.raises(PickleStreamError):
        read_pickle(b"")
    assert gc.isenabled()


def test_children_are_those_that_a_walker_must_see() -> None:
    node = Opaque(
        Global("m", "f"), (1,), kwargs={"k": 2}, state={"s": 3}, has_state=True,
        keyed={"i": 4}, listed=[5], added=[6],
    )  # fmt: skip
    seen = []
    pending: list[Any] = [node]
    while pending:
        below = list(children(pending.pop()))
        seen += [child for child in below if isinstance(child, int)]
        pending += below
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert list(children(PersistentId(7))) == [7]
    assert list(children(OrderedDict())) == []


def test_a_name_is_not_the_pair_of_its_parts() -> None:
    tree = tree_of(b"}(cm\nC\nK\x01X\1\0\0\0mX\1\0\0\0C\x86K\x02u")
    assert list(tree.values()) == [1, 2]
    name, pair = tree
    assert (name == pair, pair == name, name != pair) == (False, False, True)
    assert name == Global("m", "C")


def test_a_complex_number_that_is_none_stays_a_call() -> None:
    node = tree_of(b"cbuiltins\ncomplex\n", builders.long4(1 << 5000), b"K\1\x86R")
    assert literal(node) is node


def test_a_length_that_lies_breaks_off_whatever_the_limits_say() -> None:
    for opcode, width in ((b"\x8d", 8), (b"\x8e", 8), (b"X", 4), (b"B", 4)):
        with pytest.raises(PickleStreamError) as caught:
            tree_of(opcode + b"\xff" * width)
        assert caught.value.breaks_off
        assert caught.value.wanted >= (1 << 8 * width) - 1


@pytest.mark.parametrize(
    ("line", "number"), [(b"0x10", 16), (b"010", 8), (b"-0b11", -3), (b" 7", 7), (b"1_0", 10)]
)
def test_numbers_in_text_are_what_c_reads(line: bytes, number: int) -> None:
    assert tree_of(b"I" + line + b"\n") == number
    assert pickle.loads(b"I" + line + b"\n.") == number


def test_of_nothing_any_object_can_be_told() -> None:
    for opcodes in (b"N(e", b"N(u", b"N(\x90"):
        assert tree_of(opcodes, protocol=4) is None


def test_keys_that_can_all_have_one_hash_are_counted() -> None:
    modulus = (1 << 61) - 1
    few = b"".join(builders.long1(n * modulus) + b"N" for n in range(1, 500))
    assert len(tree_of(b"}(", few, b"u")) == 499
    many = b"".join(builders.long1(n * modulus) + b"N" for n in range(1, 2_000))
    with pytest.raises(PickleStreamError) as caught:
        tree_of(b"}(", many, b"u")
    assert caught.value.opcode == "SETITEMS"
