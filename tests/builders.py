"""Checkpoint bytes made without torch: opcodes, trees, archives, and files that lie.

Opcodes have the names of `pickletools`, constants in capitals and those with an argument as
functions, so that a stream is `b"".join((proto(2), EMPTY_DICT, STOP))`. Trees are plain values and
the markers `Tensor`, `Storage`, `Global`, `Call`, `Persistent` and `Raw`; they are written as torch
writes them, to the byte.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

Number: TypeAlias = int | float | complex
ByteOrder: TypeAlias = Literal["little", "big"]

# ---------------------------------------------------------------------------------------- opcodes

MARK, STOP, POP, POP_MARK, DUP = b"(", b".", b"0", b"1", b"2"
NONE, NEWTRUE, NEWFALSE = b"N", b"\x88", b"\x89"
EMPTY_LIST, APPEND, APPENDS, LIST = b"]", b"a", b"e", b"l"
EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3 = b")", b"t", b"\x85", b"\x86", b"\x87"
EMPTY_DICT, DICT, SETITEM, SETITEMS = b"}", b"d", b"s", b"u"
EMPTY_SET, ADDITEMS, FROZENSET = b"\x8f", b"\x90", b"\x91"
REDUCE, BUILD, OBJ, NEWOBJ, NEWOBJ_EX = b"R", b"b", b"o", b"\x81", b"\x92"
STACK_GLOBAL, MEMOIZE, BINPERSID = b"\x93", b"\x94", b"Q"
NEXT_BUFFER, READONLY_BUFFER = b"\x97", b"\x98"


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _line(code: bytes, *values: str) -> bytes:
    return code + b"".join(_text(value) + b"\n" for value in values)


def _counted(code: bytes, count: str, value: bytes) -> bytes:
    return code + struct.pack(count, len(value)) + value


def proto(version: int) -> bytes:
    return b"\x80" + struct.pack("<B", version)


def frame(length: int) -> bytes:
    return b"\x95" + struct.pack("<Q", length)


def int_(value: int | str) -> bytes:
    return _line(b"I", str(value))


def long_(value: int) -> bytes:
    return _line(b"L", f"{value}L")


def binint(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def binint1(value: int) -> bytes:
    return b"K" + struct.pack("<B", value)


def binint2(value: int) -> bytes:
    return b"M" + struct.pack("<H", value)


def _twos_complement(value: int) -> bytes:
    length = value.bit_length() // 8 + 1 if value else 0
    data = value.to_bytes(length, "little", signed=True)
    if value < 0 and length > 1 and data[-1] == 0xFF and data[-2] & 0x80:
        return data[:-1]
    return data


def long1(value: int) -> bytes:
    return _counted(b"\x8a", "<B", _twos_complement(value))


def long4(value: int) -> bytes:
    return _counted(b"\x8b", "<i", _twos_complement(value))


def float_(value: float) -> bytes:
    return _line(b"F", repr(value))


def binfloat(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def string(value: str) -> bytes:
    return _line(b"S", repr(value))


def binstring(value: bytes) -> bytes:
    return _counted(b"T", "<i", value)


def short_binstring(value: bytes) -> bytes:
    return _counted(b"U", "<B", value)


def unicode_(value: str) -> bytes:
    escaped = value.replace("\\", "\\u005c").replace("\n", "\\u000a").replace("\r", "\\u000d")
    return b"V" + escaped.encode("raw-unicode-escape") + b"\n"


def short_binunicode(value: str) -> bytes:
    return _counted(b"\x8c", "<B", _text(value))


def binunicode(value: str) -> bytes:
    return _counted(b"X", "<I", _text(value))


def binunicode8(value: str) -> bytes:
    return _counted(b"\x8d", "<Q", _text(value))


def short_binbytes(value: bytes) -> bytes:
    return _counted(b"C", "<B", value)


def binbytes(value: bytes) -> bytes:
    return _counted(b"B", "<I", value)


def binbytes8(value: bytes) -> bytes:
    return _counted(b"\x8e", "<Q", value)


def bytearray8(value: bytes) -> bytes:
    return _counted(b"\x96", "<Q", value)


def put(index: int) -> bytes:
    return _line(b"p", str(index))


def get(index: int) -> bytes:
    return _line(b"g", str(index))


def binput(index: int) -> bytes:
    return b"q" + struct.pack("<B", index)


def long_binput(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def binget(index: int) -> bytes:
    return b"h" + struct.pack("<B", index)


def long_binget(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def global_(module: str, name: str) -> bytes:
    return _line(b"c", module, name)


def inst(module: str, name: str) -> bytes:
    return _line(b"i", module, name)


def persid(identifier: str) -> bytes:
    return _line(b"P", identifier)


def ext1(code: int) -> bytes:
    return b"\x82" + struct.pack("<B", code)


def ext2(code: int) -> bytes:
    return b"\x83" + struct.pack("<H", code)


def ext4(code: int) -> bytes:
    return b"\x84" + struct.pack("<i", code)


def stream(*opcodes: bytes, protocol: int = 2) -> bytes:
    """Join opcodes to a pickle, with the PROTO that protocols from 2 on begin with, and a STOP."""
    return b"".join((proto(protocol) if protocol >= 2 else b"", *opcodes, STOP))


# ----------------------------------------------------------------------------------------- dtypes

STRUCT_CODES: Final = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q",
    "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float16": "e", "float32": "f", "float64": "d",
    "complex32": "e", "complex64": "f", "complex128": "d",
    "qint8": "b", "quint8": "B", "qint32": "i",
}  # fmt: skip
ONE_BYTE_FLOATS: Final = (
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
ITEMSIZES: Final = (
    {name: struct.calcsize(code) for name, code in STRUCT_CODES.items()}
    | {"complex32": 4, "complex64": 8, "complex128": 16, "bfloat16": 2}
    | dict.fromkeys(ONE_BYTE_FLOATS, 1)
)
STORAGE_CLASSES: Final = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage", "int64": "LongStorage", "int32": "IntStorage",
    "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage", "bool": "BoolStorage",
    "complex128": "ComplexDoubleStorage", "complex64": "ComplexFloatStorage",
    "qint8": "QInt8Storage", "quint8": "QUInt8Storage", "qint32": "QInt32Storage",
}  # fmt: skip
"""The dtypes that have a typed storage class; the others are saved on an untyped one."""
SAFETENSORS_NAMES: Final = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32",
    "int32": "I32", "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip


def pack(dtype: str, numbers: Iterable[Number]) -> bytes:
    """Pack numbers as little-endian elements; the one-byte floats take their bit patterns."""
    if dtype in ONE_BYTE_FLOATS:
        return bytes(int(abs(number)) & 0xFF for number in numbers)
    if dtype == "bfloat16":
        return b"".join(struct.pack("<f", number)[2:] for number in numbers)
    code = STRUCT_CODES[dtype]
    if dtype.startswith("complex"):
        numbers = [part for number in numbers for part in (number.real, number.imag)]
    return b"".join(struct.pack("<" + code, number) for number in numbers)


def to_byteorder(data: bytes, dtype: str, byteorder: ByteOrder) -> bytes:
    """Turn little-endian elements into elements of `byteorder` (complex ones part by part)."""
    width = ITEMSIZES[dtype] // (2 if dtype.startswith("complex") else 1)
    if byteorder == "little" or width == 1:
        return data
    return b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))


# ------------------------------------------------------------------------------------------ trees


@dataclass(frozen=True)
class Global:
    """A `module name` reference."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """The object that `function(*args)` makes, with what is appended, set and built onto it.

    `new` writes NEWOBJ, as objects without a `__reduce__` of their own are written.
    """

    function: Global | Persistent
    args: tuple[object, ...] = ()
    state: object = None
    appends: Sequence[object] = ()
    items: Sequence[tuple[object, object]] = ()
    new: bool = False


@dataclass(frozen=True, eq=False)
class Persistent:
    """A value that stands in the stream as a persistent id."""

    identifier: object


@dataclass(frozen=True, eq=False)
class Raw:
    """Opcodes to be put into the stream as they are; they leave one value on the stack."""

    opcodes: bytes


@dataclass(frozen=True, eq=False)
class Storage:
    """Flat little-endian bytes; `claimed_numel` is what the pickle says instead of the truth.

    `view` is the sixth field of the legacy persistent id: view key, offset and numel.
    """

    dtype: str
    data: bytes
    location: str = "cpu"
    key: str | None = None
    claimed_numel: int | None = None
    view: tuple[str, int, int] | None = None

    @property
    def is_typed(self) -> bool:
        return self.dtype in STORAGE_CLASSES

    @property
    def numel(self) -> int:
        if self.claimed_numel is not None:
            return self.claimed_numel
        return len(self.data) // (ITEMSIZES[self.dtype] if self.is_typed else 1)

    @property
    def class_global(self) -> Global:
        if self.is_typed:
            return Global("torch", STORAGE_CLASSES[self.dtype])
        return Global("torch.storage", "UntypedStorage")


class Tensor:
    """A strided tensor: on `storage`, or on one of its own that holds `data`.

    `data` is little-endian bytes, or numbers, which repeat until the storage is full; by default
    they count up from zero.
    """

    def __init__(
        self,
        dtype: str,
        shape: Sequence[int],
        data: bytes | Iterable[Number] | None = None,
        *,
        storage: Storage | None = None,
        offset: int = 0,
        stride: Sequence[int] | None = None,
        requires_grad: bool = False,
        metadata: Mapping[str, bool] | None = None,
        location: str = "cpu",
    ) -> None:
        self.dtype = dtype
        # New tuples, since one object in two places would be written once.
        self.shape = tuple(iter(shape))
        self.offset = offset
        self.stride = contiguous_stride(self.shape) if stride is None else tuple(iter(stride))
        self.requires_grad = requires_grad
        self.metadata = metadata
        self.storage = storage or Storage(dtype, self._fill(data), location)

    def __repr__(self) -> str:
        return (
            f"Tensor({self.dtype!r}, {self.shape}, offset={self.offset}, stride={self.stride}, "
            f"storage_bytes={len(self.storage.data)})"
        )

    def _fill(self, data: bytes | Iterable[Number] | None) -> bytes:
        if isinstance(data, bytes):
            return data
        reach = self.reach()
        numbers: Sequence[Number]
        if data is None:
            numbers = [index % (2 if self.dtype == "bool" else 128) for index in range(reach)]
        else:
            given = tuple(data)
            numbers = [given[index % len(given)] for index in range(max(reach, len(given)))]
        return pack(self.dtype, numbers)

    def reach(self) -> int:
        """The least number of elements that a storage under this tensor must have."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return self.offset + sum((size - 1) * step for size, step in steps) + 1

    def elements(self) -> bytes:
        """The elements in row-major order, little-endian: what the content hash is taken of."""
        itemsize = ITEMSIZES[self.dtype]
        at = [self.offset]
        for size, step in zip(self.shape, self.stride, strict=True):
            at = [start + index * step for start in at for index in range(size)]
        return b"".join(self.storage.data[i * itemsize : (i + 1) * itemsize] for i in at)

    def lowered(self) -> Call:
        """The call that rebuilds it, as torch writes it."""
        args: tuple[object, ...] = (
            self.storage, self.offset, self.shape, self.stride, self.requires_grad, OrderedDict(),
        )  # fmt: skip
        function = "_rebuild_tensor_v2"
        if not self.storage.is_typed:
            function = "_rebuild_tensor_v3"
            args += (Global("torch", self.dtype),)
        if self.metadata:
            args += (dict(self.metadata),)
        return Call(Global("torch._utils", function), args)


def contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """The row-major stride of `shape`, as torch has it for empty dimensions too."""
    stride = [1]
    for size in reversed(shape[1:]):
        stride.append(stride[-1] * max(size, 1))
    return tuple(reversed(stride)) if shape else ()


def parameter(tensor: Tensor, *, requires_grad: bool = True) -> Call:
    """An `nn.Parameter` that was saved as such."""
    args: tuple[object, ...] = (tensor.lowered(), requires_grad, OrderedDict())
    return Call(Global("torch._utils", "_rebuild_parameter"), args)


def with_attributes(
    tensor: Tensor, attributes: Mapping[str, object], subclass: Global = Global("torch", "Tensor")
) -> Call:
    """A tensor subclass, or a tensor with attributes."""
    inner = tensor.lowered()
    args: tuple[object, ...] = (inner.function, subclass, inner.args, dict(attributes))
    return Call(Global("torch._tensor", "_rebuild_from_type_v2"), args)


def buffer(tensor: Tensor, *, persistent: bool = True) -> Call:
    """An `nn.Buffer` that was saved as such."""
    return with_attributes(tensor, {"persistent": persistent, "_is_buffer": True})


def sparse_coo(indices: Tensor, values: Tensor, shape: Sequence[int]) -> Call:
    """A coalesced sparse COO tensor."""
    layout = Call(Global("torch.serialization", "_get_layout"), ("torch.sparse_coo",))
    inner = (indices, values, torch_size(shape), True)
    return Call(Global("torch._utils", "_rebuild_sparse_tensor"), (layout, inner))


