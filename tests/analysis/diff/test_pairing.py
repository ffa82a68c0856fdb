"""Which tensor is held against which: roots, places, prefixes."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from ckptool import AmbiguousRootError, Diff, EntryNotFoundError
from tests import builders, strategies
from tests.analysis.diff.comparing import (
    changed_leaves,
    changes,
    compared,
    mirrored,
    placed,
)
from tests.builders import torch_zip


def network(outputs: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs))


MODEL = network().state_dict()
OTHER = {name: torch.randn(2, 7) for name in ("left.weight", "right.weight")}


def behind(prefix: str, tensors: dict[str, Tensor] = MODEL) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def prefixes(found: Diff) -> tuple[str, str]:
    return found.a.prefix, found.b.prefix


def roots(found: Diff) -> list[str | None]:
    checkpoints = [side.contents.checkpoint for side in (found.a, found.b)]
    return [None if one.root is None else one.root.path for one in checkpoints]


# Prefixes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module._orig_mod.model."]
)
def test_a_prefix_is_reconciled_on_either_side_and_said(prefix: str) -> None:
    found = compared(dict(MODEL), behind(prefix))
    assert found.is_same
    assert prefixes(found) == ("", prefix)
    assert [one.name for one in found.entries] == list(MODEL)
    turned = compared(behind(prefix), dict(MODEL))
    assert turned.is_same
    assert prefixes(turned) == (prefix, "")
    assert prefix in found.statement
    assert prefix in turned.statement


def test_different_prefixes_on_both_sides_are_reconciled() -> None:
    found = compared(behind("_orig_mod.module."), behind("model."))
    assert found.is_same
    assert prefixes(found) == ("_orig_mod.module.", "model.")
    assert placed(compared(behind("model."), behind("_orig_mod.module."))) == mirrored(found)


def test_a_changed_tensor_behind_a_prefix_has_both_paths_and_one_name() -> None:
    changed = {**MODEL, "0.bias": MODEL["0.bias"] + 1}
    found = compared({"state_dict": behind("module.")}, changed)
    (one,) = [one for one in found.entries if one.change == "changed"]
    assert (one.name, one.label) == ("0.bias", "0.bias")
    assert one.a is not None
    assert one.b is not None
    assert (one.a.entry.path, one.b.entry.path) == ("state_dict/module.0.bias", "0.bias")


def test_exact_names_leave_a_prefix_alone() -> None:
    distinct = {f"w{n}": torch.full((2,), float(n)) for n in range(4)}
    wrapped = behind("module.", distinct)
    found = compared(distinct, wrapped, exact_names=True)
    assert prefixes(found) == ("", "")
    assert set(changes(found).values()) == {"moved"}
    changed = {name: tensor + 9 for name, tensor in wrapped.items()}
    found = compared(distinct, changed, exact_names=True)
    assert changes(found) == {
        **dict.fromkeys(distinct, "removed"),
        **dict.fromkeys(wrapped, "added"),
    }


def test_a_prefix_that_would_join_two_names_is_refused() -> None:
    wrapped = {**behind("module."), "0.weight": torch.full((4, 3), 9.0)}
    found = compared(dict(MODEL), wrapped)
    assert prefixes(found) == ("", "")
    assert changes(found)["0.weight"] == "changed"


def test_names_of_other_shapes_have_no_prefix() -> None:
    found = compared(MODEL, {f"module.{name}": torch.ones(9, 9, 9) for name in MODEL})
    assert prefixes(found) == ("", "")
    assert sorted(set(changes(found).values())) == ["added", "removed"]


def test_a_part_of_a_larger_model_is_found_behind_its_prefix() -> None:
    larger = {**behind("backbone."), **OTHER}
    found = compared(larger, dict(MODEL))
    assert changes(found) == dict.fromkeys(OTHER, "removed")


def test_a_pattern_is_about_names_without_the_prefix() -> None:
    changed = {**behind("module."), "module.0.bias": MODEL["0.bias"] + 1}
    found = compared(dict(MODEL), changed, patterns=["0.*"])
    assert [(one.name, one.change) for one in found.entries] == [
        ("0.weight", "same"),
        ("0.bias", "changed"),
    ]
    with pytest.raises(EntryNotFoundError):
        compared(dict(MODEL), changed, patterns=["module.*"])


# Roots -----------------------------------------------------------------------------------------


def average(by: float = 1.0) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, tensor + by) for name, tensor in MODEL.items())


def test_two_roots_that_fit_equally_well_are_the_users_choice() -> None:
    both = {"model": MODEL, "model_ema": average()}
    for a, b, option in ((both, MODEL, "--root-a"), (MODEL, both, "--root-b")):
        with pytest.raises(AmbiguousRootError) as caught:
            compared(a, b)
        assert caught.value.roots == ("model", "model_ema")
        assert caught.value.path is not None
        assert caught.value.path.name == ("a.pt" if option == "--root-a" else "b.pt")
        assert option in str(caught.value.hint)


def test_the_root_that_fits_better_is_taken() -> None:
    several = {"generator": OTHER, "net_d": MODEL, "net_g": behind("x.", OTHER)}
    assert roots(compared(several, MODEL)) == ["net_d", ""]
    assert roots(compared(MODEL, several)) == ["", "net_d"]


def test_a_root_fits_by_its_names_behind_any_prefix() -> None:
    several = {"model": behind("module."), "model_ema": OTHER}
    found = compared(several, dict(MODEL))
    assert roots(found) == ["model", ""]
    assert prefixes(found) == ("module.", "")


def test_a_root_of_either_file_can_be_named() -> None:
    both = {"model": dict(MODEL), "model_ema": dict(average())}
    found = compared(both, dict(MODEL), root_a="model")
    assert changes(found) == {f"model_ema/{name}": "removed" for name in MODEL}
    found = compared(dict(MODEL), both, root_b="model_ema")
    assert [found.a.prefix, found.b.prefix] == ["", ""]
    assert {one.change for one in found.entries if one.part is None} == {"changed"}
    found = compared(both, both, root_a="model", root_b="model_ema")
    assert {one.change for one in found.entries if one.part is None} == {"changed"}


def test_a_named_root_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EntryNotFoundError):
        compared({"model": MODEL}, MODEL, root_a="modle")


def test_where_several_roots_fit_in_both_all_is_compared_by_key_path() -> None:
    a: dict[str, Any] = {"model": MODEL, "model_ema": average(), "epoch": 3}
    b = copy.deepcopy(a)
    b["model_ema"]["0.bias"] += 1
    found = compared(a, b)
    assert roots(found) == [None, None]
    assert changes(found) == {"model_ema/0.bias": "changed"}
    assert len(found.entries) == 2 * len(MODEL)


def test_what_is_outside_the_root_is_compared_by_its_key_path() -> None:
    a: dict[str, Any] = {"model": MODEL, "extra": {"table": [torch.ones(2), torch.ones(3)]}}
    b = copy.deepcopy(a)
    b["extra"]["table"][1] += 1
    found = compared(a, b)
    assert changes(found) == {"extra/table/1": "changed"}
    assert found.entries[-1].part == "extra"
    assert found.entries[-1].name is None


def test_roots_under_other_keys_go_together_and_the_rest_does_not_get_lost() -> None:
    found = compared(
        {"state_dict": MODEL, "epoch": 1, "scale": torch.ones(2)},
        {"model": MODEL, "epoch": 1, "scale": torch.ones(2)},
    )
    assert found.is_same
    assert roots(found) == ["state_dict", "model"]


def test_a_whole_module_is_held_against_its_own_state_dict() -> None:
    module = network()
    found = compared(module, module.state_dict())
    assert changes(found) == {}
    assert len(found.entries) == len(MODEL)
    module = network()
    module.register_buffer("cache", torch.ones(2), persistent=False)
    found = compared(module, module.state_dict())
    assert changes(found) == {"cache": "removed"}
    assert changes(compared(module.state_dict(), module)) == {"cache": "added"}


def test_a_whole_module_is_held_against_another() -> None:
    module, other = network(), network()
    nn.init.ones_(other.get_parameter("0.bias"))
    assert changes(compared(module, other)) == {"0.bias": "changed"}
    assert compared(module, module).statement == "identical"


def test_a_list_of_pairs_is_held_against_a_state_dict() -> None:
    found = compared(list(MODEL.items()), dict(MODEL))
    assert changes(found) == {}
    assert [one.name for one in found.entries] == list(MODEL)
    reordered = list(reversed(MODEL.items()))
    assert changes(compared(list(MODEL.items()), reordered)) == {}
    assert changed_leaves(compared(list(MODEL.items()), list(MODEL.items()))) == {}


def test_a_bare_tensor_is_held_against_another() -> None:
    assert compared(torch.ones(3), torch.ones(3)).statement == "identical"
    assert not compared(torch.ones(3), torch.zeros(3)).is_same


def test_files_without_any_tensor_are_compared_by_their_leaves() -> None:
    found = compared({"epoch": 3}, {"epoch": 4})
    assert (found.entries, changed_leaves(found)) == ((), {"epoch": "changed"})
    assert compared({}, {}).is_same
    found = compared({"epoch": 3}, MODEL)
    assert set(changes(found).values()) == {"added"}


def _save_scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network()), path)


def test_formats_do_not_matter() -> None:
    tensors = {name: tensor.contiguous() for name, tensor in MODEL.items()}
    for other in (
        lambda path: save_file(tensors, path),
        lambda path: torch.save(MODEL, path, _use_new_zipfile_serialization=False),
        _save_scripted,
    ):
        for a, b in ((MODEL, other), (other, MODEL)):
            assert changes(compared(a, b)) == {}


# Order and symmetry ----------------------------------------------------------------------------


def test_entries_come_in_the_order_of_a_with_those_of_b_behind() -> None:
    a = {"z": torch.ones(1), "gone": torch.ones(2), "a": torch.ones(3)}
    b = {"new": torch.ones(4), "a": torch.ones(3), "newer": torch.ones(5), "z": torch.ones(1)}
    found = compared(a, b)
    assert [one.label for one in found.entries] == ["z", "gone", "a", "new", "newer"]


def test_two_entries_that_are_shown_alike_are_paired_in_their_order() -> None:
    tensors = {1: torch.ones(2), "1": torch.zeros(3)}
    found = compared(tensors, tensors)
    assert [one.change for one in found.entries] == ["same", "same"]


@given(strategies.state_dicts(), strategies.state_dicts(), st.booleans())
def test_the_comparison_turns_round_with_the_files(a: Any, b: Any, is_part: bool) -> None:
    if is_part:
        b = {**b, **{f"module.{name}": tensor for name, tensor in a.items()}}
    found = compared(torch_zip(a), torch_zip(b))
    turned = compared(torch_zip(b), torch_zip(a))
    assert placed(turned) == mirrored(found)
    assert turned.is_same == found.is_same


@given(strategies.trees())
def test_any_file_is_the_same_as_itself(tree: object) -> None:
    found = compared(builders.torch_zip(tree), builders.legacy(tree))
    assert found.is_same
    assert found.statement == "identical"


# Prefixes that fit equally well -----------------------------------------------------------------


@pytest.mark.parametrize("copied", ["encoder_q.", "encoder_k."])
def test_of_equally_good_prefixes_the_one_with_the_same_content_is_taken(copied: str) -> None:
    plain = {f"layer{n}.weight": torch.randn(4, 4) for n in range(4)}
    both = {
        prefix + name: tensor if prefix == copied else tensor * 0.9
        for prefix in ("encoder_q.", "encoder_k.")
        for name, tensor in plain.items()
    }
    for found, side in ((compared(both, plain), "a"), (compared(plain, both), "b")):
        assert getattr(found, side).prefix == copied
        assert {one.change for one in found.entries if one.a and one.b} == {"same"}
        assert any("as many names" in note for note in found.notes)


def test_renamed_modules_are_no_wrappers() -> None:
    plain = {f"layers.{n}.weight": torch.randn(4) for n in range(4)}
    found = compared(plain, {name.replace("layers", "h"): t for name, t in plain.items()})
    assert {one.change for one in found.entries} == {"moved"}
    assert (found.a.prefix, found.b.prefix) == ("", "")


def test_the_root_under_the_same_key_goes_before_one_that_is_as_much_alike() -> None:
    weights = {"w": torch.ones(3)}
    both = {"model": weights, "ema": {"w": torch.zeros(3)}}
    assert compared(both, both, root_a="ema").is_same
