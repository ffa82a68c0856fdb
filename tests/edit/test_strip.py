"""What each option of `strip` takes out, leaves, says and refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

from ckptool import (
    EditError,
    EntryNotFoundError,
    Plan,
    load_model_spec,
)
from tests.edit.results import load, same, saved, strip, without
from tests.running import SAMPLES
from tests.test_samples import KINDS, MODELS

SPECS: Final = SAMPLES / "specs"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


def gone(plan: Plan) -> list[str]:
    return [one.path for one in plan.removed]


@pytest.fixture
def dst(tmp_path: Path) -> Path:
    return tmp_path / "dst.pt"


# Buffers ----------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Some tensors that say what they are, and a BatchNorm's, that do not."""
    tree = {
        "weight": nn.Parameter(torch.ones(2)),
        "mask": nn.Buffer(torch.ones(3)),
        **{f"bn.{name}": tensor.clone() for name, tensor in network()[1].state_dict().items()},
    }
    return saved(tree, tmp_path / "mixed.pt")


STATISTICS: Final = ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]


def test_buffers_that_are_certain_go_and_likely_ones_are_named(mixed: Path, dst: Path) -> None:
    plan = strip(mixed, dst, buffers=True)
    assert gone(plan) == ["mask"]
    assert [one.path for one in plan.left] == STATISTICS
    same(without(load(mixed), "mask"), load(dst))


def test_a_guess_takes_likely_buffers_along(mixed: Path, dst: Path) -> None:
    plan = strip(mixed, dst, buffers=True, guess=True)
    assert gone(plan) == ["mask", *STATISTICS]
    assert plan.left == ()
    assert list(load(dst)) == ["weight", "bn.weight", "bn.bias"]


def test_only_likely_buffers_are_none_and_a_guess_is_hinted_at(tmp_path: Path, dst: Path) -> None:
    src = saved(dict(network().state_dict()), tmp_path / "src.pt")
    with pytest.raises(EntryNotFoundError) as caught:
        strip(src, dst, buffers=True)
    assert "--guess" in str(caught.value.hint)
    assert not dst.exists()


@pytest.mark.parametrize("name", MODELS)
def test_with_a_model_every_buffer_is_certain(name: str, dst: Path) -> None:
    parameters, persistent, _ = KINDS[name]
    model = load_model_spec(str(SPECS / f"{Path(name).stem}.json"))
    plan = strip(SAMPLES / name, dst, model, buffers=True)
    assert set(gone(plan)) == persistent
    assert set(load(dst)) == parameters
    assert plan.left == ()


@pytest.mark.parametrize("name", [name for name in MODELS if KINDS[name][2]])
def test_left_over_buffers_go_and_a_strict_load_succeeds(
    name: str, tmp_path: Path, dst: Path
) -> None:
    module = MODELS[name]()
    src = saved({**module.state_dict(), **dict(module.named_buffers())}, tmp_path / "src.pt")
    with pytest.raises(RuntimeError, match="Unexpected"):
        MODELS[name]().load_state_dict(load(src), strict=True)
    plan = strip(src, dst, load_model_spec(str(SPECS / f"{Path(name).stem}.json")), stale=True)
    assert set(gone(plan)) == KINDS[name][2]
    MODELS[name]().load_state_dict(load(dst), strict=True)


class Embeddings(nn.Module):
    """As transformers has it: the numbers of the positions are no longer saved."""

    position_ids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(5, 2)
        self.register_buffer("position_ids", torch.arange(8)[None], persistent=False)


def test_position_ids_of_an_old_checkpoint_go_and_nothing_else(tmp_path: Path, dst: Path) -> None:
    bert = nn.Module()
    bert.embeddings = Embeddings()
    state = bert.state_dict()
    state["embeddings.position_ids"] = torch.arange(8)[None]
    state["unknown"] = torch.ones(1)
    src = saved(state, tmp_path / "bert.pt")
    model = load_model_spec(str(saved(bert, tmp_path / "whole.pt")))
    plan = strip(src, dst, model, stale=True)
    assert gone(plan) == ["embeddings.position_ids"]
    same(without(load(src), "embeddings.position_ids"), load(dst))


