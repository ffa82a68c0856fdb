"""The JSON form of a model spec: what `ckptool spec` writes, and what a spec is read from.

The form is versioned; `schema.json` beside this module describes it. Each tensor and each module
has a line of its own, so that people and line-wise tools can compare two specs.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import TYPE_CHECKING, Final

from ckptool.checkpoint.keypath import display
from ckptool.errors import SpecError
from ckptool.spec.model_spec import (
    Content,
    Fill,
    InitialValue,
    ModelSpec,
    ModuleSpec,
    Range,
    TensorSpec,
    UnknownValue,
)

if TYPE_CHECKING:
    from ckptool.spec.document_checks import Problem

__all__ = ["is_spec_document", "read_document", "write_document"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BEGINNING: Final = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"ckptool_spec"\s*:')


def is_spec_document(head: bytes) -> bool:
    """Whether a file that begins so is meant to be a spec; any other JSON is not."""
    return _BEGINNING.match(head) is not None


# Writing ---------------------------------------------------------------------------------------


def write_document(spec: ModelSpec) -> str:
    """Return a spec as JSON, the same text each time.

    Raises SpecError for one that could not be read again, with the name that is wrong.
    """
    from ckptool.spec.document_checks import find_problems, find_unwritable
    from ckptool.spec.document_form import VERSION

    problems = list(find_unwritable(spec)) or list(find_problems(spec))
    if problems:
        raise _wrong(problems)
    head = {
        "ckptool_spec": VERSION,
        "source": spec.source,
        "origin": spec.origin,
        "torch_version": spec.torch_version,
    }
    fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    tensors = {name: _tensor_form(tensor) for name, tensor in spec.tensors.items()}
    modules = {path: _module_form(module) for path, module in spec.modules.items()}
    fields += [f'"tensors": {_lines(tensors)}', f'"modules": {_lines(modules)}']
    return "{\n " + ",\n ".join(fields) + "\n}\n"


def _lines(entries: Mapping[str, object]) -> str:
    lines = [
        f"  {json.dumps(name)}: {json.dumps(entry, allow_nan=False)}"
        for name, entry in entries.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n }" if lines else "{}"


def _tensor_form(tensor: TensorSpec) -> dict[str, object]:
    return {
        "kind": tensor.kind,
        "persistent": tensor.is_persistent,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "tied_to": tensor.tied_to,
        "initial": _initial_form(tensor.initial),
    }


def _initial_form(initial: InitialValue | None) -> dict[str, object] | None:
    match initial:
        case None:
            return None
        case Fill(value):
            return {"kind": "fill", "value": _number_form(value)}
        case Range(start, step):
            return {"kind": "range", "start": start, "step": step}
        case Content(data):
            return {"kind": "content", "data": b64encode(data).decode("ascii")}
        case UnknownValue(why):
            return {"kind": "unknown", "why": why}
    return {"kind": initial.kind}


def _number_form(value: float) -> float | str:
    """A number as strict JSON has it, in which infinities and NaN are strings."""
    if not isinstance(value, float) or isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _module_form(module: ModuleSpec) -> dict[str, object]:
    hooks = module.load_hooks
    return {
        "type": module.type,
        "load_hooks": None
        if hooks is None
        else [{"name": hook.name, "settings": dict(hook.settings)} for hook in hooks],
        "extra_state": module.has_extra_state,
        "none_tensors": module.none_tensors,
        "none_modules": module.none_modules,
    }


# Reading ---------------------------------------------------------------------------------------


def read_document(data: bytes) -> ModelSpec:
    """Read a spec from its JSON; raise SpecError with the place that is wrong."""
    from ckptool.spec.document_checks import find_problems
    from ckptool.spec.document_form import FormError, count_keys, parse_document
    from ckptool.spec.duplicate_keys import find_duplicate_key

    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        document = parse_document(data)
    except FormError as error:
        raise _later() if error.is_later else _wrong(list(error.problems.items())) from None
    twice = find_duplicate_key(data, count_keys(document))
    if twice is not None:
        raise _wrong([(twice, "the key is there twice")])
    spec = ModelSpec(
        document["source"],
        document["origin"],
        document["torch_version"],
        document["tensors"],
        document["modules"],
    )
    problems = list(find_problems(spec))
    if problems:
        raise _wrong(problems)
    return spec


def _later() -> SpecError:
    return SpecError(
        "a spec of a later version than this ckptool reads",
        place="ckptool_spec",
        hint="read it with a newer ckptool, or make it anew: ckptool spec MODEL -o spec.json",
    )


def _wrong(problems: Sequence[Problem]) -> SpecError:
    (keys, problem), *others = problems
    more = f", and {len(others):,} more" if others else ""
    return SpecError(f"{problem}{more}", place=display(keys) if keys else None)
