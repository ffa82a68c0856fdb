"""What a spec may not say, though each of its fields is of the right form."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final, TypeAlias

from ckptool.checkpoint.keypath import KeyPath
from ckptool.checkpoint.modules import join
from ckptool.spec.model_spec import Content, Fill, ModelSpec, Range, TensorSpec
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import LARGEST_COUNT, MOST_DIMENSIONS

__all__ = ["Problem", "find_problems", "find_unwritable"]

Problem: TypeAlias = tuple[KeyPath, str]
"""Where in the document, and what is wrong there."""


def find_problems(spec: ModelSpec) -> Iterator[Problem]:
    """Yield what contradicts itself, or what no model can have."""
    if "" not in spec.modules:
        yield ("modules",), "the model itself is missing, at the empty path"
    for name, tensor in spec.tensors.items():
        for place, problem in _problems_of(spec, name, tensor):
            yield ("tensors", name, *place), problem
    for path, module in spec.modules.items():
        for name in module.none_modules:
            if join(path, name) in spec.modules:
                yield ("modules", path, "none_modules"), f"{name!r} is a module as well"


def find_unwritable(spec: ModelSpec) -> Iterator[Problem]:
    """Yield what the form has no place for, of which only a spec that was not read can be."""
    for place, text in _texts_of(spec):
        try:
            text.encode()
        except UnicodeEncodeError:
            # Half of a pair of surrogates: JSON could write it, and no reader would take it.
            yield place, f"{text!r} is no text"
    for name, tensor in spec.tensors.items():
        if tensor.dtype is not None and tensor.dtype not in DTYPES:
            yield ("tensors", name, "dtype"), f"{tensor.dtype!r} is no dtype that ckptool knows"
        shape = tensor.shape or ()
        if len(shape) > MOST_DIMENSIONS or any(not 0 <= size <= LARGEST_COUNT for size in shape):
            yield ("tensors", name, "shape"), "no tensor has such a shape"


def _texts_of(spec: ModelSpec) -> Iterator[tuple[KeyPath, str]]:
    yield ("source",), spec.source
    yield ("torch_version",), spec.torch_version or ""
    for name in spec.tensors:
        yield ("tensors", name), name
    for path, module in spec.modules.items():
        yield ("modules", path), path
        yield ("modules", path, "type"), module.type or ""
        for name in (*module.none_tensors, *module.none_modules):
            yield ("modules", path), name
        for hook in module.load_hooks or ():
            for text in (hook.name, *hook.settings, *hook.settings.values()):
                if isinstance(text, str):
                    yield ("modules", path, "load_hooks"), text


def _problems_of(spec: ModelSpec, name: str, tensor: TensorSpec) -> Iterator[Problem]:
    path, _, own = name.rpartition(".")
    owner = spec.modules.get(path)
    if owner is None:
        yield (), f"its module {path!r} is not among the modules"
    elif own in owner.none_tensors:
        yield (), "its module has it among those registered as None too"
    if not own:
        yield (), "it has no name in its module"
    if tensor.kind == "parameter" and tensor.is_persistent is not True:
        yield ("persistent",), "a parameter is always saved"
    if tensor.shape is not None and prod(tensor.shape) > LARGEST_COUNT:
        yield ("shape",), "it has more elements than any tensor"
        return
    if tensor.tied_to is not None:
        yield from _problems_of_tie(spec, name, tensor, tensor.tied_to)
    if tensor.initial is not None:
        yield from _problems_of_initial(tensor)


def _problems_of_tie(
    spec: ModelSpec, name: str, tensor: TensorSpec, tied_to: str
) -> Iterator[Problem]:
    first = spec.tensors.get(tied_to)
    if first is None or tied_to == name:
        yield ("tied_to",), f"{tied_to!r} is no other tensor"
    elif first.tied_to is not None:
        yield ("tied_to",), f"{tied_to!r} is not the first name: it is tied itself"
    elif (first.dtype, first.shape) != (tensor.dtype, tensor.shape):
        yield ("tied_to",), f"{tied_to!r} is of another dtype or shape"


# Initial values --------------------------------------------------------------------------------


def _problems_of_initial(tensor: TensorSpec) -> Iterator[Problem]:
    if tensor.kind == "parameter":
        yield ("initial",), "only buffers have an initial value"
        return
    found = None
    match tensor.initial:
        case Fill(value):
            found = _problem_of_fill(value, tensor.dtype)
        case Range(start, step):
            found = _problem_of_range(start, step, tensor)
        case Content(data):
            found = _problem_of_content(data, tensor)
    if found is not None:
        field, problem = found
        yield ("initial", field), problem


def _elements(name: str) -> range:
    bits = int(name.lstrip("uint"))
    return range(1 << bits) if name.startswith("u") else range(-(1 << bits - 1), 1 << bits - 1)


_ELEMENTS: Final = {
    dtype.name: _elements(dtype.name) for dtype in DTYPES.values() if dtype.kind in ("int", "uint")
}
"""What an element of each integer dtype can be."""


def _problem_of_fill(value: float, dtype: str | None) -> tuple[str, str] | None:
    if dtype is None:
        return None
    elements = _ELEMENTS.get(dtype)
    if dtype == "bool":
        is_element = type(value) is bool
    elif elements is not None:
        # A range compares a float with each of its numbers in turn.
        is_element = type(value) is int and value in elements
    else:
        is_element = type(value) is not bool
    return None if is_element else ("value", f"it is no element of a {dtype} tensor")


def _problem_of_range(start: int, step: int, tensor: TensorSpec) -> tuple[str, str] | None:
    if tensor.dtype is None or tensor.shape is None:
        return "kind", "a range needs a dtype and a shape"
    elements = _ELEMENTS.get(tensor.dtype)
    if elements is None:
        return "kind", f"a range is of integers, and the dtype is {tensor.dtype}"
    if start not in elements:
        return "start", f"it is no element of a {tensor.dtype} tensor"
    if start + step * (max(prod(tensor.shape), 1) - 1) not in elements:
        return "step", f"it leads to more than a {tensor.dtype} tensor can hold"
    return None


def _problem_of_content(data: bytes, tensor: TensorSpec) -> tuple[str, str] | None:
    if tensor.dtype is None or tensor.shape is None:
        return "kind", "content needs a dtype and a shape"
    needed = DTYPES[tensor.dtype].nbytes_of(prod(tensor.shape))
    if len(data) != needed:
        return "data", f"it has {len(data):,} bytes; dtype and shape make {needed:,}"
    return None
