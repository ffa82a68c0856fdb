"""Names that modules give to their buffers: a table, and whether a tensor fits a line of it.

A state_dict's names are all that tells most buffers from parameters. A line holds the module's own
name for the tensor and what must go with it, so that a parameter of the same name is not taken for
a buffer. What fits is a guess all the same. The comments say whose names they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ckptool.tensors.refs import TensorRef

__all__ = ["is_named_like_a_buffer"]


class _Sign(NamedTuple):
    """A name with its surroundings; all that is given must hold.

    `name` may begin with `*`, which stands for anything, and for the same in the other fields.
    `shapes` are alternatives: a number stands for itself, a letter for any length, the same one
    wherever it stands again. `beside` are other names in the same module, `without` are names that
    must not be there, `like` is one of the same shape. `within` is a part of the module's path.
    """

    name: str
    shapes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    like: str | None = None
    within: str | None = None


_VECTOR: Final = ("n",)
_SCALAR: Final = ("", "1")
_MATRIX: Final = ("n m",)
_SQUARE: Final = ("n n", "1 n n", "1 1 n n")

_SIGNS: Final = (
    # torch.nn.utils.spectral_norm, and its parametrization
    _Sign("*_u", _VECTOR, beside=("*_orig", "*_v")),
    _Sign("*_v", _VECTOR, beside=("*_orig", "*_u")),
    _Sign("_u", _VECTOR, beside=("_v",), within="parametrizations"),
    _Sign("_v", _VECTOR, beside=("_u",), within="parametrizations"),
    # torch.nn.utils.parametrizations.orthogonal
    _Sign("base", within="parametrizations"),
    # torch.nn.utils.prune
    _Sign("*_mask", like="*_orig"),
    # torch.nn.modules.loss, and transformers' losses of detection
    _Sign("pos_weight"),
    _Sign("empty_weight", _VECTOR),
    # torch.nn.modules.pooling
    _Sign("_random_samples", ("n c 2", "n c 3")),
    # torch.ao.quantization: observers, today's and those of earlier versions
    _Sign("min_val", like="max_val"),
    _Sign("max_val", like="min_val"),
    _Sign("min_vals", like="max_vals"),
    _Sign("max_vals", like="min_vals"),
    _Sign("histogram", _VECTOR, beside=("min_val", "max_val")),
    _Sign("eps", _SCALAR, beside=("min_val",)),
    _Sign("eps", _SCALAR, beside=("fake_quant_enabled",)),
    # torch.ao.quantization: FakeQuantize and quantized modules; a learnable one has parameters
    _Sign("scale", beside=("zero_point",), without=("learning_enabled",)),
    _Sign("zero_point", beside=("scale",), without=("learning_enabled",)),
    # timm: EvoNorm keeps a variance without a mean
    _Sign("running_var", without=("running_mean",), like="weight"),
    # timm: BEiT's zeros between two parameters
    _Sign("k_bias", like="q_bias"),
    # transformers: rotary embeddings, and what earlier versions of them kept
    _Sign("*inv_freq", _VECTOR),
    _Sign("cos_cached", like="sin_cached"),
    _Sign("sin_cached", like="cos_cached"),
    _Sign("inv_timescales", _VECTOR),
    # Llama's own checkpoints, and the rotary embeddings of others
    _Sign("freqs", _VECTOR, within="rope"),
    _Sign("freqs_cis"),
    _Sign("freqs_cos", like="freqs_sin"),
    _Sign("freqs_sin", like="freqs_cos"),
    # the positional encoding of torch's tutorial
    _Sign("pe", ("1 n d", "n 1 d")),
    # fairseq and what was made from it: sinusoidal positions
    _Sign("weights", _MATRIX, within="embed_positions"),
    _Sign("_float_tensor", ("1",)),
    # causal masks: GPT-2, GPT-NeoX, nanoGPT; MADE has one in the shape of its weight
    _Sign("masked_bias", _SCALAR),
    _Sign("bias", ("1 1 n n",)),
    _Sign("tril", _SQUARE),
    _Sign("causal_mask", _SQUARE),
    _Sign("mask", like="weight"),
    # Swin and its successors
    _Sign("attn_mask", ("w n n", *_SQUARE)),
    _Sign("relative_position_index"),
    _Sign("relative_coords_table", ("1 h w 2",)),
    _Sign("relative_coordinates_log", ("n 2",)),
    _Sign("rel_coords_log"),
    # BART
    _Sign("final_logits_bias", ("1 n",)),
    # mixtures of experts: DeepSeek, and the many after it
    _Sign("e_score_correction_bias", _VECTOR),
    _Sign("expert_bias", _VECTOR),
    # MiniMax: the decays of linear attention
    _Sign("slope_rate", beside=("query_decay",)),
    _Sign("query_decay", beside=("slope_rate",)),
    _Sign("key_decay", beside=("slope_rate",)),
    _Sign("diagonal_decay", beside=("slope_rate",)),
    # I-BERT: what quantization-aware training derives
    _Sign("*_integer", like="*"),
    _Sign("weight_scaling_factor", beside=("weight_integer",)),
    _Sign("fc_scaling_factor", beside=("weight_integer",)),
    _Sign("act_scaling_factor", beside=("x_min", "x_max")),
    _Sign("x_min", _SCALAR, beside=("x_max",)),
    _Sign("x_max", _SCALAR, beside=("x_min",)),
    # Apertus: the settings of an activation, beside its parameters
    _Sign("beta", _SCALAR, beside=("alpha_p", "alpha_n")),
    _Sign("eps", _SCALAR, beside=("alpha_p", "alpha_n")),
    # deformable attention: RT-DETR, D-FINE
    _Sign("n_points_scale", _VECTOR),
    _Sign("num_points_scale", _VECTOR),
    # Gemma 4
    _Sign("input_min", _SCALAR, beside=("input_max",)),
    _Sign("input_max", _SCALAR, beside=("input_min",)),
    _Sign("output_min", _SCALAR, beside=("output_max",)),
    _Sign("output_max", _SCALAR, beside=("output_min",)),
    _Sign("layer_scalar", ("1",)),
    # codebooks that follow an average: EnCodec, Mimi, vector-quantize-pytorch
    _Sign("cluster_size"),
    _Sign("embed_avg", beside=("cluster_size",)),
    _Sign("embed", like="embed_avg"),
    _Sign("inited", _SCALAR, beside=("cluster_size",)),
    _Sign("initted", _SCALAR, beside=("cluster_size",)),
    _Sign("cluster_usage"),
    _Sign("embed_sum", beside=("cluster_usage",)),
    _Sign("initialized", _SCALAR, beside=("cluster_usage",)),
    # the mean and the deviation of an input: detectron2, RADIO, running means of observations
    _Sign("pixel_mean", like="pixel_std"),
    _Sign("pixel_std", like="pixel_mean"),
    _Sign("norm_mean", like="norm_std"),
    _Sign("norm_std", like="norm_mean"),
    _Sign("mean", like="std"),
    _Sign("std", like="mean"),
    _Sign("mean", like="var", beside=("count",)),
    _Sign("var", like="mean", beside=("count",)),
    _Sign("count", _SCALAR, beside=("mean", "var")),
    # torchaudio, and spectrograms by hand
    _Sign("window", _VECTOR),
    _Sign("fb", _MATRIX, within="mel_scale"),
    _Sign("dct_mat", _MATRIX),
    _Sign("mel_basis", _MATRIX),
    # filters that are no convolution's weight: antialiased-cnns, StyleGAN, BigVGAN
    _Sign("filt", ("c 1 k k",)),
    _Sign("resample_filter"),
    _Sign("filter", ("1 1 k",)),
    # StyleGAN
    _Sign("noise_const", _SQUARE),
    _Sign("w_avg"),
    _Sign("magnitude_ema", _SCALAR),
    # YOLO
    _Sign("anchors", ("n a 2", "2 n", "n 2")),
    _Sign("anchor_grid"),
    # diffusion: the schedule of latent-diffusion and guided-diffusion
    _Sign("betas", _VECTOR, beside=("alphas_cumprod",)),
    _Sign("*alphas_cumprod", _VECTOR),
    _Sign("*alphas_cumprod_prev", _VECTOR),
    _Sign("posterior_variance", _VECTOR),
    _Sign("posterior_log_variance_clipped", _VECTOR),
    _Sign("posterior_mean_coef1", _VECTOR),
    _Sign("posterior_mean_coef2", _VECTOR),
    # MoCo
    _Sign("queue", beside=("queue_ptr",)),
    # GPTQ and AWQ: all of a quantized layer
    _Sign("scales", beside=("qweight",)),
    _Sign("bias", beside=("qweight", "scales")),
)

_ANYTHING: Final = "*"


def _by_name() -> dict[str, list[_Sign]]:
    found: dict[str, list[_Sign]] = defaultdict(list)
    for sign in _SIGNS:
        if not sign.name.startswith(_ANYTHING):
            found[sign.name].append(sign)
    return dict(found)


_EXACT: Final[Mapping[str, Sequence[_Sign]]] = _by_name()
_BY_ENDING: Final = tuple(
    (sign.name.removeprefix(_ANYTHING), sign) for sign in _SIGNS if sign.name.startswith(_ANYTHING)
)
_ENDINGS: Final = tuple({ending for ending, _ in _BY_ENDING})


def is_named_like_a_buffer(
    module: str, leaf: str, shape: tuple[int, ...], names: Mapping[str, TensorRef]
) -> bool:
    """Whether a tensor's name is one that modules give to buffers, and its surroundings fit.

    `leaf` is the name of the tensor in the module at the path `module`; `names` are all of the
    same root.
    """
    if leaf not in _EXACT and not leaf.endswith(_ENDINGS):
        return False
    signs = [("", sign) for sign in _EXACT.get(leaf, ())]
    if leaf.endswith(_ENDINGS):
        signs += [
            (leaf.removesuffix(ending), sign)
            for ending, sign in _BY_ENDING
            if leaf.endswith(ending)
        ]
    return any(_fits(sign, anything, module, shape, names) for anything, sign in signs)


def _fits(
    sign: _Sign,
    anything: str,
    module: str,
    shape: tuple[int, ...],
    names: Mapping[str, TensorRef],
) -> bool:
    prefix = f"{module}." if module else ""

    def sibling(name: str) -> TensorRef | None:
        return names.get(prefix + name.replace(_ANYTHING, anything))

    if sign.shapes and not any(_has_shape(shape, wanted) for wanted in sign.shapes):
        return False
    if sign.within is not None and sign.within not in module.split("."):
        return False
    if any(sibling(name) is None for name in sign.beside):
        return False
    if any(sibling(name) is not None for name in sign.without):
        return False
    if sign.like is None:
        return True
    other = sibling(sign.like)
    return other is not None and other.shape == shape


def _has_shape(shape: tuple[int, ...], wanted: str) -> bool:
    lengths: dict[str, int] = {}
    axes = wanted.split()
    return len(axes) == len(shape) and all(
        length == (int(axis) if axis.isdigit() else lengths.setdefault(axis, length))
        for axis, length in zip(axes, shape, strict=True)
    )
