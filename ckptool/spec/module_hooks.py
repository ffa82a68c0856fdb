"""How a pickled module loads a state_dict, as far as its class's name and its attributes tell.

A pickle holds no class. Of torch's own layers and observers it is known which of them load in a way
of their own, as of torch 2.13; of any other class nothing tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from ckptool.checkpoint.containers import attributes_of, mapping_of
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.spec.load_rules import settings_of
from ckptool.spec.model_spec import LoadHook

__all__ = ["class_of", "load_hooks_of"]

_KNOWN = re.compile(
    r"torch\.(nn\.(modules|utils|parallel)|ao\.quantization\.(observer|fake_quantize|stubs)"
    r"|ao\.nn\.(qat\.modules|intrinsic\.modules|intrinsic\.qat\.modules))\."
)
"""The modules of Python all of whose classes are known here."""

_OVERRIDING: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("torch.nn.modules.batchnorm", "_NormBase"): (
        "_BatchNorm",
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "SyncBatchNorm",
        "_LazyNormBase",
        "LazyBatchNorm1d",
        "LazyBatchNorm2d",
        "LazyBatchNorm3d",
    ),
    ("torch.nn.modules.instancenorm", "_InstanceNorm"): (
        "InstanceNorm1d",
        "InstanceNorm2d",
        "InstanceNorm3d",
        "LazyInstanceNorm1d",
        "LazyInstanceNorm2d",
        "LazyInstanceNorm3d",
    ),
    ("torch.ao.quantization.observer", "UniformQuantizationObserverBase"): (
        "MinMaxObserver",
        "MovingAverageMinMaxObserver",
    ),
    ("torch.ao.quantization.observer", "PerChannelMinMaxObserver"): (
        "MovingAveragePerChannelMinMaxObserver",
    ),
    ("torch.ao.quantization.observer", "HistogramObserver"): (),
    ("torch.ao.quantization.fake_quantize", "FakeQuantize"): (
        "FixedQParamsFakeQuantize",
        "FusedMovingAvgObsFakeQuantize",
    ),
    ("torch.ao.nn.intrinsic.qat.modules.conv_fused", "_ConvBnNd"): (
        "ConvBn1d",
        "ConvBn2d",
        "ConvBn3d",
        "ConvBnReLU1d",
        "ConvBnReLU2d",
        "ConvBnReLU3d",
    ),
}
"""By the class that overrides `_load_from_state_dict`: the classes that inherit this from it."""

_OVERRIDES: Final[Mapping[str, str]] = {
    f"{module}.{name}": f"{module}.{base}._load_from_state_dict"
    for (module, base), names in _OVERRIDING.items()
    for name in (base, *names)
}

_METHODS: Final[Mapping[str, str]] = {
    "_lazy_load_hook": "torch.nn.modules.lazy.LazyModuleMixin._lazy_load_hook",
}
"""The methods of known classes that are registered as hooks, by their own name."""

_WRAPPED: Final = Global("torch.nn.modules.module", "_WrappedHook")
_GETATTR: Final = (Global("builtins", "getattr"), Global("__builtin__", "getattr"))
_REPLACED: Final = frozenset({"_load_from_state_dict", "load_state_dict"})


def class_of(node: Opaque) -> Global | None:
    """The class of an object; None where a call made it, which can return one of any class."""
    is_returned = node.construction == "reduce" and node.type is node.callee
    return None if is_returned else node.type


def load_hooks_of(
    class_name: str | None, attributes: Mapping[str, Node]
) -> tuple[LoadHook, ...] | None:
    """Return what takes part in loading a module besides `nn.Module` itself.

    `attributes` are its pickled ones, by name. None where something may take part that nothing
    tells: a class that is not torch's own, a hook without a name, a setting that is not there.
    """
    if class_name is None or not _KNOWN.match(class_name) or _REPLACED & attributes.keys():
        return None
    override = _OVERRIDES.get(class_name)
    hooks = [] if override is None else [_hook(override, attributes)]
    for registry in ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"):
        hooks += _registered(attributes.get(registry, {}))
    known = tuple(hook for hook in hooks if hook is not None)
    return known if len(known) == len(hooks) else None


def _registered(registry: Node) -> Iterator[LoadHook | None]:
    hooks = mapping_of(registry)
    if hooks is None:
        yield None
        return
    for hook in hooks.values():
        # Since torch 1.12 a hook is kept in a wrapper, with the module where it takes one.
        is_wrapped = type(hook) is Opaque and hook.type == _WRAPPED
        yield _named(attributes_of(hook).get("hook") if is_wrapped else hook)


def _named(hook: Node) -> LoadHook | None:
    """A hook by the name of its function, its method, or its class."""
    if type(hook) is Global:
        return _hook(str(hook), {})
    if type(hook) is not Opaque:
        return None
    if hook.callee in _GETATTR:
        return _method(hook)
    known = class_of(hook)
    return None if known is None else _hook(str(known), attributes_of(hook))


def _method(node: Opaque) -> LoadHook | None:
    """The method that `getattr(module, name)` gives, where the class of the module is known."""
    match node.args:
        case (Opaque() as module, str() as name) if name in _METHODS:
            owner = class_of(module)
            if owner is not None and _KNOWN.match(str(owner)):
                return _hook(_METHODS[name], {})
    return None


def _hook(name: str, attributes: Mapping[Node, Node]) -> LoadHook | None:
    """A hook with the settings that it looks at; None where one of them is not told."""
    settings: dict[str, bool | int | str] = {}
    for setting in settings_of(name):
        first, *inner = setting.split(".")
        value = attributes.get(first)
        for attribute in inner:
            value = attributes_of(value).get(attribute)
        if not isinstance(value, bool | int | str):
            return None
        settings[setting] = value
    return LoadHook(name, settings)
