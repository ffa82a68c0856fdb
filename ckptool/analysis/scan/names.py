"""The trace of one pickle to its names, each judged, and to findings about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from ckptool.analysis.scan.dangerous_names import NAMES_OF_DANGER
from ckptool.analysis.scan.result import ScanFinding, ScannedName, ScannedPickle
from ckptool.analysis.scan.verdicts import Verdict, judge
from ckptool.analysis.scan.words import call_in_words, name_in_words
from ckptool.errors import LimitExceededError
from ckptool.pickling.literals import literal
from ckptool.pickling.nodes import ExtensionCode, Global, Opaque, PersistentId
from ckptool.pickling.tracer import Call, Trace

__all__ = ["findings_about", "nested_streams", "scanned_pickle"]

_LOAD_FROM_BYTES: Final = Global("torch.storage", "_load_from_bytes")
_LOOKED_INTO: Final = Verdict("harmless", "reads a storage out of bytes, which are scanned too")
_GETATTR: Final = frozenset({Global("builtins", "getattr"), Global("__builtin__", "getattr")})
_TENSOR_FUNCTIONS: Final = Global("torch._C", "_VariableFunctionsClass")
_TENSOR_FUNCTION: Final = Verdict("unknown", "gets a function of torch, such as torch.relu")
_EXTENSION: Final = Verdict("suspicious", "a name by its number in a registry outside of the file")
_NESTED: Final = "calls what another call gives"
_CALLS_SHOWN: Final = 20


def nested_streams(trace: Trace) -> Iterator[bytes]:
    """Yield the streams that calls in a pickle are given, to be loaded in turn."""
    for call in trace.calls:
        if type(call.made.callee) is Global and call.made.callee == _LOAD_FROM_BYTES:
            data = literal(call.made.args[0]) if call.made.args else None
            if isinstance(data, bytes):
                yield data


def scanned_pickle(trace: Trace, where: str, offset: int | None) -> ScannedPickle:
    """Return what a scan says of one pickle, which begins at an offset of the file."""
    calls = _calls_by_name(trace)
    names = tuple(
        ScannedName(name, *_judge(name, calls.get(name, [])), len(calls.get(name, [])))
        for name in trace.imports
    )
    return ScannedPickle(where, offset, trace.size, trace.protocol, trace.stops, names)


def findings_about(trace: Trace, pickle: ScannedPickle) -> Iterator[ScanFinding]:
    """Yield what to look at: names that are not harmless, calls of results, broken rules."""
    calls = _calls_by_name(trace)
    for one in pickle.names:
        if one.severity != "harmless":
            yield _finding(pickle, trace.imports[one.reference], one, calls[one.reference])
    nested = [call for call in trace.calls if isinstance(call.made.callee, Opaque)]
    if nested:
        yield ScanFinding(
            "suspicious",
            "nested-call",
            pickle.where,
            _NESTED,
            _at(pickle, nested[0].offset),
            calls=_in_words(nested),
            times=len(nested),
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
    if name == _LOAD_FROM_BYTES and all(_has_bytes(call) for call in calls):
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
            is_plain = function not in NAMES_OF_DANGER and not function.startswith("__")
            return owner == _TENSOR_FUNCTIONS and is_plain
    return False


def _has_bytes(call: Call) -> bool:
    return len(call.made.args) == 1 and isinstance(literal(call.made.args[0]), bytes)