def torch_size(shape: Sequence[int]) -> Call:
    """A `torch.Size`."""
    return Call(Global("torch", "Size"), (tuple(shape),))


def quantized(tensor: Tensor, *, scale: float, zero_point: int) -> Call:
    """A tensor quantized as a whole; its dtype is one of the `qint` kinds."""
    scheme = (Global("torch", "per_tensor_affine"), scale, zero_point)
    args: tuple[object, ...] = (
        tensor.storage, tensor.offset, tensor.shape, tensor.stride, scheme,
        tensor.requires_grad, OrderedDict(),
    )  # fmt: skip
    return Call(Global("torch._utils", "_rebuild_qtensor"), args)


def module(
    class_global: Global = Global("torch.nn.modules.module", "Module"),
    *,
    parameters: Mapping[str, object] | None = None,
    buffers: Mapping[str, object] | None = None,
    non_persistent: Sequence[str] = (),
    modules: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> Call:
    """A whole module; plain tensors among `parameters` become `nn.Parameter`."""
    saved = {
        name: parameter(value) if isinstance(value, Tensor) else value
        for name, value in (parameters or {}).items()
    }
    state = {
        "training": True,
        "_parameters": saved,
        "_buffers": dict(buffers or {}),
        "_non_persistent_buffers_set": set(non_persistent),
        "_backward_hooks": OrderedDict(),
        "_forward_hooks": OrderedDict(),
        "_modules": dict(modules or {}),
        **(attributes or {}),
    }
    return Call(class_global, (), state, new=True)


def state_dict(tensors: Mapping[str, object], versions: Mapping[str, int] | None = None) -> Call:
    """An `OrderedDict` with the `_metadata` that `state_dict()` hangs onto it."""
    metadata = [(name, {"version": version}) for name, version in (versions or {}).items()]
    state = {"_metadata": Call(Global("collections", "OrderedDict"), items=metadata)}
    return Call(Global("collections", "OrderedDict"), (), state, items=list(tensors.items()))


# ---------------------------------------------------------------------------------------- pickler

_BATCH = 1000  # C's pickler writes the items of lists and dicts in batches of this size


class Pickler:
    """Writes trees as C's protocol 2 pickler does; a value met twice comes from the memo.

    `persistent_id` turns a storage into the tuple that stands for it.
    """

    def __init__(self, persistent_id: Callable[[Storage], object], protocol: int = 2) -> None:
        self._persistent_id = persistent_id
        self._protocol = protocol
        self._memo: dict[object, int] = {}
        self._alive: list[object] = []
        self._out: list[bytes] = []

    def dumps(self, value: object) -> bytes:
        self._memo, self._alive, self._out = {}, [], [proto(self._protocol)]
        self._save(value)
        return b"".join((*self._out, STOP))

    def _key(self, value: object) -> object:
        return (type(value), value) if isinstance(value, str | Global) else id(value)

    def _remember(self, value: object) -> None:
        self._alive.append(value)  # an id is only good for as long as its object lives
        index = self._memo[self._key(value)] = len(self._memo)
        self._out.append(binput(index) if index < 256 else long_binput(index))

    def _recall(self, index: int) -> None:
        self._out.append(binget(index) if index < 256 else long_binget(index))

    def _save(self, value: object) -> None:
        known = self._memo.get(self._key(value))
        if known is not None:
            self._recall(known)
        elif (atom := _ATOMS.get(type(value))) is not None:
            self._out.append(atom(value))
        else:
            _SAVERS.get(type(value), Pickler._save_lowered)(self, value)

    def _save_text(self, value: str) -> None:
        self._out.append(binunicode(value))
        self._remember(value)

    def _save_global(self, value: Global) -> None:
        self._out.append(global_(value.module, value.name))
        self._remember(value)

    def _save_list(self, value: list[object]) -> None:
        self._out.append(EMPTY_LIST)
        self._remember(value)
        self._save_appends(value, bare=len(value) == 1)

    def _save_dict(self, value: dict[object, object]) -> None:
        self._out.append(EMPTY_DICT)
        self._remember(value)
        self._save_dict_items(value)

    def _save_persistent(self, value: Persistent) -> None:
        self._save(value.identifier)
        self._out.append(BINPERSID)

    def _save_storage(self, value: Storage) -> None:
        self._save(self._persistent_id(value))
        self._out.append(BINPERSID)

    def _save_lowered(self, value: object) -> None:
        self._save_call(value, value if isinstance(value, Call) else _lower(value))

    def _save_tuple(self, value: tuple[object, ...]) -> None:
        self._out.append(MARK if len(value) > 3 else b"")
        for item in value:
            self._save(item)
        if (known := self._memo.get(self._key(value))) is not None:
            # A tuple that holds itself was finished inside: drop this copy and take that one.
            self._out.append(POP_MARK if len(value) > 3 else POP * len(value))
            self._recall(known)
            return
        self._out.append((EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE)[min(len(value), 4)])
        if value:
            self._remember(value)

    def _save_call(self, original: object, call: Call) -> None:
        self._save(call.function)
        self._save(call.args)
        self._out.append(NEWOBJ if call.new else REDUCE)
        self._remember(original)
        self._save_appends(call.appends)
        self._save_items(call.items)
        if call.state is not None:
            self._save(call.state)
            self._out.append(BUILD)

    def _save_appends(self, values: Sequence[object], *, bare: bool = True) -> None:
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            single = bare and len(batch) == 1
            self._out.append(b"" if single else MARK)
            for value in batch:
                self._save(value)
            self._out.append(APPEND if single else APPENDS)

    def _save_items(self, items: Sequence[tuple[object, object]]) -> None:
        for start in range(0, len(items), _BATCH):
            self._save_batch(items[start : start + _BATCH])

    def _save_batch(self, batch: Sequence[tuple[object, object]], *, bare: bool = True) -> None:
        single = bare and len(batch) == 1
        self._out.append(b"" if single else MARK)
        for key, value in batch:
            self._save(key)
            self._save(value)
        self._out.append(SETITEM if single else SETITEMS)

    def _save_dict_items(self, value: dict[object, object]) -> None:
        items = list(value.items())
        if len(items) == 1:
            self._save_batch(items)
            return
        for start in range(0, len(items), _BATCH):
            self._save_batch(items[start : start + _BATCH], bare=False)
        if items and len(items) % _BATCH == 0:
            self._save_batch([], bare=False)


def _shortest_int(value: int) -> bytes:
    if 0 <= value < 1 << 8:
        return binint1(value)
    if 0 <= value < 1 << 16:
        return binint2(value)
    if -(1 << 31) <= value < 1 << 31:
        return binint(value)
    return long1(value) if len(_twos_complement(value)) < 256 else long4(value)


_ATOMS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: NONE,
    bool: lambda value: NEWTRUE if value else NEWFALSE,
    int: _shortest_int,
    float: binfloat,
    Raw: lambda value: value.opcodes,
}
_SAVERS: Final[dict[type, Callable[[Pickler, Any], None]]] = {
    str: Pickler._save_text,
    Global: Pickler._save_global,
    tuple: Pickler._save_tuple,
    list: Pickler._save_list,
    dict: Pickler._save_dict,
    Persistent: Pickler._save_persistent,
    Storage: Pickler._save_storage,
}


