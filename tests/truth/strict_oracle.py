"""What torch itself says of a strict load: `load_state_dict` on a real model, its words read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Final, NamedTuple

from torch import nn

from tests.truth.damages import State

__all__ = ["Answer", "load_strictly"]

# torch.nn.modules.module: the sentences of `load_state_dict` and `_load_from_state_dict`.
_MISSING: Final = "Missing key(s) in state_dict: "
_UNEXPECTED: Final = "Unexpected key(s) in state_dict: "
_SHAPE: Final = re.compile(r"size mismatch for (.+): copying a param with shape ")
_QUOTED: Final = re.compile(r'"([^"]*)"')


class Answer(NamedTuple):
    """Whether the load succeeds, and the names that torch objects to.

    `has_names` is False where a hook fails before torch has told any.
    """

    is_ok: bool
    missing: frozenset[str] = frozenset()
    unexpected: frozenset[str] = frozenset()
    shape: frozenset[str] = frozenset()
    has_names: bool = True


def load_strictly(model: nn.Module, state: State) -> Answer:
    """Load into a real model, and read its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        return Answer(
            False,
            frozenset(_quoted(lines, _MISSING)),
            frozenset(_quoted(lines, _UNEXPECTED)),
            frozenset(found[1] for line in lines if (found := _SHAPE.match(line.strip()))),
        )
    except AttributeError:
        # The hooks of lazy layers and of observers take every value for a tensor.
        return Answer(False, has_names=False)
    return Answer(True)


def _quoted(lines: list[str], sentence: str) -> Iterator[str]:
    for line in lines:
        if line.strip().startswith(sentence):
            yield from _QUOTED.findall(line)
