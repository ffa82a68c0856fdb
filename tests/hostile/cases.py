"""All cases by their names."""

from __future__ import annotations

from typing import Final

from tests.hostile import (
    archives,
    bombs,
    code,
    legacy_streams,
    names,
    opcodes,
    safetensors_files,
    tensor_claims,
)
from tests.hostile.case import Case

__all__ = ["CASES", "GROUPS"]

GROUPS: Final[dict[str, tuple[Case, ...]]] = {
    "Code beside tensors": code.CASES,
    "Bombs, cycles, depth": bombs.CASES,
    "Opcodes and lengths": opcodes.CASES,
    "Tensors and storages": tensor_claims.CASES,
    "Archives": archives.CASES,
    "Legacy streams": legacy_streams.CASES,
    "safetensors": safetensors_files.CASES,
    "Names and keys": names.CASES,
}
"""The cases as the README lists them."""

CASES: Final = {case.name: case for group in GROUPS.values() for case in group}
assert len(CASES) == sum(map(len, GROUPS.values())), "two cases have one name"
