"""A tree back to pickle bytes: the ones it was read from, or others that say the same."""

from __future__ import annotations

import argparse
import functools
import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool import PickleStreamError
from ckptool.errors import CkptoolError
from ckptool.formats.storages import StorageTable
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Node, Opaque, PersistentId
from ckptool.pickling.reader import Pickle, read_pickle
from ckptool.pickling.writer import write_pickle
from ckptool.tensors.rebuild import REBUILD_CALLS
from tests import builders, strategies
from tests.builders import stream, to_pickle
from tests.oracle import TREES, WRITERS
from tests.running import SAMPLES

PROTOCOLS: Final = (2, 3, 4, 5)


def written(data: bytes) -> bytes:
    """What a pickle becomes by being read and written, at any depth."""
    read = read_pickle(data, limits=Limits(depth=100_000))
    return write_pickle(read.tree, protocol=read.protocol, source=data)


def read_tensors(data: bytes) -> Pickle:
    return read_pickle(data, calls=REBUILD_CALLS, resolve=StorageTable({}).resolver())


def written_with_tensors(data: bytes) -> bytes:
    def lower(tensor: Node) -> Node:
        return tensor.node

    read = read_tensors(data)
    return write_pickle(read.tree, protocol=read.protocol, lower=lower, source=data)


def outline(tree: Node) -> list[object]:
    """All that a tree says, and which of its nodes are one: equal for trees that mean the same."""
    numbers: dict[int, int] = {}
    found: list[object] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        kind = type(node)
        if kind not in PARTS or node == ():
            found.append((kind, repr(node)))
        elif id(node) in numbers:
            found.append(numbers[id(node)])
        else:
            if kind is not PersistentId:  # each mention of one is its own
                numbers[id(node)] = len(numbers)
            parts = PARTS[kind](node)
            found.append((kind, len(parts)))
            pending += reversed(parts)
    return found


PARTS: Final[dict[type, Callable[[Any], list[Node]]]] = {
    list: list,
    tuple: list,
    bytearray: list,
    dict: lambda node: [*node, *node.values()],
    PersistentId: lambda node: [node.value],
    Opaque: lambda node: [getattr(node, name) or None for name in Opaque.__slots__],
}


# What Python 3's C pickler writes --------------------------------------------------------------


class Point:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    class Inner:
        pass


class MadeByKeyword:
    def __new__(cls, *_args: object, **_kwargs: object) -> MadeByKeyword:
        return object.__new__(cls)

    def __getnewargs_ex__(self) -> tuple[tuple[int, ...], dict[str, object]]:
        return (1, 2), {"x": [3]}


class Filled:
    """An object with items appended and set, and a state of any kind."""

    def __init__(self, listed: list[Any], keyed: dict[Any, Any], state: object) -> None:
        self.listed, self.keyed, self.state = listed, keyed, state

    def __reduce__(self) -> tuple[Any, ...]:
        return Filled, ([], {}, None), self.state, iter(self.listed), iter(self.keyed.items())


def state_dict(size: int) -> OrderedDict[str, Any]:
    found: OrderedDict[str, Any] = OrderedDict((f"layer{n}.weight", [n]) for n in range(size))
    found._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return found


