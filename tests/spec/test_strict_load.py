"""A strict load that is worked out from a spec, against the one that torch does."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from ckptool.checkpoint.state_dict import StateDict
from ckptool.spec.load_rules import LOAD_RULES, renamed_by_hooks, settings_of
from ckptool.spec.model_spec import LoadHook, ModelSpec, ModuleSpec, TensorSpec
from ckptool.spec.strict_load import FrozenModel, LoadError, StrictLoad
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import (
    Components,
    NoData,
    StorageRef,
    Strided,
    TensorRef,
    row_major_stride,
)

pytestmark = pytest.mark.filterwarnings("ignore")

# The oracle ------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """What torch finds; only that it raised, where it broke off."""

    is_ok: bool
    missing: set[str]
    unexpected: set[str]
    shape: set[str]
    has_others: bool
    has_raised: bool = False


_SIZE_MISMATCH = re.compile(r"size mismatch for (.*?): copying a param")
_OTHER = re.compile(r"While copying|Unexpected running stats")


def load_with_torch(module: nn.Module, state: Mapping[Any, Any]) -> Truth:
    lists: list[tuple[list[str], list[str]]] = []

    def keep(_module: nn.Module, found: Any) -> None:
        lists.append((list(found.missing_keys), list(found.unexpected_keys)))

    module.register_load_state_dict_post_hook(keep)  # type: ignore[no-untyped-call]
    message = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            message = str(error)
            if not message.startswith("Error(s) in loading"):
                return Truth(False, set(), set(), set(), True, True)
        except (AttributeError, TypeError, KeyError, IndexError, ValueError):
            return Truth(False, set(), set(), set(), True, True)
    (missing, unexpected), *_ = lists
    return Truth(
        not message,
        set(missing),
        set(unexpected),
        set(_SIZE_MISMATCH.findall(message)),
        bool(_OTHER.search(message)),
    )


def is_lazy(value: object) -> bool:
    return isinstance(value, UninitializedParameter | UninitializedBuffer)


def qualified(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


def describe(module: nn.Module) -> ModelSpec:
    """The spec of a model, in the plainest way."""
    tensors: dict[str, TensorSpec] = {}
    modules: dict[str, ModuleSpec] = {}
    first: dict[int, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for kind, table in zip(("parameter", "buffer"), tables, strict=True):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                has_facts = not is_lazy(tensor)
                origin = first.setdefault(id(tensor), prefix + name)
                tensors[prefix + name] = TensorSpec(
                    kind,  # type: ignore[arg-type]
                    kind == "parameter" or name not in part._non_persistent_buffers_set,
                    str(tensor.dtype).removeprefix("torch.") if has_facts else None,
                    tuple(tensor.shape) if has_facts else None,
                    None if origin == prefix + name else origin,
                )
        modules[path] = ModuleSpec(
            qualified(type(part)),
            tuple(hooks_of(part)),
            type(part).set_extra_state is not nn.Module.set_extra_state,
            tuple(name for table in tables for name, value in table.items() if value is None),
            tuple(name for name, value in part._modules.items() if value is None),
        )
    return ModelSpec("test", "constructed", torch.__version__, tensors, modules)


def hooks_of(module: nn.Module) -> Iterator[LoadHook]:
    for cls in type(module).__mro__[: type(module).__mro__.index(nn.Module)]:
        if "_load_from_state_dict" in vars(cls):
            yield hook_of(vars(cls)["_load_from_state_dict"], module)
    for wrapped in module._load_state_dict_pre_hooks.values():
        yield hook_of(getattr(wrapped, "hook", wrapped), module)
    for hook in module._load_state_dict_post_hooks.values():
        yield hook_of(hook, module)


def hook_of(hook: Any, module: nn.Module) -> LoadHook:
    name = qualified(hook if hasattr(hook, "__qualname__") else type(hook))
    return LoadHook(name, {key: setting(key, hook, module) for key in settings_of(name)})


def setting(key: str, hook: Any, module: nn.Module) -> Any:
    closure = getattr(hook, "__closure__", None) or ()
    closed = dict(zip(hook.__code__.co_freevars, closure, strict=True)) if closure else {}
    if key in closed:
        return closed[key].cell_contents
    try:
        return functools.reduce(getattr, key.split("."), hook)
    except AttributeError:
        return functools.reduce(getattr, key.split("."), module)


def reference_to(value: object) -> TensorRef | None:
    """A tensor as a file would describe it."""
    if not isinstance(value, Tensor) or is_lazy(value):
        return None
    dtype = DTYPES[str(value.dtype).removeprefix("torch.")]
    if value.is_nested:
        nested = Components("nested", (), 1, 1)
        return TensorRef(dtype, (value.size(0), -1), False, nested)
    shape = tuple(value.shape)
    stride = row_major_stride(shape)
    data: Strided | Components | NoData
    if value.is_meta:
        data = NoData(stride)
    elif value.is_quantized:
        data = Components("quantized", (), 1, 1)
    elif value.is_sparse:
        data = Components("sparse_coo", (), 1, 1)
    else:
        data = Strided(StorageRef("0", dtype, "cpu", value.numel(), "little", {}), 0, stride)
    return TensorRef(dtype, shape, False, data)


def load_with_spec(spec: ModelSpec, state: Mapping[Any, Any]) -> StrictLoad:
    tensors = {key: reference_to(value) for key, value in state.items()}
    return FrozenModel(spec).strict_load(StateDict(tensors, getattr(state, "_metadata", None)))


def assert_same(
    build: Callable[[], nn.Module], state: Mapping[Any, Any], spec: ModelSpec | None = None
) -> StrictLoad:
    """Load into the model and into its spec, and compare the two answers."""
    module = build()
    answer = load_with_spec(describe(module) if spec is None else spec, state)
    truth = load_with_torch(module, state)
    assert (answer.is_ok, answer.why_unknown) == (truth.is_ok, None), (answer, truth)
    if not truth.has_raised:
        assert set(answer.missing) == truth.missing
        assert set(answer.unexpected) == truth.unexpected
        assert set(answer.shape) == truth.shape
        assert bool(answer.errors) == truth.has_others
    return answer


# Models ----------------------------------------------------------------------------------------

State = OrderedDict[Any, Any]


class Extra(nn.Module):
    """Has an extra state, and a tensor that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("cache", torch.zeros(3), persistent=False)

    def get_extra_state(self) -> Tensor:
        return torch.ones(1)

    def set_extra_state(self, state: object) -> None:
        pass


