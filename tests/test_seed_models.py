"""The seed models: one answer from a live model, its spec, and the module saved whole."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import nn

from tests.running import SAMPLES, json_of, run
from tests.test_samples import KINDS, MODELS

ARGUMENTS: Final = {
    "my_model.pt": "MyModel(10, 5)",
    "buffer_class_model.pt": "BufferClassModel",
    "simple_model.pt": "SimpleModel()",
    "custom_batch_norm.pt": "CustomBatchNorm(5)",
    "transformer_model.pt": "TransformerModel(16, max_len=50)",
    "buffer_example.pt": "BufferExample",
    "masked_layer.pt": "MaskedLayer(6)",
    "lookup_table.pt": "LookupTable(7, 4)",
    "bare_module.pt": "bare_module",
    "buffer_operations.pt": "BufferOperations()",
}
# What a class does when it loads is not in a pickle of its module.
OF_TORCH_ITSELF: Final = {"bare_module.pt"}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sources(name: str, tmp_path: Path) -> dict[str, str | Path]:
    """The same model in the three forms that MODEL has."""
    torch.save(MODELS[name](), tmp_path / "whole.pt")
    return {
        "live": f"{SAMPLES / 'models.py'}:{ARGUMENTS[name]}",
        "spec": SAMPLES / "specs" / f"{Path(name).stem}.json",
        "whole": tmp_path / "whole.pt",
    }


def document(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.code in (0, 1), result
    read: dict[str, Any] = json.loads(result.out)
    return read


def test_inspect_says_the_same_of_all_three(name: str, sources: dict[str, str | Path]) -> None:
    found = {
        form: json_of("inspect", SAMPLES / name, "--model", model)
        for form, model in sources.items()
    }
    for form, said in found.items():
        assert said["model"]["source"] == str(sources[form]) or form == "spec"
        assert said["totals"] == found["live"]["totals"]
        for key in ("entries", "absent"):
            # A saved module has no initial values, which some uses are told from.
            same = without_use if form == "whole" else list
            assert same(said[key]) == same(found["live"][key]), (form, key)


def without_use(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "use": None} for entry in entries]


def test_every_kind_is_named_with_the_model_as_evidence(
    name: str, sources: dict[str, str | Path]
) -> None:
    parameters, persistent, non_persistent = KINDS[name]
    said = json_of("inspect", SAMPLES / name, "--model", sources["spec"])
    kinds = {entry["name"]: (entry["role"], entry["persistent"]) for entry in said["entries"]}
    assert kinds == {
        **dict.fromkeys(parameters, ("parameter", None)),
        **dict.fromkeys(persistent, ("buffer", True)),
    }
    for entry in said["entries"]:
        assert (entry["evidence"], entry["certain"]) == ("spec", True)
        assert (entry["status"], entry["expected"]) == ("matched", None)
    assert {one["name"]: one["status"] for one in said["absent"]} == dict.fromkeys(
        non_persistent, "not-saved"
    )
    assert said["totals"]["parameters"]["count"] == len(parameters)
    assert said["totals"]["persistent_buffers"]["count"] == len(persistent)
    assert said["totals"]["missing_non_persistent_buffers"]["count"] == len(non_persistent)


def test_a_strict_load_succeeds(name: str, sources: dict[str, str | Path]) -> None:
    for form, model in sources.items():
        result = run("check", SAMPLES / name, "--model", model)
        said = document("check", SAMPLES / name, "--model", model)
        is_known = form != "whole" or name in OF_TORCH_ITSELF
        assert said["strict_load"]["ok"] is (True if is_known else None)
        assert (result.code, said["findings"]) == (0, []), form


# Changes that must not matter, and those that must be told ----------------------------------------

HARMLESS: Final[Mapping[str, Callable[[nn.Module], nn.Module]]] = {
    "copied": copy.deepcopy,
    "in half precision": lambda module: module.to(torch.float16),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_what_is_said_stays_the_same_for_a_changed_model(
    change: str, name: str, sources: dict[str, str | Path], tmp_path: Path
) -> None:
    path = tmp_path / "changed.pt"
    torch.save(HARMLESS[change](MODELS[name]()).state_dict(), path)
    said = document("check", path, "--model", sources["spec"])
    before = document("check", SAMPLES / name, "--model", sources["spec"])
    for now, then in zip(said["entries"], before["entries"], strict=True):
        for key in ("name", "role", "persistent", "status", "evidence"):
            assert now[key] == then[key]
    assert said["findings"] == []
    assert said["strict_load"] == before["strict_load"]


def test_a_buffer_of_another_dtype_is_reported(
    name: str, sources: dict[str, str | Path], tmp_path: Path
) -> None:
    state = MODELS[name]().state_dict()
    buffers = [key for key in state if key in KINDS[name][1]]
    state[buffers[0]] = (
        state[buffers[0]].float()
        if not state[buffers[0]].is_floating_point()
        else state[buffers[0]].long()
    )
    torch.save(state, tmp_path / "cast.pt")
    for model in sources.values():
        said = document("check", tmp_path / "cast.pt", "--model", model)
        (entry,) = (entry for entry in said["entries"] if entry["name"] == buffers[0])
        assert entry["status"] == "mismatched"
        assert entry["expected"]["dtype"] != entry["dtype"]
        assert [(one["code"], one["name"]) for one in said["findings"]] == [("dtype", buffers[0])]
        assert run("check", tmp_path / "cast.pt", "--model", model).code == 1


def test_what_is_left_over_or_missing_is_told_by_all_three(
    name: str, sources: dict[str, str | Path], tmp_path: Path
) -> None:
    """Every buffer that is not saved is in the file, and the first name of it is gone."""
    module = MODELS[name]()
    state = module.state_dict()
    gone = next(iter(state))
    damaged = {key: tensor for key, tensor in state.items() if key != gone}
    damaged.update(module.named_buffers())
    damaged.pop(gone, None)
    torch.save(damaged, tmp_path / "damaged.pt")
    expected = {("missing", gone), *(("stale", stale) for stale in KINDS[name][2])}
    for model in sources.values():
        said = document("check", tmp_path / "damaged.pt", "--model", model)
        assert {(one["code"], one["name"]) for one in said["findings"]} == expected
        assert said["strict_load"]["ok"] in (False, None)
        stale = {entry["name"] for entry in said["entries"] if entry["status"] == "stale"}
        assert stale == KINDS[name][2]
