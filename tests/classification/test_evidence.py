"""Roles without a model: each has its evidence, and a guess is called one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.classification.evidence import classify_by_evidence
from ckptool.classification.roles import ClassifiedEntry
from tests import builders
from tests.builders import Call, Global, Tensor, torch_zip

WIDE = Tensor("float32", (4, 4))


def classified(folder: Path, tree: object, root: str | None = None) -> dict[str, ClassifiedEntry]:
    path = folder / "checkpoint.pt"
    path.write_bytes(torch_zip(tree))
    with open_checkpoint(path, root=root) as checkpoint:
        return {one.entry.path: one for one in classify_by_evidence(checkpoint)}


def verdicts(found: Mapping[str, ClassifiedEntry]) -> dict[str, tuple[object, ...]]:
    return {
        path: (one.role, one.is_persistent, one.evidence, one.is_certain)
        for path, one in found.items()
    }


def vector(size: int = 4) -> Tensor:
    return Tensor("float32", (size,))


def test_nothing_known_is_a_tensor_without_evidence(tmp_path: Path) -> None:
    found = classified(tmp_path, {"weight": WIDE, "mask": vector()})
    assert set(verdicts(found).values()) == {("tensor", None, "none", False)}


def test_a_module_says_for_certain(tmp_path: Path) -> None:
    tree = builders.module(
        parameters={"weight": WIDE},
        buffers={"kept": vector(), "cache": vector()},
        non_persistent=["cache"],
        attributes={"plain": vector()},
    )
    assert verdicts(classified(tmp_path, tree)) == {
        "weight": ("parameter", None, "module", True),
        "kept": ("buffer", True, "module", True),
        "cache": ("buffer", False, "module", True),
        "plain": ("tensor", None, "module", True),
    }


def test_a_saved_buffer_is_certain_and_a_saved_parameter_likely(tmp_path: Path) -> None:
    tree = {
        "p": builders.parameter(WIDE),
        "b": builders.buffer(vector()),
        "n": builders.buffer(vector(), persistent=False),
    }
    expected = {
        "p": ("parameter", None, "type-tag", False),
        "b": ("buffer", True, "type-tag", True),
        "n": ("buffer", False, "type-tag", True),
    }
    assert verdicts(classified(tmp_path, tree)) == expected


def test_type_tags_count_outside_the_root_too(tmp_path: Path) -> None:
    tree = {"model": {"w": WIDE}, "other": {"p": builders.parameter(WIDE)}}
    assert classified(tmp_path, tree)["other/p"].evidence == "type-tag"


STATISTICS = {
    "bn.weight": vector(),
    "bn.running_mean": vector(),
    "bn.running_var": vector(),
    "bn.num_batches_tracked": Tensor("int64", ()),
}


def test_normalisation_statistics_are_known_by_name(tmp_path: Path) -> None:
    found = classified(tmp_path, STATISTICS)
    assert verdicts(found) == {
        "bn.weight": ("tensor", None, "none", False),
        "bn.running_mean": ("buffer", True, "name", False),
        "bn.running_var": ("buffer", True, "name", False),
        "bn.num_batches_tracked": ("buffer", True, "name", False),
    }
    assert [one.use for one in found.values()] == [None, "statistics", "statistics", "counter"]


def test_a_mean_without_a_variance_is_no_statistic(tmp_path: Path) -> None:
    for tree in (
        {"running_mean": vector()},
        {"running_mean": vector(4), "running_var": vector(5)},
        {"num_batches_tracked": vector()},
    ):
        found = classified(tmp_path, tree)
        assert {one.role for one in found.values()} == {"tensor"}


def test_metadata_is_evidence_where_it_tells_the_version_of_a_norm(tmp_path: Path) -> None:
    found = classified(tmp_path, builders.state_dict(STATISTICS, {"": 1, "bn": 2}))
    assert found["bn.running_mean"].evidence == "metadata"
    assert not found["bn.running_mean"].is_certain
    found = classified(tmp_path, builders.state_dict(STATISTICS, {"": 1, "bn": 1}))
    assert found["bn.running_mean"].evidence == "name"


@pytest.mark.parametrize(
    ("dtype", "use"), [("bool", "mask"), ("int64", None), ("uint8", None), ("uint16", None)]
)
def test_integers_and_booleans_are_likely_buffers(
    dtype: str, use: str | None, tmp_path: Path
) -> None:
    found = classified(tmp_path, {"x": Tensor(dtype, (3,)), "w": WIDE})["x"]
    assert (found.role, found.evidence, found.is_certain, found.use) == (
        "buffer",
        "name",
        False,
        use,
    )


def optimizer(shapes: list[tuple[int, ...]], names: list[str] | None = None) -> dict[str, object]:
    group: dict[str, object] = {"lr": 0.1, "params": list(range(len(shapes)))}
    if names is not None:
        group["param_names"] = names
    return {
        "state": {
            index: {"step": Tensor("float32", ()), "exp_avg": Tensor("float32", shape)}
            for index, shape in enumerate(shapes)
        },
        "param_groups": [group],
    }


MODEL = {"fc.weight": WIDE, "fc.bias": vector(), **STATISTICS}


def test_an_optimizer_that_names_its_parameters_is_evidence(tmp_path: Path) -> None:
    tree = {"model": MODEL, "optimizer": optimizer([(4, 4)], ["fc.weight"])}
    found = classified(tmp_path, tree)
    assert found["model/fc.weight"].evidence == "optimizer"
    assert found["model/fc.weight"].role == "parameter"
    assert not found["model/fc.weight"].is_certain
    assert found["model/fc.bias"].role == "tensor"
    assert found["optimizer/state/0/exp_avg"].role == "optimizer"
    assert found["optimizer/state/0/exp_avg"].name is None


def test_an_optimizer_is_aligned_by_the_shapes_of_its_state(tmp_path: Path) -> None:
    tree = {"model": MODEL, "optimizer": optimizer([(4, 4), (4,), (4,)])}
    found = classified(tmp_path, tree)
    assert {path for path, one in found.items() if one.role == "parameter"} == {
        "model/fc.weight",
        "model/fc.bias",
        "model/bn.weight",
    }
    for shapes in ([(4, 4), (4,)], [(4, 4), (4,), (5,)]):
        found = classified(tmp_path, {"model": MODEL, "optimizer": optimizer(shapes)})
        assert not any(one.role == "parameter" for one in found.values())


def test_parameter_groups_may_change_the_order(tmp_path: Path) -> None:
    tree = {"model": MODEL, "optimizer": optimizer([(4,), (4,), (4, 4)])}
    found = classified(tmp_path, tree)
    assert [path for path, one in found.items() if one.role == "parameter"] == [
        "model/fc.weight",
        "model/fc.bias",
        "model/bn.weight",
    ]


def test_what_was_never_updated_is_not_called_a_parameter(tmp_path: Path) -> None:
    kept = optimizer([(4,), (4,), (4,)])
    del kept["state"][1]  # type: ignore[attr-defined]
    tree = {"model": {name: vector() for name in ("w", "scale", "head")}, "optimizer": kept}
    found = classified(tmp_path, tree)
    assert found["model/w"].role == found["model/head"].role == "parameter"
    assert found["model/scale"].role == "tensor"


def test_what_an_object_keeps_of_an_optimizer_is_evidence_too(tmp_path: Path) -> None:
    kept = optimizer([(4, 4), (4,), (4,)])
    holder = Call(Global("m", "Trainer"), (), {"model": MODEL, "opt": kept}, new=True)
    found = classified(tmp_path, {"trainer": holder})
    assert found["trainer/model/fc.weight"].evidence == "optimizer"
    whole = Call(Global("torch.optim", "Adam"), (), kept, new=True)
    found = classified(tmp_path, {"model": MODEL, "optimizer": whole})
    assert found["model/fc.weight"].evidence == "optimizer"
    assert found["optimizer/state/0/exp_avg"].role == "optimizer"


def test_an_optimizer_without_state_says_nothing(tmp_path: Path) -> None:
    empty = {"state": {}, "param_groups": [{"params": [0, 1, 2]}]}
    found = classified(tmp_path, {"model": MODEL, "optimizer": empty})
    assert not any(one.role == "parameter" for one in found.values())


def test_extra_state_is_one_whether_it_is_a_tensor_or_not(tmp_path: Path) -> None:
    amax = {"scale": vector(), "amax": [vector(3)], "margin": 0}
    tree = {"w": WIDE, "fc._extra_state": Tensor("uint8", (8,)), "_extra_state": amax}
    found = classified(tmp_path, tree)
    assert {path for path, one in found.items() if one.role == "extra-state"} == {
        "fc._extra_state",
        "_extra_state/scale",
        "_extra_state/amax/0",
        "_extra_state/margin",
    }
    assert found["w"].role == "tensor"


def test_every_root_has_evidence_of_its_own_where_none_is_chosen(tmp_path: Path) -> None:
    tree = {"generator": STATISTICS, "discriminator": {"running_mean": vector()}}
    found = classified(tmp_path, tree)
    assert found["generator/bn.running_mean"].role == "buffer"
    assert found["discriminator/running_mean"].role == "tensor"


def test_a_root_that_was_not_chosen_keeps_its_evidence(tmp_path: Path) -> None:
    tree = {"model": STATISTICS, "model_ema": dict(STATISTICS)}
    copy = classified(tmp_path, tree, root="model")["model_ema/bn.running_mean"]
    assert (copy.name, copy.role, copy.evidence) == (None, "buffer", "name")


def test_a_root_inside_an_extra_state_has_leaves_that_are_no_tensors(tmp_path: Path) -> None:
    inner = {"num_batches_tracked": 5, "w": vector()}
    tree = {"x._extra_state": {"model": inner}}
    found = classified(tmp_path, tree, root="x._extra_state/model")
    assert {one.name for one in found.values()} == {"num_batches_tracked", "w"}


def test_an_optimizer_is_found_in_the_scheduler_that_holds_it(tmp_path: Path) -> None:
    held = Call(Global("torch.optim", "Adam"), (), optimizer([(4, 4), (4,), (4,)]), new=True)
    scheduler = Call(
        Global("torch.optim.lr_scheduler", "StepLR"),
        (),
        {"optimizer": held, "last_epoch": 1, "_step_count": 2},
        new=True,
    )
    found = classified(tmp_path, {"model": MODEL, "scheduler": scheduler})
    assert found["model/fc.weight"].evidence == "optimizer"
    assert found["scheduler/optimizer/state/0/exp_avg"].role == "optimizer"


def test_a_name_that_modules_give_to_buffers_is_a_guess_with_its_use(tmp_path: Path) -> None:
    tree = {"attn.mask": WIDE, "attn.weight": WIDE, "rotary.inv_freq": vector()}
    found = classified(tmp_path, tree)
    assert verdicts(found) == {
        "attn.mask": ("buffer", True, "name", False),
        "attn.weight": ("tensor", None, "none", False),
        "rotary.inv_freq": ("buffer", True, "name", False),
    }
    assert [one.use for one in found.values()] == ["mask", None, "constant"]


def test_what_an_optimizer_updates_is_a_parameter_whatever_its_name(tmp_path: Path) -> None:
    shapes = {"rotary.inv_freq": vector(), "fc.weight": WIDE}
    tree = {"model": shapes, "optimizer": optimizer([(4,), (4, 4)], list(shapes))}
    found = classified(tmp_path, tree)
    assert {found[f"model/{name}"].role for name in shapes} == {"parameter"}
