"""The one line that says what changed, of pairs as people have them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from tests import strategies
from tests.analysis.diff.comparing import compared
from tests.builders import torch_zip

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Net(nn.Module):
    """Layers with BatchNorm under a common name, and a head."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)) for _ in range(layers)
        )
        self.head = nn.Linear(4, 2)


def network() -> dict[str, Tensor]:
    """A state_dict in which no two tensors hold the same and no float is a bfloat16."""
    state = Net().state_dict()
    generator = torch.Generator().manual_seed(0)
    for at, tensor in enumerate(state.values()):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        else:
            tensor.fill_(at)
    return state


def training() -> dict[str, Any]:
    """What a training script saves."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.named_parameters())
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return {**copy.deepcopy(state), "epoch": 3, "lr": 0.1}


MODEL = network()
TRAINING = training()
WEIGHTS = TRAINING["model"]


def stated(a: object, b: object, **options: Any) -> str:
    return compared(a, b, **options).statement


def with_changes(
    is_changed: Callable[[str], bool], state: Mapping[str, Tensor] = MODEL, by: float = 1
) -> Any:
    """The state_dict with these tensors changed."""
    changed = copy.deepcopy(state)
    for name, tensor in changed.items():
        if is_changed(name):
            tensor.add_(by)
    return changed


def cast(
    dtype: torch.dtype, state: Mapping[str, Tensor] = MODEL, back: torch.dtype | None = None
) -> Any:
    """The state_dict with its floats in another dtype, or rounded to it."""
    done = copy.deepcopy(state)
    assert isinstance(done, OrderedDict)
    for name, tensor in done.items():
        if tensor.is_floating_point():
            done[name] = tensor.to(dtype) if back is None else tensor.to(dtype).to(back)
    return done


def without(state: Mapping[str, Any], *beginnings: str) -> Any:
    left = copy.deepcopy(state)
    assert isinstance(left, dict)
    for name in state:
        if name.startswith(beginnings):
            del left[name]
    return left


# The same --------------------------------------------------------------------------------------


def test_identical() -> None:
    assert stated(MODEL, MODEL) == "identical"
    assert stated(TRAINING, copy.deepcopy(TRAINING)) == "identical"
    assert stated({}, {}) == "identical"


def test_identical_but_for_the_prefix() -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in MODEL.items()}
    assert stated(dict(MODEL), wrapped) == "identical but for the prefix 'module.' of B"
    assert stated(wrapped, dict(MODEL)) == "identical but for the prefix 'module.' of A"


def test_identical_but_for_the_signs_of_zeros() -> None:
    a, b = {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([-0.0, 1.0])}
    assert stated(a, b) == "identical but for the signs of zeros"


def test_the_same_within_the_tolerance() -> None:
    near = with_changes(lambda name: name == "head.bias", by=1e-5)
    assert stated(MODEL, near, atol=1e-3) == "the same within the tolerance"
    assert stated(MODEL, near, atol=1e-9) == "only head.bias differs"
    assert stated(MODEL, MODEL, atol=1e-3) == "identical"


def test_a_quick_comparison_says_that_it_is_one() -> None:
    said = "identical as far as recorded CRCs and sizes tell"
    assert stated(MODEL, MODEL, quick=True) == said


# What is no tensor -----------------------------------------------------------------------------


def test_only_metadata_differs() -> None:
    assert stated(MODEL, dict(MODEL)) == "only metadata differs"
    other: Any = copy.deepcopy(MODEL)
    other._metadata["layers.3.1"]["version"] = 1
    assert stated(MODEL, other) == "only metadata differs"


def test_only_a_few_leaves_differ() -> None:
    assert stated(TRAINING, {**TRAINING, "epoch": 4}) == "only epoch differs"
    assert stated(TRAINING, {**TRAINING, "epoch": 4, "lr": 1}) == "only epoch and lr differ"
    slower = copy.deepcopy(TRAINING)
    slower["optimizer"]["param_groups"][0]["lr"] = 0.5
    assert stated(TRAINING, slower) == "only optimizer/param_groups/0/lr differs"


def test_many_leaves_differ() -> None:
    a = {**TRAINING, **{f"setting{n}": n for n in range(5)}}
    b = {**TRAINING, **{f"setting{n}": n + 1 for n in range(5)}}
    said = f"all {len(compared(a, b).entries)} tensors the same; 5 other values differ"
    assert stated(a, b) == said


def test_a_leaf_that_only_one_file_has_does_not_differ_it_is_gone_or_new() -> None:
    for a, b in ((TRAINING, without(TRAINING, "lr")), (without(TRAINING, "lr"), TRAINING)):
        said = stated(a, b)
        assert "lr" in said
        assert "differ" not in said


def test_of_files_without_tensors_none_is_said_to_be_the_same() -> None:
    a, b = ({f"setting{n}": n + step for n in range(5)} for step in (0, 1))
    assert "0 tensors" not in stated(a, b)
    assert "5 " in stated(a, b)


# One of the other ------------------------------------------------------------------------------


def test_b_is_a_without_the_optimizer() -> None:
    assert stated(TRAINING, without(TRAINING, "optimizer")) == "B is A without the optimizer"
    assert stated(without(TRAINING, "optimizer"), TRAINING) == "A is B without the optimizer"


def test_b_is_the_model_of_a_alone() -> None:
    assert stated(TRAINING, WEIGHTS) == "B is A without the optimizer, epoch and lr"
    assert stated(WEIGHTS, TRAINING) == "A is B without the optimizer, epoch and lr"


def test_b_is_a_without_another_root() -> None:
    both = {"model": WEIGHTS, "model_ema": with_changes(lambda _: True, WEIGHTS)}
    assert stated(both, {"model": WEIGHTS}, root_a="model") == "B is A without model_ema"


def test_b_is_a_without_a_few_tensors() -> None:
    assert stated(MODEL, _dropped("head.bias")) == "B is A without head.bias"
    assert stated(_dropped("head."), MODEL) == "A is B without head.weight and head.bias"
    assert stated(MODEL, _dropped("layers.11.")) == "B is A without 6 tensors"


def _dropped(beginning: str) -> Any:
    """The model without a part, and without what its metadata says of it."""
    left = without(MODEL, beginning)
    left._metadata = {path: facts for path, facts in left._metadata.items() if path != "x"}
    return left


def test_b_is_a_cast() -> None:
    assert stated(MODEL, cast(torch.bfloat16)) == "B is A cast to bfloat16"
    assert stated(MODEL, cast(torch.float16)) == "B is A cast to float16"
    assert stated(MODEL, cast(torch.float64)) == "B is A cast to float64"
    narrow = cast(torch.bfloat16)
    assert stated(narrow, cast(torch.float32, narrow)) == "B is A cast to float32"


def test_b_is_a_rounded() -> None:
    rounded = cast(torch.bfloat16, back=torch.float32)
    assert stated(MODEL, rounded) == "B is A rounded to bfloat16"
    rounded = cast(torch.float16, back=torch.float32)
    assert stated(MODEL, rounded) == "B is A rounded to float16"


def test_b_is_a_with_a_part_cast() -> None:
    half = copy.deepcopy(MODEL)
    half["head.weight"] = half["head.weight"].bfloat16()
    said = f"B is A with 1 of {len(MODEL)} tensors cast to bfloat16"
    assert stated(MODEL, half) == said


def test_values_that_are_exact_already_are_not_counted_as_rounded() -> None:
    """BatchNorm weights often begin as ones, which every float can hold."""
    a = copy.deepcopy(MODEL)
    a["layers.0.1.weight"].fill_(1)
    rounded = cast(torch.bfloat16, a, back=torch.float32)
    count = sum(not torch.equal(a[name], rounded[name]) for name in a)
    assert stated(a, rounded) == f"B is A with {count} of {len(a)} tensors rounded to bfloat16"


def test_b_is_a_cast_and_without_the_optimizer() -> None:
    small = {"model": cast(torch.float16, WEIGHTS), "epoch": 3, "lr": 0.1}
    assert stated(TRAINING, small) == "B is A without the optimizer, cast to float16"


def test_tensors_that_moved() -> None:
    def renamed(old: str, new: str) -> dict[str, Tensor]:
        return {name.replace(old, new): tensor for name, tensor in MODEL.items()}

    plain = dict(MODEL)
    assert stated(plain, renamed("head", "fc")) == "all values are the same; 2 tensors moved"
    assert stated(plain, renamed("head.bias", "bias")) == "all values are the same; 1 tensor moved"
    fewer = without(renamed("head", "fc"), "layers.11.1.running_mean")
    assert stated(plain, fewer) == ("B is A without layers.11.1.running_mean, with 2 tensors moved")


# One sort --------------------------------------------------------------------------------------


def test_only_batch_norm_statistics_differ() -> None:
    def is_statistic(name: str) -> bool:
        return name.endswith(STATISTICS)

    said = "only BatchNorm statistics differ"
    assert stated(MODEL, with_changes(is_statistic)) == said
    assert stated(dict(MODEL), dict(with_changes(is_statistic))) == said
    assert stated(MODEL, with_changes(lambda name: name == "layers.3.1.running_var")) == said
    changed = {**TRAINING, "model": with_changes(is_statistic, WEIGHTS)}
    assert stated(TRAINING, changed) == said


def test_only_buffers_differ() -> None:
    def saved(value: float) -> nn.Module:
        module = nn.Linear(2, 2)
        nn.init.ones_(module.weight)
        nn.init.ones_(module.bias)
        module.register_buffer("scale", torch.full((2,), value))
        return module

    assert stated(saved(1), saved(2)) == "only buffers differ"


def test_only_parameters_differ() -> None:
    def saved(value: float) -> nn.Module:
        module = nn.BatchNorm1d(2)
        nn.init.constant_(module.weight, value)
        nn.init.constant_(module.bias, value)
        return module

    assert stated(saved(1), saved(2)) == "only parameters differ"


def test_only_the_optimizer_differs() -> None:
    stepped = copy.deepcopy(TRAINING)
    for state in stepped["optimizer"]["state"].values():
        state["exp_avg"] += 1
    assert stated(TRAINING, stepped) == "only the optimizer differs"
    assert stated(TRAINING, {**stepped, "epoch": 4}) == "only the optimizer and epoch differ"


def test_only_one_tensor_differs() -> None:
    changed = with_changes(lambda name: name == "head.bias")
    assert stated(MODEL, changed) == "only head.bias differs"


# In numbers ------------------------------------------------------------------------------------


def test_all_changes_are_in_one_module() -> None:
    changed = with_changes(lambda name: name.startswith("layers.11."))
    count = len(MODEL)
    assert stated(MODEL, changed) == (
        f"{count - 6} of {count} tensors unchanged; all changes under layers.11"
    )


def test_changes_all_over_the_model_are_counted() -> None:
    changed = with_changes(lambda name: name.endswith("weight"))
    count = sum(name.endswith("weight") for name in MODEL)
    assert stated(MODEL, changed) == f"{len(MODEL) - count} of {len(MODEL)} tensors unchanged"


def test_all_tensors_changed() -> None:
    assert stated(MODEL, with_changes(lambda _: True)) == f"all {len(MODEL)} tensors changed"
    assert stated({"w": torch.ones(2)}, {"w": torch.zeros(2)}) == "w changed"


def test_no_tensor_is_in_both() -> None:
    a, b = {"left": torch.ones(2)}, {"right": torch.ones(3), "other": torch.ones(4)}
    assert stated(a, b) == "no tensor is in both; 2 added; 1 removed"


def test_all_sorts_of_changes_are_counted() -> None:
    a = {f"w{n}": torch.full((2,), n) for n in range(6)}
    b = {**a, "w0": torch.ones(2, dtype=torch.int64) * 9, "new": torch.ones(3), "moved": a["w5"]}
    del b["w4"], b["w5"]
    assert stated(a, b) == "3 of 4 tensors unchanged; 1 added; 1 removed; 1 moved"


@pytest.mark.parametrize("change", ["shape", "value"])
def test_a_change_in_one_tensor_is_told_in_the_same_words(change: str) -> None:
    other = copy.deepcopy(MODEL)
    other["head.bias"] = torch.ones(5 if change == "shape" else 2)
    assert stated(MODEL, other) == "only head.bias differs"


# Nothing is hidden -----------------------------------------------------------------------------


def test_a_prefix_is_told_though_something_else_differs_too() -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in MODEL.items()}
    assert "'module.'" in stated(MODEL, wrapped)
    assert "'module.'" in stated(dict(MODEL), wrapped, quick=True)


def test_of_a_selection_nothing_is_claimed_of_the_rest() -> None:
    changed = {**TRAINING, "epoch": 4, "model": with_changes(lambda name: "0." in name, WEIGHTS)}
    assert stated(TRAINING, changed, patterns=["2.*"]) != "identical"


@given(strategies.state_dicts(), strategies.state_dicts())
def test_there_is_always_one_line_and_it_says_identical_only_of_what_is(a: Any, b: Any) -> None:
    found = compared(torch_zip(a), torch_zip(b))
    assert found.statement
    is_called_so = found.statement.startswith("identical")
    assert is_called_so == found.is_same


# What only a second look shows -----------------------------------------------------------------


def test_what_is_no_number_any_more_is_told() -> None:
    broken = copy.deepcopy(MODEL)
    broken["head.weight"][0, 0] = torch.nan
    assert stated(MODEL, broken) == "only head.weight differs; NaN appeared in head.weight"
    big = {"w": torch.tensor([1e5, 1.5]), "v": torch.tensor([1.1, 2.2])}
    said = "B is A cast to float16; infinity appeared in w"
    assert stated(big, {name: tensor.half() for name, tensor in big.items()}) == said


def test_casts_are_counted_apart_from_changes() -> None:
    tuned = cast(torch.bfloat16, with_changes(lambda name: name.startswith("head.")))
    count = sum(tensor.is_floating_point() for tensor in MODEL.values()) - 2
    said = f"{count} of {len(MODEL)} tensors cast to bfloat16; 2 changed; all changes under head"
    assert stated(MODEL, tuned) == said


def test_a_few_modules_that_changed_are_named() -> None:
    changed = with_changes(lambda name: name.startswith(("layers.3.", "head.")))
    same = len(MODEL) - 8
    said = f"{same} of {len(MODEL)} tensors unchanged; all changes under layers.3 and head"
    assert stated(MODEL, changed) == said


def test_a_part_of_which_something_is_left_is_not_said_to_be_gone() -> None:
    less = copy.deepcopy(TRAINING)
    del less["optimizer"]["state"][1]["exp_avg"]
    assert stated(TRAINING, less) == "B is A without a part of the optimizer"


def test_what_is_the_same_with_a_reservation_is_told_so_beside_other_changes() -> None:
    a = {"w": torch.zeros(2), "v": torch.ones(3)}
    signs = {"w": -torch.zeros(2)}
    assert stated(a, signs) == "B is A without v; signs of zeros in 1 tensor"
    near = {"w": torch.full((2,), 0.1)}
    assert stated(a, near, atol=0.2) == "B is A without v; 1 tensor within the tolerance"
    said = stated(a, {"w": a["w"]}, quick=True)
    assert said == "B is A without v; as far as recorded CRCs and sizes tell"
