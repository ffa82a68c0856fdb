"""What a buffer is used for, as far as anything tells."""

from __future__ import annotations

import struct

import pytest

from ckptool.classification.roles import Use
from ckptool.classification.use import use_of
from ckptool.spec.model_spec import (
    Computed,
    Content,
    Fill,
    InitialValue,
    Random,
    Range,
    UnknownValue,
)

Shape = tuple[int, ...] | None


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "use"),
    [
        ("bn.running_mean", "float32", (4,), "statistics"),
        ("running_var", "float16", (4,), "statistics"),
        ("observer.min_val", "float32", (), "statistics"),
        ("important_stats", "float32", (3,), "statistics"),
        ("codebook.embed_avg", "float32", (16, 8), "statistics"),
        ("bn.num_batches_tracked", "int64", (), "counter"),
        ("n_averaged", "int64", (), "counter"),
        ("observation.count", "float32", (), "counter"),
        ("rotary.cos_cached", "float32", (1, 1, 16, 8), "cache"),
        ("temp_cache", "float32", (10, 10), "cache"),
        ("key_cache_0", "float32", (2, 4), "cache"),
        ("temp_buffer", "float32", (3,), "cache"),
        ("rotary.inv_freq", "float32", (4,), "constant"),
        ("sliding_attention_inv_freq", "float32", (4,), "constant"),
        ("embeddings.position_ids", "int64", (1, 512), "constant"),
        ("pos_indices", "int64", (512,), "constant"),
        ("relative_position_index", "int64", (4, 4), "constant"),
        ("pe", "float32", (1, 16, 8), "constant"),
        ("sqrt_one_minus_alphas_cumprod", "float32", (1000,), "constant"),
        ("mask", "float32", (4, 4), "mask"),
        ("attn_mask", "float32", (4, 16, 16), "mask"),
        ("weight_mask", "float32", (4, 3), "mask"),
        ("attn.bias", "float32", (1, 1, 16, 16), "mask"),
        ("visible", "bool", (3, 3), "mask"),
        ("scale", "float32", (4,), None),
        ("attn.bias", "float32", (16,), None),
        ("attn.bias", "float32", (1, 4, 16, 16), None),
        ("indices", "int64", (2, 3), None),
        ("count", "int64", (5,), None),
        ("step", "bool", (), None),
        ("inited", "bool", (1,), None),
        ("mask_token", "float32", (1, 8), None),
        ("", None, None, None),
    ],
)
def test_a_name_tells_with_its_dtype_and_shape(
    name: str, dtype: str | None, shape: Shape, use: Use | None
) -> None:
    assert use_of(name, dtype, shape, None, None) == use


@pytest.mark.parametrize(
    ("name", "module_type", "use"),
    [
        ("running_mean", "torch.nn.modules.batchnorm.BatchNorm2d", "statistics"),
        ("running_mean", "torchvision.ops.misc.FrozenBatchNorm2d", "constant"),
        ("weight", "transformers.models.detr.modeling_detr.DetrFrozenBatchNorm2d", "constant"),
        ("weight", "torch.nn.modules.loss.CrossEntropyLoss", "constant"),
        ("angles", "models.LlamaRotaryEmbedding", "constant"),
        ("cos_cached", "models.LlamaRotaryEmbedding", "cache"),
        ("table", "models.SinusoidalPositionalEncoding", "constant"),
        ("weight", "torch.nn.modules.linear.Linear", None),
    ],
)
def test_the_module_tells(name: str, module_type: str, use: Use | None) -> None:
    assert use_of(name, "float32", (4,), module_type, None) == use


def content(*values: float) -> Content:
    return Content(struct.pack(f"<{len(values)}f", *values))


@pytest.mark.parametrize(
    ("dtype", "shape", "initial", "use"),
    [
        ("int64", (6,), Range(0, 1), "constant"),
        ("float32", (3,), content(1, 2, 3), "constant"),
        ("float32", (1000, 1000), Computed(), "constant"),
        ("float32", (2, 2), content(1, 0, 1, 1), "mask"),
        ("float32", (2, 2), content(0, float("-inf"), 0, 0), "mask"),
        ("float32", (4,), content(1, 0, 1, 1), "constant"),
        ("float32", (2, 2), content(1, 2, 1, 1), "constant"),
        ("float32", (2, 2), content(1, 0, 2, 1), "constant"),
        ("float32", (3,), Fill(0.0), None),
        ("float32", (3,), Random(), None),
        ("float32", (3,), UnknownValue("made from parameters"), None),
        ("int64", (), Range(3, 1), None),
        (None, None, Computed(), None),
    ],
)
def test_a_table_that_the_constructor_computes_is_constant_or_a_mask(
    dtype: str | None, shape: Shape, initial: InitialValue, use: Use | None
) -> None:
    assert use_of("anything", dtype, shape, None, initial) == use


def test_a_name_goes_before_an_initial_value() -> None:
    assert use_of("important_stats", "float32", (3,), None, content(1, 2, 3)) == "statistics"
    assert use_of("num_batches_tracked", "int64", (), None, Fill(0)) == "counter"


def test_a_name_of_any_length_is_looked_at() -> None:
    for name in ("cache_" * 200_000 + "\n", "Rotary" * 200_000, "_" * 1_000_000):
        assert use_of(name, "float32", (4,), name, None) is None
