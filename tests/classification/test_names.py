"""Names that modules give to their buffers, each with what must go with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.classification.evidence import classify_by_evidence
from tests.builders import Tensor, torch_zip

Shapes = Mapping[str, tuple[int, ...]]


def buffers_among(shapes: Shapes, folder: Path) -> set[str]:
    """The names of float tensors that are called buffers, their last parts."""
    path = folder / "checkpoint.pt"
    path.write_bytes(torch_zip({name: Tensor("float32", shape) for name, shape in shapes.items()}))
    with open_checkpoint(path) as checkpoint:
        found = classify_by_evidence(checkpoint)
    assert not any(one.is_certain for one in found)
    return {one.entry.path.rpartition(".")[2] for one in found if one.role == "buffer"}


@pytest.mark.parametrize(
    ("shapes", "buffers"),
    [
        ({"rotary.inv_freq": (4,)}, {"inv_freq"}),
        ({"local_inv_freq": (4,)}, {"local_inv_freq"}),
        ({"inv_freq": (4, 4)}, set()),
        (
            {"f.weight_orig": (4, 3), "f.weight_u": (4,), "f.weight_v": (3,)},
            {"weight_u", "weight_v"},
        ),
        ({"f.weight_g": (4, 1), "f.weight_v": (4, 3)}, set()),
        ({"f.weight_u": (4,), "f.weight_v": (3,)}, set()),
        (
            {
                "f.parametrizations.weight.original": (4, 3),
                "f.parametrizations.weight.0._u": (4,),
                "f.parametrizations.weight.0._v": (3,),
            },
            {"_u", "_v"},
        ),
        ({"f._u": (4,), "f._v": (3,)}, set()),
        ({"f.parametrizations.weight.0.base": (4, 4)}, {"base"}),
        ({"f.base": (4, 4)}, set()),
        ({"f.weight_orig": (4, 3), "f.weight_mask": (4, 3)}, {"weight_mask"}),
        ({"f.weight_orig": (4, 3), "f.weight_mask": (4,)}, set()),
        ({"o.min_val": (), "o.max_val": (), "o.eps": (1,)}, {"min_val", "max_val", "eps"}),
        ({"o.min_val": ()}, set()),
        ({"o.eps": (1,)}, set()),
        ({"made.mask": (4, 3), "made.weight": (4, 3)}, {"mask"}),
        ({"mask": (4, 3)}, set()),
        ({"attn.bias": (1, 1, 8, 8)}, {"bias"}),
        ({"attn.bias": (1, 2, 8, 8)}, set()),
        ({"pe": (1, 16, 8)}, {"pe"}),
        ({"pe": (16, 1, 8)}, {"pe"}),
        ({"pe": (16, 8)}, set()),
        ({"pos_embed": (1, 16, 8)}, set()),
        ({"embed_positions.weights": (16, 8)}, {"weights"}),
        ({"head.weights": (16, 8)}, set()),
        ({"norm.running_var": (4,), "norm.weight": (4,)}, {"running_var"}),
        ({"q.mean": (4,), "q.std": (4,)}, {"mean", "std"}),
        ({"q.mean": (4,)}, set()),
        ({"q.mean": (4,), "q.var": (4,)}, set()),
        ({"q.embed": (9, 4), "q.embed_avg": (9, 4), "q.cluster_size": (9,)}, None),
        ({"q.embed": (9, 4)}, set()),
        ({"relative_coords_table": (1, 3, 3, 2)}, {"relative_coords_table"}),
        ({"relative_coords_table": (1, 3, 3, 3)}, set()),
    ],
)
def test_a_name_counts_with_its_shape_and_its_neighbours(
    shapes: Shapes, buffers: set[str] | None, tmp_path: Path
) -> None:
    everything = {name.rpartition(".")[2] for name in shapes}
    assert buffers_among(shapes, tmp_path) == (everything if buffers is None else buffers)


def test_what_is_quantized_has_a_scale_unless_it_learns_one(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {"scale": (1,), "zero_point": (1,), "w": (4, 4)}
    assert buffers_among(shapes, tmp_path) == {"scale", "zero_point"}
    assert buffers_among({**shapes, "learning_enabled": (1,)}, tmp_path) == set()
