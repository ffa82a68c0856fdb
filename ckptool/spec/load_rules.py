"""What torch's own load hooks do to a state_dict, as rules: one for each, by its name.

A name is the module and qualified name of a method that overrides `_load_from_state_dict`, of a
hook's function, or of a hook's class. The rules are those of torch 2.13, and of one class that
several libraries have; what no rule is about makes the answer of a load unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import Final

from ckptool.spec.computed_load import simulate_load
from ckptool.spec.model_spec import ModelSpec
from ckptool.spec.module_load import Given, LoadRule, ModuleLoad, Settings

__all__ = ["LOAD_RULES", "renamed_by_hooks", "settings_of"]


def settings_of(name: str) -> tuple[str, ...]:
    """Return the attributes that a hook looks at, by the hook's name; none for an unknown one.

    `fn.name` is the attribute of an attribute. Each is one of the variables that the hook's
    function closes over, of the hook itself, or of its module, whichever comes first.
    """
    rule = LOAD_RULES.get(name)
    return () if rule is None else rule.settings


def renamed_by_hooks(spec: ModelSpec, names: Collection[str]) -> dict[str, str]:
    """Return the names that a model takes under others: those in a state_dict, and its own.

    `conv.weight_g` of the old weight_norm, say, is `conv.parametrizations.weight.original0` in a
    model with the new one.
    """
    is_any = any(
        hook.name in LOAD_RULES and LOAD_RULES[hook.name].renames
        for module in spec.modules.values()
        for hook in module.load_hooks or ()
    )
    if not is_any:
        return {}
    return simulate_load(spec, dict.fromkeys(names), None, LOAD_RULES).renamed


# torch.nn --------------------------------------------------------------------------------------


def _load_norm(load: ModuleLoad, settings: Settings) -> None:
    """`_NormBase`: since version 2 it counts batches; older files are given the model's count."""
    is_older = _is_older(_version(load), 2)
    name = "num_batches_tracked"
    if is_older and settings["track_running_stats"] and load.given(name) is None:
        load.add(name, (load.shape_of(name) if name in load.tensors else None) or ())


def _load_instance_norm(load: ModuleLoad, settings: Settings) -> None:
    """`_InstanceNorm`: before version 1 it kept statistics that it no longer has."""
    if _version(load) is None and not settings["track_running_stats"]:
        for name in ("running_mean", "running_var"):
            if load.given(name) is not None:
                del load.state[load.prefix + name]
                load.fail("the model's instance normalisation does not track statistics", name)
    _load_norm(load, settings)


def _load_lazy(load: ModuleLoad, _settings: Settings) -> None:
    """`LazyModuleMixin`: what has no shape yet takes the one in the file."""
    for name in load.tensors:
        given = load.given(name)
        if given is not None and given.shape is not None and load.shape_of(name) is None:
            load.resize(name, given.shape)


def _rename_weight_norm(load: ModuleLoad, settings: Settings) -> None:
    """The parametrized `weight_norm` takes what the old one wrote."""
    name = settings["name"]
    if load.given(f"{name}_g") is not None and load.given(f"{name}_v") is not None:
        load.move(f"{name}_g", f"parametrizations.{name}.original0")
        load.move(f"{name}_v", f"parametrizations.{name}.original1")


def _compute_spectral_norm(load: ModuleLoad, settings: Settings) -> None:
    """The old `spectral_norm`: before its version 1, `v` was computed anew from weight and `u`."""
    name = str(settings["fn.name"])
    versions = load.metadata.get("spectral_norm", {})
    if not isinstance(versions, Mapping):
        load.fail(f"the metadata of {load.prefix!r} has no versions of spectral_norm")
        return
    version = _number(load, versions.get(f"{name}.version"))
    if not _is_older(version, 1):
        return
    is_there = {end: load.given(name + end) is not None for end in ("_orig", "", "_u", "_v")}
    if version is None and is_there == {"_orig": True, "": False, "_u": True, "_v": True}:
        return
    lacking = [end for end in ("_orig", "", "_u") if not is_there[end]]
    for end in lacking:
        load.miss(name + end)
    if not lacking:
        _solve_spectral_norm(load, name)


