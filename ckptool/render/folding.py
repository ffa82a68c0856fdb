"""Repeated layers as one line: `blocks.0.norm.weight` ... `blocks.11.norm.weight` folded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

__all__ = ["Fold", "fold"]

_NUMBER = re.compile(r"(?<![^./_\-])(0|[1-9]\d{0,8})(?![^./_\-])")
_FEWEST = 3
_MOST_NUMBERS = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fold(Generic[T]):
    """One line: `label` stands for all of `members`, in their order."""

    label: str
    members: tuple[T, ...]


def fold(
    items: Iterable[T], *, name_of: Callable[[T], str], alike: Callable[[T], Hashable]
) -> list[Fold[T]]:
    """Fold items whose names differ in numbers only and that `alike` calls the same.

    A fold stands for every combination of the numbers it shows, so what would leave one out is
    split. Fewer than three stay as they are. The order is that of the first members.
    """
    groups: dict[Hashable, list[tuple[int, tuple[int, ...], T]]] = defaultdict(list)
    for position, item in enumerate(items):
        name = name_of(item)
        numbers = tuple(int(number) for number in _NUMBER.findall(name)[:_MOST_NUMBERS])
        template = _NUMBER.sub("{}", name, count=_MOST_NUMBERS)
        groups[template, alike(item)].append((position, numbers, item))
    folds = [
        (members[0][0], Fold(_label(name_of(members[0][2]), members), _items(members)))
        for group in groups.values()
        for members in _complete(group)
    ]
    folds.sort(key=lambda pair: pair[0])
    return [one for _, one in folds]


def _items(members: Sequence[tuple[int, tuple[int, ...], T]]) -> tuple[T, ...]:
    return tuple(item for _, _, item in members)


def _complete(
    group: list[tuple[int, tuple[int, ...], T]],
) -> Iterable[list[tuple[int, tuple[int, ...], T]]]:
    """Split a group until each part holds every combination of its numbers."""
    columns = [set(column) for column in zip(*(numbers for _, numbers, _ in group), strict=True)]
    varying = [index for index, column in enumerate(columns) if len(column) > 1]
    if len(group) == prod(len(column) for column in columns) and len(group) >= _FEWEST:
        yield group
    elif len(group) < _FEWEST or not varying:
        yield from ([member] for member in group)
    else:
        parts: dict[int, list[tuple[int, tuple[int, ...], T]]] = defaultdict(list)
        for member in group:
            parts[member[1][varying[0]]].append(member)
        for part in parts.values():
            yield from _complete(part)


def _label(name: str, members: Sequence[tuple[int, tuple[int, ...], T]]) -> str:
    columns = iter(zip(*(numbers for _, numbers, _ in members), strict=True))
    return _NUMBER.sub(lambda _: _ranges(sorted(set(next(columns)))), name, count=_MOST_NUMBERS)


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return "{" + ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs) + "}"