FRAME: Final = 1 << 16
AROUND_A_BATCH: Final = (0, 1, 2, 999, 1000, 1001, 1999, 2000, 2001)
SHARED: Final = [state_dict(3), [1], Point(a=1), ("x",)]
TWO_OF_A_KIND: Final = (str(5), str(5))
VALUES: Final[dict[str, object]] = {
    "a number in a frame": 256,
    "a number in none": 1,
    "integers": [
        sign * (1 << bits) + more
        for bits in (0, 7, 8, 15, 16, 31, 32, 39, 47, 63, 64, 70, 2031, 2032, 2039, 2040, 2050)
        for more in (-1, 0, 1) for sign in (-1, 1)
    ],
    "floats": [0.0, -0.0, 1.5, float("nan"), float("-inf"), 1 + 2j],
    "strings": ["", "a", "é", "€", "ab" * 127, "ab" * 128, "\ud800", "a\nb", "𝄞"] * 2,
    "bytes": [b"", b"a", b"\xff", b"ab" * 127, b"ab" * 128, bytearray(), bytearray(b"ab")] * 2,
    "equal short strings": [*TWO_OF_A_KIND * 2, *(str(n % 10) for n in range(20))],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),)],
    "memo beyond a byte": [str(n) * 2 for n in range(300)] * 2,
    "objects": [
        Point(a=1), Point(), MadeByKeyword(), Filled([1], {2: 3}, None), range(3), None,
        Filled([1], {}, 4), Filled([], {2: 3}, ([],)), argparse.Namespace(a=1, b=[2]), ...,
        datetime(2024, 1, 2), Path("a"), defaultdict(list, a=[1]), functools.partial(int, base=2),
    ],
    "globals": [len, Point, Point.Inner, Point.Inner, type(None), OrderedDict, len],
    "numpy": [np.arange(5), np.float64(3), np.zeros((2, 3), order="F"), np.array(["a", "b"])],
    "shared": [*SHARED, Point(a=SHARED, b=SHARED[1]), *SHARED],
    "lists": [[[n] for n in range(size)] for size in AROUND_A_BATCH],
    "dicts": [{n: str(n) for n in range(size)} for size in AROUND_A_BATCH],
    "sets": [kind(range(size)) for size in AROUND_A_BATCH for kind in (set, frozenset)],
    "state_dicts": [state_dict(size) for size in AROUND_A_BATCH],
    "deques": [deque(range(size)) for size in AROUND_A_BATCH],
    "long ones": [b"z" * FRAME] * 2 + [
        kind * size for kind in ("z", b"z", "é", bytearray(1)) for size in (FRAME - 1, FRAME)
    ],
    "short ones between": [part for n in range(4) for part in ("a", b"%d" % n * FRAME, "a")],
    "several frames": [{f"key{n}": (str(n % 7), n, float(n), [])} for n in range(5000)],
}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", VALUES)
def test_what_python_pickles_becomes_the_same_bytes(name: str, protocol: int) -> None:
    data = pickle.dumps(VALUES[name], protocol)
    assert written(data) == data
    assert read_pickle(data).is_whole


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_frame_is_cut_at_the_same_byte(protocol: int) -> None:
    for length in range(FRAME - 40, FRAME + 4):
        data = pickle.dumps([b"x" * length, 7, "ab", ("ab", 1.5), {}, Point(a="ab")], protocol)
        assert written(data) == data


