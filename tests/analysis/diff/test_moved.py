"""Tensors that stand under another name: found by what they hold, and by nothing less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ckptool import Diff
from ckptool.analysis import fingerprint
from ckptool.analysis.diff import moved as moving
from ckptool.classification.roles import ClassifiedEntry
from tests import builders
from tests.analysis.diff.comparing import changes, compared, mirrored, placed
from tests.builders import torch_zip


def tensors(*names: str, shape: tuple[int, ...] = (4,)) -> dict[str, Tensor]:
    """A tensor per name, each with a content of its own."""
    return {name: torch.full(shape, float(at)) for at, name in enumerate(names)}


def renamed(values: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    return {names.get(name, name): tensor for name, tensor in values.items()}


def moves(found: Diff) -> dict[str, str]:
    """Which name became which."""
    return {
        str(one.a.entry.path): str(one.b.entry.path)
        for one in found.entries
        if one.change == "moved" and one.a is not None and one.b is not None
    }


# What is found ---------------------------------------------------------------------------------


def test_a_renamed_tensor_moved_and_was_not_removed_and_added() -> None:
    a = tensors("stem.weight", "fc.weight", "fc.bias")
    found = compared(a, renamed(a, {"fc.weight": "head.weight", "fc.bias": "head.bias"}))
    assert moves(found) == {"fc.weight": "head.weight", "fc.bias": "head.bias"}
    assert [found.count(change) for change in ("same", "moved", "added", "removed")] == [1, 2, 0, 0]
    assert not found.is_same
    moved = [one for one in found.entries if one.change == "moved"]
    assert [(one.label, one.name, one.verdict) for one in moved] == [
        ("head.weight", "head.weight", "equal"),
        ("head.bias", "head.bias", "equal"),
    ]


def test_a_moved_tensor_stands_where_it_was_in_a() -> None:
    a = tensors("first", "second", "third")
    found = compared(a, {"first": a["first"], "third": a["third"], "new": a["second"]})
    assert [one.label for one in found.entries] == ["first", "new", "third"]


def test_a_tensor_can_move_into_the_root_and_out_of_it() -> None:
    a = {"model": tensors("w"), "spare": {"list": [torch.arange(5)]}}
    b = {"model": {**tensors("w"), "spare": torch.arange(5)}}
    assert moves(compared(a, b)) == {"spare/list/0": "model/spare"}
    assert moves(compared(b, a)) == {"model/spare": "spare/list/0"}


def test_names_that_changed_places_are_changed() -> None:
    found = compared(tensors("first", "second"), tensors("second", "first"))
    assert changes(found) == {"first": "changed", "second": "changed"}


@pytest.mark.parametrize(
    "other",
    [
        torch.full((4,), 1.5),
        torch.full((4,), 1.0, dtype=torch.float64),
        torch.full((2, 2), 1.0),
        torch.full((4,), 1.0).to_sparse(),
        -torch.full((4,), 1.0),
    ],
    ids=["another value", "another dtype", "another shape", "another layout", "another sign"],
)
def test_anything_less_than_the_same_content_is_removed_and_added(other: Tensor) -> None:
    found = compared({"old": torch.full((4,), 1.0)}, {"new": other})
    assert changes(found) == {"old": "removed", "new": "added"}


def test_views_and_copies_of_one_content_are_the_same_content() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    found = compared({"old": base.t()}, {"new": base.t().contiguous()})
    assert moves(found) == {"old": "new"}
    nan = torch.tensor([float("nan"), 1.0])
    assert moves(compared({"old": nan}, {"new": nan})) == {"old": "new"}


def test_sparse_and_quantized_tensors_can_move() -> None:
    sparse = torch.eye(3).to_sparse()
    assert moves(compared({"old": sparse}, {"new": sparse})) == {"old": "new"}
    values = builders.Tensor("qint8", (3,))
    one = builders.quantized(values, scale=0.1, zero_point=3)
    assert moves(compared(torch_zip({"old": one}), torch_zip({"new": one}))) == {"old": "new"}
    other = builders.quantized(values, scale=0.2, zero_point=3)
    found = compared(torch_zip({"old": one}), torch_zip({"new": other}))
    assert changes(found) == {"old": "removed", "new": "added"}


def test_what_has_no_values_never_moved() -> None:
    empty = {"old": torch.empty(0, 3)}
    assert changes(compared(empty, {"new": torch.empty(0, 3)})) == {
        "old": "removed",
        "new": "added",
    }
    meta = {"old": torch.ones(2, device="meta")}
    assert changes(compared(meta, {"new": torch.ones(2, device="meta")})) == {
        "old": "removed",
        "new": "added",
    }


# Several of one content ------------------------------------------------------------------------


def test_of_several_with_one_content_the_names_with_the_longest_common_ending_go_together() -> None:
    zeros = torch.zeros(3)
    names = ("layers.0.attn.bias", "layers.0.mlp.bias", "layers.1.attn.bias", "layers.1.mlp.bias")
    new = [name.replace("layers", "model.blocks") for name in names]
    other = {"first": torch.ones(2), "second": torch.ones(5)}
    found = compared(
        {**other, **dict.fromkeys(names, zeros)},
        {**other, **dict.fromkeys(reversed(new), zeros)},
        exact_names=True,
    )
    assert moves(found) == dict(zip(names, new, strict=True))


def test_a_copy_that_is_left_over_was_removed_or_added() -> None:
    a = {"one.bias": torch.ones(3), "two.bias": torch.ones(3)}
    found = compared(a, {"two.offset": torch.ones(3), "x": torch.zeros(9)})
    assert sorted(changes(found).values()) == ["added", "moved", "removed"]
    found = compared({"q": torch.ones(3), "x": torch.zeros(9)}, a)
    assert sorted(changes(found).values()) == ["added", "moved", "removed"]


def test_tied_tensors_move_each_for_itself() -> None:
    tied = torch.arange(3.0)
    a = {"embed.weight": tied, "head.weight": tied}
    b = {"model.tok.weight": tied, "model.out.weight": tied}
    assert len(moves(compared(a, b, exact_names=True))) == 2


CONTENTS = st.sampled_from((0, 1, 2))
NAMES = st.lists(st.sampled_from("abcxyz"), min_size=1, max_size=3).map(".".join)
FILES = st.dictionaries(NAMES, CONTENTS, max_size=8)


@given(FILES, FILES)
def test_moves_turn_round_with_the_files(a: dict[str, int], b: dict[str, int]) -> None:
    left, right = (
        torch_zip({name: builders.Tensor("int64", (2,), [value]) for name, value in file.items()})
        for file in (a, b)
    )
    found = compared(left, right, exact_names=True)
    assert placed(compared(right, left, exact_names=True)) == mirrored(found)
    for content in (0, 1, 2):
        gone = sum(a[name] == content for name in a.keys() - b.keys())
        come = sum(b[name] == content for name in b.keys() - a.keys())
        moved = [old for old in moves(found) if a[old] == content]
        assert len(moved) == min(gone, come)


# What is read for it ---------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names whose content was looked at to find moves."""
    names: list[str] = []

    def spy(entries: Sequence[ClassifiedEntry], *args: Any) -> dict[int, str | None]:
        names.extend(str(one.name) for one in entries)
        return fingerprint.hash_entries(entries, *args)

    monkeypatch.setattr(moving, "hash_entries", spy)
    return names


