"""Programs of `torch.export` (`.pt2`): an archive to the signature in it, by JSON alone.

The layout is that of torch 2.13: `models/<name>.json` has the graph with its signature, and
`data/weights/<name>_weights_config.json` says of each name in the program's state_dict where its
bytes are. Up to torch 2.7 the graph was `serialized_exported_program.json` at the top of a plain
zip, with the weights in a pickle beside it. The names of the JSON are those of
`torch/_export/serde/schema.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from ckptool.errors import TensorError, UnsupportedFormatError
from ckptool.formats.archive import Archive
from ckptool.formats.json_parts import JsonPart, read_json
from ckptool.pickling.limits import Limits
from ckptool.tensors.refs import checked_shape

__all__ = ["ExportedProgram", "ProgramTensor", "is_exported_program", "read_exported_program"]

_FORMAT: Final = "archive_format"
_OLD_PROGRAM: Final = "serialized_exported_program.json"
_PROGRAM = re.compile(r"models/(.+)\.json", re.DOTALL)
_USUAL_NAME: Final = "model"
_WEIGHTS: Final = "data/weights/"
_CONSTANTS: Final = "data/constants/"

OpenShape: TypeAlias = tuple[int | None, ...]
"""A shape whose open dimensions are None."""


@dataclass(frozen=True, slots=True)
class ProgramTensor:
    """A parameter or buffer of a program.

    `is_persistent` is None for a buffer of a program that torch 2.2 wrote, which does not say.
    `dtype` is torch's name, `dtype` and `shape` are None where the file does not tell them; a
    dimension that is open is None. Tensors with the same `place` are one; it is None where nothing
    tells.
    """

    kind: Literal["parameter", "buffer"]
    is_persistent: bool | None
    dtype: str | None
    shape: OpenShape | None
    place: tuple[object, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExportedProgram:
    """What the signature of a program says of the model that it was made from.

    `tensors` are in the order of the program's own state_dict: parameters, then buffers. `modules`
    are the types by path, in the order of `named_modules()`, a type None where no operation of the
    graph tells it.
    """

    torch_version: str | None
    tensors: Mapping[str, ProgramTensor]
    modules: Mapping[str, str | None]


def is_exported_program(archive: Archive) -> bool:
    """Whether an archive has the layout of a `.pt2`, new or old."""
    return _FORMAT in archive.records or _OLD_PROGRAM in archive.records


def read_exported_program(archive: Archive, limits: Limits) -> ExportedProgram:
    """Read the signature of the program in a `.pt2`; of several, that of the one called `model`.

    A buffer that is not persistent and that the program never uses is in no signature of a program
    that was exported with `strict=True`. Raises ArchiveError where the JSON is not as torch writes
    it, and UnsupportedFormatError where there is no one program.
    """
    name = _program_name(archive)
    record = _OLD_PROGRAM if name is None else f"models/{name}.json"
    program = read_json(archive, record, limits)
    signed = _read_signature(program.at("graph_module"))
    weights: dict[str, _Payload] = {}
    constants: dict[str, _Payload] = {}
    if name is not None:
        weights = _read_payloads(archive, _WEIGHTS, f"{name}_weights_config.json", limits)
        constants = _read_payloads(archive, _CONSTANTS, f"{name}_constants_config.json", limits)
    version = program.find("torch_version")
    return ExportedProgram(
        None if version is None else version.text(),
        {
            name: _merged(signed.get(name), weights.get(name) or constants.get(name))
            for name in _in_order(list(signed), list(weights))
        },
        _read_modules(program.at("graph_module")),
    )


def _program_name(archive: Archive) -> str | None:
    """The name of the program to read, None for the one of an old layout."""
    if _OLD_PROGRAM in archive.records:
        return None
    found = [match[1] for name in archive.records if (match := _PROGRAM.fullmatch(name))]
    if _USUAL_NAME in found:
        return _USUAL_NAME
    if len(found) == 1:
        return found[0]
    what = f"an archive of several programs ({', '.join(found)})" if found else _COMPILED
    raise UnsupportedFormatError(what)


_COMPILED: Final = "a .pt2 archive without a program, as it is after AOTInductor compiled it,"


# The signature ---------------------------------------------------------------------------------


def _read_signature(module: JsonPart) -> dict[str, ProgramTensor]:
    """The parameters and buffers that the graph takes as inputs, by name."""
    signature = module.at("signature")
    if "inputs_to_parameters" in signature.table():
        raise UnsupportedFormatError(
            "a program that torch.export wrote before torch 2.2", hint="export it anew"
        )
    values = module.at("graph").at("tensor_values")
    found: dict[str, ProgramTensor] = {}
    for spec in signature.at("input_specs").parts():
        for kind in _KINDS:
            taken = spec.find(kind)
            if taken is None:
                continue
            name = taken.at(f"{kind}_name")
            if name.text() in found:
                raise name.wrong("is the same as one before it")
            found[name.text()] = _tensor(kind, taken, values)
    return found


_KINDS: Final[tuple[Literal["parameter", "buffer"], ...]] = ("parameter", "buffer")


def _tensor(
    kind: Literal["parameter", "buffer"], taken: JsonPart, values: JsonPart
) -> ProgramTensor:
    dtype, shape = _read_meta(values.at(taken.at("arg").at("name").text()))
    persistent = taken.find("persistent")
    is_persistent = None if persistent is None else persistent.flag()
    return ProgramTensor(kind, kind == "parameter" or is_persistent, dtype, shape)


def _read_meta(meta: JsonPart) -> tuple[str | None, OpenShape]:
    """Dtype and shape; a dtype is None where this torch has no number for it."""
    return _DTYPES.get(meta.at("dtype").number()), _shape(meta.at("sizes"))


def _shape(sizes: JsonPart) -> OpenShape:
    shape = tuple(_size(part) for part in sizes.parts())
    try:
        checked_shape(tuple(1 if size is None else size for size in shape))
    except TensorError as error:
        raise sizes.wrong(f"is no shape: {error.problem}") from error
    return shape


def _size(part: JsonPart) -> int | None:
    """A number, None for an expression of symbols."""
    number = part.find("as_int")
    if number is not None:
        return number.number()
    part.at("as_expr")
    return None


_DTYPES: Final[Mapping[int, str]] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
"""The numbers of `torch._export.serde.schema.ScalarType`, which are not those of c10."""


# The weights -----------------------------------------------------------------------------------


class _Payload(NamedTuple):
    """What the archive keeps under a name."""

    is_parameter: bool
    dtype: str | None = None
    shape: OpenShape | None = None
    place: tuple[object, ...] | None = None


def _read_payloads(
    archive: Archive, folder: str, config: str, limits: Limits
) -> dict[str, _Payload]:
    """Read a table of names; torch 2.8 wrote none, and a pickle in its place."""
    if folder + config not in archive.records:
        return {}
    table = read_json(archive, folder + config, limits).at("config")
    return {name: _payload(archive, folder, table.at(name)) for name in table.table()}


def _payload(archive: Archive, folder: str, payload: JsonPart) -> _Payload:
    is_parameter = payload.at("is_param").flag()
    meta = payload.find("tensor_meta")
    if meta is None:
        return _Payload(is_parameter)
    dtype, shape = _read_meta(meta)
    record = folder + payload.at("path_name").text()
    extent = archive.records.get(record)
    # Tensors without bytes, such as those on the meta device, all share one record.
    if extent is None or not extent.size or payload.at("use_pickle").flag() or 0 in shape:
        return _Payload(is_parameter, dtype, shape)
    stride, offset = _shape_of(meta.at("strides")), _size(meta.at("storage_offset"))
    return _Payload(is_parameter, dtype, shape, (record, dtype, shape, stride, offset))


def _shape_of(sizes: JsonPart) -> OpenShape:
    return tuple(_size(part) for part in sizes.parts())


def _merged(signed: ProgramTensor | None, kept: _Payload | None) -> ProgramTensor:
    """Put together what the signature and the weights say; the signature knows the kind."""
    if signed is None:
        # With `strict=True` what the graph does not use is kept, but is no input.
        kept = kept or _Payload(False)
        kind: Literal["parameter", "buffer"] = "parameter" if kept.is_parameter else "buffer"
        return ProgramTensor(kind, True, kept.dtype, kept.shape, kept.place)
    if kept is None or kept.shape is None:
        return signed
    return ProgramTensor(signed.kind, signed.is_persistent, kept.dtype, kept.shape, kept.place)


def _in_order(signed: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    """Yield the names as the state_dict has them; what it lacks follows the one signed before it.

    The inputs of a graph are in the order of their use where it was exported with `strict=True`.
    """
    known = set(kept)
    behind = {
        (signed[index - 1] if index else None): name
        for index, name in enumerate(signed)
        if name not in known
    }
    last: str | None
    for last in (None, *kept):
        if last is not None:
            yield last
        while last in behind:
            last = behind[last]
            yield last


# The modules -----------------------------------------------------------------------------------

_CALLED_AGAIN = re.compile(r"(.*)@\d+", re.DOTALL)
_QUALIFIED_NAME = re.compile(r"[\w.<>]+")


def _read_modules(module: JsonPart) -> dict[str, str | None]:
    """The modules by path, each with its type where the graph tells one."""
    calls = module.find("module_call_graph")
    paths = [] if calls is None else [call.at("fqn").text() for call in calls.parts()]
    known = set(paths)
    types = _types_by_path(module.at("graph").at("nodes"))
    return {path: types.get(path) for path in paths if not _is_repeated_call(path, known)}


def _is_repeated_call(path: str, known: set[str]) -> bool:
    """Whether a path is a module's own with the number of a later call behind it."""
    again = _CALLED_AGAIN.fullmatch(path)
    return again is not None and again[1] in known


def _types_by_path(nodes: JsonPart) -> dict[str, str | None]:
    """The types in the stacks of modules that the operations were called in.

    Such a stack is text, `key,path,type;...`, and a name can have a separator in it: what is not
    told clearly is left out.
    """
    stacks: dict[str, None] = {}
    for node in nodes.parts():
        match node.table():
            case {"metadata": {"nn_module_stack": str() as stack}}:
                stacks[stack] = None
    found: dict[str, str | None] = {}
    for frame in dict.fromkeys(frame for stack in stacks for frame in stack.split(";")):
        match frame.split(","):
            case [_, path, name] if _QUALIFIED_NAME.fullmatch(name):
                found[path] = name if found.get(path, name) == name else None
    return found
