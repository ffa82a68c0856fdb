"""Streams of before torch 1.6 whose parts do not fit each other."""

from __future__ import annotations

import struct
from typing import Final

from ckptool.errors import (
    ArchiveError,
    CutShortError,
    LimitExceededError,
    PickleStreamError,
    TensorError,
)
from tests import builders
from tests.builders import (
    MAGIC_NUMBER,
    NONE,
    REDUCE,
    TUPLE1,
    Storage,
    Tensor,
    binunicode,
    global_,
    legacy,
    proto,
    stream,
    to_pickle,
)
from tests.hostile.bombs import doubled
from tests.hostile.case import EXIT_7, VALUES, Case, Opens, Refused

__all__ = ["CASES"]

_TREE: Final = {"w": VALUES}
_KEYS: Final = ("0",)
_PROTOCOL_VERSION: Final = 1001
_MAGIC: Final = to_pickle(MAGIC_NUMBER)
_HEAD: Final = _MAGIC + to_pickle(_PROTOCOL_VERSION)
_SYSTEM: Final = to_pickle({"little_endian": True})
_SCANNED_ONCE: Final = "protectai/modelscan#263"
_WRONG_OFFSETS: Final = "tracel-ai/burn#4896"


def _evil() -> bytes:
    return stream(global_("os", "system"), binunicode(EXIT_7), TUPLE1, REDUCE)


def _system_bytes() -> int:
    """How long the third pickle of an honest stream is."""
    honest = legacy(_TREE)
    end = honest.index(builders.STOP + proto(2), len(_HEAD)) + len(builders.STOP)
    return end - len(_HEAD)


def _start_of_data() -> int:
    """Where the count of the one storage begins."""
    return len(legacy(_TREE, keys=_KEYS)) - len(VALUES.storage.data) - 8


def _count(name: str, trick: str, count: int) -> Case:
    return Case(
        name,
        trick,
        lambda: legacy(_TREE, keys=_KEYS, counts={"0": count}),
        Refused(ArchiveError, {"record": "0", "offset": _start_of_data()}),
        _WRONG_OFFSETS,
    )


def _raw_count(count: int) -> bytes:
    data = bytearray(legacy(_TREE, keys=_KEYS))
    at = _start_of_data()
    data[at : at + 8] = struct.pack("<Q", count)
    return bytes(data)


def _viewed(offset: int, numel: int) -> bytes:
    storage = Storage("float32", VALUES.storage.data, view=("1", offset, numel))
    return legacy({"w": Tensor("float32", (2,), storage=storage)}, keys=_KEYS)


def _claims(numel: int) -> bytes:
    storage = Storage("float32", bytes(8), claimed_numel=numel)
    tensor = Tensor("float32", (2,), storage=storage)
    return legacy({"w": tensor}, keys=_KEYS, counts={"0": numel})