class Sparse(nn.Module):
    """None in every place that takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)
        self.register_buffer("mask", None)
        self.register_module("head", None)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("cache", torch.zeros(2, 2), persistent=False)
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))


class Tied(nn.Module):
    """One module under two names, and one parameter under two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.decoder = self.encoder
        self.head = nn.Linear(2, 3, bias=False)
        self.head.weight = self.embed.weight


class Dotted(nn.Module):
    """A module under a name with a dot, which torch lets through."""

    def __init__(self) -> None:
        super().__init__()
        setattr(self, "a.b", nn.Sequential(nn.Linear(1, 1)))
        self.c = nn.Linear(1, 1)


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._extra_state: Tensor
        self.register_buffer("_extra_state", torch.zeros(1))
        self.plain = nn.Buffer(torch.zeros(2))
        self.transient = nn.Buffer(torch.zeros(2), persistent=False)


class LazyWithoutHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.UninitializedParameter()


@functools.cache
def initialised_lazy() -> nn.Module:
    module = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    module(torch.ones(2, 4))
    return module


def tied_lazy() -> nn.Module:
    module = nn.Module()
    module.first = nn.LazyLinear(3)
    module.second = module.first
    return module


def pruned() -> nn.Module:
    module = nn.Linear(3, 4)
    prune.l1_unstructured(module, "weight", amount=2)  # type: ignore[no-untyped-call]
    return module


def observers(*kinds: Any) -> nn.ModuleList:
    return nn.ModuleList([kind() for kind in kinds])


def fake_quantizers() -> nn.ModuleList:
    from torch.ao.quantization import fake_quantize

    return nn.ModuleList(
        [
            fake_quantize.FakeQuantize(),  # type: ignore[no-untyped-call]
            fake_quantize.default_per_channel_weight_fake_quant(),
            fake_quantize.FusedMovingAvgObsFakeQuantize(),
            fake_quantize.default_fixed_qparams_range_0to1_fake_quant(),
        ]
    )


def all_observers() -> nn.ModuleList:
    from torch.ao.quantization import observer

    return observers(
        observer.MinMaxObserver,
        observer.MovingAverageMinMaxObserver,
        observer.PerChannelMinMaxObserver,
        observer.MovingAveragePerChannelMinMaxObserver,
        observer.HistogramObserver,
        observer.PlaceholderObserver,
        observer.NoopObserver,
        observer.default_fixed_qparams_range_0to1_observer,
    )