def _solve_spectral_norm(load: ModuleLoad, name: str) -> None:
    """Compute `v` as torch does; that it needs finite values for it no rule can see."""
    original, weight, u = (load.state[load.prefix + name + end] for end in ("_orig", "", "_u"))
    del load.state[load.prefix + name]
    dim = _spectral_dim(load, name, original.shape, u.shape)
    if dim is None or original.shape is None or not _are_solvable(original, weight, u):
        load.fail("no singular vector can be computed from what is in the file", name)
        return
    load.add(f"{name}_v", (prod(original.shape) // original.shape[dim],))


def _spectral_dim(
    load: ModuleLoad,
    name: str,
    original: tuple[int, ...] | None,
    u: tuple[int, ...] | None,
) -> int | None:
    """The dimension of the file's weight that `u` is along, if it is one that the model has."""
    own = [load.shape_of(name + end) for end in ("_orig", "_u") if name + end in load.tensors]
    if original is None or u is None or len(u) != 1 or None in own or len(own) != 2:
        return None
    along = own[1]
    dims = [dim for dim, size in enumerate(own[0] or ()) if (size,) == along]
    return next((dim for dim in dims if original[dim : dim + 1] == u != (0,)), None)


def _are_solvable(original: Given, weight: Given, u: Given) -> bool:
    """Whether torch has a pseudo-inverse of such tensors, and they go together."""
    dtypes = [given.tensor.dtype for given in (original, weight, u) if given.tensor is not None]
    if len(dtypes) != 3 or dtypes[0].name not in _SOLVED or dtypes[0] != dtypes[2]:
        return False
    if dtypes[1] != dtypes[0] and dtypes[1].name not in _DIVISORS:
        return False
    sizes = zip(reversed(original.shape or ()), reversed(weight.shape or ()), strict=False)
    return all(one == other or 1 in (one, other) for one, other in sizes)


_SOLVED: Final = frozenset({"float32", "float64", "complex64", "complex128"})
_DIVISORS: Final = frozenset(
    {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32"}
    | {"float64"}
)


# torch.ao and torch.distributed ----------------------------------------------------------------


def _load_observer(load: ModuleLoad, _settings: Settings) -> None:
    """`UniformQuantizationObserverBase`: since version 2, `eps` is a buffer."""
    if load.metadata.get("version") in (None, 1):
        load.add("eps", (1,))


def _load_per_channel_observer(load: ModuleLoad, settings: Settings) -> None:
    """`PerChannelMinMaxObserver`: its statistics take their shapes from the file."""
    version = _version(load)
    end = "s" if version is not None and version < 3 else ""
    for name in ("min_val", "max_val"):
        _resize_as_given(load, name, name + end)
    load.is_strict = False
    _load_observer(load, settings)


def _load_histogram_observer(load: ModuleLoad, settings: Settings) -> None:
    """`HistogramObserver`: what the file has becomes its statistics."""
    is_older = _is_older(_version(load), 3)
    for name in ("min_val", "max_val"):
        given = load.given(name)
        if is_older and given is not None and given.shape == (0,):
            load.add(name, ())
        _resize_as_given(load, name, name)
    _load_observer(load, settings)


def _load_fake_quantize(load: ModuleLoad, _settings: Settings) -> None:
    """`FakeQuantize`: scales and zero points take their shapes from the file."""
    for name in ("scale", "zero_point"):
        _resize_as_given(load, name, name)


def _load_fused_conv(load: ModuleLoad, _settings: Settings) -> None:
    """`_ConvBnNd` of quantization-aware training: since version 2 its norm is a module."""
    if load.metadata.get("version") not in (None, 1):
        return
    for new, old in _FUSED_CONV_NAMES.items():
        if load.given(old) is not None:
            load.move(old, new)
        elif load.given(new) is None:
            load.miss(new)


_FUSED_CONV_NAMES: Final = {
    "bn.weight": "gamma",
    "bn.bias": "beta",
    "bn.running_mean": "running_mean",
    "bn.running_var": "running_var",
    "bn.num_batches_tracked": "num_batches_tracked",
}


def _rename_into_wrapper(load: ModuleLoad, _settings: Settings) -> None:
    """`ActivationWrapper` of activation checkpointing: its `state_dict` leaves out one level."""
    for key in list(load.state):
        load.move(key[len(load.prefix) :], f"_checkpoint_wrapped_module.{key[len(load.prefix) :]}")


def _resize_as_given(load: ModuleLoad, name: str, key: str) -> None:
    given = load.given(key)
    if given is None:
        load.miss(key)
    elif given.shape is None:
        load.fail("what is in the file is no tensor", key)
    else:
        load.resize(name, given.shape)


# Other libraries -------------------------------------------------------------------------------


def _drop_counter(load: ModuleLoad, _settings: Settings) -> None:
    """`FrozenBatchNorm2d` of torchvision, and its copies: they take what a BatchNorm wrote."""
    load.state.pop(f"{load.prefix}num_batches_tracked", None)


_FROZEN_NORMS: Final = (
    "torchvision.ops.misc.FrozenBatchNorm2d",
    "timm.layers.norm_act.FrozenBatchNormAct2d",
    *(
        f"transformers.models.{module}.modeling_{module}.{name}FrozenBatchNorm2d"
        for module, name in (
            ("conditional_detr", "ConditionalDetr"),
            ("d_fine", "DFine"),
            ("dab_detr", "DabDetr"),
            ("deformable_detr", "DeformableDetr"),
            ("detr", "Detr"),
            ("grounding_dino", "GroundingDino"),
            ("mm_grounding_dino", "MMGroundingDino"),
            ("rt_detr", "RTDetr"),
            ("rt_detr_v2", "RTDetrV2"),
            ("table_transformer", "TableTransformer"),
        )
    ),
)
"""One method, unchanged since it was written and copied from class to class."""


# Versions --------------------------------------------------------------------------------------


def _version(load: ModuleLoad) -> float | None:
    """The version of the module's class that wrote the file, None where nothing tells."""
    return _number(load, load.metadata.get("version"))


def _number(load: ModuleLoad, version: object) -> float | None:
    if version is None or isinstance(version, int | float):
        return version
    load.fail(f"a version in the metadata of {load.prefix[:-1]!r} is no number")
    return None


def _is_older(version: float | None, than: int) -> bool:
    return version is None or version < than


# The table -------------------------------------------------------------------------------------

_OBSERVER: Final = "torch.ao.quantization.observer"
_FUSED_CONV: Final = "torch.ao.nn.intrinsic.qat.modules.conv_fused._ConvBnNd"
_WRAPPER: Final = "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper"
_METHOD: Final = "_load_from_state_dict"

LOAD_RULES: Final[Mapping[str, LoadRule]] = {
    **{f"{name}.{_METHOD}": LoadRule(_drop_counter, is_method=True) for name in _FROZEN_NORMS},
    f"torch.nn.modules.batchnorm._NormBase.{_METHOD}": LoadRule(
        _load_norm, ("track_running_stats",), is_method=True
    ),
    f"torch.nn.modules.instancenorm._InstanceNorm.{_METHOD}": LoadRule(
        _load_instance_norm, ("track_running_stats",), is_method=True
    ),
    "torch.nn.modules.lazy.LazyModuleMixin._lazy_load_hook": LoadRule(_load_lazy),
    "torch.nn.utils.parametrizations.weight_norm.<locals>._weight_norm_compat_hook": LoadRule(
        _rename_weight_norm, ("name",), renames=True
    ),
    "torch.nn.utils.spectral_norm.SpectralNormLoadStateDictPreHook": LoadRule(
        _compute_spectral_norm, ("fn.name",)
    ),
    f"{_OBSERVER}.UniformQuantizationObserverBase.{_METHOD}": LoadRule(
        _load_observer, is_method=True
    ),
    f"{_OBSERVER}.PerChannelMinMaxObserver.{_METHOD}": LoadRule(
        _load_per_channel_observer, is_method=True
    ),
    f"{_OBSERVER}.HistogramObserver.{_METHOD}": LoadRule(_load_histogram_observer, is_method=True),
    f"torch.ao.quantization.fake_quantize.FakeQuantize.{_METHOD}": LoadRule(
        _load_fake_quantize, is_method=True
    ),
    f"{_FUSED_CONV}.{_METHOD}": LoadRule(_load_fused_conv, is_method=True, renames=True),
    f"{_WRAPPER}._pre_load_state_dict_hook": LoadRule(_rename_into_wrapper, renames=True),
}
"""What each of torch's own does, by name.

Those that look at values other than tensors have none: packed weights, a dtype or a quantization
scheme in a state_dict are objects that are not read.
"""
