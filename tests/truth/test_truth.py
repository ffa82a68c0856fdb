"""ckptool against real models: what each name is, and what a strict load says."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from ckptool import classify, open_checkpoint
from ckptool.spec.load_rules import LOAD_RULES
from tests.truth.architectures import ARCHITECTURES, build, build_saved
from tests.truth.damages import DAMAGES
from tests.truth.labels import KINDS_OF_FILE, Label, labels, truth_of
from tests.truth.listing import LISTED, Listing, list_buffers, pattern_of
from tests.truth.outcomes import FORMS, Form, Loads, model_of
from tests.truth.torchvision_import import make_torchvision_importable

pytestmark = pytest.mark.truth

MOST_UNKNOWN = 0.02
FEWEST_BUFFERS_LABELLED = 0.95
MOST_PARAMETERS_LABELLED = 0.005

Tell = Callable[[str], None]


@pytest.fixture(scope="session")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Loads:
    return Loads(tmp_path_factory.mktemp("loads"))


# With a model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_name_is_what_the_model_says(name: str, form: Form, tmp_path: Path) -> None:
    saved = build_saved(name)
    path = tmp_path / "saved.pt"
    torch.save(saved.state_dict(), path)
    with open_checkpoint(path) as checkpoint:
        found = classify(checkpoint, model_of(name, form, tmp_path))
    truth = truth_of(build(name))
    said = {one.name: (one.role, one.is_persistent) for one in found.entries}
    said |= {one.name: (one.role, one.is_persistent) for one in found.absent}
    assert {name: said.get(name) for name in truth} == truth
    assert {role for name, (role, _) in said.items() if name not in truth} <= {"extra-state"}

    assert {one.status for one in found.entries if one.name in truth} <= {"matched"}
    absent = {one.name: one.status for one in found.absent}
    not_saved = [name for name in truth if name not in saved.state_dict()]
    assert absent == dict.fromkeys(not_saved, "not-saved")
    assert {one.evidence for one in found.entries if one.name in truth} <= {"spec"}
    assert all(one.is_certain for one in found.entries if one.name in truth)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_strict_load_says_what_torch_says(name: str, form: Form, loads: Loads) -> None:
    wrong = {
        damage: outcome
        for damage, outcome in loads.of(name, form).items()
        if not (outcome.is_right or outcome.is_unknown)
    }
    assert wrong == {}


def test_the_answer_of_a_strict_load_is_hardly_ever_unknown(loads: Loads, tell: Tell) -> None:
    # A live model that torch is asked about hardly ever leaves a doubt: frozen ones alone count.
    outcomes = [outcome for name in ARCHITECTURES for outcome in loads.of(name, "frozen").values()]
    unknown = Counter(outcome.found.why_unknown for outcome in outcomes if outcome.is_unknown)
    share = sum(unknown.values()) / len(outcomes)
    tell(
        f"strict loads of frozen specs: {len(outcomes)} cases of {len(ARCHITECTURES)} "
        f"architectures and {len(DAMAGES)} kinds of damage, "
        f"{sum(unknown.values())} unknown ({share:.2%})"
    )
    for why, count in unknown.most_common():
        tell(f"  {count} times unknown: {why}")
    assert share <= MOST_UNKNOWN


OTHERS_RULES = [name for name in LOAD_RULES if not name.startswith("torch.")]


@pytest.mark.parametrize("name", OTHERS_RULES)
def test_a_rule_for_another_library_is_about_one_and_the_same_method(name: str) -> None:
    make_torchvision_importable()
    bodies = set()
    for rule in (name, "torchvision.ops.misc.FrozenBatchNorm2d._load_from_state_dict"):
        module, cls, method = rule.rsplit(".", 2)
        function = getattr(getattr(importlib.import_module(module), cls), method)
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(definition, ast.FunctionDef)
        bodies.add("".join(map(ast.dump, definition.body)))
    assert len(bodies) == 1


def test_every_damage_is_possible_somewhere(loads: Loads) -> None:
    assert {damage for name in ARCHITECTURES for damage in loads.of(name, "live")} == set(DAMAGES)


# Without a model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, list[Label]]]:
    """The labels of every architecture by kind of file."""
    folder = tmp_path_factory.mktemp("labels")
    return {
        kind: {name: list(labels(name, kind, folder)) for name in ARCHITECTURES}
        for kind in KINDS_OF_FILE
    }


@pytest.fixture(scope="module")
def listed() -> Listing:
    found: Listing = json.loads(LISTED.read_text())
    return found


def test_nothing_that_is_certain_is_wrong(
    labelled: Mapping[str, Mapping[str, list[Label]]], tell: Tell
) -> None:
    certain = [
        (name, label)
        for by_name in labelled.values()
        for name, found in by_name.items()
        for label in found
        if label.is_certain
    ]
    assert [(name, label) for name, label in certain if not label.is_right] == []
    assert certain
    tell(f"without a model: {len(certain)} certain labels, all of them right")


def test_the_list_of_buffers_is_that_of_the_models(listed: Listing) -> None:
    found = {name: buffers for name, buffers in list_buffers().items() if buffers}
    assert listed == found, "run python -m tests.truth.listing, and look at what it changes"


def test_buffers_are_labelled_and_parameters_are_not(
    labelled: Mapping[str, Mapping[str, list[Label]]], listed: Listing, tell: Tell
) -> None:
    found = [(name, label) for name, some in labelled["state_dict"].items() for label in some]
    buffers = [
        (name, label)
        for name, label in found
        if label.role == "buffer" and listed[name][pattern_of(label.name)]
    ]
    parameters = [label for _, label in found if label.role == "parameter"]
    missed = [(name, label.name) for name, label in buffers if label.said_role != "buffer"]
    mistaken = [label.name for label in parameters if label.said_role == "buffer"]
    share = 1 - len(missed) / len(buffers)
    share_mistaken = len(mistaken) / len(parameters)
    tell(f"without a model: {share:.2%} of {len(buffers)} buffers with evidence are labelled so")
    tell(
        f"without a model: {share_mistaken:.2%} of {len(parameters)} parameters are called buffers"
    )
    assert share >= FEWEST_BUFFERS_LABELLED, missed
    assert share_mistaken <= MOST_PARAMETERS_LABELLED, mistaken