def observed(module: nn.ModuleList) -> nn.Module:
    """Observers that have seen something have statistics of other shapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in module:
            part(torch.ones(3, 4))
    return module


def fused_conv() -> nn.Module:
    from torch.ao.nn.intrinsic.qat import ConvBn2d
    from torch.ao.quantization import get_default_qat_qconfig

    qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore[no-untyped-call]
    return ConvBn2d(2, 3, 1, qconfig=qconfig)  # type: ignore[no-untyped-call]


def checkpointed() -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    inner = nn.Sequential(nn.Linear(2, 2), checkpoint_wrapper(nn.BatchNorm1d(2)))
    return nn.Sequential(checkpoint_wrapper(inner), nn.Linear(2, 2))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(2, 3),
    "linear without bias": lambda: nn.Linear(2, 3, bias=False),
    "bilinear": lambda: nn.Bilinear(2, 3, 4),
    "embedding bag": lambda: nn.EmbeddingBag(3, 2),
    "conv": lambda: nn.Sequential(nn.Conv1d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3)),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm2d(3), nn.BatchNorm3d(1)),
    "sync batch norm": lambda: nn.SyncBatchNorm(2),
    "batch norm without affine": lambda: nn.BatchNorm1d(2, affine=False),
    "batch norm without statistics": lambda: nn.BatchNorm1d(2, track_running_stats=False),
    "instance norm": lambda: nn.InstanceNorm2d(2),
    "instance norm with statistics": lambda: nn.InstanceNorm2d(2, 1e-5, 0.1, True, True),
    "other norms": lambda: nn.Sequential(
        nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.RMSNorm(2), nn.LocalResponseNorm(2)
    ),
    "prelu": lambda: nn.PReLU(2),
    "rnn": lambda: nn.Sequential(nn.RNN(2, 3), nn.GRU(2, 2, bidirectional=True)),
    "lstm": lambda: nn.LSTM(2, 3, 2, proj_size=2),
    "cells": lambda: nn.Sequential(nn.RNNCell(2, 3), nn.LSTMCell(2, 3), nn.GRUCell(2, 3)),
    "attention": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True),
    "transformer": lambda: nn.Transformer(4, 2, 1, 1, 4),
    "adaptive softmax": lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 8, [2, 4]),
    "losses": lambda: nn.Sequential(nn.CrossEntropyLoss(torch.ones(3)), nn.BCELoss()),
    "lists and dicts": lambda: nn.ModuleDict(
        {
            "list": nn.ParameterList([torch.ones(2), torch.ones(1)]),
            "dict": nn.ParameterDict({"a": torch.ones(()), "b": torch.ones(3)}),
        }
    ),
    "new weight norm": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(2, 3)),
        parametrizations.weight_norm(nn.LSTM(2, 3), "weight_hh_l0"),
    ),
    "old weight norm": lambda: nn.Sequential(
        weight_norm(nn.Linear(2, 3)), weight_norm(nn.LSTM(2, 3), "weight_hh_l0")
    ),
    "new spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(2, 3)),
    "old spectral norm": lambda: nn.Sequential(
        spectral_norm(nn.Linear(2, 3)), spectral_norm(nn.ConvTranspose1d(2, 3, 2))
    ),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(2, 2)),
    "pruned": pruned,
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.LazyConv2d(2, 1)),
    "lazy instance norm": lambda: nn.LazyInstanceNorm1d(affine=True, track_running_stats=True),
    "lazy and initialised": lambda: copy.deepcopy(initialised_lazy()),
    "lazy and tied": tied_lazy,
    "lazy without a hook": LazyWithoutHook,
    "extra state": lambda: nn.Sequential(Extra(), nn.Linear(1, 1)),
    "none": lambda: nn.Sequential(Sparse(), Sparse()),
    "tied": Tied,
    "dotted": Dotted,
    "buffers": Buffers,
    "observers": all_observers,
    "observers that have seen": lambda: observed(all_observers()),
    "fake quantizers": fake_quantizers,
    "fake quantizers that have seen": lambda: observed(fake_quantizers()),
    "fused conv": fused_conv,
    "checkpoint wrapper": checkpointed,
}  # fmt: skip

# States for a model come from itself, or from one that saves alike.
ALIKE = {
    "batch norm without statistics": "batch norm without affine",
    "instance norm": "instance norm with statistics",
    "new weight norm": "old weight norm",
    "observers": "observers that have seen",
    "observers that have seen": "observers",
    "fake quantizers": "fake quantizers that have seen",
    "fake quantizers that have seen": "fake quantizers",
    "lazy": "lazy and initialised",
    "lazy and initialised": "lazy",
    "new spectral norm": "old spectral norm",
}


def built(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return MODELS[name]()


def saved_by(name: str) -> State:
    """A state_dict of a model; what is lazy has a shape in it."""
    saved = built(name).state_dict(keep_vars=True)
    items = {
        key: torch.ones(3) if is_lazy(value) else value.detach() for key, value in saved.items()
    }
    return with_metadata(items, saved._metadata)  # type: ignore[attr-defined]


# Damage ----------------------------------------------------------------------------------------


def with_items(state: State, items: Mapping[Any, Any]) -> State:
    changed: State = OrderedDict(items)
    if hasattr(state, "_metadata"):
        changed._metadata = state._metadata  # type: ignore[attr-defined]
    return changed


def with_metadata(state: Mapping[Any, Any], metadata: object) -> State:
    changed: State = OrderedDict(state)
    if metadata is not None:
        changed._metadata = metadata  # type: ignore[attr-defined]
    return changed


def with_version(state: State, version: object) -> State:
    facts = {path: {**kept, "version": version} for path, kept in state._metadata.items()}  # type: ignore[attr-defined]
    return with_metadata(state, facts)


def damaged(state: State) -> Iterator[State]:
    """The state_dict as it is, and gone wrong in many ways."""
    yield state
    yield with_metadata(state, None)
    yield with_metadata(state, {})
    for version in (None, 0, 1, 2, 3, 1.5, True):
        yield with_version(state, version)
    names = list(state)
    for name in names[:: max(1, len(names) // 4)]:
        yield with_items(state, {key: state[key] for key in names if key != name})
        for value in (3, [torch.ones(1)]):
            yield with_items(state, {**state, name: value})
        yield with_items(state, {**state, name: torch.ones(7, 7)})
        yield with_items(state, {**state, name: torch.tensor(1.0)})
        yield with_items(state, {**state, name: torch.ones(0)})
        yield with_items(state, {**state, name: torch.ones(1, dtype=torch.int8)})
        owner = name.rpartition(".")[0]
        near = (f"{name}.x", f"{name}.", f".{name}", f"{owner}.x", f"{owner}.x.y", f"{owner}.")
        for other in near:
            yield with_items(state, {**state, other: torch.ones(1)})
        renamed = {f"{key}_" if key == name else key: value for key, value in state.items()}
        yield with_items(state, renamed)
    for prefix in ("module.", "_orig_mod."):
        yield with_items(state, {prefix + key: value for key, value in state.items()})
    strays: tuple[object, ...] = (
        "", ".", "..", "x", "x.y", "0", "0.", "0.0", "_extra_state", "0._extra_state",
        "0._extra_state.x", "head", "head.weight", "0.head.weight", "0.mask", "0.weight", "0.cache",
        "0.running_mean", "running_mean", "running_var", "num_batches_tracked", "a.b.weight", 3,
        ("a",), b"a",
    )  # fmt: skip
    for stray in strays:
        yield with_items(state, {**state, stray: torch.ones(2)})
    yield OrderedDict()
    yield OrderedDict(reversed(state.items()))


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_that_of_torch_on_whole_and_on_damaged_state_dicts(name: str) -> None:
    model = built(name)
    spec = describe(model)
    has_lazy = any(map(is_lazy, model.state_dict(keep_vars=True).values()))
    for source in (name, ALIKE.get(name, name)):
        for state in damaged(saved_by(source)):
            # What is no tensor can be one that is not initialised, which a lazy one takes.
            if not has_lazy or None not in map(reference_to, state.values()):
                assert_same(lambda: built(name), state, spec)


def test_a_whole_state_dict_loads_into_nearly_every_model() -> None:
    answers = {name: load_with_spec(describe(built(name)), saved_by(name)) for name in MODELS}
    assert {name: answer for name, answer in answers.items() if not answer.is_ok} == {
        # Torch finds these two unexpected although it loads them.
        "dotted": answers["dotted"],
        "buffers": answers["buffers"],
        "lazy without a hook": answers["lazy without a hook"],
    }
    assert answers["buffers"].unexpected == ("_extra_state",)


def test_whether_an_uninitialised_tensor_is_there_cannot_be_told() -> None:
    module = nn.LazyLinear(3)
    answer = load_with_spec(describe(module), module.state_dict())
    assert answer.is_ok is None
    assert answer.why_unknown == (
        "whether 'weight' in the file is uninitialised cannot be told, and 1 more"
    )
    assert load_with_torch(module, module.state_dict()).is_ok


def test_none_is_no_tensor() -> None:
    answer = assert_same(lambda: nn.Linear(1, 1), {"weight": None, "bias": torch.ones(1)})
    assert answer.errors == (LoadError("weight", "what is in the file is no tensor"),)


# Versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch norm", "instance norm", "observers", "old spectral norm"])
@pytest.mark.parametrize("version", ["2", [], {}, 2.0, -1, True, float("nan")])
def test_versions_are_compared_as_torch_does(name: str, version: object) -> None:
    state = saved_by(name)
    assert_same(lambda: built(name), with_version(state, version))
    for facts in ({"spectral_norm": version}, {"spectral_norm": {"weight.version": version}}):
        metadata = {path: {"version": 2, **facts} for path in state._metadata}  # type: ignore[attr-defined]
        assert_same(lambda: built(name), with_metadata(state, metadata))


@pytest.mark.parametrize("version", [None, 1, 2, 3])
@pytest.mark.parametrize("shape", [(0,), (), (1,), (3,)])
def test_statistics_of_histograms_are_those_of_the_file(
    version: int | None, shape: tuple[int, ...]
) -> None:
    state = saved_by("observers")
    items = {**state, "4.min_val": torch.ones(shape), "4.max_val": torch.ones(shape)}
    assert_same(all_observers, with_version(with_items(state, items), version))


def per_channel() -> nn.Module:
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    return observers(PerChannelMinMaxObserver)


@pytest.mark.parametrize("version", [None, 1, 2, 3])
@pytest.mark.parametrize("names", [("min_val", "max_val"), ("min_vals", "max_vals"), ("min_vals",)])
def test_statistics_of_channels_had_other_names(
    version: int | None, names: tuple[str, ...]
) -> None:
    state = with_items(saved_by("observers"), {f"0.{name}": torch.ones(4) for name in names})
    state._metadata = {"0": {"version": version}}  # type: ignore[attr-defined]
    assert_same(per_channel, state)


@pytest.mark.parametrize("version", [None, 1, 2])
def test_a_fused_convolution_had_the_parts_of_its_norm_itself(version: int | None) -> None:
    old = {"bn.weight": "gamma", "bn.bias": "beta"}
    state = saved_by("fused conv")
    items = {old.get(key, key.removeprefix("bn.")): value for key, value in state.items()}
    assert_same(fused_conv, with_version(with_items(state, items), version))


# Spectral norm ---------------------------------------------------------------------------------


def before_version_1(**changed: Tensor | None) -> State:
    """What the spectral_norm of torch 0.4 saved: the weight itself, and no `v`."""
    state = spectral_norm(nn.Linear(3, 4)).state_dict()
    state["weight"] = state["weight_orig"] / 2
    del state["weight_v"]
    state.update(changed)
    return OrderedDict({key: value for key, value in state.items() if value is not None})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight": None},
        {"weight_u": None},
        {"weight_orig": None},
        {"weight": torch.ones(4, 1)},
        {"weight": torch.ones(2, 4, 3)},
        {"weight": torch.ones(5)},
        {"weight": torch.ones(4, 3, dtype=torch.float64)},
        {"weight": torch.ones(4, 3, dtype=torch.int32)},
        {"weight": torch.ones(4, 3, dtype=torch.complex64)},
        {"weight_u": torch.ones(5)},
        {"weight_u": torch.ones(4, 1)},
        {"weight_u": torch.tensor(1.0)},
        {"weight_u": torch.ones(4, dtype=torch.float64)},
        {"weight_orig": torch.ones(4, 3, dtype=torch.int64)},
        {"weight_orig": torch.ones(4, 3, dtype=torch.float16)},
        {"weight_orig": torch.ones(4, 5), "weight": torch.ones(4, 5)},
        {"weight_orig": torch.ones(5, 3), "weight": torch.ones(5, 3)},
        {"weight_orig": torch.ones(4), "weight": torch.ones(4)},
        {"weight_orig": torch.ones(0, 3), "weight": torch.ones(0, 3), "weight_u": torch.ones(0)},
        {"weight_orig": torch.tensor(1.0)},
        {"weight_v": torch.ones(3)},
        {"weight_v": torch.ones(3), "weight": None},
        {"weight_v": torch.ones(9)},
        {"bias": None},
    ],
)
def test_old_spectral_norms_are_computed_where_torch_can(changed: dict[str, Tensor | None]) -> None:
    for version in (None, 0, 1):
        state = before_version_1(**changed)
        facts = {} if version is None else {"spectral_norm": {"weight.version": version}}
        assert_same(lambda: spectral_norm(nn.Linear(3, 4)), with_metadata(state, {"": facts}))


# What is copied --------------------------------------------------------------------------------

_COPIED = (
    "bool", "uint8", "int64", "uint16", "uint64", "float16", "bfloat16", "float32", "float64",
    "complex32", "complex64", "float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn_x2", "bits8",
    "bits16", "bits4x2", "uint1", "int7",
)  # fmt: skip


class Holder(nn.Module):
    """Has one buffer."""

    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", buffer)


@pytest.mark.parametrize("target", _COPIED)
@pytest.mark.parametrize("shape", [(2,), (0,), ()])
def test_dtypes_are_copied_where_torch_can(target: str, shape: tuple[int, ...]) -> None:
    for source in _COPIED:
        value = torch.empty(shape, dtype=getattr(torch, source))
        assert_same(lambda: Holder(torch.empty(shape, dtype=getattr(torch, target))), {"x": value})


def quantized(dtype: torch.dtype = torch.quint8) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(2, 2), 1.0, 0, dtype)


@pytest.mark.parametrize(
    "value",
    [
        quantized,
        lambda: torch.zeros(2, 2, device="meta"),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(2)]),
    ],
    ids=["quantized", "meta", "nested"],
)
def test_what_a_dense_tensor_cannot_take_is_an_error(value: Callable[[], Tensor]) -> None:
    assert_same(lambda: Holder(torch.zeros(2, 2)), {"x": value()})


def test_quantizing_takes_single_precision_only() -> None:
    for dtype in (torch.float64, torch.float16, torch.int8, torch.complex64):
        assert_same(lambda: Holder(quantized()), {"x": torch.zeros(2, 2, dtype=dtype)})
    assert_same(lambda: Holder(quantized()), {"x": quantized(torch.qint8)})


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (torch.zeros(2, 2), torch.zeros(2, 2).to_sparse()),
        (torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2).to_sparse()),
        (quantized(), quantized()),
        (quantized(), torch.zeros(2, 2)),
    ],
)
def test_what_a_spec_does_not_record_makes_the_answer_unknown(model: Tensor, value: Tensor) -> None:
    answer = load_with_spec(describe(Holder(model)), {"x": value})
    assert answer.is_ok is None
    assert "not recorded" in (answer.why_unknown or "")
    wrong = load_with_spec(describe(Holder(model)), {"x": value, "y": torch.ones(1)})
    assert (wrong.is_ok, wrong.unexpected) == (False, ("y",))


# What is not known -----------------------------------------------------------------------------


class Own(nn.Linear):
    """Loads in a way of its own."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}left_over", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


