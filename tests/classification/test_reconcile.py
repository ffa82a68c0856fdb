"""The prefix between the names of two files: which is found, and what is none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.classification import reconcile as reconciling
from ckptool.classification.reconcile import Prefixes, Shapes

LAYERS = tuple(f"layer{n}.{part}.weight" for n in range(4) for part in ("conv", "fc"))
WRAPPERS = ("", "module.", "_orig_mod.", "model.", "_orig_mod.module.", "model.net.backbone.")


def reconcile(a: Shapes, b: Shapes) -> Prefixes:
    """The prefixes where one pair of them is best, else the first of those."""
    return reconciling.reconcile(a, b)[0]


def shapes(names: Iterable[str], shape: tuple[int, ...] = (2,)) -> Shapes:
    return dict.fromkeys(names, shape)


def behind(prefix: str, names: Iterable[str] = LAYERS) -> list[str]:
    return [prefix + name for name in names]


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_a_prefix_on_either_side_is_found(prefix: str) -> None:
    plain, wrapped = shapes(LAYERS), shapes(behind(prefix))
    assert reconcile(wrapped, plain) == Prefixes(prefix, "")
    assert reconcile(plain, wrapped) == Prefixes("", prefix)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("module.", "model.", ("module.", "model.")),
        ("_orig_mod.", "module.", ("_orig_mod.", "module.")),
        ("_orig_mod.module.", "model.", ("_orig_mod.module.", "model.")),
        ("module.", "module.", ("", "")),
        # What both begin with stays.
        ("model.net.", "model.", ("model.net.", "model.")),
        ("module._orig_mod.", "_orig_mod.", ("module.", "")),
    ],
)
def test_both_sides_can_have_a_prefix_of_their_own(
    a: str, b: str, expected: tuple[str, str]
) -> None:
    names_a, names_b = behind(a), behind(b)
    found = reconcile(shapes(names_a), shapes(names_b))
    assert {name.removeprefix(found.a) for name in names_a} == {
        name.removeprefix(found.b) for name in names_b
    }
    assert found == expected


def test_names_beside_the_prefix_stay_as_they_are() -> None:
    wrapped = [*behind("model."), "val_metrics.weight", "logit_scale"]
    assert reconcile(shapes(wrapped), shapes(LAYERS)) == Prefixes("model.", "")


def test_a_prefix_that_makes_two_names_the_same_is_none() -> None:
    wrapped = [*behind("module."), LAYERS[0]]
    for a, b in ((wrapped, LAYERS), (LAYERS, wrapped)):
        assert reconcile(shapes(a), shapes(b)) == Prefixes()


def test_names_of_other_shapes_are_no_reason_for_a_prefix() -> None:
    assert reconcile(shapes(behind("module.")), shapes(LAYERS, (3,))) == Prefixes()


def test_of_two_prefixes_the_one_whose_shapes_agree_is_taken() -> None:
    student, teacher = shapes(behind("student.")), shapes(behind("teacher."), (5,))
    assert reconcile({**student, **teacher}, shapes(LAYERS)) == Prefixes("student.", "")
    assert reconcile({**student, **teacher}, shapes(LAYERS, (5,))) == Prefixes("teacher.", "")


def test_a_prefix_that_matches_fewer_names_is_none() -> None:
    names = [*LAYERS, "module.layer0.conv.weight"]
    assert reconcile(shapes(names), shapes([*LAYERS[:-1], "other"])) == Prefixes()


def test_a_prefix_of_a_few_names_among_many_is_none() -> None:
    a = [f"encoder.{n}.weight" for n in range(20)] + ["left.head.weight"]
    b = [f"decoder.{n}.kernel" for n in range(20)] + ["head.weight"]
    assert reconcile(shapes(a), shapes(b)) == Prefixes()


def test_another_layer_in_the_place_of_one_is_no_prefix() -> None:
    a = ["stem.weight", "layer1.0.conv.weight", "layer1.1.conv.weight"]
    b = ["stem.weight", "layer2.0.conv.weight", "layer2.1.conv.weight"]
    assert reconcile(shapes(a), shapes(b)) == Prefixes()


def test_nothing_against_nothing_or_something_has_no_prefix() -> None:
    assert reconcile({}, {}) == Prefixes()
    assert reconcile({}, shapes(LAYERS)) == Prefixes()
    assert reconcile(shapes(LAYERS), {}) == Prefixes()


PARTS = st.sampled_from(("module", "model", "net", "0", "1", "a", "weight", "bias", ""))
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
FILES = st.dictionaries(NAMES, st.sampled_from(((), (2,), (3,))), max_size=8)


@given(FILES, FILES)
def test_the_answer_turns_round_with_the_files(a: Shapes, b: Shapes) -> None:
    assert reconcile(b, a) == tuple(reversed(reconcile(a, b)))


@given(FILES, FILES)
def test_no_prefix_ever_joins_two_names_or_loses_a_match(a: Shapes, b: Shapes) -> None:
    found = reconcile(a, b)
    left = {name.removeprefix(found.a) for name in a}
    right = {name.removeprefix(found.b) for name in b}
    assert (len(left), len(right)) == (len(a), len(b))
    as_is = a.keys() & b.keys()
    assert len(left & right) > len(as_is) or found == Prefixes()


@given(FILES)
def test_a_file_and_itself_have_no_prefix(names: Shapes) -> None:
    assert reconcile(names, names) == Prefixes()


@given(st.sampled_from(WRAPPERS), st.sampled_from(WRAPPERS), st.permutations(LAYERS))
def test_the_order_of_names_does_not_matter(a: str, b: str, names: list[str]) -> None:
    expected = reconcile(shapes(behind(a)), shapes(behind(b)))
    assert reconcile(shapes(behind(a, names)), shapes(behind(b, reversed(names)))) == expected
