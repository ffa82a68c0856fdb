"""The form of a spec's JSON, as a schema that pydantic's core checks and reads by.

Imported only where a spec is read or written. The schema is written for the core itself, which
makes the types of `model_spec` in one pass. The command line loads all of pydantic anyway; who uses
the library alone loads the core, which takes half as long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, Final, Literal, TypeAlias, TypedDict

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import core_schema as core

from ckptool.checkpoint.keypath import KeyPath
from ckptool.spec.model_spec import (
    Computed,
    Content,
    Fill,
    LoadHook,
    ModuleSpec,
    Random,
    Range,
    TensorSpec,
    UnknownValue,
)
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import LARGEST_COUNT, MOST_DIMENSIONS

__all__ = [
    "VERSION",
    "Document",
    "FormError",
    "count_keys",
    "document_schema",
    "parse_document",
]

VERSION: Final = 1
"""The version of the form that this ckptool writes, and the latest that it reads."""


class Document(TypedDict):
    """A document that has been read."""

    ckptool_spec: int
    source: str
    origin: Literal["constructed", "instance", "module", "torchscript", "exported"]
    torch_version: str | None
    tensors: dict[str, TensorSpec]
    modules: dict[str, ModuleSpec]


class FormError(Exception):
    """A document that is not of the form: what is wrong, by place; the place of all is empty.

    `is_later` says that it is of a later version, whose form is not known.
    """

    def __init__(self, problems: Mapping[KeyPath, str], *, is_later: bool = False) -> None:
        super().__init__(problems)
        self.problems = problems
        self.is_later = is_later


# The form --------------------------------------------------------------------------------------

_Schema: TypeAlias = core.CoreSchema
# For each object: the core does not hand it down to those within.
_CONFIG: Final = core.CoreConfig(
    strict=True, extra_fields_behavior="forbid", allow_inf_nan=False, val_json_bytes="base64"
)
_TEXT: Final = core.str_schema()
_OPTIONAL_TEXT: Final = core.nullable_schema(_TEXT)
_BOOL: Final = core.bool_schema()
_INT: Final = core.int_schema()
_TEXTS: Final = core.tuple_variable_schema(_TEXT)


def _words(*expected: str) -> _Schema:
    return core.literal_schema(list(expected))


def _made(cls: type, **schemas: _Schema) -> _Schema:
    """An object that one of our dataclasses is made of; fields are by their names in the JSON."""
    names = [field.name for field in fields(cls)]
    members = [
        core.dataclass_field(name, schemas[_in_json(name)], validation_alias=_in_json(name))
        for name in names
    ]
    arguments = core.dataclass_args_schema(cls.__name__, members)
    return core.dataclass_schema(
        cls, arguments, names, slots=True, frozen=True, config=_CONFIG, ref=cls.__name__
    )


def _in_json(name: str) -> str:
    return name.removeprefix("is_").removeprefix("has_")


_SPECIAL_FLOAT: Final = core.no_info_after_validator_function(
    float, _words("NaN", "Infinity", "-Infinity")
)
_NUMBER: Final = core.union_schema(
    [_BOOL, _INT, core.float_schema(allow_inf_nan=False), _SPECIAL_FLOAT]
)
_UNKNOWN: Final = (
    "made from parameters",
    "not initialised",
    "of an instance",
    "of a saved module",
    "of a kind that is not kept",
)
_INITIAL: Final = core.tagged_union_schema(
    {
        "fill": _made(Fill, kind=_words("fill"), value=_NUMBER),
        "range": _made(Range, kind=_words("range"), start=_INT, step=_INT),
        "content": _made(Content, kind=_words("content"), data=core.bytes_schema()),
        "random": _made(Random, kind=_words("random")),
        "computed": _made(Computed, kind=_words("computed")),
        "unknown": _made(UnknownValue, kind=_words("unknown"), why=_words(*_UNKNOWN)),
    },
    discriminator="kind",
)
_SHAPE: Final = core.tuple_variable_schema(
    core.int_schema(ge=0, le=LARGEST_COUNT), max_length=MOST_DIMENSIONS
)
_TENSOR: Final = _made(
    TensorSpec,
    kind=_words("parameter", "buffer"),
    persistent=core.nullable_schema(_BOOL),
    dtype=core.nullable_schema(_words(*DTYPES)),
    shape=core.nullable_schema(_SHAPE),
    tied_to=_OPTIONAL_TEXT,
    initial=core.nullable_schema(_INITIAL),
)
_HOOK: Final = _made(
    LoadHook,
    name=_TEXT,
    settings=core.dict_schema(_TEXT, core.union_schema([_BOOL, _INT, _TEXT])),
)
_MODULE: Final = _made(
    ModuleSpec,
    type=_OPTIONAL_TEXT,
    load_hooks=core.nullable_schema(core.tuple_variable_schema(_HOOK)),
    extra_state=core.nullable_schema(_BOOL),
    none_tensors=_TEXTS,
    none_modules=_TEXTS,
)
_FIELDS: Final[dict[str, _Schema]] = {
    "ckptool_spec": core.int_schema(ge=VERSION, le=VERSION),
    "source": _TEXT,
    "origin": _words("constructed", "instance", "module", "torchscript", "exported"),
    "torch_version": _OPTIONAL_TEXT,
    "tensors": core.dict_schema(_TEXT, _TENSOR),
    "modules": core.dict_schema(_TEXT, _MODULE),
}

_FORM: Final[_Schema] = core.typed_dict_schema(
    {name: core.typed_dict_field(schema) for name, schema in _FIELDS.items()}, config=_CONFIG
)


@cache
def _validator() -> SchemaValidator:
    return SchemaValidator(_FORM)


def parse_document(data: bytes) -> Document:
    """Read JSON of the form; raise FormError where it is not of it."""
    try:
        document: Document = _validator().validate_json(data)
    except ValidationError as error:
        raise _translated(error, data) from None
    return document


def document_schema() -> dict[str, object]:
    """Return the JSON Schema of the form; `schema.json` beside this module holds it."""
    from pydantic.json_schema import GenerateJsonSchema

    schema = _without_additions(GenerateJsonSchema().generate(_FORM))
    for cls in _MADE:
        words = " ".join((cls.__doc__ or "").split())
        words = re.sub(r"(?<!as )None", "null", re.sub(r"`(?:is|has)_", "`", words))
        schema["$defs"][cls.__name__] |= {"description": words, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A model spec of ckptool",
        "description": "What a model is made of, in the order of its state_dict().",
        **schema,
        "additionalProperties": False,
    }


def _without_additions(schema: Any) -> Any:
    """Take out what pydantic adds of its own, and for OpenAPI."""
    if isinstance(schema, list):
        return [_without_additions(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _without_additions(value) for key, value in schema.items() if key not in _ADDED}
    return kept | ({"contentEncoding": "base64"} if "format" in schema else {})


_ADDED: Final = {"title", "description", "discriminator", "format"}


def count_keys(document: Document) -> int:
    """Return how many keys there are in all of a document's objects."""
    tensors, modules = document["tensors"].values(), document["modules"].values()
    return (
        len(_FIELDS)
        + len(tensors) * (1 + _WIDTHS[TensorSpec])
        + sum([_WIDTHS[type(tensor.initial)] for tensor in tensors])
        + len(modules) * (1 + _WIDTHS[ModuleSpec])
        + sum(
            _WIDTHS[LoadHook] + len(hook.settings)
            for module in modules
            for hook in module.load_hooks or ()
        )
    )