CYCLES: Final[dict[str, Callable[[list[Any]], object]]] = {
    "list": lambda inner: inner,
    "dict": lambda inner: {1: inner},
    "tuple of 1": lambda inner: (inner,),
    "tuple of 3": lambda inner: (1, inner, "x"),
    "tuple of 5": lambda inner: (None, inner, "x", [inner], b"y"),
    "object": lambda inner: Point(a=1, b=inner),
    "ordered": lambda inner: OrderedDict(a=inner),
    "filled": lambda inner: Filled([inner], {"a": inner}, inner),
}
"""Values of all kinds by the list that they shall be in."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", CYCLES)
def test_a_cycle_becomes_the_same_bytes_and_is_whole(kind: str, protocol: int) -> None:
    inner: list[Any] = []
    inner.append(CYCLES[kind](inner))
    for value in (inner, inner[0], {"a": (inner[0], "a"), "b": inner}):
        data = pickle.dumps(value, protocol)
        assert written(data) == data
        assert read_pickle(data).is_whole


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_that_holds_itself_becomes_the_same_bytes(kind: type, protocol: int) -> None:
    point = Point()
    point.__dict__["all"] = kind([point])
    for value in (point, point.__dict__["all"]):
        data = pickle.dumps(value, protocol)
        assert written(data) == data


ATOMS: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(1 << 2100), 1 << 2100), st.floats(),
    st.text(st.characters()), st.characters(), st.integers(0, 9).map(str), st.binary(),
    st.binary(max_size=1), st.complex_numbers(), st.sampled_from([len, OrderedDict, Point.Inner]),
)  # fmt: skip
KEYS: Final = st.one_of(
    st.text(st.characters()), st.integers(), st.floats(), st.binary(max_size=2), st.none(),
    st.tuples(st.text(max_size=1), st.integers()), st.frozensets(st.integers(), max_size=3),
)  # fmt: skip


def _in_a_cycle(values: list[Any], kind: str) -> object:
    inner = list(values)
    inner.append(CYCLES[kind](inner))
    return [inner[-1], *values]


def _containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(values, max_size=5)
    dicts = st.dictionaries(KEYS, values, max_size=4)
    named = st.dictionaries(st.text(max_size=3), values, max_size=3)
    return st.one_of(
        lists, lists.map(tuple), dicts, dicts.map(OrderedDict), st.sets(KEYS), st.frozensets(KEYS),
        st.binary().map(bytearray), dicts.map(lambda items: defaultdict(list, items)),
        named.map(lambda names: argparse.Namespace(**names)),
        named.map(lambda names: Point(**names)),
        st.builds(Filled, lists, dicts, st.one_of(values, named)),
        lists.map(lambda items: [items, {"again": items}, *items]),
        st.builds(_in_a_cycle, lists, st.sampled_from(sorted(CYCLES))),
    )  # fmt: skip


ANYTHING: Final = st.recursive(ATOMS, _containers, max_leaves=25)


@given(ANYTHING, st.sampled_from(PROTOCOLS))
def test_any_value_that_python_pickles_becomes_the_same_bytes(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert written(data) == data
    assert written(data + b"more") == data


def test_protocols_below_1_are_written_as_1() -> None:
    assert write_pickle([1 << 70, (True,)], protocol=0) == pickle.dumps([1 << 70, (True,)], 1)


@pytest.mark.parametrize(
    "opcode", [builders.ext1(255), builders.ext2(65_535), builders.ext4(65_536)], ids=str
)
def test_an_extension_code_becomes_the_same_bytes(opcode: bytes) -> None:
    assert written(stream(opcode)) == stream(opcode)


# What torch writes -----------------------------------------------------------------------------


def pickles_in(path: Path) -> Iterator[bytes]:
    """The pickle of an archive, or the five that a legacy stream begins with."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            yield archive.read(name)
        return
    data = path.read_bytes()
    for _ in range(5):
        size = read_tensors(data).size
        yield data[:size]
        data = data[size:]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("writer", ["zip", "legacy", "protocol 3", "protocol 4", "protocol 5"])
@pytest.mark.parametrize("tree", TREES)
def test_what_torch_saves_becomes_the_same_bytes(tree: str, writer: str, tmp_path: Path) -> None:
    WRITERS[writer](TREES[tree](), tmp_path / "saved.pt")
    for data in pickles_in(tmp_path / "saved.pt"):
        assert written_with_tensors(data) == data
        assert written(data) == data


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.[pc]*t")), ids=lambda path: path.name)
def test_the_samples_become_the_same_bytes(path: Path) -> None:
    for data in pickles_in(path):
        assert written_with_tensors(data) == data


# What others write -----------------------------------------------------------------------------


def check_stable(data: bytes) -> None:
    """A pickle is written with all that it says, and from then on as it was written."""
    once = written(data)
    assert outline(read_pickle(once).tree) == outline(read_pickle(data).tree)
    assert written(once) == once


def by_python(value: object, protocol: int) -> bytes:
    """What the pickler writes that is Python itself."""
    buffer = io.BytesIO()
    pickle._Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


OTHERS: Final[dict[str, Callable[[object, int], bytes]]] = {
    "python": by_python,
    "optimized": lambda value, protocol: pickletools.optimize(pickle.dumps(value, protocol)),
    "old": lambda value, protocol: pickle.dumps(value, protocol % 2),
    "old python": lambda value, protocol: by_python(value, protocol % 2),
}


