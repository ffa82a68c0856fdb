"""Values at the edges of what a field can hold: numbers by their width, names, JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

__all__ = ["JSON_VALUES", "NAMES", "NUMBERS", "edge_bytes", "edge_number"]

NUMBERS: Final = (
    0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, (1 << 31) - 1,
    1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 2, (1 << 64) - 1,
)  # fmt: skip
NAMES: Final = (
    "", ".", "..", "/", "//", "a/", "/a", "archive", "archive/", "archive/data.pkl", "data.pkl",
    "archive/data/0", "archive/data/", "archive/byteorder", "archive/version", "data/1",
    "archive/constants.pkl", "archive/.data/version", "\0", "a\0b", "\n", "\x1b[31m", "\ud800",
    "\ufeff", "名前", "a" * 300, "a/" * 100, "../../x", "state_dict", "_metadata", "weight",
    "__metadata__", "__class__", "torch", "0", "-1", "1_0", "²",
)  # fmt: skip
JSON_VALUES: Final[Sequence[object]] = (
    None, True, False, 0, 1, -1, 1.5, -0.0, 1e308, float("nan"), float("inf"), 1 << 31, 1 << 63,
    1 << 64, 10**400, "", "F32", "U8", "BOOL", "F4", "x", "\0", "\ud800", [], [0], [0, 0], [8, 4],
    [-1], [1 << 63], [1 << 31, 1 << 31, 4], [1.0], [None], [True], ["1"], [[]], [0] * 70, {},
    {"": {}}, {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
)  # fmt: skip


def edge_number(random: Random, width: int, old: int = 0) -> int:
    """Return an unsigned number of so many bytes: an edge, or one near to what stood there."""
    near = (old + 1, old - 1, old * 2, old // 2, old ^ (1 << random.randrange(8 * width)), -old)
    chosen = random.choice(NUMBERS if random.random() < 0.6 else near)
    return chosen & ((1 << (8 * width)) - 1)


def edge_bytes(random: Random) -> bytes:
    """Return an edge number in the bytes of any width and either order."""
    width = random.choice((1, 2, 4, 8))
    return edge_number(random, width).to_bytes(width, random.choice(("little", "big")))
