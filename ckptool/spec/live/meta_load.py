"""A strict load on the meta device: torch is asked with tensors that have no data."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections import OrderedDict
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from ckptool.checkpoint.modules import is_extra_state
from ckptool.checkpoint.state_dict import StateDict
from ckptool.spec.copying import is_usual
from ckptool.spec.strict_load import LoadError
from ckptool.tensors.refs import TensorRef

__all__ = ["Answer", "load", "without_data"]

_METHOD: Final = "_load_from_state_dict"
_SIZE_MISMATCH: Final = re.compile(r"size mismatch for (.+?): copying a param", re.DOTALL)
_NO_TENSOR: Final = re.compile(
    r'While copying the parameter named "(.+?)", expected torch.Tensor', re.DOTALL
)


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
    shape: list[str] = []
    errors: list[LoadError] = []
    for message in lists.errors:
        if (found := _SIZE_MISMATCH.match(message)) is not None:
            shape.append(found[1])
        elif (found := _NO_TENSOR.match(message)) is not None:
            errors.append(LoadError(found[1], "what is in the file is no tensor"))
        elif not message.startswith(("Missing key(s)", "Unexpected key(s)")):
            errors.append(LoadError(None, " ".join(message.split())))
    missing, unexpected = (tuple(dict.fromkeys(names)) for names in lists[:2])
    return Answer(missing, unexpected, tuple(dict.fromkeys(shape)), tuple(errors))


def without_data(state: StateDict) -> tuple[OrderedDict[str, Tensor | None], frozenset[str]]:
    """The state_dict on the meta device, without extra states and with None for what is no tensor.

    Beside it the names of tensors whose layout or dtype has no form without data.
    """
    given: OrderedDict[str, Tensor | None] = OrderedDict()
    unlike: set[str] = set()
    for name, tensor in state.tensors.items():
        if not is_extra_state(name):
            given[name] = None if tensor is None else _on_meta(tensor)
            if tensor is not None and not is_usual(tensor):
                unlike.add(name)
    if state.metadata is not None:
        metadata = {path: dict(facts) for path, facts in state.metadata.items()}
        given._metadata = metadata  # type: ignore[attr-defined]
    return given, frozenset(unlike)


def _on_meta(tensor: TensorRef) -> Tensor:
    dtype = getattr(torch, tensor.dtype.name) if is_usual(tensor) else torch.float32
    try:
        return torch.empty(tensor.shape, dtype=dtype, device="meta")
    except RuntimeError:
        # A shape that overflows, in a file that holds none of its elements, or a ragged one.
        return torch.empty([0], dtype=dtype, device="meta").expand([0] * len(tensor.shape))