def _lower(value: object) -> Call:
    match value:
        case Tensor():
            return value.lowered()
        case OrderedDict():
            state = vars(value) or None
            return Call(Global("collections", "OrderedDict"), (), state, items=list(value.items()))
        case bytes() if not value:
            return Call(Global("__builtin__", "bytes"))
        case bytes():
            return Call(Global("_codecs", "encode"), (value.decode("latin1"), "latin1"))
        case complex():
            return Call(Global("__builtin__", "complex"), (value.real, value.imag))
        case set() | frozenset():
            return Call(Global("__builtin__", type(value).__name__), (list(value),))
        case _:
            raise TypeError(f"no way to pickle {value!r}")


def count_keys() -> Iterator[str]:
    """Storage keys as torch gives them: "0", "1", ..."""
    number = 0
    while True:
        yield str(number)
        number += 1


def address_keys() -> Iterator[str]:
    """Storage keys that are memory addresses, as older files have them."""
    for key in count_keys():
        yield str(94875212955984 + 64 * int(key))


class StorageTable:
    """Gives each storage a key in the order in which they are met."""

    def __init__(self, keys: Iterable[str] | None = None) -> None:
        self._fresh = iter(count_keys() if keys is None else keys)
        self.by_key: dict[str, Storage] = {}
        self._key_of: dict[Storage, str] = {}

    def key(self, storage: Storage) -> str:
        if storage not in self._key_of:
            key = next(self._fresh) if storage.key is None else storage.key
            self._key_of[storage] = key
            self.by_key.setdefault(key, storage)
        return self._key_of[storage]

    def persistent_id(self, storage: Storage) -> tuple[object, ...]:
        where = (self.key(storage), storage.location, storage.numel)
        return ("storage", storage.class_global, *where)


