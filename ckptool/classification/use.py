"""What a buffer is used for, from its module, name, dtype, shape and initial value.

The first rule of `_RULES` that has a word decides: the module's type knows best, a name says more
than a dtype, and what a constructor makes is looked at last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptool.classification.roles import Use
from ckptool.tensors.dtypes import DTYPES, DType

if TYPE_CHECKING:
    from ckptool.spec.model_spec import InitialValue

__all__ = ["use_of"]

_INTEGERS: Final = ("int", "uint")
# A name or a class as long as this is none that the tables know, and slow to match.
_LONGEST: Final = 200


class _Buffer(NamedTuple):
    """What the rules look at; `module` is the last part of the module's type."""

    leaf: str
    dtype: DType | None
    shape: tuple[int, ...] | None
    module: str
    initial: InitialValue | None

    @property
    def kind(self) -> str | None:
        return None if self.dtype is None else self.dtype.kind

    @property
    def has_several(self) -> bool:
        """Whether it has more than one element, as far as its shape is known."""
        count = 1
        for length in self.shape or ():
            count *= length
        return count > 1


Rule = Callable[[_Buffer], Use | None]


def use_of(
    name: str,
    dtype: str | None,
    shape: tuple[int, ...] | None,
    module_type: str | None,
    initial: InitialValue | None,
) -> Use | None:
    """Say what a buffer is used for; None where nothing tells.

    `name` may be a whole name or the module's own for it. What is not known is None.
    """
    buffer = _Buffer(
        _last_part(name),
        None if dtype is None else DTYPES.get(dtype),
        shape,
        "" if module_type is None else _last_part(module_type),
        initial,
    )
    for rule in _RULES:
        use = rule(buffer)
        if use is not None:
            return use
    return None


def _last_part(dotted: str) -> str:
    last = dotted.rpartition(".")[2]
    return last if len(last) <= _LONGEST else ""


# The module's type -----------------------------------------------------------------------------

_MODULES: Final[tuple[tuple[re.Pattern[str], Use], ...]] = (
    # torchvision, timm, detr: statistics and weights that nothing updates.
    (re.compile(r".*FrozenBatchNorm.*"), "constant"),
    # torch.nn.modules.loss: the weights of classes.
    (re.compile(r".*Loss"), "constant"),
    (re.compile(r".*BlurPool.*"), "constant"),
)
_MODULES_OF_TABLES: Final = re.compile(
    r".*(Rotary|Positional|Sinusoid|RelativePosition).*(Embed|Encod).*"
)


def _by_module(buffer: _Buffer) -> Use | None:
    for pattern, use in _MODULES:
        if pattern.fullmatch(buffer.module):
            return use
    return None


def _by_module_of_tables(buffer: _Buffer) -> Use | None:
    return "constant" if _MODULES_OF_TABLES.fullmatch(buffer.module) else None


# The name --------------------------------------------------------------------------------------


def _names(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives))


