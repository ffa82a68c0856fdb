"""What a pickle would import and call, in order; also where it breaks its rules on the way."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.errors import CkptoolError, LimitExceededError, PickleStreamError
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import ExtensionCode, Global
from ckptool.pickling.opcodes import NAMES
from ckptool.pickling.tracer import Trace, trace_pickle
from tests import builders, strategies
from tests.builders import stream, to_pickle

SYSTEM = Global("os", "system")


def named(trace: Trace) -> list[str]:
    return [str(name) for name in trace.imports]


def called(trace: Trace) -> list[tuple[str, tuple[Any, ...]]]:
    return [(str(call.made.callee), call.made.args) for call in trace.calls]


def reduced(*before: bytes) -> bytes:
    """Opcodes that call `os.system("id")`, behind others."""
    call = (builders.global_("os", "system"), builders.unicode_("id"), builders.TUPLE1, b"R")
    return stream(*before, *call, protocol=2)


class _Recorder(pickle._Unpickler):
    """The standard library's own machine in Python, with stand-ins for all that is named."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.found: dict[str, None] = {}

    def find_class(self, module: str, name: str) -> Any:
        self.found.setdefault(f"{module}.{name}")

        class StandIn(dict):  # type: ignore[type-arg]
            def __init__(self, *args: object, **extra: object) -> None: ...
            def __setstate__(self, state: object) -> None: ...
            def append(self, item: object) -> None: ...
            def extend(self, items: object) -> None: ...
            def add(self, item: object) -> None: ...
            def __hash__(self) -> int:  # type: ignore[override]
                return id(self)

        return StandIn

    def persistent_load(self, pid: object) -> object:
        return None


@given(strategies.trees())
def test_the_names_are_those_that_the_standard_library_asks_for(tree: object) -> None:
    data = to_pickle(tree)
    recorder = _Recorder(data)
    recorder.load()
    trace = trace_pickle(data)
    assert named(trace) == list(recorder.found)
    assert (trace.stops, trace.size, trace.problem) == (True, len(data), None)


@pytest.mark.parametrize(
    "opcodes",
    [
        (builders.global_("os", "system"), builders.unicode_("id"), builders.TUPLE1, b"R"),
        (builders.MARK, builders.unicode_("id"), builders.inst("os", "system")),
        (builders.MARK, builders.global_("os", "system"), builders.unicode_("id"), b"o"),
        (builders.global_("os", "system"), builders.unicode_("id"), builders.TUPLE1, b"\x81"),
        (
            builders.short_binunicode("os"),
            builders.short_binunicode("system"),
            b"\x93",
            builders.unicode_("id"),
            builders.TUPLE1,
            builders.EMPTY_DICT,
            b"\x92",
        ),
    ],
    ids=["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"],
)
def test_each_opcode_that_calls_is_seen(opcodes: tuple[bytes, ...]) -> None:
    trace = trace_pickle(stream(*opcodes, protocol=4))
    assert called(trace) == [("os.system", ("id",))]
    assert named(trace) == ["os.system"]


@pytest.mark.parametrize("width", [builders.ext1(7), builders.ext2(7), builders.ext4(7)])
def test_a_number_in_a_registry_is_a_name(width: bytes) -> None:
    trace = trace_pickle(stream(width, builders.EMPTY_TUPLE, b"R"))
    assert list(trace.imports) == [ExtensionCode(7)]
    assert len(trace.calls) == 1


def test_a_call_whose_result_is_thrown_away_is_seen() -> None:
    assert called(trace_pickle(reduced()[:-1] + b"0N.")) == [("os.system", ("id",))]


def test_what_was_done_before_a_broken_rule_is_told_with_the_place_of_it() -> None:
    data = reduced()[:-1] + b"a."
    trace = trace_pickle(data)
    assert called(trace) == [("os.system", ("id",))]
    assert isinstance(trace.problem, PickleStreamError)
    assert (trace.problem.offset, trace.stops) == (len(data) - 2, False)


