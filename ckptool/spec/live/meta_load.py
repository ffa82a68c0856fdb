"""A strict load on the meta device: torch is asked with tensors that have no data."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from ckptool.checkpoint.state_dict import StateDict
from ckptool.spec.copying import is_usual
from ckptool.spec.model_spec import ModelSpec, TensorSpec
from ckptool.spec.strict_load import LoadError
from ckptool.tensors.refs import TensorRef

__all__ = ["Answer", "load", "without_data"]

_METHOD: Final = "_load_from_state_dict"
_MISSING: Final = "Missing key(s) in state_dict"
_UNEXPECTED: Final = "Unexpected key(s) in state_dict"
_SIZE_MISMATCH: Final = re.compile(r"size mismatch for (.+?): copying a param", re.DOTALL)
_NO_TENSOR: Final = re.compile(
    r'While copying the parameter named "(.+?)", expected torch.Tensor', re.DOTALL
)
_NO_COPY: Final = re.compile(
    r'While copying the parameter named "(.+?)", whose dimensions .*'
    r"an exception occurred : \((.*?),?\)\.",
    re.DOTALL,
)
_NO_STATISTICS: Final = re.compile(r"Unexpected running stats buffer\(s\) (.+) for \w+ with")


class Answer(NamedTuple):
    """What torch said; `failure` is what was raised in its place, None where it answered."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    errors: tuple[LoadError, ...] = ()
    failure: str | None = None


class _Lists(NamedTuple):
    """The lists that torch collects its answer in."""

    missing: list[str]
    unexpected: list[str]
    errors: list[str]


def load(module: nn.Module, given: OrderedDict[str, Tensor | None]) -> Answer:
    """Let torch load, and read its answer off what it collects on the way."""
    lists = _Lists([], [], [])
    original = module._load_from_state_dict
    own = vars(module).get(_METHOD)

    def watched(*args: Any) -> None:
        nonlocal lists
        lists = _Lists(*args[4:7])
        original(*args)

    module._load_from_state_dict = watched  # type: ignore[method-assign, assignment]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr), torch.no_grad():
            warnings.simplefilter("ignore")
            module.load_state_dict(given, strict=True)
    # The hooks of a model are its author's code, which tensors without data can break anyhow.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        text = str(error)
        if text.startswith("Error(s) in loading state_dict") and any(lists):
            return _read(lists)
        return Answer(failure=f"{type(error).__name__}: {' '.join(text.split())}")
    finally:
        del module._load_from_state_dict
        if own is not None:
            module._load_from_state_dict = own  # type: ignore[method-assign]
    # Whatever was collected, the model did not object to it.
    return Answer()


def _read(lists: _Lists) -> Answer:
    missing: list[str] = []
    unexpected: list[str] = []
    shape: list[str] = []
    errors: list[LoadError] = []
    for message in lists.errors:
        # Without these two the model does not mind such names, though it has collected them.
        if message.startswith(_MISSING):
            missing = lists.missing
        elif message.startswith(_UNEXPECTED):
            unexpected = lists.unexpected
        elif (found := _SIZE_MISMATCH.match(message)) is not None:
            shape.append(found[1])
        else:
            errors += _errors_of(message)
    # Each once: a class and its base can both look for a name.
    names = [tuple(dict.fromkeys(found)) for found in (missing, unexpected, shape)]
    return Answer(names[0], names[1], names[2], tuple(dict.fromkeys(errors)))


def _errors_of(message: str) -> Iterator[LoadError]:
    """What a message says of each of its names, in the words for a load that is worked out."""
    if (found := _NO_TENSOR.match(message)) is not None:
        yield LoadError(found[1], "what is in the file is no tensor")
    elif (found := _NO_COPY.match(message)) is not None:
        yield LoadError(found[1], f"torch cannot copy it: {' '.join(found[2].split())}")
    elif (found := _NO_STATISTICS.match(message)) is not None:
        for name in re.findall(r'"([^"]+)"', found[1]):
            yield LoadError(name, "the model's instance normalisation does not track statistics")
    else:
        yield LoadError(None, " ".join(message.split()))


def without_data(
    state: StateDict, spec: ModelSpec
) -> tuple[OrderedDict[str, Tensor | None], frozenset[str]]:
    """Return the state_dict on the meta device, in which None is what is no tensor.

    Extra states that the model takes are left out: its `set_extra_state` would run on what a file
    holds. Beside it are the names of tensors that torch cannot make without data. What stands for
    them fits the model that the spec is of: torch is not to be asked about them.
    """
    given: OrderedDict[str, Tensor | None] = OrderedDict()
    unlike: set[str] = set()
    taken = spec.extra_states
    for name, tensor in state.tensors.items():
        if name in taken:
            continue
        given[name] = None
        if tensor is not None:
            made = _on_meta(tensor)
            given[name] = _fitting(spec.tensors.get(name)) if made is None else made
            if made is None:
                unlike.add(name)
    if state.metadata is not None:
        metadata = {path: dict(facts) for path, facts in state.metadata.items()}
        given._metadata = metadata  # type: ignore[attr-defined]
    return given, frozenset(unlike)


def _on_meta(tensor: TensorRef) -> Tensor | None:
    if not is_usual(tensor):
        return None
    dtype = getattr(torch, tensor.dtype.name)
    try:
        return torch.empty(tensor.shape, dtype=dtype, device="meta")
    except RuntimeError:
        # Its strides are too long for torch: with a size of zero the others can be of any length.
        return None


def _fitting(expected: TensorSpec | None) -> Tensor:
    shape = (0,) if expected is None or expected.shape is None else expected.shape
    return torch.empty(shape, device="meta")