_COUNTERS: Final = _names(
    "num_batches_tracked",  # torch.nn.modules.batchnorm
    "n_averaged",  # torch.optim.swa_utils
    "num_updates",  # LitEma
    ".*_num_updates",
    "queue_ptr",  # MoCo
    "count",  # the running mean and variance of reinforcement learning
    "counter",
    "step",
    "steps",
    "num_steps",
    "global_step",
    "iteration",
    "iterations",
)
_NAMES: Final[tuple[tuple[re.Pattern[str], Use], ...]] = (
    (
        _names(
            "running_.*",  # torch.nn.modules.batchnorm
            "min_vals?",  # torch.ao.quantization.observer
            "max_vals?",
            "histogram",
            "cluster_size",  # codebooks that follow an average
            "cluster_usage",
            "embed_avg",
            "embed_sum",
            "w_avg",  # StyleGAN
            "magnitude_ema",
            "(.*_)?(stats|statistics)",
            "(ema|moving)_.*",
            ".*_(ema|avg)",
        ),
        "statistics",
    ),
    (
        _names(
            "(sin|cos)_cached",  # rotary embeddings of earlier versions
            "(.*_)?cache(d|_.*)?",
            "[kv]_cache",
            "te?mp_.*",
        ),
        "cache",
    ),
    (
        _names(
            "(.*_)?inv_freq",  # rotary embeddings
            "inv_timescales",
            "freqs?(_.*)?",
            "pe",  # the tutorial on sequence models
            "pos(ition(al)?)?_(ids|index|indices)",
            "pos(ition(al)?)?_(embed|enc|embedding|embeddings|encoding)",
            "embed_positions",
            "token_type_ids",
            "relative_.*",
            "rel_.*",
            "attention_bias_idxs",
            "masked_bias",  # GPT-2: the number that stands for minus infinity
            "(self_)?mask_value.*",
            "embed_scale",
            "k_bias",  # timm: zeros beside q_bias and v_bias
            "eps",
            "(pixel|image|imagenet|norm)_(mean|std)",
            "(pos|empty|class)_weights?",
            "filt",  # BlurPool
            "filter",
            "resample_filter",
            "window",
            "fb",  # torchaudio's MelScale
            "mel_(basis|filters|fb)",
            "dct_mat",
            "anchors",
            "anchor_grid",
            "betas",
            "(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?",
            "posterior_.*",
            "(kernel_size|stride|padding_total)",  # EnCodec: settings of a convolution
        ),
        "constant",
    ),
    (
        _names("(.*_)?mask", "tril", "triu"),
        "mask",
    ),
)


def _by_counter_name(buffer: _Buffer) -> Use | None:
    is_number = buffer.kind in (None, "float", *_INTEGERS)
    if is_number and not buffer.has_several and _COUNTERS.fullmatch(buffer.leaf):
        return "counter"
    return None


def _by_name(buffer: _Buffer) -> Use | None:
    for pattern, use in _NAMES:
        if pattern.fullmatch(buffer.leaf):
            return use
    return None


# The dtype and the shape -----------------------------------------------------------------------


def _by_dtype(buffer: _Buffer) -> Use | None:
    """Booleans choose elements; a single one is a setting or a state."""
    return "mask" if buffer.kind == "bool" and buffer.has_several else None


def _by_shape(buffer: _Buffer) -> Use | None:
    """nanoGPT, GPT-2: the triangle of what a token may look at, kept as `bias`."""
    if buffer.leaf != "bias" or buffer.shape is None or len(buffer.shape) != 4:
        return None
    batch, heads, rows, columns = buffer.shape
    return "mask" if batch == heads == 1 and rows == columns > 1 else None


# The initial value -----------------------------------------------------------------------------


def _by_initial(buffer: _Buffer) -> Use | None:
    """What is updated starts out even; a table that the constructor computes is meant to stay."""
    initial = buffer.initial
    if initial is None or not buffer.has_several:
        return None
    if initial.kind == "content":
        return "mask" if _is_switch(initial.data, buffer) else "constant"
    return "constant" if initial.kind in ("range", "computed") else None


_SWITCHED: Final = 2
"""How many values the elements of a mask have: on and off."""


def _is_switch(data: bytes, buffer: _Buffer) -> bool:
    """Whether the elements are of two values, one of them zero, in two dimensions or more."""
    if buffer.dtype is None or buffer.shape is None or len(buffer.shape) < _SWITCHED:
        return False
    width = buffer.dtype.itemsize
    off = bytes(width)
    values: set[bytes] = set()
    for start in range(0, len(data), width):
        values.add(data[start : start + width])
        if len(values) > _SWITCHED:
            return False
    return off in values and len(values) == _SWITCHED


_RULES: Final[tuple[Rule, ...]] = (
    _by_counter_name,
    _by_module,
    _by_name,
    _by_module_of_tables,
    _by_dtype,
    _by_shape,
    _by_initial,
)