def to_pickle(value: object, *, table: StorageTable | None = None) -> bytes:
    """Write a tree as a protocol 2 pickle; `table` collects the storages."""
    return Pickler((table or StorageTable()).persistent_id).dumps(value)


# --------------------------------------------------------------------------------------- archives


@dataclass(frozen=True)
class ZipRecord:
    """One record of an archive, and every way in which it can contradict itself.

    What is None is written truthfully.
    """

    name: str
    data: bytes
    crc: int | None = None
    compress: bool = False
    data_descriptor: bool = True
    local_name: str | None = None
    local_offset: int | None = None
    size: int | None = None
    compressed_size: int | None = None
    method: int | None = None
    flags: int = 0x0800  # names are UTF-8
    extra: bytes = b""
    in_central: bool = True
    in_local: bool = True
    zip64: bool = False


_ALIGNMENT = 64
_UNKNOWN = 0xFFFFFFFF


def _padding(start: int, alignment: int) -> bytes:
    """The extra field FB that moves the data to a multiple of `alignment`."""
    if not alignment:
        return b""
    length = -(start + 4) % alignment
    return b"FB" + struct.pack("<H", length) + b"Z" * length


def zip_archive(
    records: Sequence[ZipRecord],
    *,
    alignment: int = _ALIGNMENT,
    zip64_end: bool = True,
    comment: bytes = b"",
    prefix: bytes = b"",
    entries: int | None = None,
) -> bytes:
    """A zip as torch's own writer lays it out; the date is the invalid 1980-00-00.

    `prefix` is what stands before the archive, `entries` the number of records it claims to have.
    """
    out = bytearray(prefix)
    central = bytearray()
    for record in records:
        offset = len(out)
        stored = _deflate(record.data) if record.compress else record.data
        if record.in_local:
            out += _local_part(record, stored, offset, alignment)
        if record.in_central:
            central += _central_header(record, stored, offset)
    count = sum(record.in_central for record in records) if entries is None else entries
    start = len(out)
    out += central
    if zip64_end:
        end = len(out)
        out += struct.pack(
            "<4sQHHIIQQQQ", b"PK\6\6", 44, 798, 45, 0, 0, count, count, len(central), start
        )
        out += struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    short = (min(count, 0xFFFF), min(count, 0xFFFF), len(central), start, len(comment))
    out += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, *short) + comment
    return bytes(out)


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def _facts(record: ZipRecord, stored: bytes) -> tuple[int, int, int, int]:
    method = (8 if record.compress else 0) if record.method is None else record.method
    crc = zlib.crc32(record.data) if record.crc is None else record.crc
    compressed = len(stored) if record.compressed_size is None else record.compressed_size
    size = len(record.data) if record.size is None else record.size
    return method, crc, compressed, size


