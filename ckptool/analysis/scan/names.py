"""The trace of one pickle to its names, each judged, and to findings about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from ckptool.analysis.scan.dangerous_names import NAMES_OF_DANGER
from ckptool.analysis.scan.result import (
    ScanCode,
    ScanFinding,
    ScannedName,
    ScannedPickle,
)
from ckptool.analysis.scan.verdicts import Verdict, judge
from ckptool.analysis.scan.words import call_in_words, name_in_words
from ckptool.errors import LimitExceededError
from ckptool.formats.bare_pickle import LOAD_FROM_BYTES
from ckptool.pickling.literals import literal
from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Opaque,
    PersistentId,
    attributes_in,
)
from ckptool.pickling.tracer import Call, Trace

__all__ = ["judge_trace", "nested_streams"]

_LOOKED_INTO: Final = Verdict("harmless", "reads a storage out of bytes, which are scanned too")
_GETATTR: Final = frozenset({Global("builtins", "getattr"), Global("__builtin__", "getattr")})
_TENSOR_FUNCTIONS: Final = Global("torch._C", "_VariableFunctionsClass")
_TENSOR_FUNCTION: Final = Verdict("unknown", "gets a function of torch, such as torch.relu")
_EXTENSION: Final = Verdict("suspicious", "a name by its number in a registry outside of the file")
# Functions that call what one of their arguments is, by the place of it.
_CALLERS: Final = {
    Global("torch._tensor", "_rebuild_from_type"): 0,
    Global("torch._tensor", "_rebuild_from_type_v2"): 0,
    Global("numpy.random._pickle", "__generator_ctor"): 1,
    Global("numpy.random._pickle", "__randomstate_ctor"): 1,
    Global("copyreg", "_reconstructor"): 1,
    Global("copy_reg", "_reconstructor"): 1,
}
_CALLS_SHOWN: Final = 20
_MOST_NAMES: Final = 1_000


def nested_streams(trace: Trace) -> Iterator[bytes]:
    """Yield the streams that calls in a pickle are given, to be loaded in turn; each once."""
    seen: set[int] = set()
    for call in trace.calls:
        if type(call.made.callee) is not Global or call.made.callee != LOAD_FROM_BYTES:
            continue
        given = call.made.args[0] if call.made.args else None
        # Calls of `_codecs.encode` are made anew for each mention of one text.
        origin = given.args[0] if isinstance(given, Opaque) and given.args else given
        if id(origin) not in seen:
            seen.add(id(origin))
            data = literal(given)
            if isinstance(data, bytes):
                yield data


def judge_trace(
    trace: Trace, where: str, offset: int | None
) -> tuple[ScannedPickle, list[ScanFinding]]:
    """Return a pickle, which begins at an offset of the file, with its names and findings."""
    calls = _calls_by_name(trace)
    names = tuple(
        ScannedName(name, *_judge(name, calls[name]), len(calls[name]))
        for name in islice(trace.imports, _MOST_NAMES)
    )
    pickle = ScannedPickle(where, offset, trace.size, trace.protocol, trace.stops, names)
    about_names = (
        _finding(pickle, trace.imports[one.reference], one, calls[one.reference])
        for one in names
        if one.severity != "harmless"
    )
    return pickle, [*about_names, *_about_the_rest(trace, pickle)]


def _about_the_rest(trace: Trace, pickle: ScannedPickle) -> Iterator[ScanFinding]:
    """Names that were not judged, calls and states that no honest pickle has, broken rules."""
    left_out = len(trace.imports) - len(pickle.names)
    if left_out:
        message = f"names {left_out:,} more things, which were not judged"
        yield ScanFinding("suspicious", "limit", pickle.where, message, pickle.offset)
    for code, message, is_odd in _ODD_CALLS:
        odd = [call for call in trace.calls if is_odd(call.made)]
        if odd:
            at, words = _at(pickle, odd[0].offset), _in_words(odd)
            yield ScanFinding(
                "suspicious", code, pickle.where, message, at, calls=words, times=len(odd)
            )
    if trace.problem is not None:
        is_limit = isinstance(trace.problem, LimitExceededError)
        yield ScanFinding(
            "suspicious",
            "limit" if is_limit else "malformed",
            pickle.where,
            f"{trace.problem.message}; what stands before has been done by then",
            _at(pickle, trace.size),
        )


def _calls_a_result(made: Opaque) -> bool:
    """Whether what is called is what another call gives."""
    if isinstance(made.callee, Opaque):
        return True
    place = _CALLERS.get(made.callee) if type(made.callee) is Global else None
    return place is not None and any(
        isinstance(one, Opaque) for one in made.args[place : place + 1]
    )


def _has_internal_state(made: Opaque) -> bool:
    """Whether a state sets what Python or torch itself looks at, as no class saves it."""
    return made.has_state and any(
        type(name) is str and (name.startswith("__") or name == "dump_patches")
        for name in attributes_in(made.state)
    )


_ODD_CALLS: Final[tuple[tuple[ScanCode, str, Callable[[Opaque], bool]], ...]] = (
    ("nested-call", "calls what another call gives", _calls_a_result),
    ("internal-state", "gives an object attributes of Python's own", _has_internal_state),
)


def _finding(
    pickle: ScannedPickle, offset: int, one: ScannedName, calls: list[Call]
) -> ScanFinding:
    name = name_in_words(one.reference)
    return ScanFinding(
        one.severity,
        "call" if calls else "import",
        pickle.where,
        one.reason,
        _at(pickle, calls[0].offset if calls else offset),
        name,
        _in_words(calls),
        len(calls),
    )


def _at(pickle: ScannedPickle, offset: int) -> int | None:
    return None if pickle.offset is None else pickle.offset + offset


def _in_words(calls: list[Call]) -> tuple[str, ...]:
    """The calls, each once; the last one says how many more there are."""
    said = list(dict.fromkeys(call_in_words(call.made) for call in calls[:_CALLS_SHOWN]))
    if len(calls) > _CALLS_SHOWN:
        said.append(f"... {len(calls) - _CALLS_SHOWN:,} more calls")
    return tuple(said)


def _calls_by_name(trace: Trace) -> dict[Global | ExtensionCode, list[Call]]:
    """The calls of each name; a legacy stream keeps the source of a class beside its name."""
    calls: dict[Global | ExtensionCode, list[Call]] = defaultdict(list)
    for call in trace.calls:
        callee = call.made.callee
        if isinstance(callee, PersistentId) and type(callee.value) is tuple:
            callee = next((part for part in callee.value if type(part) is Global), None)
        if isinstance(callee, Global | ExtensionCode):
            calls[callee].append(call)
    return calls


def _judge(name: Global | ExtensionCode, calls: list[Call]) -> Verdict:
    if isinstance(name, ExtensionCode):
        return _EXTENSION
    if name == LOAD_FROM_BYTES and all(_has_bytes(call) for call in calls):
        return _LOOKED_INTO
    # This is how a module that keeps such a function is saved.
    if name in _GETATTR and calls and all(_is_tensor_function(call) for call in calls):
        return _TENSOR_FUNCTION
    if name == _TENSOR_FUNCTIONS and not calls:
        return _TENSOR_FUNCTION
    return judge(name)


def _is_tensor_function(call: Call) -> bool:
    match call.made.args:
        case (Global() as owner, str() as function):
            is_plain = function not in NAMES_OF_DANGER | {"mro"} and function[:1] != "_"
            return owner == _TENSOR_FUNCTIONS and is_plain
    return False


def _has_bytes(call: Call) -> bool:
    return len(call.made.args) == 1 and isinstance(literal(call.made.args[0]), bytes)