def test_nothing_is_hashed_where_only_one_side_has_something(hashed: list[str]) -> None:
    a = tensors("first", "second", "third")
    assert changes(compared(a, tensors("first"))) == {"second": "removed", "third": "removed"}
    assert changes(compared(tensors("first"), a)) == {"second": "added", "third": "added"}
    compared(a, a)
    compared(a, {name: tensor + 1 for name, tensor in a.items()})
    assert hashed == []


def test_nothing_is_hashed_where_dtypes_or_shapes_differ(hashed: list[str]) -> None:
    compared({"old": torch.ones(3)}, {"new": torch.ones(4), "newer": torch.ones(3).double()})
    assert hashed == []


def test_only_what_can_have_moved_is_hashed(hashed: list[str]) -> None:
    a = {"same": torch.ones(3), "old": torch.zeros(3), "gone": torch.ones(7)}
    b = {"same": torch.ones(3), "new": torch.zeros(3), "come": torch.ones(8)}
    assert moves(compared(a, b)) == {"old": "new"}
    assert sorted(hashed) == ["new", "old"]


def test_a_quick_comparison_finds_moves_by_recorded_crcs(hashed: list[str]) -> None:
    a = tensors("first", "old")
    found = compared(a, renamed(a, {"old": "new"}), quick=True)
    assert moves(found) == {"old": "new"}
    assert hashed == []


def test_a_quick_comparison_hashes_where_no_crc_is_recorded(hashed: list[str]) -> None:
    a = {"first": builders.Tensor("float32", (2,)), "old": builders.Tensor("int32", (3,))}
    b = {"first": builders.Tensor("float32", (2,)), "new": builders.Tensor("int32", (3,))}
    found = compared(torch_zip(a), builders.legacy(b), quick=True)
    assert moves(found) == {"old": "new"}
    assert sorted(hashed) == ["new", "old"]


def test_with_quick_another_reading_of_the_same_bytes_has_not_moved() -> None:
    wave = torch.complex(torch.arange(3.0), torch.arange(3.0))
    found = compared({"a": wave}, {"b": wave.conj()}, quick=True)
    assert {one.change for one in found.entries} == {"added", "removed"}


def test_a_tensor_that_moved_is_unchanged_under_either_name() -> None:
    a, b = {"old.w": torch.arange(3.0), "x": torch.ones(1)}, {"new.w": torch.arange(3.0)}
    for pattern in ("old.*", "new.*"):
        assert compared(a, {**b, "x": torch.ones(1)}, must_change=[pattern]).unchanged == ("new.w",)
