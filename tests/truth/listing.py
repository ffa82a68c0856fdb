"""Writes `buffers.json`: every persistent buffer of the architectures, by architecture and pattern.

With each stands what a file that holds only the state_dict can show for it:

- `dtype`: integers and booleans have no gradients.
- `metadata`: the version of a normalisation that counts batches.
- `name`: no parameter of any of these architectures has this name in its module.

A name that was made up for this suite is no evidence. Run it as `python -m tests.truth.listing`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tests.truth.architectures import ARCHITECTURES, build_saved

__all__ = ["LISTED", "Listing", "list_buffers", "pattern_of"]

LISTED: Final = Path(__file__).with_name("buffers.json")

Listing: TypeAlias = dict[str, dict[str, str]]
"""Per architecture and pattern the evidence, in words with spaces between; empty for none."""

_NUMBER: Final = re.compile(r"(?<![^.])\d+(?![^.])")
_COUNTED_SINCE_VERSION: Final = 2
_MADE_UP: Final = frozenset(
    ("kept", "empty", "noise", "of_the_weight", "phases", "halved", "table", "same_table")
)


def list_buffers() -> Listing:
    """Build every architecture and list its persistent buffers, `*` for the numbers of layers."""
    models = {name: build_saved(name) for name in ARCHITECTURES}
    trained = {
        _leaf(name)
        for model in models.values()
        for name, _ in model.named_parameters(remove_duplicate=False)
    }
    return {name: _buffers_of(model, trained) for name, model in models.items()}


def pattern_of(name: str) -> str:
    """A name with `*` for every part that is a number."""
    return _NUMBER.sub("*", name)


def _buffers_of(model: nn.Module, trained: set[str]) -> dict[str, str]:
    saved = model.state_dict().keys()
    evidence: dict[str, set[str]] = defaultdict(set)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if name in saved:
            owner = model.get_submodule(name.rpartition(".")[0])
            evidence[pattern_of(name)] |= _evidence(_leaf(name), buffer, owner, trained)
    return {pattern: " ".join(sorted(found)) for pattern, found in sorted(evidence.items())}


def _evidence(leaf: str, buffer: torch.Tensor, owner: nn.Module, trained: set[str]) -> set[str]:
    found = set()
    if not (buffer.is_floating_point() or buffer.is_complex()):
        found.add("dtype")
    if isinstance(owner, _NormBase) and owner._version >= _COUNTED_SINCE_VERSION:
        found.add("metadata")
    if leaf not in trained and leaf not in _MADE_UP:
        found.add("name")
    return found


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


if __name__ == "__main__":
    listing = {name: buffers for name, buffers in list_buffers().items() if buffers}
    LISTED.write_text(json.dumps(listing, indent=1) + "\n")