def own_hook(*args: Any) -> None:
    pass


def test_code_that_is_not_known_makes_the_answer_unknown() -> None:
    module = nn.Sequential(nn.BatchNorm1d(1), Own(1, 1), nn.Linear(1, 1))
    module[2].register_load_state_dict_pre_hook(own_hook)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_post_hook(own_hook)  # type: ignore[no-untyped-call]
    spec = describe(module)
    whole = load_with_spec(spec, module.state_dict())
    assert (whole.is_ok, whole.missing, whole.unexpected) == (None, (), ())
    assert (
        whole.why_unknown
        == f"what {__name__}.own_hook of the model itself does is not known, and 2 more"
    )
    state = {"1.left_over": torch.ones(1), "2.weight": torch.ones(2)}
    answer = load_with_spec(spec, state)
    assert answer.is_ok is None
    assert answer.unexpected == ("1.left_over",)
    assert answer.shape == ("2.weight",)
    assert answer.missing == (
        "0.weight", "0.bias", "0.running_mean", "0.running_var", "1.weight", "1.bias", "2.bias"
    )  # fmt: skip


def test_one_method_that_is_not_known_is_named_with_its_module() -> None:
    module = nn.Sequential(nn.Linear(1, 1), Own(1, 1))
    answer = load_with_spec(describe(module), module.state_dict())
    assert answer.why_unknown == (
        f"what {__name__}.Own._load_from_state_dict of module '1' does is not known"
    )


