"""Pickles that follow each other: a bare one, the five of a legacy stream, and what lies behind."""

from __future__ import annotations

import re
from typing import Final

from ckptool.analysis.scan.names import judge_trace, nested_streams
from ckptool.analysis.scan.parts import DEEPEST, Contents, Part
from ckptool.errors import CkptoolError, PickleStreamError
from ckptool.formats.legacy import read_stream, starts_as_legacy
from ckptool.pickling.nodes import Global
from ckptool.pickling.tracer import Trace
from ckptool.sources import BytesSource, Source

__all__ = ["is_hidden_pickle", "look_for_pickle", "look_into_stray", "look_into_stream"]

_FIRST_WINDOW: Final = 1 << 12
_WINDOW_GROWTH: Final = 16
_LEGACY_PICKLES: Final = 5
_MOST_PICKLES: Final = 1_000
_PROTOCOL: Final = re.compile(rb"\x80[\x02-\x05]", re.DOTALL)
_PYTHON_NAME: Final = re.compile(r"[A-Za-z_][\w.]*")


def look_into_stream(part: Part, contents: Contents) -> bool:
    """Add the pickles that a part begins with; return whether it begins with any."""
    is_legacy = starts_as_legacy(part.source, contents.limits)
    at = count = 0
    while at < part.source.size and not (is_legacy and count == _LEGACY_PICKLES):
        trace = _trace_at(part.source, at, contents)
        is_expected = is_legacy or (part.is_expected and not count)
        if not is_expected and not _is_pickle(trace, part.source.read_up_to(at, 2)):
            break
        if count == _MOST_PICKLES:
            message = f"more than {count:,} pickles follow each other; the rest was not looked into"
            contents.note("suspicious", "limit", part.where, message, part.offset(at))
            return True
        _add(part.between(at), trace, contents)
        count += 1
        at += trace.size
        if not trace.stops:
            return True
    if not count:
        return False
    if is_legacy and count == _LEGACY_PICKLES:
        _look_behind_storages(part, contents)
        return True
    if count > 1:
        message = f"{count:,} pickles follow each other, of which a reader may load the first only"
        contents.note("unknown", "hidden-pickle", part.where, message, part.start)
    if at < part.source.size:
        _note_stray(part.between(at), contents)
    return True


def look_into_stray(part: Part, contents: Contents) -> None:
    """Add the pickle in bytes that belong to no part of a format, or that there are such bytes."""
    if not look_for_pickle(part, contents):
        _note_stray(part, contents)


def look_for_pickle(part: Part, contents: Contents) -> bool:
    """Add the pickle that bytes of another meaning also are; return whether they are one."""
    trace = _trace_at(part.source, 0, contents)
    if not is_hidden_pickle(trace):
        return False
    message = "a pickle stands where nothing should; torch.load does not read it"
    contents.note("suspicious", "hidden-pickle", part.where, message, part.start)
    _add(part, trace, contents)
    return True


def is_hidden_pickle(trace: Trace) -> bool:
    """Whether bytes that need be no pickle are one that does something.

    By chance any bytes can be a pickle of `None`, and any text a name.
    """
    return _has_names(trace) and (trace.stops or bool(trace.calls))


def _look_behind_storages(part: Part, contents: Contents) -> None:
    try:
        stream = read_stream(part.source, contents.limits)
    except PickleStreamError:
        return  # noted where the pickle was traced
    except CkptoolError as error:
        contents.note_error(error, part)
        return
    if stream.damage is not None:
        contents.note("suspicious", "malformed", part.where, f"cut short: {stream.damage.what}")
    if stream.stray_bytes:
        look_into_stray(part.between(part.source.size - stream.stray_bytes), contents)


def _note_stray(part: Part, contents: Contents) -> None:
    message = f"{part.source.size:,} bytes belong to no part of the format"
    contents.note("unknown", "stray-bytes", part.where, message, part.start)


def _add(part: Part, trace: Trace, contents: Contents) -> None:
    contents.is_known = True
    pickle, findings = judge_trace(trace, part.where, part.start)
    contents.pickles.append(pickle)
    contents.findings += findings
    for index, data in enumerate(nested_streams(trace)):
        where = part.within(f"storage {index}")
        inner = Part(BytesSource(data), where, None, part.depth + 1, is_expected=True)
        if part.depth >= DEEPEST or not contents.look(inner, contents):
            message = "the bytes of a storage were not looked into"
            contents.note("suspicious", "not-read", where, message)


def _is_pickle(trace: Trace, head: bytes) -> bool:
    """Whether bytes where a pickle may stand are one; text can begin like an old one."""
    if _PROTOCOL.match(head) or trace.stops:
        return True
    return bool(trace.calls) and _has_names(trace)


def _has_names(trace: Trace) -> bool:
    names = [name for name in trace.imports if isinstance(name, Global)]
    return bool(trace.imports) and all(
        _PYTHON_NAME.fullmatch(part) for name in names for part in name
    )


def _trace_at(source: Source, at: int, contents: Contents) -> Trace:
    """Trace the pickle at an offset. Where it ends is not known before, so windows grow."""
    most = contents.limits.pickle_bytes
    length = _FIRST_WINDOW
    while True:
        asked = min(length, most)
        window = source.read_up_to(at, asked)
        trace = contents.trace(window)
        problem = trace.problem
        breaks_off = isinstance(problem, PickleStreamError) and problem.breaks_off
        if not breaks_off or len(window) < asked or asked == most:
            return trace
        length *= _WINDOW_GROWTH
