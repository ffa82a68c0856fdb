"""Specs of `.pt2` programs, held against the modules that they were exported from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource
from ckptool.spec.exported import spec_of_exported
from ckptool.spec.model_spec import ModelSpec, TensorSpec, UnknownValue
from tests.formats.test_exported_program import document, write
from tests.sample_models import models


class Block(nn.Module):
    """Children with buffers only, with parameters only, and with both, in a telling order."""

    def __init__(self) -> None:
        super().__init__()
        self.rotary = models.BufferExample()
        self.norm = nn.BatchNorm1d(3)
        self.fc = nn.Linear(3, 3)
        self.act = nn.ReLU()
        self.register_buffer("none", None)
        self.gain = nn.Parameter(torch.ones(3))
        self.offset = nn.Buffer(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.act(self.norm(self.fc(self.rotary(inputs))))
        return hidden * self.gain + self.offset


class Tied(nn.Module):
    """A parameter, and a module, under two names each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, 3, bias=False)
        self.block = Block()
        self.same_block = self.block
        self.head = nn.Linear(3, 3)
        self.head.weight = self.embedding.weight

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.same_block(self.block(self.embedding(inputs))))
        return hidden


def spec_of(folder: Path, module: nn.Module, *inputs: Tensor, **options: Any) -> ModelSpec:
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(module.eval(), inputs, **options), str(path))
    return spec_in(path)


def spec_in(path: Path) -> ModelSpec:
    source = FileSource(path)
    try:
        return spec_of_exported(source, Limits())
    finally:
        source.close()


def live_tensors(module: nn.Module) -> dict[str, tuple[object, ...]]:
    """Every tensor in the order of `state_dict()`, with those that are not saved in their place."""
    found: dict[str, tuple[object, ...]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            found[prefix + name] = ("parameter", True, parameter.dtype, tuple(parameter.shape))
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
            is_saved = name not in part._non_persistent_buffers_set
            found[prefix + name] = ("buffer", is_saved, buffer.dtype, tuple(buffer.shape))
    return found


def told(spec: ModelSpec) -> dict[str, tuple[object, ...]]:
    return {
        name: (one.kind, one.is_persistent, getattr(torch, one.dtype or ""), one.shape)
        for name, one in spec.tensors.items()
    }


FLOATS = torch.ones(5, 3)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (models.MyModel(3, 4), FLOATS),
        (models.SimpleModel(), FLOATS),
        (models.CustomBatchNorm(3), FLOATS),
        (models.TransformerModel(4, 6), torch.ones(1, 5, 4)),
        (models.MaskedLayer(3), FLOATS),
        (models.LookupTable(5, 4), torch.arange(5)),
        (models.BufferOperations(), FLOATS),
        (Block(), FLOATS),
        (Tied(), FLOATS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_tells_what_its_module_is_made_of(
    tmp_path: Path, module: nn.Module, inputs: Tensor
) -> None:
    spec = spec_of(tmp_path, module, inputs)
    assert list(told(spec).items()) == list(live_tensors(module).items())
    assert list(spec.modules) == [path for path, _ in module.named_modules(remove_duplicate=False)]
    assert spec.origin == "exported"
    assert spec.source == str(tmp_path / "program.pt2")
    assert spec.torch_version == torch.__version__


def test_a_strict_export_leaves_out_what_is_neither_used_nor_saved(tmp_path: Path) -> None:
    module = models.MyModel(3, 4)
    found, live = told(spec_of(tmp_path, module, FLOATS, strict=True)), live_tensors(module)
    assert set(live) - set(found) == {"temp_buffer"}
    assert list(found) == [name for name in live if name in found]


def test_tied_tensors_name_the_first_one(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Tied(), FLOATS)
    tied = {name: one.tied_to for name, one in spec.tensors.items() if one.tied_to is not None}
    assert tied.pop("head.weight") == "embedding.weight"
    assert set(tied) == {name for name in spec.tensors if name.startswith("same_block.")}
    assert all(first == name.removeprefix("same_") for name, first in tied.items())


def test_how_a_module_loads_stands_in_no_program(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Block(), FLOATS)
    assert {module.load_hooks for module in spec.modules.values()} == {None}
    assert spec.modules["norm"].type == "torch.nn.modules.batchnorm.BatchNorm1d"


def test_only_buffers_have_an_initial_value_and_none_tells_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, models.MyModel(3, 4), FLOATS)
    for tensor in spec.tensors.values():
        expected = UnknownValue("of a saved module") if tensor.kind == "buffer" else None
        assert tensor.initial == expected


def test_a_shape_with_an_open_dimension_is_not_known(tmp_path: Path) -> None:
    sizes = [{"as_expr": {"expr_str": "s0"}}, {"as_int": 3}]
    spec = spec_in(write(tmp_path, document(sizes=sizes)))
    assert spec.tensors["w"] == TensorSpec("parameter", True, "float32", None)


def test_the_owner_of_a_tensor_is_among_the_modules_even_where_the_file_lacks_it(
    tmp_path: Path,
) -> None:
    graph = document(name="layers.0.weight")
    del graph["graph_module"]["module_call_graph"]
    assert set(spec_in(write(tmp_path, graph)).modules) == {"", "layers.0"}