def test_a_class_of_which_nothing_tells_makes_the_answer_unknown() -> None:
    modules = {"": ModuleSpec(None, ()), "a": ModuleSpec("my.Net", None)}
    spec = ModelSpec("", "module", None, {}, modules)
    answer = load_with_spec(spec, {})
    assert (answer.is_ok, answer.why_unknown) == (
        None, "how my.Net (module 'a') loads is not recorded"
    )  # fmt: skip


def test_a_known_hook_without_its_settings_makes_the_answer_unknown() -> None:
    (name,) = (name for name in LOAD_RULES if name.endswith("_weight_norm_compat_hook"))
    modules = {"": ModuleSpec("my.Net", (LoadHook(name),))}
    answer = load_with_spec(ModelSpec("", "module", None, {}, modules), {})
    assert answer.is_ok is None
    assert answer.why_unknown == f"the settings of {name} of the model itself are not recorded"


def test_a_buffer_that_may_not_be_saved_makes_the_answer_unknown() -> None:
    tensors = {"x": TensorSpec("buffer", None, "float32", (2,))}
    spec = ModelSpec("", "torchscript", None, tensors, {"": ModuleSpec("Net")})
    for state in ({}, {"x": torch.ones(2)}):
        answer = load_with_spec(spec, state)
        assert (answer.is_ok, answer.missing, answer.unexpected) == (None, (), ())
        assert answer.why_unknown == "whether the model saves 'x' is not recorded"
    assert load_with_spec(spec, {"x": torch.ones(3)}).is_ok is False
    assert load_with_spec(spec, {"y": torch.ones(3)}).is_ok is False