@pytest.mark.parametrize("pickler", OTHERS)
@given(value=ANYTHING, protocol=st.sampled_from(PROTOCOLS))
def test_what_other_picklers_write_is_stable_once_written(
    pickler: str, value: object, protocol: int
) -> None:
    check_stable(OTHERS[pickler](value, protocol))


PLAIN: Final = st.recursive(
    ATOMS.filter(lambda atom: atom == atom),
    lambda values: st.one_of(
        st.lists(values), st.lists(values).map(tuple), st.dictionaries(st.text(), values),
        st.sets(st.integers()), st.frozensets(st.text()), st.binary().map(bytearray),
    ),
)  # fmt: skip


@given(PLAIN, st.integers(0, 5))
def test_what_is_written_unpickles_to_what_was_pickled(value: object, protocol: int) -> None:
    assert pickle.loads(written(by_python(value, protocol))) == value


@pytest.mark.parametrize(
    "opcodes",
    [
        (builders.MARK, builders.NONE, builders.inst("m", "C"), builders.NONE, builders.BUILD),
        (builders.MARK, builders.global_("m", "C"), builders.NONE, builders.OBJ),
        (builders.global_("m", "C"), builders.EMPTY_LIST, builders.binput(0), builders.TUPLE1,
         builders.REDUCE, builders.binput(1), builders.binget(0), builders.binget(1),
         builders.APPEND, builders.POP),
        (builders.string("a"), builders.short_binstring(b"b\xff"), builders.TUPLE2),
        (builders.binstring(b"b" * 300), builders.binstring(b"\xff" * 300), builders.TUPLE2),
        (builders.MARK, builders.unicode_("a\n"), builders.EMPTY_LIST, builders.DICT),
        (builders.MARK, b"I01\n", builders.long_(7), builders.float_(-0.0), builders.LIST),
        (builders.persid("key"), builders.DUP, builders.TUPLE2),
        (builders.binunicode("a\nb"), builders.binunicode("C"), builders.STACK_GLOBAL),
        (builders.global_("__torch__", "Kind"), builders.binint1(3), builders.REDUCE),
        (builders.EMPTY_SET, builders.NONE, builders.BUILD, builders.DUP, builders.TUPLE2),
        (builders.bytearray8(b"ab"), builders.DUP, builders.TUPLE2),
        (builders.NEXT_BUFFER, builders.NEXT_BUFFER, builders.READONLY_BUFFER, builders.TUPLE2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [1, *PROTOCOLS])
def test_what_no_pickler_of_today_writes_is_stable_once_written(
    opcodes: tuple[bytes, ...], protocol: int
) -> None:
    check_stable(stream(*opcodes, protocol=protocol))


@given(strategies.trees())
def test_built_pickles_are_stable_once_written(tree: object) -> None:
    check_stable(to_pickle(tree))
    once = written_with_tensors(to_pickle(tree))
    assert written_with_tensors(once) == once


PICKLES: Final = st.builds(pickle.dumps, ANYTHING, st.sampled_from(PROTOCOLS))


@given(st.one_of(PICKLES, strategies.trees().map(to_pickle)).flatmap(strategies.mutations))
def test_mutated_pickles_that_can_be_read_are_stable_once_written(data: bytes) -> None:
    try:
        read_pickle(data)
    except CkptoolError:
        return
    check_stable(data)


NEW: Final = builders.global_("m", "C") + builders.EMPTY_TUPLE + builders.NEWOBJ
CALL: Final = builders.global_("m", "f") + builders.EMPTY_TUPLE + builders.REDUCE
DEEPER: Final = 10_000


@pytest.mark.parametrize(
    "opcodes",
    [
        builders.EMPTY_LIST + b"]" * DEEPER + b"a" * DEEPER,
        builders.NONE + builders.BINPERSID * DEEPER,
        NEW + NEW * DEEPER + builders.APPEND * DEEPER,
        (builders.EMPTY_DICT + builders.NONE) * DEEPER + NEW + builders.SETITEM * DEEPER,
        builders.EMPTY_TUPLE + builders.TUPLE1 * DEEPER,
        NEW + NEW * DEEPER + builders.BUILD * DEEPER,
        builders.global_("m", "f") * DEEPER + CALL + (builders.TUPLE1 + builders.REDUCE) * DEEPER,
    ],
    ids=["lists", "persistent ids", "appended", "dicts", "tuples", "states", "calls"],
)
def test_whatever_depth_is_read_is_written(opcodes: bytes) -> None:
    once = written(stream(opcodes))
    assert written(once) == once


# Edits, and what is lost -----------------------------------------------------------------------


def replacing(tree: Node, replaced: dict[int, Node]) -> Node:
    """The tree that is read when it was written with replaced nodes."""
    return read_pickle(write_pickle(tree, protocol=2, replaced=replaced)).tree


def test_a_shared_node_is_replaced_wherever_it_stands_and_stays_shared() -> None:
    old: list[int] = []
    made = Opaque(old, (old,), state=old, has_state=True, listed=[old], keyed={1: old})
    found = replacing([old, (old,), {"a": old}, PersistentId(old), made], {id(old): {"new": [1]}})
    new, made = found[0], found[4]
    assert new == {"new": [1]}
    others = [found[1][0], found[2]["a"], found[3].value, made.callee, made.args[0], made.state]
    assert all(node is new for node in [*others, made.listed[0], made.keyed[1]])
    assert old == []


def test_a_cycle_leads_through_the_node_in_its_place() -> None:
    old: list[object] = []
    tree = {"old": old}
    old.append(tree)
    found = replacing(tree, {id(old): {"top": (tree,), "me": old}})
    assert found["old"]["top"][0] is found
    assert found["old"]["me"] is found["old"]


@given(PLAIN, st.lists(st.integers(0, 9).map(str)), PLAIN)
def test_an_edit_changes_nothing_behind_it(value: object, short: list[str], new: object) -> None:
    data = pickle.dumps([[], value, short, value], 4)
    tree = read_pickle(data).tree
    put = read_pickle(pickle.dumps([new], 4)).tree
    found = write_pickle(tree, protocol=4, replaced={id(tree[0]): put}, source=data)
    assert pickle.loads(found) == [[new], value, short, value]


@pytest.mark.parametrize(
    "opcodes",
    [
        (CALL, builders.POP, builders.NONE),
        (CALL, builders.NONE),
        (builders.NONE, builders.MARK, CALL, builders.POP_MARK),
        (builders.EMPTY_LIST, CALL, builders.APPEND, builders.POP, builders.NONE),
        (CALL, builders.binput(0), builders.POP, builders.NONE),
        (CALL, builders.binput(0), builders.NONE),
        (builders.EMPTY_DICT, builders.NONE, CALL, builders.SETITEM, builders.NONE,
         builders.NONE, builders.SETITEM),
    ],
)  # fmt: skip
def test_a_pickle_that_throws_away_what_it_made_is_not_whole(opcodes: tuple[bytes, ...]) -> None:
    assert not read_pickle(stream(*opcodes)).is_whole
    assert read_pickle(stream(CALL)).is_whole


@pytest.mark.parametrize(
    "opcodes",
    [
        (builders.MARK, builders.binget(0), builders.ADDITEMS),
        (builders.NONE, builders.BUILD),
        (builders.NONE, builders.APPEND),
    ],
)
def test_a_frozenset_is_given_nothing_after_it_is_made(opcodes: tuple[bytes, ...]) -> None:
    made = (builders.MARK, builders.FROZENSET, builders.binput(0))
    with pytest.raises(PickleStreamError):
        read_pickle(stream(*made, *opcodes, protocol=4))


def test_what_would_be_called_is_written_back_and_not_called(tmp_path: Path) -> None:
    data = to_pickle(builders.canary(str(tmp_path / "called")))
    assert written(data) == written_with_tensors(data) == data
    assert not (tmp_path / "called").exists()
