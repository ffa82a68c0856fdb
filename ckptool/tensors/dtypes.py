"""The dtype table: torch's names, their widths, and the old storage classes that stand for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ckptool.pickling.nodes import Global

__all__ = [
    "BYTES",
    "DTYPES",
    "SAFETENSORS_DTYPES",
    "STORAGE_DTYPES",
    "DType",
    "DTypeKind",
    "dtype_of_global",
    "dtype_of_storage_class",
]

DTypeKind: TypeAlias = Literal["bool", "int", "uint", "float", "complex", "quantized", "bits"]


@dataclass(frozen=True, slots=True)
class DType:
    """A torch dtype: `itemsize` is in bytes; `per_item` elements share one item where packed."""

    name: str
    itemsize: int
    kind: DTypeKind
    per_item: int = 1

    def __str__(self) -> str:
        return self.name

    def nbytes_of(self, numel: int) -> int:
        """Return how many bytes so many elements take."""
        return -(-numel // self.per_item) * self.itemsize


def _table() -> dict[str, DType]:
    widths: dict[DTypeKind, dict[str, int]] = {
        "bool": {"bool": 1},
        "int": {"int8": 1, "int16": 2, "int32": 4, "int64": 8}
        | {f"int{bits}": 1 for bits in range(1, 8)},
        "uint": {"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8}
        | {f"uint{bits}": 1 for bits in range(1, 8)},
        "float": {
            "float16": 2,
            "bfloat16": 2,
            "float32": 4,
            "float64": 8,
            "float8_e4m3fn": 1,
            "float8_e4m3fnuz": 1,
            "float8_e5m2": 1,
            "float8_e5m2fnuz": 1,
            "float8_e8m0fnu": 1,
            "float4_e2m1fn_x2": 1,
        },
        "complex": {"complex32": 4, "complex64": 8, "complex128": 16},
        "quantized": {"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1},
        "bits": {"bits8": 1, "bits16": 2, "bits1x8": 1, "bits2x4": 1, "bits4x2": 1},
    }
    packed = {"quint4x2": 2, "quint2x4": 4}
    return {
        name: DType(name, itemsize, kind, packed.get(name, 1))
        for kind, names in widths.items()
        for name, itemsize in names.items()
    }


DTYPES: Final[dict[str, DType]] = _table()
"""Every dtype of torch 2.13 by its own name."""

BYTES: Final = DTYPES["uint8"]
"""What the elements of an untyped storage are counted in."""

_STORAGE_CLASSES: Final[dict[str, DType]] = {
    "DoubleStorage": DTYPES["float64"],
    "FloatStorage": DTYPES["float32"],
    "HalfStorage": DTYPES["float16"],
    "BFloat16Storage": DTYPES["bfloat16"],
    "LongStorage": DTYPES["int64"],
    "IntStorage": DTYPES["int32"],
    "ShortStorage": DTYPES["int16"],
    "CharStorage": DTYPES["int8"],
    "ByteStorage": DTYPES["uint8"],
    "BoolStorage": DTYPES["bool"],
    "ComplexDoubleStorage": DTYPES["complex128"],
    "ComplexFloatStorage": DTYPES["complex64"],
    "QInt8Storage": DTYPES["qint8"],
    "QUInt8Storage": DTYPES["quint8"],
    "QInt32Storage": DTYPES["qint32"],
    "QUInt4x2Storage": DTYPES["quint4x2"],
    "QUInt2x4Storage": DTYPES["quint2x4"],
    "UntypedStorage": BYTES,
    "ComplexHalfStorage": DTYPES["complex32"],
}

STORAGE_DTYPES: Final[dict[str, DType]] = _STORAGE_CLASSES | {
    # Python has no class for storages of newer dtypes; TorchScript calls them as `c10::ScalarType`
    # does: UInt16Storage, Float8_e5m2Storage, Bits8Storage.
    f"{name.capitalize().replace('Uint', 'UInt')}Storage": dtype
    for name, dtype in DTYPES.items()
    if dtype not in _STORAGE_CLASSES.values()
}
"""The typed storage classes that files name, in `torch`, `torch.cuda` or `torch.storage`."""

SAFETENSORS_DTYPES: Final[dict[str, DType]] = {
    "BOOL": DTYPES["bool"],
    "U8": DTYPES["uint8"],
    "I8": DTYPES["int8"],
    "F8_E5M2": DTYPES["float8_e5m2"],
    "F8_E4M3": DTYPES["float8_e4m3fn"],
    "F8_E5M2FNUZ": DTYPES["float8_e5m2fnuz"],
    "F8_E4M3FNUZ": DTYPES["float8_e4m3fnuz"],
    "F8_E8M0": DTYPES["float8_e8m0fnu"],
    "F4": DTYPES["float4_e2m1fn_x2"],
    "I16": DTYPES["int16"],
    "U16": DTYPES["uint16"],
    "F16": DTYPES["float16"],
    "BF16": DTYPES["bfloat16"],
    "I32": DTYPES["int32"],
    "U32": DTYPES["uint32"],
    "F32": DTYPES["float32"],
    "C64": DTYPES["complex64"],
    "F64": DTYPES["float64"],
    "I64": DTYPES["int64"],
    "U64": DTYPES["uint64"],
}
"""The dtype names of safetensors 0.8."""

_ALIASES: Final = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "chalf": "complex32",
}


def dtype_of_global(reference: object) -> DType | None:
    """The dtype that a pickled `torch.float32` names, None where it names something else."""
    if not isinstance(reference, Global) or reference.module != "torch":
        return None
    return DTYPES.get(_ALIASES.get(reference.name, reference.name))


def dtype_of_storage_class(reference: object) -> DType | None:
    """The dtype of `torch.FloatStorage`, `torch.cuda.HalfStorage`, ...; None for other names."""
    if not isinstance(reference, Global) or reference.module.split(".", 1)[0] != "torch":
        return None
    return STORAGE_DTYPES.get(reference.name)