def test_a_spec_without_the_model_itself_says_nothing_of_how_it_loads() -> None:
    assert load_with_spec(ModelSpec("", "module", None, {}, {}), {}).is_ok is None


# The rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LOAD_RULES if name.startswith("torch.")])
def test_every_rule_is_named_after_something_in_torch(name: str) -> None:
    outer, *_ = name.split(".<locals>")
    parts = outer.split(".")
    # A function can have the name of a module beside it: `torch.nn.utils.spectral_norm`.
    found: Any = torch
    for depth in range(1, len(parts)):
        with contextlib.suppress(ModuleNotFoundError):
            found, inner = importlib.import_module(".".join(parts[:depth])), parts[depth:]
    assert callable(functools.reduce(getattr, inner, found))


def test_the_settings_of_an_unknown_hook_are_none() -> None:
    assert settings_of("my.hook") == ()


# Other names -----------------------------------------------------------------------------------


def test_names_of_the_old_weight_norm_are_taken_under_new_ones() -> None:
    spec = describe(built("new weight norm"))
    old = saved_by("old weight norm")
    assert renamed_by_hooks(spec, old.keys()) == {
        "0.weight_g": "0.parametrizations.weight.original0",
        "0.weight_v": "0.parametrizations.weight.original1",
        "1.weight_hh_l0_g": "1.parametrizations.weight_hh_l0.original0",
        "1.weight_hh_l0_v": "1.parametrizations.weight_hh_l0.original1",
    }
    assert renamed_by_hooks(spec, saved_by("new weight norm").keys()) == {}
    assert renamed_by_hooks(spec, ["0.weight_g"]) == {}