_MADE: Final = (
    *(TensorSpec, ModuleSpec, LoadHook),
    *(Fill, Range, Content, Random, Computed, UnknownValue),
)
_WIDTHS: Final[dict[type, int]] = {type(None): 0, **{cls: len(fields(cls)) for cls in _MADE}}


# What is wrong, and where ----------------------------------------------------------------------


def _translated(error: ValidationError, data: bytes) -> FormError:
    details = error.errors(include_url=False, include_context=False)
    if details[0]["type"] == "json_invalid":
        return FormError({(): details[0]["msg"].replace("Invalid JSON", "it is no JSON", 1)})
    document = json.loads(data)
    found: dict[KeyPath, list[str]] = {}
    for detail in details:
        place = _place(document, detail["loc"], detail["type"])
        if place == ("ckptool_spec",) and detail["type"] == "less_than_equal":
            return FormError({place: "it is later"}, is_later=True)
        found.setdefault(place, []).append(_problem(detail["type"], detail["msg"]))
    return FormError({place: _any_of(problems) for place, problems in found.items()})


def _place(document: object, location: tuple[int | str, ...], kind: str) -> KeyPath:
    """The keys that lead to a problem, without the core's names for the members of unions."""
    place: list[int | str] = []
    for step in location:
        try:
            document = _inside(document)[step]
        except (KeyError, IndexError, TypeError):
            continue
        place.append(step)
    if kind == "missing":
        place.append(location[-1])
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        place.append("kind")
    return tuple(place)


def _inside(document: object) -> Any:
    return document if isinstance(document, dict | list) else ()


_PROBLEMS: Final = {
    "missing": "it is missing",
    "unexpected_keyword_argument": "there is no such field",
    "extra_forbidden": "there is no such field",
    "union_tag_not_found": "it is missing",
    "too_long": f"it has more than {MOST_DIMENSIONS} dimensions",
}


def _problem(kind: str, message: str) -> str:
    return _PROBLEMS.get(kind) or message.replace("Input should", "it should", 1)


def _any_of(problems: Sequence[str]) -> str:
    """What each member of a union asks for, in one clause."""
    first, *others = problems
    return ", or ".join([first, *(one.removeprefix("it should be ") for one in others)])
