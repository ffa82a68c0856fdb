"""Write one of the files that are measured: `python -m tests.benchmarks.files NAME PATH`."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ckptool import load_model_spec
from ckptool.spec.document import write_document


def state_dict(tensors: int, total_bytes: int) -> dict[str, torch.Tensor]:
    """As many float32 tensors as asked for, all of one size, named as layers are."""
    numel = total_bytes // tensors // 4
    return {
        f"blocks.{index // 10}.layer{index % 10}.weight": torch.zeros(numel)
        for index in range(tensors)
    }


def write_gigabyte(path: Path) -> None:
    torch.save(state_dict(2_000, 1 << 30), path)


def random_state_dict(
    dtype: torch.dtype, seed: int, spread: float = 0.02
) -> dict[str, torch.Tensor]:
    """A gigabyte of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    empty = state_dict(2_000, (1 << 30) * 4 // dtype.itemsize)
    return {
        name: (torch.randn(tensor.shape, generator=generator) * spread).to(dtype)
        for name, tensor in empty.items()
    }


def write_base(path: Path) -> None:
    torch.save(random_state_dict(torch.float32, 0), path)


def write_copy(path: Path) -> None:
    """The base again, byte for byte."""
    shutil.copyfile(path.with_name("base"), path)


def write_tuned(path: Path) -> None:
    """The base with every number changed a little."""
    base, change = (random_state_dict(torch.float32, *seed) for seed in ((0,), (1, 1e-3)))
    torch.save({name: tensor + change[name] for name, tensor in base.items()}, path)


def with_statistics() -> dict[str, torch.Tensor]:
    """A gigabyte of random weights, and the statistics of a normalisation for every ten of them."""
    state = random_state_dict(torch.float32, 0)
    for block in range(200):
        for leaf in ("running_mean", "running_var"):
            state[f"blocks.{block}.norm.{leaf}"] = torch.rand(512)
        state[f"blocks.{block}.norm.num_batches_tracked"] = torch.tensor(1000)
    return state


def write_weights(path: Path) -> None:
    torch.save(with_statistics(), path)


def write_training(path: Path) -> None:
    """Weights and the state of Adam, which is twice as large."""
    state = with_statistics()
    moments = {
        index: {"step": torch.tensor(1.0), "exp_avg": tensor * 0.1, "exp_avg_sq": tensor**2}
        for index, (name, tensor) in enumerate(state.items())
        if name.endswith("weight")
    }
    groups = [{"lr": 1e-3, "params": list(moments)}]
    torch.save({"model": state, "optimizer": {"state": moments, "param_groups": groups}}, path)


def write_half_base(path: Path) -> None:
    torch.save(random_state_dict(torch.bfloat16, 0), path)


def write_half_tuned(path: Path) -> None:
    torch.save(random_state_dict(torch.bfloat16, 1), path)


def write_terabyte(path: Path) -> None:
    """A terabyte of holes: torch leaves out the data of fake tensors."""
    with FakeTensorMode():
        state = state_dict(2_000, 1 << 40)
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(state, path)


def write_many(path: Path) -> None:
    torch.save(state_dict(100_000, 100_000 * 16), path)


def write_pickle(path: Path) -> None:
    """Names and numbers and no tensor: what the reader alone can do."""
    layers = {
        f"layer.{index}": {"shape": (index, index + 1), "scale": index / 3, "tags": ["a", "b"]}
        for index in range(200_000)
    }
    path.write_bytes(pickle.dumps(layers, protocol=2))


def write_spec(path: Path) -> None:
    """The spec of a model that has the names of the gigabyte."""

    def model() -> nn.Module:
        blocks = [
            nn.ModuleDict(
                {f"layer{n}": nn.LayerNorm((1 << 30) // 2_000 // 4, bias=False) for n in range(10)}
            )
            for _ in range(200)
        ]
        return nn.ModuleDict({"blocks": nn.ModuleList(blocks)})

    path.write_text(write_document(load_model_spec(model).spec))


FILES: Final[dict[str, Callable[[Path], None]]] = {
    "gigabyte": write_gigabyte,
    "base": write_base,
    "copy": write_copy,
    "tuned": write_tuned,
    "half base": write_half_base,
    "half tuned": write_half_tuned,
    "terabyte": write_terabyte,
    "many": write_many,
    "pickle": write_pickle,
    "spec": write_spec,
    "weights": write_weights,
    "training": write_training,
}


def main() -> None:
    """Write the file that the command line names."""
    name, path = sys.argv[1], Path(sys.argv[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    FILES[name](unfinished)
    unfinished.rename(path)


if __name__ == "__main__":
    main()
