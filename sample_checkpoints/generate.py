"""Write the sample checkpoints and their specs: `python generate.py [FOLDER]`.

They go beside this file unless a folder is named. The same content each time: seeds are fixed and
nothing depends on the clock. Needs torch, safetensors and ckptool.
"""

from __future__ import annotations

import argparse
import builtins
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import models
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Write = Callable[[Path], None]


def state_dict_of(build: Callable[[], nn.Module]) -> Write:
    """Save a model's state_dict."""

    def write(path: Path) -> None:
        torch.save(build().state_dict(), path)

    return write


def trained_batch_norm() -> nn.Module:
    """A CustomBatchNorm that has seen three batches, so that its statistics are its own."""
    norm = models.CustomBatchNorm(5)
    for _ in range(3):
        norm(torch.randn(16, 5) * 2 + 1)
    return norm


def used_buffer_operations() -> nn.Module:
    """A BufferOperations whose sums are no longer zero."""
    module = models.BufferOperations()
    module(torch.arange(6.0).reshape(2, 3))
    return module


def classifier() -> nn.Sequential:
    """A small network with convolutions and BatchNorm, as many real ones begin."""
    return nn.Sequential(
        *(layer for width in ((3, 8), (8, 8)) for layer in convolution(*width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A convolution, its normalisation and its activation."""
    return nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def write_whole_module(path: Path) -> None:
    """A module saved whole: non-persistent buffers are in the file as well."""
    torch.save(
        nn.Sequential(models.MyModel(10, 5), trained_batch_norm(), models.BufferExample()), path
    )


def write_legacy(path: Path) -> None:
    """The stream that torch wrote before 1.6."""
    torch.save(models.LookupTable(7, 4).state_dict(), path, _use_new_zipfile_serialization=False)


def write_safetensors(path: Path) -> None:
    """Tensors and nothing else."""
    save_file(classifier().state_dict(), path, metadata={"format": "pt"})


def write_drifted(path: Path) -> None:
    """The classifier of `model.safetensors`, its weights frozen and its BatchNorm not."""
    model = classifier()
    for _ in range(3):
        model(torch.randn(4, 3, 12, 12))
    torch.save(model.state_dict(), path)


def write_training(path: Path) -> None:
    """All that resuming a training needs, and a moving average of the weights."""
    model = classifier()
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda average, new, _seen: torch.lerp(average, new, 0.1)
    )
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 12, 12)).square().mean().backward()
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
    torch.save(
        {
            "epoch": 3,
            "model": model.state_dict(),
            "model_ema": average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": scheduler.state_dict(),
            "args": argparse.Namespace(arch="small", lr=1e-3, batch_size=4, augment=["flip"]),
            "rng_state": {"torch": torch.get_rng_state(), "python": random.getstate()},
            "best_accuracy": 0.8125,
        },
        path,
    )


def write_compiled_ddp(path: Path) -> None:
    """Keys as `torch.compile` and DistributedDataParallel leave them."""
    state = models.MyModel(10, 5).state_dict()
    torch.save({f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}, path)


def write_tied_and_view(path: Path) -> None:
    """Two names for one tensor, two halves of one storage, and a row that drags a table along."""
    embedding = torch.randn(20, 8)
    halves = torch.randn(2, 8)
    table = torch.randn(500, 16)
    torch.save(
        {
            "embed.weight": embedding,
            "lm_head.weight": embedding,
            "attention.key": halves[0],
            "attention.value": halves[1],
            "first_row": table[0],
        },
        path,
    )


def write_left_over_buffer(path: Path) -> None:
    """A MyModel saved when `temp_buffer` was still persistent."""
    model = models.MyModel(10, 5)
    torch.save({**model.state_dict(), "temp_buffer": model.temp_buffer}, path)


class Canary:
    """Unpickling it would make an empty file; reading it inertly makes none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, ("the-canary-was-run", "w")


def write_canary(path: Path) -> None:
    """Weights, and beside them an object that is a call."""
    weights: dict[str, Tensor | Canary] = {"weight": torch.ones(2, 2), "extra": Canary()}
    torch.save(weights, path)


SAMPLES: Final[dict[str, Write]] = {
    "my_model.pt": state_dict_of(lambda: models.MyModel(10, 5)),
    "buffer_class_model.pt": state_dict_of(models.BufferClassModel),
    "simple_model.pt": state_dict_of(models.SimpleModel),
    "custom_batch_norm.pt": state_dict_of(trained_batch_norm),
    "transformer_model.pt": state_dict_of(lambda: models.TransformerModel(16, 50)),
    "buffer_example.pt": state_dict_of(models.BufferExample),
    "masked_layer.pt": state_dict_of(lambda: models.MaskedLayer(6)),
    "lookup_table.pt": state_dict_of(lambda: models.LookupTable(7, 4)),
    "bare_module.pt": state_dict_of(models.bare_module),
    "buffer_operations.pt": state_dict_of(used_buffer_operations),
    "whole_module.pt": write_whole_module,
    "legacy.pt": write_legacy,
    "model.safetensors": write_safetensors,
    "drifted.pt": write_drifted,
    "training.ckpt": write_training,
    "compiled_ddp.pt": write_compiled_ddp,
    "tied_and_view.pt": write_tied_and_view,
    "left_over_buffer.pt": write_left_over_buffer,
    "canary.pt": write_canary,
}


SPECS: Final[dict[str, str]] = {
    "my_model": "models.py:MyModel(10, 5)",
    "buffer_class_model": "models.py:BufferClassModel",
    "simple_model": "models.py:SimpleModel",
    "custom_batch_norm": "models.py:CustomBatchNorm(5)",
    "transformer_model": "models.py:TransformerModel(16, 50)",
    "buffer_example": "models.py:BufferExample",
    "masked_layer": "models.py:MaskedLayer(6)",
    "lookup_table": "models.py:LookupTable(7, 4)",
    "bare_module": "models.py:bare_module",
    "buffer_operations": "models.py:BufferOperations",
    "classifier": "generate.py:classifier",
}
"""The models behind the samples, as `ckptool spec` takes them in this folder."""


def write_spec(model: str, path: Path) -> None:
    """Freeze a model into a spec file."""
    command = [sys.executable, "-m", "ckptool", "spec", model, "-o", str(path), "--force"]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Write all samples into the folder of the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "specs").mkdir(parents=True, exist_ok=True)
    for name, write in SAMPLES.items():
        torch.manual_seed(0)
        random.seed(0)
        write(folder / name)
    for name, model in SPECS.items():
        write_spec(model, folder.resolve() / "specs" / f"{name}.json")


if __name__ == "__main__":
    main()