def _has_descriptor(record: ZipRecord) -> bool:
    return record.data_descriptor and bool(record.data)


def _flags(record: ZipRecord) -> int:
    return record.flags | (0x0008 if _has_descriptor(record) else 0)


def _local_part(record: ZipRecord, stored: bytes, offset: int, alignment: int) -> bytes:
    method, crc, compressed, size = _facts(record, stored)
    name = _text(record.name if record.local_name is None else record.local_name)
    extra = struct.pack("<HHQQ", 1, 16, size, compressed) if record.zip64 else b""
    extra += record.extra
    extra += _padding(offset + 30 + len(name) + len(extra), alignment)
    said = (crc, compressed, size)
    if record.zip64:
        said = (crc, _UNKNOWN, _UNKNOWN)
    if _has_descriptor(record):
        said = (0, 0, 0)
    head = (b"PK\3\4", 0, _flags(record), method, 0, 0, *said, len(name), len(extra))
    header = struct.pack("<4sHHHHHIIIHH", *head)
    descriptor = b""
    if _has_descriptor(record):
        widths = "<4sIQQ" if record.zip64 else "<4sIII"
        descriptor = struct.pack(widths, b"PK\7\b", crc, compressed, size)
    return header + name + extra + stored + descriptor


def _central_header(record: ZipRecord, stored: bytes, offset: int) -> bytes:
    method, crc, compressed, size = _facts(record, stored)
    name = _text(record.name)
    where = offset if record.local_offset is None else record.local_offset
    extra = b""
    if record.zip64:
        extra = struct.pack("<HHQQQ", 1, 24, size, compressed, where)
        compressed = size = where = _UNKNOWN
    extra += record.extra
    head = (b"PK\1\2", 0, 0, _flags(record), method, 0, 0, crc, compressed, size)
    rest = (len(name), len(extra), 0, 0, 0, 0, where)
    return struct.pack("<4sHHHHHHIIIHHHHHII", *head, *rest) + name + extra


_SERIALIZATION_ID = b"0" * 40


def torch_records(
    tree: object,
    *,
    archive_name: str = "archive",
    byteorder: ByteOrder | None = "little",
    keys: Iterable[str] | None = None,
    data_pkl: bytes | None = None,
) -> list[ZipRecord]:
    """The records that `torch.save(tree)` writes, in its order; no `byteorder` record for None.

    `data_pkl` is written in place of the tree's own pickle.
    """
    table = StorageTable(keys)
    pickled = to_pickle(tree, table=table)
    contents = {
        "data.pkl": pickled if data_pkl is None else data_pkl,
        ".format_version": b"1",
        ".storage_alignment": b"64",
    }
    if byteorder is not None:
        contents["byteorder"] = byteorder.encode()
    for key, storage in table.by_key.items():
        contents[f"data/{key}"] = to_byteorder(storage.data, storage.dtype, byteorder or "little")
    contents |= {"version": b"3\n", ".data/serialization_id": _SERIALIZATION_ID}
    return [ZipRecord(f"{archive_name}/{name}", data) for name, data in contents.items()]


def with_record(
    records: Iterable[ZipRecord], name: str, change: Callable[[ZipRecord], ZipRecord]
) -> list[ZipRecord]:
    """Change the one record whose name ends in `/name`."""
    changed = list(records)
    (index,) = [at for at, record in enumerate(changed) if record.name.endswith(f"/{name}")]
    changed[index] = change(changed[index])
    return changed