CASES: Final = (
    Case(
        "legacy-code-in-the-system-information",
        "the third pickle, which only says on what machine it was, makes a call",
        lambda: _HEAD + _evil() + legacy(_TREE)[len(_HEAD) + _system_bytes() :],
        stands_for=_SCANNED_ONCE,
    ),
    Case(
        "legacy-code-in-the-object",
        "the fourth pickle makes a call; scanners looked at the first one",
        lambda: legacy(
            {"w": VALUES, "x": builders.Call(builders.Global("os", "system"), (EXIT_7,))}
        ),
        stands_for=_SCANNED_ONCE,
    ),
    Case(
        "legacy-pickle-behind",
        "a sixth pickle follows the last storage",
        lambda: legacy(_TREE) + _evil(),
        stands_for=_SCANNED_ONCE,
    ),
    Case(
        "legacy-pickle-between",
        "a pickle more stands before the object",
        lambda: _HEAD + _SYSTEM + _evil() + to_pickle({"w": 1}) + to_pickle([]),
        Refused(ArchiveError, {"offset": len(_HEAD + _SYSTEM + _evil())}),
        _SCANNED_ONCE,
    ),
    Case(
        "legacy-wrong-magic",
        "the first pickle is one less than the magic number: a pickle of a number, and more",
        lambda: legacy(_TREE, magic=MAGIC_NUMBER - 1),
        Opens(()),
        _SCANNED_ONCE,
    ),
    Case(
        "legacy-magic-of-another-type",
        "the first pickle is the magic number as text",
        lambda: to_pickle(str(MAGIC_NUMBER)) + legacy(_TREE)[len(_MAGIC) :],
        Opens(()),
        _SCANNED_ONCE,
    ),
    Case(
        "legacy-magic-by-a-call",
        "the first pickle is a call that would give the magic number",
        lambda: (
            stream(global_("builtins", "int"), binunicode(str(MAGIC_NUMBER)), TUPLE1, REDUCE)
            + legacy(_TREE)[len(_MAGIC) :]
        ),
        Opens(()),
        _SCANNED_ONCE,
    ),
    Case(
        "legacy-wrong-version",
        "the second pickle names another protocol",
        lambda: legacy(_TREE, protocol_version=1002),
        Refused(ArchiveError, {"offset": len(_MAGIC)}),
    ),
    _count("legacy-count-too-large", "a storage says that it has five elements", 5),
    _count("legacy-count-negative", "a storage says that it has -1 elements", -1),
    Case(
        "legacy-count-2-64",
        "a storage says that it has 2**64 - 1 elements",
        lambda: _raw_count((1 << 64) - 1),
        Refused(ArchiveError, {"record": "0", "offset": _start_of_data()}),
        _WRONG_OFFSETS,
    ),
    Case(
        "legacy-both-counts-2-60",
        "the pickle and the storage both say that it has 2**60 elements",
        lambda: _claims(1 << 60),
        Refused(CutShortError, {"record": "0", "whole": 0, "tensors": 1}),
        _WRONG_OFFSETS,
    ),
    Case(
        "legacy-key-that-no-tensor-has",
        "the list of keys names a storage that no tensor has",
        lambda: legacy(_TREE, keys=_KEYS, listed=("0", "1")),
        Refused(ArchiveError, {"record": "1"}),
    ),
    Case(
        "legacy-key-left-out",
        "the list of keys leaves a storage out",
        lambda: legacy(_TREE, keys=_KEYS, listed=()),
        Refused(TensorError, {"key_path": "w", "storage_key": "0", "code": "record"}),
        "tracel-ai/burn#5412",
    ),
    Case(
        "legacy-key-twice",
        "the list of keys names a storage twice, and its bytes are there once",
        lambda: legacy(_TREE, keys=_KEYS, listed=("0", "0")),
        Refused(CutShortError, {"record": "0"}),
    ),
    Case(
        "legacy-keys-are-numbers",
        "the list of keys is one of numbers",
        lambda: _HEAD + _SYSTEM + to_pickle({"w": 1}) + to_pickle([0]),
        Refused(ArchiveError, {"offset": len(_HEAD + _SYSTEM + to_pickle({"w": 1}))}),
    ),
    Case(
        "legacy-view-outside",
        "a storage is a view of another, and ends behind it",
        lambda: _viewed(1, 2),
        Refused(TensorError, {"key_path": "w", "storage_key": "1", "code": "size"}),
    ),
    Case(
        "legacy-view-of-2-62",
        "a storage is a view of 2**62 elements",
        lambda: _viewed(0, 1 << 62),
        Refused(TensorError, {"key_path": "w", "storage_key": "1", "code": "size"}),
    ),
    Case(
        "legacy-memo-bomb",
        "the object is a tuple that doubles 60 times",
        lambda: _HEAD + _SYSTEM + stream(doubled(60)) + to_pickle([]),
        Refused(LimitExceededError, {"limit": "leaves"}),
        "tracel-ai/burn#4965",
    ),
    Case(
        "legacy-object-without-end",
        "the object is a million opcodes long and has no STOP",
        lambda: _HEAD + _SYSTEM + proto(2) + NONE * 1_000_000,
        Refused(PickleStreamError, {"offset": 1_000_002, "breaks_off": True}),
    ),
    Case(
        "legacy-nothing-behind-the-magic",
        "the file ends behind the magic number",
        lambda: _MAGIC,
        Refused(PickleStreamError, {"breaks_off": True}),
    ),
)