def test_names_are_taken_into_what_wraps_a_module() -> None:
    spec = describe(checkpointed())
    wrapped = "_checkpoint_wrapped_module"
    found = renamed_by_hooks(spec, saved_by("checkpoint wrapper").keys())
    assert found["0.0.weight"] == f"0.{wrapped}.0.weight"
    assert found["0.1.bias"] == f"0.{wrapped}.1.{wrapped}.bias"
    assert "1.weight" not in found


def test_a_model_without_such_hooks_takes_no_other_names() -> None:
    assert renamed_by_hooks(describe(nn.BatchNorm1d(2)), ["weight", "gamma"]) == {}
    assert renamed_by_hooks(describe(fused_conv()), ["gamma", "beta"]) == {
        "gamma": "bn.weight", "beta": "bn.bias"
    }  # fmt: skip


# Any model, any state_dict ---------------------------------------------------------------------

_LEAVES: Final[tuple[Callable[[], nn.Module], ...]] = (
    lambda: nn.Linear(1, 2),
    lambda: nn.BatchNorm1d(2),
    lambda: nn.InstanceNorm1d(2, affine=True),
    lambda: nn.LazyLinear(2),
    lambda: parametrizations.weight_norm(nn.Linear(1, 2)),
    lambda: spectral_norm(nn.Linear(2, 2)),
    Extra,
    Sparse,
    per_channel,
    lambda: built("checkpoint wrapper"),
)
Tree = Any

_NAMES = st.sampled_from(
    ["a", "b", "0", "weight", "_checkpoint_wrapped_module", "parametrizations"]
)
_TREES: st.SearchStrategy[Tree] = st.recursive(
    st.one_of(st.sampled_from(range(len(_LEAVES))), st.none()),
    lambda children: st.dictionaries(_NAMES, st.one_of(children, st.just("again")), max_size=4),
    max_leaves=8,
)


def grown(tree: Tree) -> nn.Module:
    """A model of the shape of a tree; `again` is the module that came before it."""
    if isinstance(tree, int):
        return _LEAVES[tree]()
    module = nn.Module()
    before: nn.Module | None = None
    for name, inner in tree.items():
        made = before if inner in (None, "again") else grown(inner)
        module.register_module(name, None if inner is None else made)
        before = made
    return module