def test_only_a_model_tells_what_is_left_over(dst: Path) -> None:
    with pytest.raises(EditError):
        strip(SAMPLES / "left_over_buffer.pt", dst, stale=True)
    model = load_model_spec(str(SPECS / "my_model.json"))
    with pytest.raises(EntryNotFoundError):
        strip(SAMPLES / "my_model.pt", dst, model, stale=True)
    assert not dst.exists()


# Training state ---------------------------------------------------------------------------------


def trained() -> dict[str, Any]:
    """The states that torch's own classes give after one step."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    scaler = {"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": {**scaler, "_growth_tracker": 0},
        "rng": torch.get_rng_state(),
    }


def checkpoint_of_lightning() -> dict[str, Any]:
    states = trained()
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": states["model"],
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'loss'}": {
                "best_model_score": torch.tensor(0.5),
                "best_model_path": "x.ckpt",
                "best_k_models": {"x.ckpt": torch.tensor(0.5)},
            }
        },
        "optimizer_states": [states["optimizer"]],
        "lr_schedulers": [states["scheduler"]],
        "MixedPrecision": states["scaler"],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "layers": [1, 2]},
    }


def layouts() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """How frameworks arrange a checkpoint, and the parts that only resuming needs."""
    states = trained()
    model, optimizer = states["model"], states["optimizer"]
    return {
        "plain": (
            {**states, "epoch": 3, "best": 0.5, "args": ["--lr", "1"]},
            ["optimizer", "scheduler", "scaler", "rng"],
        ),
        "lightning": (
            checkpoint_of_lightning(),
            ["loops", "callbacks", "optimizer_states", "lr_schedulers", "MixedPrecision"],
        ),
        "fairseq": (
            {
                "args": None,
                "cfg": {"task": {"data": "x"}},
                "model": model,
                "optimizer_history": [{"num_updates": 3}],
                "last_optimizer_state": optimizer,
            },
            ["optimizer_history", "last_optimizer_state"],
        ),
        "timm": (
            {"epoch": 1, "arch": "x", "state_dict": model, "optimizer": optimizer,
             "amp_scaler": states["scaler"], "metric": 0.5},
            ["optimizer", "amp_scaler"],
        ),
        "mmengine": (
            {"meta": {"epoch": 1}, "state_dict": model, "optimizer": optimizer,
             "message_hub": {"log_scalars": {"loss": [1.0]}, "tensor": torch.ones(9)},
             "param_schedulers": [states["scheduler"]]},
            ["optimizer", "message_hub", "param_schedulers"],
        ),
        "several roots": (
            {"generator": model, "discriminator": averaged(model), "optimizer": optimizer,
             "optimizer_d": {**optimizer}, "gan": {"inner": {"optim": {**optimizer}, "step": 1}}},
            ["optimizer", "optimizer_d", "gan/inner/optim"],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("layout", layouts())
def test_what_only_resuming_needs_goes_from_any_layout(
    layout: str, tmp_path: Path, dst: Path
) -> None:
    tree, parts = layouts()[layout]
    src = saved(tree, tmp_path / "src.pt")
    plan = strip(src, dst, training=True)
    assert sorted(gone(plan)) == sorted(parts)
    expected = load(src)
    for part in parts:
        *above, last = part.split("/")
        holder = expected
        for key in above:
            holder = holder[key]
        del holder[last]
    same(expected, load(dst))
    same(expected, load(dst, mmap=True))
    weights = load(dst).get("model") or load(dst).get("state_dict") or load(dst)["generator"]
    network().load_state_dict(weights, strict=True)


def test_callbacks_that_hold_weights_stay_and_are_named(tmp_path: Path, dst: Path) -> None:
    tree = checkpoint_of_lightning()
    tree["callbacks"]["EMA"] = {"ema_weights": averaged(tree["state_dict"])}
    src = saved(tree, tmp_path / "src.ckpt")
    plan = strip(src, dst, training=True)
    assert "callbacks" not in gone(plan)
    assert [one.path for one in plan.left] == ["callbacks"]
    assert "ema_weights" in plan.left[0].why
    same(load(src)["callbacks"], load(dst)["callbacks"])
    dst.unlink()
    assert "callbacks" in gone(strip(src, dst, training=True, drop=["/callbacks"]))


def test_without_training_state_there_is_nothing_to_take_out(dst: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        strip(SAMPLES / "my_model.pt", dst, training=True)


# Names and paths --------------------------------------------------------------------------------


def test_patterns_are_for_names_in_the_root_and_for_paths_from_the_top(
    tmp_path: Path, dst: Path
) -> None:
    src = saved({**trained(), "extra": {"0.bias": torch.ones(2)}}, tmp_path / "src.pt")
    plan = strip(src, dst, root="model", drop=["*.bias", "/optimizer", "/extra/*"])
    assert gone(plan) == ["model/0.bias", "model/1.bias", "optimizer", "extra/0.bias"]
    found = load(dst)
    assert found["extra"] == {}
    assert "optimizer" not in found


def test_a_bracket_in_a_pattern_is_itself(tmp_path: Path, dst: Path) -> None:
    state = {"blocks[0].w": torch.ones(1), "blocks0.w": torch.ones(2)}
    strip(saved(state, tmp_path / "src.pt"), dst, drop=["blocks[0]*"])
    assert list(load(dst)) == ["blocks0.w"]


def test_an_exclamation_mark_leaves_out_what_another_pattern_matches(
    tmp_path: Path, dst: Path
) -> None:
    src = saved({name: torch.ones(1) for name in ("a.b", "a.c", "d")}, tmp_path / "src.pt")
    strip(src, dst, drop=["a.*", "!a.b"])
    assert list(load(dst)) == ["a.b", "d"]


@pytest.mark.parametrize(("option", "pattern"), [("drop", "0.wieght"), ("keep", "/modle")])
def test_a_pattern_that_matches_nothing_is_an_error_with_close_names(
    option: str, pattern: str, tmp_path: Path, dst: Path
) -> None:
    src = saved(trained(), tmp_path / "src.pt")
    options: dict[str, Any] = {option: [pattern]}
    with pytest.raises(EntryNotFoundError) as caught:
        strip(src, dst, root="model", **options)
    assert {"0.weight", "/model"} & set(caught.value.candidates)
    assert not dst.exists()


def test_keep_leaves_names_in_the_root_and_other_parts_alone(tmp_path: Path, dst: Path) -> None:
    src = saved(trained(), tmp_path / "src.pt")
    strip(src, dst, root="model", keep=["0.*"])
    expected = load(src)
    for name in [name for name in expected["model"] if not name.startswith("0.")]:
        del expected["model"][name]
    del expected["model"]._metadata["1"]
    same(expected, load(dst))


def test_keep_with_a_path_leaves_only_that(tmp_path: Path, dst: Path) -> None:
    src = saved({**trained(), "epoch": 3}, tmp_path / "src.pt")
    strip(src, dst, keep=["/model", "/epoch"])
    expected = load(src)
    same({key: expected[key] for key in ("model", "epoch")}, load(dst))


def test_keep_takes_out_a_tuple_as_a_whole(tmp_path: Path, dst: Path) -> None:
    tree = {"model": network().state_dict(), "pair": (torch.ones(1), torch.ones(2))}
    src = saved(tree, tmp_path / "src.pt")
    assert gone(strip(src, dst, keep=["/model"])) == ["pair"]
    same(without(load(src), "pair"), load(dst))


# Averages ---------------------------------------------------------------------------------------

PAIRS: Final = [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema")]


@pytest.mark.parametrize("how", ["use", "drop"])
@pytest.mark.parametrize(("raw", "average"), PAIRS)
def test_of_two_sets_of_weights_one_stays(
    raw: str, average: str, how: str, tmp_path: Path, dst: Path
) -> None:
    states = trained()
    tree = {raw: states["model"], average: averaged(states["model"]), "epoch": 3}
    src = saved(tree, tmp_path / "src.pt")
    plan = strip(src, dst, ema=how)
    goes, stays = (raw, average) if how == "use" else (average, raw)
    assert gone(plan) == [goes]
    assert any(goes in note and stays in note for note in plan.notes)
    same(without(load(src), goes), load(dst))


def test_the_average_alone_becomes_the_file(tmp_path: Path, dst: Path) -> None:
    states = trained()
    tree = {**states, "model_ema": {"module": averaged(states["model"]), "decay": 0.9}}
    src = saved(tree, tmp_path / "src.pt")
    strip(src, dst, ema="use", training=True, extract=True)
    same(load(src)["model_ema"]["module"], load(dst))


def test_two_sets_are_both_kept_and_said_so(tmp_path: Path, dst: Path) -> None:
    states = trained()
    src = saved({**states, "model_ema": averaged(states["model"])}, tmp_path / "src.pt")
    plan = strip(src, dst, training=True)
    assert set(load(dst)) == {"model", "model_ema"}
    (note,) = [note for note in plan.notes if "--ema" in note]
    assert "model_ema" in note


STABLE_DIFFUSION: Final = {
    "model.diffusion_model.input_blocks.0.0.weight": torch.ones(3),
    "model.diffusion_model.input_blocks.0.0.bias": torch.ones(2),
    "first_stage_model.encoder.weight": torch.ones(4),
    "model_ema.decay": torch.tensor(0.9),
    "model_ema.num_updates": torch.tensor(7),
    "model_ema.diffusion_modelinput_blocks00weight": torch.full((3,), 5.0),
    "model_ema.diffusion_modelinput_blocks00bias": torch.full((2,), 6.0),
}


@pytest.mark.parametrize("how", ["use", "drop"])
def test_averages_without_dots_in_their_names_are_found(
    how: str, tmp_path: Path, dst: Path
) -> None:
    src = saved({"state_dict": STABLE_DIFFUSION, "global_step": 1}, tmp_path / "sd.ckpt")
    plan = strip(src, dst, ema=how)
    names = list(STABLE_DIFFUSION)
    found = load(dst)["state_dict"]
    assert list(found) == names[:3]
    first = [5.0, 6.0] if how == "use" else [1.0, 1.0]
    assert [tensor[0].item() for tensor in found.values()] == [*first, 1.0]
    averages = {f"state_dict/{name}" for name in names[3:]}
    raws = {f"state_dict/{name}" for name in names[:2]}
    assert set(gone(plan)) == (averages if how == "drop" else {*list(averages & {
        "state_dict/model_ema.decay", "state_dict/model_ema.num_updates"}), *raws})  # fmt: skip


def test_averages_among_the_weights_are_kept_and_said_so_unless_one_is_asked_for(
    tmp_path: Path, dst: Path
) -> None:
    tree = {"state_dict": STABLE_DIFFUSION, "optimizer_states": [{"state": {}, "param_groups": []}]}
    plan = strip(saved(tree, tmp_path / "sd.ckpt"), dst, training=True)
    assert list(load(dst)["state_dict"]) == list(STABLE_DIFFUSION)
    (note,) = [note for note in plan.notes if "--ema" in note]
    assert "model_ema.diffusion_modelinput_blocks00weight" in note
    assert not strip(dst, tmp_path / "again.pt", drop=["model_ema.*"]).notes


def test_averages_of_mmcv_can_be_dropped_but_not_used(tmp_path: Path, dst: Path) -> None:
    names = ("backbone.conv1.weight", "head.fc.bias")
    state = {name: torch.ones(2) for name in names}
    averages = {f"ema_{name.replace('.', '_')}": torch.zeros(2) for name in names}
    src = saved({"state_dict": {**state, **averages}, "meta": {}}, tmp_path / "src.pth")
    with pytest.raises(EditError):
        strip(src, dst, ema="use")
    assert not dst.exists()
    strip(src, dst, ema="drop")
    assert list(load(dst)["state_dict"]) == list(names)


def test_without_an_average_nothing_is_chosen(dst: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        strip(SAMPLES / "my_model.pt", dst, ema="drop")
