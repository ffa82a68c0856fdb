"""MODEL in all its forms, and what is none of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ckptool import CkptoolError, SpecError, load_model_spec
from ckptool.spec.document import write_document
from tests.networks import Net
from tests.running import SAMPLES, run

SPEC = SAMPLES / "specs" / "my_model.json"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_is_the_same_in_every_form(tmp_path: Path) -> None:
    net = Net()
    live = load_model_spec(Net).spec
    (tmp_path / "net.json").write_text(write_document(live))
    torch.save(net, tmp_path / "whole.pt")
    torch.jit.save(torch.jit.script(net), tmp_path / "script.pt")
    program = torch.export.export(net.eval(), (torch.ones(2, 3),))
    torch.export.save(program, tmp_path / "net.pt2")
    origins = {}
    for name in ("net.json", "whole.pt", "script.pt", "net.pt2"):
        spec = load_model_spec(tmp_path / name).spec
        origins[name] = spec.origin
        assert spec.tensors.keys() == live.tensors.keys()
        for key, one in spec.tensors.items():
            expected = live.tensors[key]
            assert (one.kind, one.dtype, one.shape) == (
                expected.kind, expected.dtype, expected.shape,
            )  # fmt: skip
            is_told = name != "script.pt" or one.kind == "parameter"
            assert one.is_persistent == (expected.is_persistent if is_told else None)
    assert origins == {
        "net.json": "constructed",
        "whole.pt": "module",
        "script.pt": "torchscript",
        "net.pt2": "exported",
    }


def test_a_spec_file_is_the_model_again() -> None:
    model = load_model_spec(SPEC)
    assert model.spec.source == "models.py:MyModel(10, 5)"
    assert write_document(model.spec) == SPEC.read_text()


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        (SAMPLES / "my_model.pt", "spec"),
        (SAMPLES / "models.py", "models.py:MyModel"),
        (SAMPLES / "model.safetensors", ""),
    ],
    ids=lambda value: Path(value).name,
)
def test_a_file_that_describes_no_model_is_an_error_with_its_path(model: Path, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_model_spec(model)
    assert caught.value.path == model
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "model",
    [
        "missing.json",
        "missing",
        "models.MyModel",
        ".",
        "",
        "\0",
        "x" * 5_000,
        "no_file.py:F(" + "1," * 5_000 + ")",
    ],
    ids=lambda model: model[:20],
)
def test_what_is_neither_a_file_nor_a_callable_is_an_error(model: str) -> None:
    with pytest.raises(CkptoolError):
        load_model_spec(model)


def test_json_that_is_no_spec_is_an_error(tmp_path: Path) -> None:
    for text in ('{"weight_map": {}}', "[1]", '{"ckptool_spec": 1}', '{"ckptool_spec": 99}'):
        (tmp_path / "x.json").write_text(text)
        result = run("check", SAMPLES / "my_model.pt", "--model", tmp_path / "x.json")
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"error: {tmp_path / 'x.json'}: ")


def test_a_wrong_place_in_a_spec_is_named(tmp_path: Path) -> None:
    document = json.loads(SPEC.read_text())
    document["tensors"]["running_mean"]["dtype"] = "float23"
    (tmp_path / "x.json").write_text(json.dumps(document))
    with pytest.raises(SpecError) as caught:
        load_model_spec(tmp_path / "x.json")
    assert caught.value.place == "tensors/running_mean/dtype"


def test_a_frozen_model_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ckptool import check, load_model_spec, open_checkpoint\n"
        f"model = load_model_spec({str(SPEC)!r})\n"
        f"with open_checkpoint({str(SAMPLES / 'my_model.pt')!r}) as checkpoint:\n"
        "    assert check(checkpoint, model).strict_load.is_ok\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