@st.composite
def states(draw: st.DrawFn, whole: Mapping[str, Any]) -> State:
    """A state_dict that is close to a whole one."""
    items: dict[str, Any] = {}
    names = list(whole)
    ends = ["weight", "weight_g", "weight_v", "_extra_state", "bias", "x", "", "mask", "head.x"]
    for name in names:
        match draw(st.sampled_from(["keep"] * 12 + ["drop", "reshape", "rename", "number"])):
            case "keep":
                items[name] = whole[name]
            case "reshape":
                shape = draw(st.lists(st.integers(0, 2), max_size=2))
                items[name] = torch.ones(shape)
            case "rename":
                new = name.rpartition(".")[0] + draw(st.sampled_from(["", ".", "x"]))
                items[new + draw(st.sampled_from(ends))] = whole[name]
            case "number":
                items[name] = 3
    for end in draw(st.lists(st.sampled_from(ends), max_size=2)):
        owner = draw(st.sampled_from(names)).rpartition(".")[0] if names else ""
        items[f"{owner}.{end}"] = torch.ones(2)
    state: State = OrderedDict(items)
    kind = draw(st.sampled_from(["none", "empty", "own", "old"]))
    if kind != "none":
        state._metadata = {  # type: ignore[attr-defined]
            path: {} if kind == "old" else facts
            for path, facts in whole._metadata.items()  # type: ignore[attr-defined]
            if kind != "empty"
        }
    return state


@given(tree=_TREES, data=st.data())
def test_any_model_gives_the_answer_of_torch(tree: Tree, data: st.DataObject) -> None:
    model = nn.Module() if tree is None else grown(tree)
    whole = model.state_dict()
    lazy = {key for key, value in whole.items() if is_lazy(value)}
    for key in lazy:
        whole[key] = torch.ones(2, 1) if key.endswith("weight") else torch.ones(2)
    state = data.draw(states(whole))
    for key in lazy & state.keys():
        if not isinstance(state[key], Tensor):
            del state[key]
    assert_same(lambda: nn.Module() if tree is None else grown(tree), state)


def test_deep_models_and_long_names_are_no_trouble() -> None:
    depth = 3_000
    path = ".".join(["m"] * depth)
    modules = {".".join(["m"] * level): ModuleSpec("Net") for level in range(depth + 1)}
    tensors = {f"{path}.x": TensorSpec("buffer", True, "float32", (1,))}
    spec = ModelSpec("", "module", None, tensors, modules)
    stray = "." * 100_000
    answer = load_with_spec(spec, {f"{path}.x": torch.ones(1), stray: torch.ones(1)})
    assert answer.unexpected == (stray,)
    assert answer.missing == ()


def test_as_many_modules_as_there_may_be_can_have_names_with_dots() -> None:
    """Forty thousand in a module that is not there, and one below ten thousand that are not."""
    deep = "." * 10_000
    paths = [deep, *(f"a.m{n}" for n in range(40_000))]
    modules = {"": ModuleSpec("Net")} | {path: ModuleSpec("Net") for path in paths}
    names = [f"{path}.x" for path in paths]
    tensors = {name: TensorSpec("buffer", True, "float32", (1,)) for name in names}
    state = dict.fromkeys(names, torch.ones(1)) | {"a.m1.y": torch.ones(1), "a.m": torch.ones(1)}
    answer = load_with_spec(ModelSpec("", "module", None, tensors, modules), state)
    assert answer.missing == ()
    assert set(answer.unexpected) == state.keys()


class SeveralDots(nn.Module):
    """Names with dots that begin alike, are inside each other, and stand beside plain ones."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("a.b", "a.bc", "a.b.c", "a-b", "d", "f.g.h"):
            setattr(self, name, nn.Sequential(nn.Linear(1, 1)))


def test_names_with_dots_are_loaded_as_torch_does() -> None:
    state: State = OrderedDict(SeveralDots().state_dict())
    assert_same(SeveralDots, state)
    for name in state:
        assert_same(SeveralDots, with_items(state, {k: v for k, v in state.items() if k != name}))
    for stray in ("a.x", "a.b.x", "a.b.0.x", "a.b.cd.x", "d.x", "f.g.x", "f.g.h.x", "a."):
        assert_same(SeveralDots, with_items(state, {**state, stray: torch.ones(1)}))


class FrozenBatchNorm2d(nn.Module):
    """As torchvision has it: what a BatchNorm wrote goes in, but for its counter."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(2))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_a_frozen_batch_norm_takes_what_a_batch_norm_wrote() -> None:
    FrozenBatchNorm2d._load_from_state_dict.__module__ = "torchvision.ops.misc"
    state = nn.Sequential(nn.BatchNorm2d(2)).state_dict()
    assert_same(lambda: nn.Sequential(FrozenBatchNorm2d()), state)
    assert_same(lambda: nn.Sequential(FrozenBatchNorm2d()), {**state, "0.other": torch.ones(1)})