BREAKS = {
    "a second state": (b"cm\nC\n)R", builders.EMPTY_DICT, b"b", builders.EMPTY_DICT, b"b"),
    "an append to a number": (builders.binint1(1), builders.NONE, b"a"),
    "a memo entry that is not there": (builders.binget(9),),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize(
    "naming",
    [
        b"cos\nsystem\n",
        b"(ios\nsystem\n",
        b"\x8c\x02os\x8c\x06system\x93",
        b"X\x02\0\0\0osX\x06\0\0\0system\x93",
        b"Vos\nS'\\x73ystem'\n\x93",
        b"\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93",
    ],
    ids=["GLOBAL", "INST", "STACK_GLOBAL", "of long strings", "of lines", "out of the memo"],
)
def test_names_behind_a_broken_rule_are_still_found(name: str, naming: bytes) -> None:
    trace = trace_pickle(stream(*BREAKS[name], protocol=4)[:-1] + naming + b"X\1\0\0\0x\x85R.")
    assert SYSTEM in trace.imports
    assert trace.problem is not None


def test_names_out_of_what_the_machine_remembered_are_found_behind_a_broken_rule() -> None:
    remembered = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94"
    for gets in (b"h\x00h\x01", b"j\0\0\0\0j\1\0\0\0", b"g0\ng1\n"):
        trace = trace_pickle(remembered + b"K\1Na" + gets + b"\x93.")
        assert SYSTEM in trace.imports
    trace = trace_pickle(remembered + b"K\1Na" + b"h\x07h\x01\x93.")
    assert Global("?", "system") in trace.imports


@pytest.mark.parametrize("rest", [b"\xff", b"X\xff\xff\xff\x7f", b"cos\nsys", b"g" + b"1" * 5000])
def test_the_walk_behind_a_broken_rule_ends_where_nothing_can_be_told(rest: bytes) -> None:
    trace = trace_pickle(b"K\1Na" + rest)
    assert trace.imports == {}
    assert trace.problem is not None


def test_the_walk_knows_the_argument_of_every_opcode() -> None:
    for name in NAMES.values():
        data = builders.stream(*BREAKS["an append to a number"])[:-1]
        trace = trace_pickle(data + _example(name) + b"cos\nsystem\n.")
        assert SYSTEM in trace.imports, name


def _example(name: str) -> bytes:
    """An opcode with an argument of three bytes or lines, as `pickletools` describes it."""
    import pickletools

    opcode = next(one for one in pickletools.opcodes if one.name == name)
    code = opcode.code.encode("latin-1")
    if opcode.arg is None:
        return code
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        return code + (b"a\nb\n" if name in ("GLOBAL", "INST") else b"1\n")
    widths = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
    if opcode.arg.n in widths:
        return code + (3).to_bytes(widths[opcode.arg.n], "little") + b"abc"
    return code + b"\1" * opcode.arg.n


def test_limits_end_a_trace_and_keep_what_was_found() -> None:
    trace = trace_pickle(reduced(b"K\1" * 50), Limits(opcodes=60))
    assert isinstance(trace.problem, LimitExceededError) or trace.stops
    short = trace_pickle(reduced() + b"0" * 10, Limits(opcodes=3))
    assert isinstance(short.problem, LimitExceededError)
    assert SYSTEM in short.imports


@given(st.binary(max_size=300))
def test_any_bytes_can_be_traced(data: bytes) -> None:
    trace = trace_pickle(data)
    assert trace.stops or isinstance(trace.problem, CkptoolError)


@given(tree=strategies.trees(), data=st.data())
def test_any_broken_pickle_can_be_traced(tree: object, data: st.DataObject) -> None:
    broken = data.draw(strategies.mutations(to_pickle(tree)))
    trace = trace_pickle(broken)
    assert trace.stops or isinstance(trace.problem, CkptoolError)
    assert all(call.offset < len(broken) for call in trace.calls)
