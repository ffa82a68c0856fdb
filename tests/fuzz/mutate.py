"""A sound file to a mutated one: which mutations, how many, and what they were."""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from tests.fuzz.archives import ZIP
from tests.fuzz.blind import BLIND, Mutator
from tests.fuzz.headers import SAFETENSORS
from tests.fuzz.pickles import PICKLE
from tests.fuzz.seeds import Kind, seeds
from tests.fuzz.streams import LEGACY

__all__ = ["MUTATORS", "Mutated", "mutate", "mutate_as"]

MUTATORS: Final[dict[Kind, dict[str, Mutator]]] = {
    "pickle": PICKLE,
    "zip": ZIP,
    "legacy": LEGACY,
    "safetensors": SAFETENSORS,
}
_BLIND_SHARE: Final = 0.2
# What is within an archive can mostly be reached only while all around it is sound.
_WEIGHTS: Final = {"change_content": 4, "change_part": 2, "change_json": 3}
_HOW_MANY: Final = (1, 1, 1, 1, 2, 2, 3)


class Mutated(NamedTuple):
    """A file, and how it was made: the sound one's name, then each mutation's."""

    data: bytes
    chain: tuple[str, ...]


def mutate(random: Random) -> Mutated:
    """Make one mutated file; the same state of `random` makes the same file."""
    seed = random.choice(seeds())
    changed = mutate_as(random, seed.kind, seed.data)
    return Mutated(changed.data, (seed.name, *changed.chain))


def mutate_as(random: Random, kind: Kind, data: bytes) -> Mutated:
    """Change a file of a kind a few times."""
    chain = []
    for _ in range(random.choice(_HOW_MANY)):
        table = BLIND if random.random() < _BLIND_SHARE else MUTATORS[kind]
        weights = [_WEIGHTS.get(name, 1) for name in table]
        (name,) = random.choices(tuple(table), weights)
        data = table[name](random, data)
        chain.append(name)
    return Mutated(data, tuple(chain))
