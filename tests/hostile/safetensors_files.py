"""safetensors files whose headers lie."""

from __future__ import annotations

import json
import struct
from typing import Final

from ckptool.errors import (
    ArchiveError,
    CkptoolError,
    CutShortError,
    FileKind,
    LimitExceededError,
    NotACheckpointError,
)
from tests.hostile.case import Case, Opens, Outcome, Refused

__all__ = ["CASES"]

_DATA: Final = bytes(8)
_THREAD: Final = "safetensors/safetensors#281"


def _file(header: str | bytes, data: bytes = _DATA, *, length: int | None = None) -> bytes:
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _facts(**facts: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **facts}


def _header(**tensors: object) -> str:
    return json.dumps(tensors)


def _wrong(name: str, trick: str, header: str, data: bytes = _DATA, record: str = "w") -> Case:
    return Case(name, trick, lambda: _file(header, data), Refused(ArchiveError, {"record": record}))


def _fact(name: str, trick: str, **facts: object) -> Case:
    return _wrong(name, trick, _header(w=_facts(**facts)))


def _text(name: str, trick: str, header: str | bytes, outcome: Outcome) -> Case:
    return Case(name, trick, lambda: _file(header), outcome)


_NOT_JSON: Final = Refused(ArchiveError)
_UNKNOWN: Final = Refused(NotACheckpointError, {"file_kind": FileKind.UNKNOWN})
_TWO: Final = {"a": _facts(data_offsets=[0, 8]), "b": _facts(data_offsets=[4, 12])}


def _refused(error: type[CkptoolError], **fields: object) -> Refused:
    return Refused(error, fields)


