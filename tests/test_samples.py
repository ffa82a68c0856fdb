"""The sample checkpoints: what they hold is what their models have, and they can be made again."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckptool import diff, list_contents, open_checkpoint
from ckptool.classification.roles import ClassifiedEntry
from tests.oracle import content_hash
from tests.running import SAMPLES
from tests.sample_models import models

MODELS: dict[str, Callable[[], nn.Module]] = {
    "my_model.pt": lambda: models.MyModel(10, 5),
    "buffer_class_model.pt": models.BufferClassModel,
    "simple_model.pt": models.SimpleModel,
    "custom_batch_norm.pt": lambda: models.CustomBatchNorm(5),
    "transformer_model.pt": lambda: models.TransformerModel(16, 50),
    "buffer_example.pt": models.BufferExample,
    "masked_layer.pt": lambda: models.MaskedLayer(6),
    "lookup_table.pt": lambda: models.LookupTable(7, 4),
    "bare_module.pt": models.bare_module,
    "buffer_operations.pt": models.BufferOperations,
}
# The table of the seed models: parameters, persistent buffers, non-persistent buffers.
KINDS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "my_model.pt": ({"weight"}, {"running_mean", "running_var"}, {"temp_buffer"}),
    "buffer_class_model.pt": ({"weight"}, {"saved", "empty"}, {"not_saved"}),
    "simple_model.pt": (set(), {"mean", "std"}, set()),
    "custom_batch_norm.pt": (
        {"weight", "bias"},
        {"running_mean", "running_var", "num_batches_tracked"},
        set(),
    ),
    "transformer_model.pt": (set(), {"pe"}, set()),
    "buffer_example.pt": (set(), {"important_stats", "default_buffer"}, {"temp_cache"}),
    "masked_layer.pt": ({"weight"}, {"mask"}, set()),
    "lookup_table.pt": ({"embedding"}, {"frequency", "pos_indices"}, set()),
    "bare_module.pt": (set(), {"my_buffer"}, set()),
    "buffer_operations.pt": (set(), {"stats"}, set()),
}
FILES = sorted(
    path.name for path in SAMPLES.iterdir() if path.suffix in (".pt", ".ckpt", ".safetensors")
)


def entries_of(path: Path) -> dict[str | None, ClassifiedEntry]:
    with open_checkpoint(path) as checkpoint:
        return {one.name: one for one in list_contents(checkpoint).entries}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_kinds_of_its_row(name: str) -> None:
    model = MODELS[name]()
    parameters, persistent, non_persistent = KINDS[name]
    buffers = dict(model.named_buffers())
    assert dict(model.named_parameters()).keys() == parameters
    assert buffers.keys() == persistent | non_persistent
    assert model.state_dict().keys() == parameters | persistent
    assert not any(buffer.requires_grad for buffer in buffers.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_holds_parameters_and_persistent_buffers_only(name: str) -> None:
    parameters, persistent, _ = KINDS[name]
    assert entries_of(SAMPLES / name).keys() == parameters | persistent
    MODELS[name]().load_state_dict(torch.load(SAMPLES / name, weights_only=True), strict=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_module_keeps_all_buffers_with_their_persistence(name: str, tmp_path: Path) -> None:
    parameters, persistent, non_persistent = KINDS[name]
    torch.save(MODELS[name](), tmp_path / "whole.pt")
    found = entries_of(tmp_path / "whole.pt")
    by_kind = {
        (role, is_persistent): {
            name
            for name, one in found.items()
            if (one.role, one.is_persistent) == (role, is_persistent)
        }
        for role, is_persistent in (("parameter", None), ("buffer", True), ("buffer", False))
    }
    assert by_kind == {
        ("parameter", None): parameters,
        ("buffer", True): persistent,
        ("buffer", False): non_persistent,
    }
    assert all(one.is_certain for one in found.values())


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "copied": copy.deepcopy,
    "in half precision": lambda model: model.to(torch.float16),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_roles_stay_the_same_for_a_changed_model(name: str, change: str, tmp_path: Path) -> None:
    torch.save(MODELS[name](), tmp_path / "before.pt")
    torch.save(CHANGES[change](MODELS[name]()), tmp_path / "after.pt")
    before, after = (entries_of(tmp_path / f"{when}.pt") for when in ("before", "after"))
    assert {key: (one.role, one.is_persistent) for key, one in before.items()} == {
        key: (one.role, one.is_persistent) for key, one in after.items()
    }


def test_what_generate_writes_has_the_same_content(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-B", str(SAMPLES / "generate.py"), str(tmp_path)], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "specs"])
    for path in (tmp_path / "specs").iterdir():
        assert frozen(path) == frozen(SAMPLES / "specs" / path.name), path.name
    for name in FILES:
        kept, again = (listed(folder / name) for folder in (SAMPLES, tmp_path))
        if name == "training.ckpt":  # training rounds as the processor at hand does
            kept, again = dict.fromkeys(kept, None), dict.fromkeys(again, None)
        assert kept == again, name


def frozen(path: Path) -> object:
    """A spec but for the version of the torch that it was made with."""
    return {**json.loads(path.read_text()), "torch_version": None}


def test_every_seed_model_has_a_spec() -> None:
    names = {path.stem for path in (SAMPLES / "specs").iterdir()}
    assert names == {Path(name).stem for name in MODELS} | {"classifier"}


def listed(path: Path) -> dict[str, str | None]:
    with open_checkpoint(path) as checkpoint:
        contents = list_contents(checkpoint, with_hashes=True)
        return {one.entry.path: contents.hashes[id(one)] for one in contents.entries}


def test_samples_are_small_and_described() -> None:
    assert sum((SAMPLES / name).stat().st_size for name in FILES) < 1_000_000
    table = (SAMPLES / "README.md").read_text()
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == sorted(
        FILES, key=lambda name: table.index(f"`{name}`")
    )


def test_the_special_samples_show_what_they_promise() -> None:
    tied = entries_of(SAMPLES / "tied_and_view.pt")
    assert tied.keys() >= {"embed.weight", "lm_head.weight", "first_row"}
    compiled = entries_of(SAMPLES / "compiled_ddp.pt")
    assert all(name and name.startswith("_orig_mod.module.") for name in compiled)
    assert "temp_buffer" in entries_of(SAMPLES / "left_over_buffer.pt")
    lookup = torch.load(SAMPLES / "lookup_table.pt", weights_only=True)
    with open_checkpoint(SAMPLES / "legacy.pt") as checkpoint:
        assert checkpoint.format == "torch-legacy"
        contents = list_contents(checkpoint, with_hashes=True)
        for one in contents.entries:
            assert contents.hashes[id(one)] == content_hash(lookup[one.name])


@pytest.mark.parametrize("name", FILES)
def test_a_sample_is_identical_to_itself_however_torch_saves_it_again(
    name: str, tmp_path: Path
) -> None:
    files = [SAMPLES / name]
    if name not in ("whole_module.pt", "training.ckpt", "canary.pt", "model.safetensors"):
        kept = torch.load(SAMPLES / name, weights_only=True)
        for is_zip in (True, False):
            files.append(tmp_path / f"again-{is_zip}.pt")
            torch.save(kept, files[-1], _use_new_zipfile_serialization=is_zip)
    for file in files:
        with open_checkpoint(SAMPLES / name) as a, open_checkpoint(file) as b:
            found = diff(a, b)
        assert (found.statement, found.is_same, found.leaves_changed) == ("identical", True, 0)
        assert {one.verdict for one in found.entries} == {"equal"}
