"""The prefix between the names of a file and those of a model, and the root that a model fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool import AmbiguousRootError, classify, open_checkpoint
from ckptool.checkpoint.state_dict import StateDict
from ckptool.classification.align import Alignment, align, fit_root
from ckptool.spec.model_spec import ModelSpec, ModuleSpec, TensorSpec
from ckptool.spec.strict_load import FrozenModel
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import NoData, TensorRef
from tests import builders
from tests.builders import Tensor, torch_zip

LAYERS = [f"layer{n}.{part}.weight" for n in range(4) for part in ("conv", "fc")]


def model(names: Sequence[str], shape: tuple[int, ...] = (2,)) -> ModelSpec:
    tensors = {name: TensorSpec("parameter", True, "float32", shape) for name in names}
    paths = {"", *(name.rpartition(".")[0] for name in names)}
    modules = dict.fromkeys(paths, ModuleSpec(None))
    return ModelSpec("test", "constructed", None, tensors, modules)


def state(names: Sequence[str], shape: tuple[int, ...] = (2,)) -> StateDict:
    tensor = TensorRef(DTYPES["float32"], shape, False, NoData((1,) * len(shape)))
    return StateDict(dict.fromkeys(names, tensor), None)


@pytest.mark.parametrize(
    ("before_saved", "before_expected", "strip", "add"),
    [
        ("", "", "", ""),
        ("module.", "", "module.", ""),
        ("_orig_mod.", "", "_orig_mod.", ""),
        ("_orig_mod.module.", "", "_orig_mod.module.", ""),
        ("a.b.c.d.e.", "", "a.b.c.d.e.", ""),
        ("", "model.", "", "model."),
        ("", "_orig_mod.module.", "", "_orig_mod.module."),
        ("module.", "model.", "module.", "model."),
        ("model.net.", "model.", "model.net.", "model."),
    ],
)
def test_a_prefix_on_either_side_is_found(
    before_saved: str, before_expected: str, strip: str, add: str
) -> None:
    saved = [before_saved + name for name in LAYERS]
    expected = [before_expected + name for name in LAYERS]
    found = align(state(saved), model(expected))
    as_is = len(set(saved) & set(expected))
    assert found == Alignment(strip, add, len(LAYERS), as_is)
    assert [found.rename(name) for name in saved] == expected
    assert found.is_identity == (strip == add == "")


def test_a_part_of_a_larger_file_is_found_and_the_rest_stays() -> None:
    saved = [f"model.{name}" for name in LAYERS] + ["val_metrics.weight", "logit_scale"]
    found = align(state(saved), model(LAYERS))
    assert (found.strip, found.matched, found.matched_as_is) == ("model.", len(LAYERS), 0)
    assert found.rename("val_metrics.weight") == "val_metrics.weight"


def test_names_as_they_are_go_before_a_prefix_that_matches_no_more() -> None:
    names = ["weight", "inner.weight", "inner.inner.weight"]
    assert align(state(names), model(["weight", "inner.weight", "other.weight"])).is_identity


def test_a_prefix_that_gives_two_names_to_one_is_none() -> None:
    saved = ["a.weight", "module.a.weight", "module.b.weight"]
    assert align(state(saved), model(["a.weight", "b.weight"])).is_identity


def test_another_layer_in_the_place_of_one_is_no_prefix() -> None:
    saved = [f"layer{n}.{leaf}" for n in (1, 2) for leaf in ("weight", "bias")]
    expected = [f"layer{n}.{leaf}" for n in (2, 3, 4) for leaf in ("weight", "bias")]
    assert align(state(saved), model(expected)).is_identity


def test_a_head_of_another_name_is_no_prefix() -> None:
    saved = [*LAYERS, "fc.weight", "fc.bias"]
    assert align(state(saved), model([*LAYERS, "head.weight", "head.bias"])).is_identity


def test_a_few_names_alike_are_no_prefix() -> None:
    saved = [f"encoder.block{n}.weight" for n in range(20)]
    expected = [f"decoder.stage{n}.weight" for n in range(20)] + ["other.block3.weight"]
    assert align(state(saved), model(expected)).is_identity


def test_of_two_prefixes_the_one_with_the_models_shapes_is_taken() -> None:
    small, large = (
        {f"{prefix}.{name}": tensor for name, tensor in state(LAYERS, shape).tensors.items()}
        for prefix, shape in (("ema", (3,)), ("net", (2,)))
    )
    found = align(StateDict(small | large, None), model(LAYERS))
    assert found.strip == "net."


PREFIX = st.lists(st.sampled_from(["module", "_orig_mod", "model", "net"]), max_size=3)


@given(
    names=st.lists(st.sampled_from(LAYERS), min_size=1, unique=True),
    saved=PREFIX,
    expected=PREFIX,
)
def test_every_name_is_found_again_behind_any_chain(
    names: list[str], saved: list[str], expected: list[str]
) -> None:
    ours, theirs = ("".join(f"{part}." for part in chain) for chain in (saved, expected))
    found = align(state([ours + name for name in names]), model([theirs + name for name in names]))
    assert found.matched == len(names)
    assert [found.rename(ours + name) for name in names] == [theirs + name for name in names]


# The root --------------------------------------------------------------------------------------

WEIGHTS = {name: Tensor("float32", (2,)) for name in LAYERS}
EXTRA = Tensor("float32", (2,))
OTHERS = {f"head.{n}": Tensor("float32", (2,)) for n in range(3)}


def saved(tree: object, folder: Path) -> Path:
    path = folder / "file.pt"
    path.write_bytes(torch_zip(tree))
    return path


def again(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: builders.Tensor("float32", (2,)) for name in weights}


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "anything"])
def test_the_root_that_fits_is_taken(key: str, tmp_path: Path) -> None:
    path = saved({"other": OTHERS, key: WEIGHTS, "epoch": 3}, tmp_path)
    with open_checkpoint(path) as checkpoint:
        root = fit_root(checkpoint, model(LAYERS)).root
    assert root is not None
    assert root.path == key


def test_two_roots_that_fit_equally_well_are_told(tmp_path: Path) -> None:
    path = saved({"model": WEIGHTS, "model_ema": again(WEIGHTS)}, tmp_path)
    with (
        open_checkpoint(path) as checkpoint,
        pytest.raises(AmbiguousRootError) as caught,
    ):
        fit_root(checkpoint, model(LAYERS))
    assert caught.value.roots == ("model", "model_ema")
    with open_checkpoint(path, root="model_ema") as checkpoint:
        root = fit_root(checkpoint, model(LAYERS)).root
        assert root is not None
        assert root.path == "model_ema"


def test_where_none_fits_the_usual_choice_stands_or_the_user_is_asked(tmp_path: Path) -> None:
    path = saved({"state_dict": WEIGHTS, "other": OTHERS}, tmp_path)
    with open_checkpoint(path) as checkpoint:
        root = fit_root(checkpoint, model(["x"])).root
        assert root is not None
        assert root.path == "state_dict"
    path = saved({"model": WEIGHTS, "model_ema": OTHERS}, tmp_path)
    with open_checkpoint(path) as checkpoint, pytest.raises(AmbiguousRootError):
        fit_root(checkpoint, model(["x"]))


@pytest.mark.parametrize(
    "tree",
    [{}, {"epoch": 3}, {"x._extra_state": {"a": 1}}, {"x._extra_state": {"a": EXTRA}}],
    ids=["empty", "numbers", "an extra state", "tensors of an extra state"],
)
def test_a_file_without_tensors_is_a_state_dict_that_lacks_them_all(
    tree: dict[str, object], tmp_path: Path
) -> None:
    with open_checkpoint(saved(tree, tmp_path)) as checkpoint:
        found = classify(checkpoint, FrozenModel(model(LAYERS)))
    assert found.checkpoint.root is not None
    assert found.checkpoint.root.path == ""
    assert [one.name for one in found.absent] == LAYERS
