"""Names, sizes, folds and leaves as they are shown."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool import list_contents, open_checkpoint, overview
from ckptool.errors import LimitExceededError
from ckptool.pickling.nodes import ExtensionCode, Global, Opaque, OutOfBandBuffer, PersistentId
from ckptool.render.escape import visible
from ckptool.render.folding import fold
from ckptool.render.json import dumps, overview_document
from ckptool.render.leaves import Repeats, leaf_type, plain
from ckptool.render.listing import listing
from ckptool.render.natural import natural_count, natural_size
from tests import builders, strategies
from tests.builders import Call, to_pickle, torch_zip
from tests.running import run

# Escaping --------------------------------------------------------------------------------------


@given(strategies.names())
def test_shown_text_has_nothing_that_a_terminal_acts_on(name: str) -> None:
    shown = visible(name)
    assert shown.isprintable()
    shown.encode()
    if name.isprintable():
        assert shown == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("[bold]", "[bold]"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


# Sizes and counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1234, "1.2 kB"), (999_949, "999.9 kB"),
        (999_950, "1.0 MB"), (83_300_000, "83.3 MB"), (10**12, "1.0 TB"), (10**18, "1000.0 PB"),
    ],
)  # fmt: skip
def test_sizes_are_in_decimal_units(nbytes: int, shown: str) -> None:
    assert natural_size(nbytes) == shown


def test_counts_have_their_noun() -> None:
    assert natural_count(1, "tensor") == "1 tensor"
    assert natural_count(1234, "tensor") == "1,234 tensors"
    assert natural_count(2, "entry", "entries") == "2 entries"


# Folding ---------------------------------------------------------------------------------------


def folded(*names: str) -> list[tuple[str, int]]:
    found = fold(names, name_of=str, alike=lambda _name: None)
    return [(one.label, len(one.members)) for one in found]


def test_layers_that_differ_in_numbers_only_become_one_line() -> None:
    names = [f"blocks.{n}.norm.weight" for n in range(12)]
    assert folded(*names) == [("blocks.{0-11}.norm.weight", 12)]


def test_a_fold_stands_for_every_combination_that_it_shows() -> None:
    assert folded("a.0.0", "a.0.1", "a.1.0", "a.1.1") == [("a.{0-1}.{0-1}", 4)]
    assert folded("a.0.0", "a.0.1", "a.0.2", "a.1.0") == [("a.0.{0-2}", 3), ("a.1.0", 1)]


def test_fewer_than_three_stay_as_they_are() -> None:
    assert folded("a.0", "a.1") == [("a.0", 1), ("a.1", 1)]
    assert folded("a.0", "b.0", "a.2", "a.3") == [("a.{0,2-3}", 3), ("b.0", 1)]


def test_numbers_with_leading_zeros_and_parts_of_words_are_no_numbers() -> None:
    assert folded("a.01", "a.02", "a.03") == [("a.01", 1), ("a.02", 1), ("a.03", 1)]
    assert folded("conv1", "conv2", "conv3") == [("conv1", 1), ("conv2", 1), ("conv3", 1)]


NAMES = st.lists(
    st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10"]), min_size=1, max_size=4).map(
        ".".join
    ),
    unique=True,
    max_size=20,
)


@given(NAMES)
def test_the_labels_of_folds_stand_for_all_names_and_no_others(names: list[str]) -> None:
    found = fold(names, name_of=str, alike=lambda _name: None)
    assert sorted(name for one in found for name in one.members) == sorted(names)
    spelled = [name for one in found for name in _spelled_out(one.label)]
    assert sorted(spelled) == sorted(names)


def _spelled_out(label: str) -> list[str]:
    match = re.search(r"\{([^}]*)\}", label)
    if match is None:
        return [label]
    numbers: list[int] = []
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return [
        name
        for number in numbers
        for name in _spelled_out(label[: match.start()] + str(number) + label[match.end() :])
    ]


def test_what_is_not_alike_is_not_folded() -> None:
    names = ["a.0", "a.1", "a.2", "a.3"]
    found = fold(names, name_of=str, alike=lambda name: name == "a.2")
    assert [one.label for one in found] == ["a.{0-1,3}", "a.2"]


# Leaves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "kind", "value"),
    [
        (None, "NoneType", None),
        (True, "bool", True),
        (1 << 70, "int", 1 << 70),
        (math.nan, "float", "NaN"),
        (math.inf, "float", "Infinity"),
        (-math.inf, "float", "-Infinity"),
        (1 + 2j, "complex", [1.0, 2.0]),
        (b"\x00\xff", "bytes", "00ff"),
        (bytearray(b"a"), "bytearray", "61"),
        ([1, {"a": (2,)}], "list", [1, {"a": [2]}]),
        (Opaque(Global("builtins", "set"), (), "set", added=[1]), "set", [1]),
        ({1: "x", None: "y"}, "dict", {"1": "x", "None": "y"}),
        (Global("m", "f"), "global", "m.f"),
        (PersistentId(("module", 1)), "persistent-id", ["module", 1]),
        (ExtensionCode(7), "extension", 7),
        (OutOfBandBuffer(), "out-of-band-buffer", None),
        (Opaque(Global("m", "C"), (), state={"a": 1}, has_state=True), "m.C", {"a": 1}),
        (Opaque(Global("m", "C"), (1,)), "m.C", {"args": [1]}),
        (Opaque(7, ()), "opaque", {}),
        (Opaque(Global("copyreg", "__newobj__"), (Global("m", "C"), 2)), "m.C", {"args": [2]}),
    ],
)
def test_leaves_are_plain_data(node: Any, kind: str, value: Any) -> None:
    assert leaf_type(node) == kind
    assert plain(node) == value


def test_a_leaf_that_holds_itself_says_so() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert plain(cycle) == [1, {"cycle": True}]


# Whole documents -------------------------------------------------------------------------------


@given(tree=strategies.trees())
def test_any_tree_can_be_written_as_json_and_as_lines(
    tree: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("render") / "checkpoint.pt"
    path.write_bytes(torch_zip(tree))
    with open_checkpoint(path) as checkpoint:
        contents = list_contents(checkpoint)
        text = dumps(overview_document(overview(contents), "inspect"))
        lines = list(listing(contents))
    document = json.loads(text, parse_constant=_refuse)
    assert len(document["entries"]) == len(lines)
    assert "\x1b" not in text
    for line in lines:
        assert line.endswith("\n")
        assert line[:-1].count("\t") == 4
        assert line[:-1].replace("\t", "").isprintable()


def _refuse(name: str) -> object:
    raise AssertionError(name)


def doubled(times: int, inner: object = "x") -> list[object]:
    shared: list[object] = [inner]
    for _ in range(times):
        shared = [shared, shared]
    return shared


def test_a_leaf_of_any_size_is_shown_and_one_of_endless_repeats_is_not() -> None:
    large = list(range(500_000))
    assert plain(large) == large
    assert plain(doubled(10))
    with pytest.raises(LimitExceededError) as caught:
        plain(doubled(30))
    assert caught.value.limit == "parts of leaves shown again"


def test_a_text_in_many_places_counts_by_its_length() -> None:
    text = "x" * 1_000_000
    assert plain([text] * 5) == [text] * 5
    with pytest.raises(LimitExceededError):
        plain([text] * 50)


def test_what_leaves_repeat_is_counted_over_all_of_a_document() -> None:
    repeats = Repeats()
    shared = doubled(12)
    with pytest.raises(LimitExceededError):
        all(plain(shared, repeats=repeats) for _ in range(100))
    assert plain(shared)


@pytest.mark.parametrize("command", [("list", "--json"), ("inspect",), ("show", "*")])
def test_the_error_of_a_leaf_that_cannot_be_shown_names_the_file(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "model.pkl"
    opaque = Call(builders.Global("mine", "X"), (doubled(30),))
    path.write_bytes(to_pickle({"x": opaque}))
    name, *more = command
    result = run(name, path, *more)
    assert (result.code, result.err.partition(": more")[0]) == (2, f"error: {path}")