CASES: Final = (
    Case(
        "header-length-2-63",
        "the header has 2**63 bytes",
        lambda: _file(_header(w=_facts()), length=1 << 63),
        _UNKNOWN,
    ),
    Case(
        "header-length-2-64",
        "the header has 2**64 - 1 bytes",
        lambda: _file(_header(w=_facts()), length=(1 << 64) - 1),
        _UNKNOWN,
    ),
    Case(
        "header-length-2-39",
        "the header has 2**39 bytes",
        lambda: _file(_header(w=_facts()), length=1 << 39),
        _refused(LimitExceededError, limit="bytes in the header", option="header-bytes"),
    ),
    Case(
        "header-length-behind-the-end",
        "the header is longer than the file",
        lambda: _file(_header(w=_facts()), length=10_000),
        _refused(CutShortError, record=None, whole=None),
    ),
    Case(
        "header-of-nothing",
        "the header has no bytes",
        lambda: _file("", length=0),
        Refused(NotACheckpointError),
    ),
    _fact("shape-quoted", "a size is in quotes", shape=["2"]),
    _fact("offsets-quoted", "offsets are in quotes", data_offsets=["0", "8"]),
    _fact("shape-of-floats-in-json", "a size is 2.0", shape=[2.0]),
    _fact("shape-of-bools-in-json", "a size is true", shape=[True, 2]),
    _fact("shape-of-null", "a size is null", shape=[None]),
    _fact("shape-negative-in-json", "two sizes are negative: their product is not", shape=[-1, -2]),
    _fact("shape-that-overflows", "2**32 times 2**32 elements", shape=[1 << 32, 1 << 32]),
    _fact("shape-of-a-thousand-ones", "a thousand dimensions", shape=[1] * 1_000 + [2]),
    _fact("offsets-2-63", "the data ends at 2**63", data_offsets=[1 << 63, (1 << 63) + 8]),
    _fact("offsets-2-62", "the data is at 2**62", data_offsets=[1 << 62, (1 << 62) + 8]),
    _fact("offsets-backwards", "the data ends before it begins", data_offsets=[8, 0]),
    _fact("offsets-negative", "the data begins before the file does", data_offsets=[-8, 0]),
    _fact("offsets-of-floats", "an offset is 8.0", data_offsets=[0, 8.0]),
    _fact("offsets-three", "there are three offsets", data_offsets=[0, 8, 8]),
    _fact("dtype-unknown", "a dtype that there is not", dtype="F31"),
    _fact("dtype-of-a-list", "a dtype that is a list", dtype=["F32"]),
    _fact("dtype-with-escapes", "a dtype that clears the screen", dtype="\x1b[2JFORGED"),
    _wrong("facts-missing", "a tensor without anything", _header(w={})),
    _wrong("facts-of-a-number", "a tensor that is a number", _header(w=1)),
    _wrong("overlapping-offsets", "two tensors share four bytes", _header(**_TWO), bytes(12), "b"),
    _wrong(
        "hole-between",
        "four bytes belong to no tensor",
        _header(a=_facts(), b=_facts(data_offsets=[12, 20])),
        bytes(20),
        "b",
    ),
    _wrong(
        "hole-before",
        "the data begins with a hole",
        _header(w=_facts(data_offsets=[4, 12])),
        bytes(12),
    ),
    Case(
        "bytes-behind",
        "bytes follow the last tensor: a pickle, say",
        lambda: _file(_header(w=_facts()), _DATA + b"cos\nsystem\n(S'exit 7'\ntR."),
        _refused(ArchiveError, record=None),
        "promptfoo/modelaudit#1043",
    ),
    Case(
        "out-of-order-offsets",
        "the tensors lie in another order than they are named in, which is allowed",
        lambda: _file(
            _header(b=_facts(data_offsets=[8, 16]), a=_facts(data_offsets=[0, 8])), bytes(16)
        ),
        Opens(("b", "a")),
    ),
    Case(
        "data-cut-short",
        "the last tensor's bytes are not all there",
        lambda: _file(_header(w=_facts()), bytes(4)),
        _refused(CutShortError, record="w", whole=0, tensors=1),
        "tracel-ai/burn#5412",
    ),
    _text(
        "duplicate-names",
        "a name is in the header twice",
        f'{{"w":{json.dumps(_facts())},"w":{json.dumps(_facts())}}}',
        _NOT_JSON,
    ),
    _text(
        "duplicate-facts",
        "a tensor has two shapes",
        '{"w":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,8]}}',
        _NOT_JSON,
    ),
    _text(
        "nested-100-000",
        "the header is nested a hundred thousand times",
        '{"w":' + "[" * 100_000 + "]" * 100_000 + "}",
        _NOT_JSON,
    ),
    _text(
        "integer-of-ten-thousand-digits",
        "an offset has ten thousand digits",
        '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,' + "9" * 10_000 + "]}}",
        _NOT_JSON,
    ),
    _text(
        "integer-of-four-thousand-digits",
        "an offset has four thousand digits",
        '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,' + "9" * 4_000 + "]}}",
        Refused(ArchiveError, {"record": "w"}),
    ),
    _text(
        "float-of-1e999",
        "an offset is 1e999, which is infinite",
        '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,1e999]}}',
        Refused(ArchiveError, {"record": "w"}),
    ),
    _text(
        "number-that-is-none",
        "an offset is NaN, which JSON does not have",
        '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,NaN]}}',
        Refused(ArchiveError),
    ),
    _text("not-utf-8", "the header is no text", b'{"\xff":1}', _NOT_JSON),
    _text("byte-order-mark", "the header begins with a brace and is no JSON", "{]", _NOT_JSON),
    _text(
        "metadata-of-numbers",
        "__metadata__ has a number in it",
        _header(__metadata__={"a": 1}, w=_facts()),
        Refused(ArchiveError, {"record": "__metadata__"}),
    ),
    _text(
        "metadata-is-a-list",
        "__metadata__ is a list",
        _header(__metadata__=["a"], w=_facts()),
        Refused(ArchiveError, {"record": "__metadata__"}),
    ),
    _text(
        "metadata-is-a-tensor",
        "__metadata__ is a tensor",
        _header(__metadata__=_facts(), w=_facts()),
        Refused(ArchiveError, {"record": "__metadata__"}),
    ),
    _text(
        "metadata-with-escapes",
        "__metadata__ clears the screen and begins new lines",
        _header(__metadata__={"\x1b[2J\nFORGED": "\x1b]0;x\x07\r\nFORGED \u202e"}, w=_facts()),
        Opens(),
    ),
    _text("empty-name", "a tensor has no name", json.dumps({"": _facts()}), Opens(("",))),
    _text(
        "surrogate-name",
        "a tensor's name is half a character",
        '{"\\ud800":' + json.dumps(_facts()) + "}",
        Opens(("\ud800",)),
    ),
    Case(
        "empty-tensors-ten-thousand",
        "ten thousand tensors without elements at one place",
        lambda: _file(
            json.dumps(
                {
                    f"{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for n in range(10_000)
                }
            ),
            b"",
        ),
        Opens(tuple(str(n) for n in range(10_000))),
    ),
    Case(
        "pickle-under-another-name",
        "a pickle that begins as a safetensors file does: a length, and a brace",
        lambda: struct.pack("<Q", 2) + b"{}" + b"\x80\x02cos\nsystem\n.",
        _refused(ArchiveError, record=None),
        "promptfoo/modelaudit#1654",
    ),
)