def torch_zip(
    tree: object,
    *,
    archive_name: str = "archive",
    order: Sequence[str] | None = None,
    without: Sequence[str] = (),
    extra_records: Mapping[str, bytes] | None = None,
    crc: bool = True,
    compress: bool = False,
    data_descriptor: bool = True,
    zip64: bool = False,
    zip64_end: bool = True,
    byteorder: ByteOrder | None = "little",
    alignment: int = _ALIGNMENT,
    keys: Iterable[str] | None = None,
    data_pkl: bytes | None = None,
) -> bytes:
    """What `torch.save(tree)` writes. Records are named without the archive name here.

    `order` moves the named ones to the front, `without` leaves them out.
    """
    records = torch_records(
        tree, archive_name=archive_name, byteorder=byteorder, keys=keys, data_pkl=data_pkl
    )
    records += [
        ZipRecord(f"{archive_name}/{name}", data) for name, data in (extra_records or {}).items()
    ]
    first = {f"{archive_name}/{name}": rank for rank, name in enumerate(order or ())}
    left_out = {f"{archive_name}/{name}" for name in without}
    return zip_archive(
        [
            replace(
                record,
                crc=None if crc else 0,
                compress=compress,
                data_descriptor=data_descriptor,
                zip64=zip64,
            )
            for record in sorted(records, key=lambda record: first.get(record.name, len(first)))
            if record.name not in left_out
        ],
        alignment=alignment,
        zip64_end=zip64_end,
    )


# -------------------------------------------------------------------------- TorchScript, packages


def script_module(name: str, attributes: Mapping[str, object]) -> Call:
    """A TorchScript object of the class `__torch__.<name>`."""
    return Call(Global("__torch__", name), (), dict(attributes), new=True)


def script_source(
    name: str,
    types: Mapping[str, str],
    *,
    parameters: Sequence[str] = (),
    buffers: Sequence[str] = (),
) -> bytes:
    """The source of a TorchScript class with attributes of these types and no method."""
    listed = [", ".join(f'"{item}"' for item in names) for names in (parameters, buffers)]
    lines = [f"class {name}(Module):"]
    lines += [f"  __parameters__ = [{listed[0]}]", f"  __buffers__ = [{listed[1]}]"]
    lines += [f"  {attribute} : {kind}" for attribute, kind in types.items()]
    return "\n".join([*lines, ""]).encode()


def torchscript(
    root: object,
    source: bytes,
    *,
    constants: tuple[object, ...] = (),
    archive_name: str = "archive",
    extra_records: Mapping[str, bytes] | None = None,
) -> bytes:
    """A TorchScript archive; `source` is the file `code/__torch__.py`.

    `constants` have storages of their own in `constants/`, and `data/` comes before `data.pkl`.
    """
    data, fixed = StorageTable(), StorageTable()
    pickles = {"data.pkl": to_pickle(root, table=data)}
    pickles |= {
        "code/__torch__.py": source,
        "constants.pkl": to_pickle(constants, table=fixed),
        "version": b"3\n",
        "byteorder": b"little",
        ".data/serialization_id": _SERIALIZATION_ID,
    }
    storages = {f"data/{key}": storage.data for key, storage in data.by_key.items()}
    storages |= {f"constants/{key}": storage.data for key, storage in fixed.by_key.items()}
    contents = {**storages, **pickles, **(extra_records or {})}
    return zip_archive([ZipRecord(f"{archive_name}/{name}", c) for name, c in contents.items()])


def torch_package(
    resources: Mapping[str, object],
    *,
    sources: Mapping[str, str] | None = None,
    archive_name: str = "archive",
) -> bytes:
    """A torch.package archive: pickles by path (`model/model.pkl`) and Python sources."""
    table = StorageTable()

    def persistent_id(storage: Storage) -> tuple[object, ...]:
        where = (int(table.key(storage)), storage.location, storage.numel)
        return ("storage", storage.class_global, *where)

    pickles = {path: Pickler(persistent_id, 3).dumps(tree) for path, tree in resources.items()}
    contents = {f".data/{key}.storage": storage.data for key, storage in table.by_key.items()}
    contents |= pickles
    contents |= {path: text.encode() for path, text in (sources or {}).items()}
    contents |= {
        ".data/extern_modules": b"torch._utils\ntorch\ncollections\n",
        ".data/python_version": b"3.11.7",
        ".data/version": b"6\n",
        "byteorder": b"little",
        ".data/serialization_id": _SERIALIZATION_ID,
    }
    return zip_archive([ZipRecord(f"{archive_name}/{name}", c) for name, c in contents.items()])


# ---------------------------------------------------------------------- legacy stream, tar, others

MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C


