"""The fuzzer itself: what it makes, that it finds a planted fault, and that it makes it small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.errors import CkptoolError, InputError
from tests import builders
from tests.fuzz.archives import ZIP, records_of, rewrap
from tests.fuzz.blind import BLIND
from tests.fuzz.files import memory_folder, write
from tests.fuzz.headers import SAFETENSORS
from tests.fuzz.minimise import minimise
from tests.fuzz.mutate import MUTATORS, mutate
from tests.fuzz.opcodes import split
from tests.fuzz.pickles import CHANGES
from tests.fuzz.readers import READERS, read_as
from tests.fuzz.seeds import Kind, Seed, pickles, seeds
from tests.fuzz.sharding import Tally, run_chunk, smallest
from tests.fuzz.steps import STEPS, Step
from tests.fuzz.streams import parts_of
from tests.fuzz.trying import Bounds, Fault, peak_memory, try_step

SEEDS = {seed.name: seed for seed in seeds()}
SOUND = [seed for seed in seeds() if seed.name != "zip-around"]
ARCHIVES = [seed for seed in SOUND if seed.kind == "zip"]
BOUNDS = Bounds(seconds=1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("seed", SOUND, ids=lambda seed: seed.name)
def test_every_step_gets_through_a_file_that_is_sound(seed: Seed, path: Path) -> None:
    write(path, seed.data)
    assert {step.name: try_step(path, step, BOUNDS) for step in STEPS} == {
        step.name: "result" for step in STEPS
    }
    assert read_as(seed.kind, path) == "result"


def test_the_seeds_are_small_and_have_names_of_their_own() -> None:
    assert len(SEEDS) == len(seeds())
    assert max(len(seed.data) for seed in seeds()) < 6_000
    assert {seed.kind for seed in seeds()} == set(MUTATORS) == set(READERS)


def test_the_same_random_numbers_make_the_same_files() -> None:
    one, other = Random("0/0"), Random("0/0")
    made = [mutate(one) for _ in range(300)]
    assert made == [mutate(other) for _ in range(300)]
    assert len({mutated.data for mutated in made}) > 250


@pytest.mark.parametrize("name", BLIND)
def test_every_blind_mutation_changes_something(name: str) -> None:
    data = SEEDS["zip"].data
    assert any(BLIND[name](Random(number), data) != data for number in range(5))
    assert isinstance(BLIND[name](Random(0), b""), bytes)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, table in MUTATORS.items() for name in table]
)
def test_every_mutation_changes_every_file_of_its_kind_and_bears_any_other(
    kind: Kind, name: str
) -> None:
    change = MUTATORS[kind][name]
    for seed in seeds():
        changed = {change(Random(number), seed.data) for number in range(8)}
        has_counts = name != "change_count" or b"cpu" in seed.data
        assert seed.kind != kind or not has_counts or changed != {seed.data}, seed.name
    for odd in (b"", b"P", b"PK\3\4", b"PK\1\2" + b"\xff" * 60, b"\x80", b"\xff" * 40, b"{" * 9):
        assert isinstance(change(Random(0), odd), bytes)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_opcodes_changes_something_and_bears_an_empty_pickle(name: str) -> None:
    opcodes = split(SEEDS["pickle-2"].data)
    made = [CHANGES[name](Random(number), list(opcodes)) for number in range(10)]
    assert any(changed != list(opcodes) for changed in made)
    assert isinstance(CHANGES[name](Random(0), []), list)


@pytest.mark.parametrize("data", pickles(), ids=len)
def test_a_pickle_is_the_sum_of_its_opcodes(data: bytes) -> None:
    assert b"".join(split(data)) == data
    assert split(data)[-1] == builders.STOP


@pytest.mark.parametrize("seed", ARCHIVES, ids=lambda seed: seed.name)
def test_an_archive_that_is_written_again_opens_as_before(seed: Seed, path: Path) -> None:
    write(path, rewrap(records_of(seed.data)))
    again = open_checkpoint(path)
    write(path, seed.data)
    before = open_checkpoint(path)
    assert again.format == before.format
    assert [entry.path for entry in again.entries] == [entry.path for entry in before.entries]
    assert list(again.container.records) == list(before.container.records)


def test_a_mutated_pickle_is_reached_through_its_archive(path: Path) -> None:
    records = [
        replace(record, data=record.data[:-1]) if record.name.endswith("data.pkl") else record
        for record in records_of(SEEDS["zip"].data)
    ]
    write(path, rewrap(records))
    with pytest.raises(CkptoolError, match="pickle: breaks off"):
        open_checkpoint(path)
    kinds = set()
    for number in range(40):
        write(path, ZIP["change_content"](Random(number), SEEDS["zip"].data))
        kinds.add(try_step(path, STEPS[0], BOUNDS))
    assert {"result", "pickle-stream", "tensor"} <= kinds
    assert "archive" not in kinds


def test_a_stream_is_the_sum_of_its_parts() -> None:
    data = SEEDS["legacy"].data
    parts = parts_of(data)
    assert b"".join(parts) == data
    assert parts[0] == builders.to_pickle(builders.MAGIC_NUMBER)
    assert all(part.endswith(builders.STOP) for part in parts[:-1])


def test_a_changed_header_is_mostly_json_still(path: Path) -> None:
    data = SEEDS["safetensors"].data
    kinds = []
    for number in range(40):
        write(path, SAFETENSORS["change_json"](Random(number), data))
        kinds.append(read_as("safetensors", path))
    assert set(kinds) == {"archive", "result"}


# A planted fault --------------------------------------------------------------------------------


SURROGATE = b"\xed\xa0\x80"


def fails_on_surrogates(path: Path) -> None:
    if SURROGATE in path.read_bytes():
        raise IndexError("planted")


def spins(path: Path) -> None:
    content = path.read_bytes()
    while content:
        pass


def grows(path: Path) -> None:
    # Whatever else ran in this process before may have had as much as that already.
    b"x" * (peak_memory() + (128 << 20))


def names_another_path(path: Path) -> None:
    raise InputError("planted", path=path.parent)


def test_a_planted_fault_is_found_in_the_same_run_each_time_and_made_small(path: Path) -> None:
    step = Step("planted", 1, fails_on_surrogates)
    first, again = (run_chunk(path, 0, 0, 400, [step], BOUNDS) for _ in range(2))
    ((key, finding),) = first.findings.items()
    assert key[0] == "IndexError"
    assert again.findings[key] == finding
    assert finding.times > 1
    assert finding.chain[0] in SEEDS
    assert "planted" in finding.fault.trace
    small = smallest(path, finding.data, finding.fault, step, BOUNDS)
    assert small == SURROGATE


def test_what_fails_inside_an_archive_only_is_made_small_as_an_archive() -> None:
    def fails(data: bytes) -> bool:
        inside = {record.name: record.data for record in records_of(data)}
        return b"fc.bias" in inside.get("archive/data.pkl", b"")

    small = records_of(minimise(SEEDS["zip"].data, fails, seconds=20))
    assert [record.name for record in small] == ["archive/data.pkl"]
    assert small[0].data == builders.binunicode("fc.bias")


def test_a_step_without_an_end_is_stopped_and_a_hungry_one_is_noticed(path: Path) -> None:
    write(path, b"x")
    slow = try_step(path, Step("spins", 1, spins), Bounds(seconds=0.2))
    hungry = try_step(path, Step("grows", 1, grows), Bounds(growth=64 << 20))
    assert isinstance(slow, Fault)
    assert isinstance(hungry, Fault)
    assert (slow.exception, hungry.exception) == ("slow", "memory")


def test_an_error_about_another_file_is_a_finding(path: Path) -> None:
    write(path, b"")
    fault = try_step(path, Step("misnames", 1, names_another_path), BOUNDS)
    assert isinstance(fault, Fault)
    assert fault.exception == "AssertionError"


def test_tallies_add_up_and_keep_the_first_of_equal_findings(path: Path) -> None:
    step = Step("planted", 1, fails_on_surrogates)
    parts = [run_chunk(path, 0, chunk, 200, [step], BOUNDS) for chunk in (1, 0)]
    whole = Tally()
    for part in parts:
        whole.add(part)
    (finding,) = whole.findings.values()
    assert whole.runs == sum(whole.outcomes.values()) == 400
    assert finding.chunk == 0


def test_files_in_memory_are_as_long_as_what_was_written_last() -> None:
    with memory_folder() as folder:
        write(folder / "file", b"longer")
        write(folder / "file", b"short")
        assert (folder / "file").read_bytes() == b"short"
    assert not folder.exists()