def legacy(
    tree: object,
    *,
    magic: int = MAGIC_NUMBER,
    protocol_version: int = 1001,
    little_endian: bool = True,
    keys: Iterable[str] | None = None,
    counts: Mapping[str, int] | None = None,
    listed: Sequence[str] | None = None,
) -> bytes:
    """The five pickles and the storages of a file from before torch 1.6.

    Storages are little-endian in it whatever `little_endian` says of the machine that wrote it.
    `counts` and `listed` put other element counts and another list of keys in place of the truth.
    """
    table = StorageTable(address_keys() if keys is None else keys)

    def persistent_id(storage: Storage) -> tuple[object, ...]:
        return (*table.persistent_id(storage), storage.view)

    system = {
        "protocol_version": protocol_version,
        "little_endian": little_endian,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    pickled = Pickler(persistent_id).dumps(tree)
    present = list(table.by_key) if listed is None else list(listed)
    out = [to_pickle(magic), to_pickle(protocol_version), to_pickle(system), pickled]
    out.append(to_pickle(present))
    for key, storage in table.by_key.items():
        itemsize = ITEMSIZES[storage.dtype] if storage.is_typed else 1
        count = (counts or {}).get(key, len(storage.data) // itemsize)
        out.append(struct.pack("<q", count))
        out.append(storage.data)
    return b"".join(out)


def tar_of_old_torch(tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """A tar as torch wrote it before 0.1.10: storages, tensors and a pickle of the object."""
    given = {"weight": Tensor("float32", (2, 3))} if tensors is None else dict(tensors)
    storages = to_pickle(len(given))
    described = to_pickle(len(given))
    for key, tensor in enumerate(given.values()):
        storage = tensor.storage
        storages += to_pickle((1000 + key, storage.location, storage.class_global))
        storages += struct.pack("<q", storage.numel) + storage.data
        kind = storage.class_global.name.replace("Storage", "Tensor")
        described += to_pickle((key, 1000 + key, Global("torch", kind)))
        sizes = (*tensor.shape, *tensor.stride, tensor.offset)
        described += struct.pack(f"<ii{len(sizes)}q", len(tensor.shape), 0, *sizes)
    named = {name: Persistent(key) for key, name in enumerate(given)}
    members = {
        "sys_info": to_pickle({"protocol_version": 1000, "little_endian": True}),
        "pickle": to_pickle(named),
        "storages": storages + to_pickle([]),
        "tensors": described,
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def safetensors(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    header_override: bytes | Mapping[str, object] | None = None,
    length_override: int | None = None,
) -> bytes:
    """A safetensors file; the overrides replace the JSON header and the length it claims."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors.items():
        elements = tensor.elements()
        header[name] = {
            "dtype": SAFETENSORS_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(elements)],
        }
        data += elements
    if isinstance(header_override, bytes):
        encoded = header_override
    else:
        shown = header if header_override is None else header_override
        encoded = json.dumps(shown, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)
    length = len(encoded) if length_override is None else length_override
    return struct.pack("<Q", length) + encoded + data


# ------------------------------------------------------------------------------------ wrong files


def lfs_pointer() -> bytes:
    """What stands in a clone where Git LFS did not fetch the file."""
    return (
        b"version https://git-lfs.github.com/spec/v1\n"
        b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
        b"size 440473133\n"
    )


def html_page() -> bytes:
    """What a download saves when the server wanted a login."""
    return b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"


def s3_error_xml() -> bytes:
    """What an object store answers in place of the object."""
    return (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    )


def zip_around(data: bytes, name: str = "model.pt") -> bytes:
    """A zip that holds a checkpoint and is none itself."""
    return zip_archive([ZipRecord(name, data)], alignment=0, zip64_end=False)


def numpy_array() -> bytes:
    """A `.npy` file of two float32 numbers."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)


def wrong_files() -> dict[str, bytes]:
    """Files that people mistake for a checkpoint, by what they are."""
    checkpoint = torch_zip({"w": Tensor("float32", (2,))})
    return {
        "empty": b"",
        "lfs-pointer": lfs_pointer(),
        "html": html_page(),
        "xml-error": s3_error_xml(),
        "json": b'{"error": "not found"}\n',
        "text": b"Entry not found\n",
        "gzip": gzip.compress(checkpoint, mtime=0),
        "zip-around": zip_around(checkpoint),
        "other-zip": zip_around(b"hello", "readme.txt"),
        "numpy": numpy_array(),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(88),
        "gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(57),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(25),
        "old-tar": tar_of_old_torch(),
        "zeros": bytes(4096),
    }


def canary(path: str) -> dict[str, object]:
    """A tree whose pickle creates the file `path` in whatever runs it."""
    made = Call(Global("io", "open"), (path, "w"))
    return {"w": Tensor("float32", (2,)), "canary": made}
