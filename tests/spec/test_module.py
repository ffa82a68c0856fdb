"""Specs of modules that were saved whole, held against the live modules."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.errors import CkptoolError, SpecError
from ckptool.pickling import nodes
from ckptool.spec.model_spec import LoadHook, ModelSpec, TensorSpec, UnknownValue
from ckptool.spec.module import spec_of_module
from ckptool.spec.module_hooks import load_hooks_of
from tests import builders, strategies
from tests.builders import Call, Global, torch_zip
from tests.networks import Net
from tests.sample_models import models

WEIGHT = builders.Tensor("float32", (2,))
NORM = "torch.nn.modules.batchnorm._NormBase._load_from_state_dict"
INSTANCE_NORM = "torch.nn.modules.instancenorm._InstanceNorm._load_from_state_dict"


def spec_in(path: Path, root: str | None = None) -> ModelSpec:
    with open_checkpoint(path, root=root) as checkpoint:
        return spec_of_module(checkpoint, "MODEL")


def spec_of(folder: Path, module: object) -> ModelSpec:
    path = folder / "module.pt"
    torch.save(module, path)
    return spec_in(path)


def built(folder: Path, tree: object, root: str | None = None) -> ModelSpec:
    path = folder / "built.pt"
    path.write_bytes(torch_zip(tree))
    return spec_in(path, root)


def live_tensors(module: nn.Module) -> Iterator[tuple[str, str, bool, Tensor]]:
    """Every tensor in the order of `state_dict()`, with those that are not saved in their place."""
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            yield prefix + name, "parameter", True, parameter
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
            yield prefix + name, "buffer", name not in part._non_persistent_buffers_set, buffer


def live_spec(module: nn.Module) -> dict[str, TensorSpec]:
    first_names: dict[int, str] = {}
    found = {}
    for name, kind, is_saved, tensor in live_tensors(module):
        first = first_names.setdefault(id(tensor), name)
        found[name] = TensorSpec(
            "parameter" if kind == "parameter" else "buffer",
            is_saved,
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            None if first == name else first,
            UnknownValue("of a saved module") if kind == "buffer" else None,
        )
    return found


# What it is made of ----------------------------------------------------------------------------


class Shared(nn.Module):
    """A parameter, a buffer and a module under two names each; and names without anything."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.fc = nn.Linear(3, 3)
        self.same = nn.ModuleDict({"norm": self.norm, "fc": nn.Linear(3, 3)})
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight = self.fc.weight
        self.register_buffer("seen", self.norm.running_mean)
        self.register_buffer("none", None)
        self.register_parameter("nothing", None)
        self.register_module("nobody", None)
        self.empty = nn.Parameter(torch.empty(0))
        self.also_empty = nn.Parameter(torch.empty(0))
        self.slices = nn.ParameterList(torch.arange(4.0).chunk(2))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "MyModel": lambda: models.MyModel(3, 4),
    "BufferClassModel": models.BufferClassModel,
    "SimpleModel": models.SimpleModel,
    "CustomBatchNorm": lambda: models.CustomBatchNorm(3),
    "TransformerModel": lambda: models.TransformerModel(4, 6),
    "BufferExample": models.BufferExample,
    "MaskedLayer": lambda: models.MaskedLayer(3),
    "LookupTable": lambda: models.LookupTable(5, 4),
    "bare": models.bare_module,
    "BufferOperations": models.BufferOperations,
    "Net": Net,
    "Shared": Shared,
    "untracked": lambda: nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)),
    "without weights": lambda: nn.BatchNorm2d(3, affine=False),
    "LSTM": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    "Transformer": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2
    ),
    "containers": lambda: nn.ModuleDict(
        {
            "list": nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]),
            "dict": nn.ParameterDict({"a": nn.Parameter(torch.ones(1)), "b": torch.ones(2)}),
        }
    ),
    "half": lambda: nn.Linear(3, 4, dtype=torch.bfloat16),
    "meta": lambda: nn.Sequential(nn.Linear(3, 3, device="meta"), nn.Linear(3, 3, device="meta")),
    "parallel": lambda: nn.DataParallel(models.MyModel(3, 4)),
    "observer": lambda: torch.ao.quantization.MinMaxObserver(),
}


def saved(folder: Path, build: Callable[[], nn.Module]) -> tuple[nn.Module, ModelSpec]:
    with warnings.catch_warnings():
        # Quantization in torch itself is deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = build()
    return module, spec_of(folder, module)


@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_a_saved_module_tells_what_it_is_made_of(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    module, spec = saved(tmp_path, build)
    assert list(spec.tensors.items()) == list(live_spec(module).items())
    assert [name for name, tensor in spec.tensors.items() if tensor.is_persistent] == list(
        module.state_dict()
    )
    assert (spec.source, spec.origin, spec.torch_version) == ("MODEL", "module", None)


@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_a_saved_module_tells_its_modules_and_what_is_registered_as_none(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    module, spec = saved(tmp_path, build)
    assert {path: told.type for path, told in spec.modules.items()} == {
        path: f"{type(part).__module__}.{type(part).__qualname__}"
        for path, part in module.named_modules(remove_duplicate=False)
    }
    for path, part in module.named_modules(remove_duplicate=False):
        told = spec.modules[path]
        tables = (*part._parameters.items(), *part._buffers.items())
        assert list(told.none_tensors) == [name for name, one in tables if one is None]
        assert list(told.none_modules) == [n for n, one in part._modules.items() if one is None]
        assert not told.has_extra_state


def test_what_is_registered_twice_is_tied_to_the_first(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Shared())
    tied = {name: one.tied_to for name, one in spec.tensors.items() if one.tied_to is not None}
    assert tied == {
        "norm.running_mean": "seen",
        "same.norm.weight": "norm.weight",
        "same.norm.bias": "norm.bias",
        "same.norm.running_mean": "seen",
        "same.norm.running_var": "norm.running_var",
        "same.norm.num_batches_tracked": "norm.num_batches_tracked",
        "head.weight": "fc.weight",
    }
    assert spec.modules["same.norm"] == spec.modules["norm"]


def test_lazy_tensors_have_no_dtype_or_shape_yet(tmp_path: Path) -> None:
    module = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    spec = spec_of(tmp_path, module)
    assert list(spec.tensors) == [name for name, *_ in live_tensors(module)]
    lazy = {name for name, one in spec.tensors.items() if one.shape is None}
    assert lazy == set(spec.tensors) - {"1.num_batches_tracked"}
    assert {spec.tensors[name].dtype for name in lazy} == {None}
    assert {one.tied_to for one in spec.tensors.values()} == {None}


def test_a_class_that_cannot_be_imported_is_only_a_name(tmp_path: Path) -> None:
    inner = builders.module(
        Global("gone.layers", "Outer.Norm"),
        parameters={"weight": builders.Tensor("float16", (2, 3)), "bias": None},
        buffers={"b": builders.Tensor("int64", ()), "c": builders.Tensor("bool", (3,))},
        non_persistent=["b"],
    )
    spec = built(tmp_path, builders.module(Global("gone", "Model"), modules={"norm": inner}))
    unknown = UnknownValue("of a saved module")
    assert spec.tensors == {
        "norm.weight": TensorSpec("parameter", True, "float16", (2, 3)),
        "norm.b": TensorSpec("buffer", False, "int64", (), initial=unknown),
        "norm.c": TensorSpec("buffer", True, "bool", (3,), initial=unknown),
    }
    assert {path: (one.type, one.load_hooks) for path, one in spec.modules.items()} == {
        "": ("gone.Model", None),
        "norm": ("gone.layers.Outer.Norm", None),
    }


def test_a_module_that_a_call_returns_is_of_an_unknown_class(tmp_path: Path) -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))
    spec = spec_of(tmp_path, traced)
    assert list(spec.tensors) == list(traced.state_dict())
    assert (spec.modules[""].type, spec.modules[""].load_hooks) == (None, None)
    assert spec.modules["0"].type == "torch.nn.modules.linear.Linear"


def test_a_tensor_that_is_made_in_an_unknown_way_is_told_by_its_name(tmp_path: Path) -> None:
    strange = Call(Global("gone", "make_tensor"), (1, 2))
    spec = built(tmp_path, builders.module(parameters={"w": strange}))
    assert spec.tensors == {"w": TensorSpec("parameter", True, None, None)}


def test_a_buffer_with_ragged_sizes_has_no_shape(tmp_path: Path) -> None:
    module = nn.Module()
    parts = [torch.ones(2, 3), torch.ones(4, 3)]
    module.register_buffer("ragged", torch.nested.nested_tensor(parts, layout=torch.jagged))
    assert spec_of(tmp_path, module).tensors["ragged"].shape is None


# TorchScript -----------------------------------------------------------------------------------


class Scripted(nn.Module):
    """What TorchScript keeps and what it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2, bias=False)
        self.same = self.fc
        self.other = nn.Linear(2, 2)
        self.other.weight = self.fc.weight
        self.norm = nn.BatchNorm1d(2)
        self.untracked = nn.BatchNorm1d(2, track_running_stats=False)
        self.instance = nn.InstanceNorm1d(2)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("none", None)
        self.gain = nn.Parameter(torch.ones(2))
        self.plain = torch.ones(3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.fc(inputs) + self.other(inputs))
        scaled: torch.Tensor = hidden * self.scale * self.gain
        return scaled


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("build", [Net, Scripted])
def test_a_torchscript_archive_tells_all_but_persistence(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.script(build()).save(str(path))  # type: ignore[no-untyped-call]
    live = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    spec = spec_in(path)
    assert list(spec.tensors) == list(live.state_dict())
    assert list(spec.modules) == [path for path, _ in live.named_modules(remove_duplicate=False)]
    named = dict(live.named_parameters(remove_duplicate=False))
    for name, tensor in spec.tensors.items():
        value = live.state_dict()[name]
        assert (tensor.kind == "parameter") == (name in named)
        assert tensor.is_persistent is (True if name in named else None)
        assert tensor.dtype == str(value.dtype).removeprefix("torch.")
        assert tensor.shape == tuple(value.shape)
    assert spec.origin == "torchscript"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_names_and_what_is_none_are_those_of_the_python_module(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.script(Scripted()).save(str(path))  # type: ignore[no-untyped-call]
    spec = spec_in(path)
    assert spec.modules[""].type == f"{__name__}.Scripted"
    assert spec.modules[""].load_hooks is None
    assert spec.modules[""].none_tensors == ("none",)
    assert spec.modules["other"].type == "torch.nn.modules.linear.Linear"
    assert spec.modules["other"].load_hooks == ()
    assert spec.modules["fc"].none_tensors == ("bias",)
    assert spec.tensors["same.weight"].tied_to == "fc.weight"
    assert spec.tensors["other.weight"].tied_to == "fc.weight"
    assert {path: spec.modules[path].load_hooks for path in ("norm", "untracked", "instance")} == {
        "norm": (LoadHook(NORM, {"track_running_stats": True}),),
        "untracked": (LoadHook(NORM, {"track_running_stats": False}),),
        "instance": (LoadHook(INSTANCE_NORM, {"track_running_stats": False}),),
    }


def test_a_torchscript_object_that_is_no_module_has_no_place_in_a_model(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    other = builders.script_module("Other", {"t": WEIGHT})
    root = builders.script_module("Net", {"w": WEIGHT, "other": other})
    source = builders.script_source("Net", {"w": "Tensor"}, parameters=["w"])
    path.write_bytes(builders.torchscript(root, source + b"class Other:\n  t : Tensor\n"))
    assert spec_in(path).tensors == {"w": TensorSpec("parameter", True, "float32", (2,))}
    assert list(spec_in(path).modules) == [""]
    path.write_bytes(builders.torchscript(other, source))
    with pytest.raises(SpecError, match="Other"):
        spec_in(path)


# How it loads ----------------------------------------------------------------------------------


def a_hook(*_: object) -> None:
    """A function that is registered by its name."""


class CallableHook:
    """An object that is registered by its class."""

    def __call__(self, *_: object) -> None:
        pass


def hooks_of(folder: Path, module: nn.Module) -> tuple[LoadHook, ...] | None:
    return spec_of(folder, module).modules[""].load_hooks


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_an_observer_loads_as_its_class_does(tmp_path: Path) -> None:
    base = "torch.ao.quantization.observer.UniformQuantizationObserverBase"
    observer = torch.ao.quantization.MinMaxObserver()
    assert hooks_of(tmp_path, observer) == (LoadHook(f"{base}._load_from_state_dict"),)


def test_torch_nn_loads_as_its_classes_do(tmp_path: Path) -> None:
    tracked = (LoadHook(NORM, {"track_running_stats": True}),)
    assert hooks_of(tmp_path, nn.Linear(2, 2)) == ()
    assert hooks_of(tmp_path, nn.Module()) == ()
    assert hooks_of(tmp_path, nn.SyncBatchNorm(2)) == tracked
    assert hooks_of(tmp_path, nn.BatchNorm1d(2, track_running_stats=False)) == (
        LoadHook(NORM, {"track_running_stats": False}),
    )
    assert hooks_of(tmp_path, nn.InstanceNorm2d(2, track_running_stats=True)) == (
        LoadHook(INSTANCE_NORM, {"track_running_stats": True}),
    )


def test_hooks_are_told_by_their_names(tmp_path: Path) -> None:
    module: Any = nn.Linear(2, 2)
    module._register_load_state_dict_pre_hook(a_hook)
    module._register_load_state_dict_pre_hook(a_hook, with_module=True)
    module._register_load_state_dict_pre_hook(CallableHook())
    module.register_load_state_dict_post_hook(a_hook)
    names = ["a_hook", "a_hook", "CallableHook", "a_hook"]
    assert hooks_of(tmp_path, module) == tuple(LoadHook(f"{__name__}.{name}") for name in names)


@pytest.mark.filterwarnings("ignore:.*spectral_norm:FutureWarning")
def test_spectral_norm_tells_which_parameter_it_is_about(tmp_path: Path) -> None:
    name = "torch.nn.utils.spectral_norm.SpectralNormLoadStateDictPreHook"
    linear = nn.utils.spectral_norm(nn.Linear(2, 2))
    assert hooks_of(tmp_path, linear) == (LoadHook(name, {"fn.name": "weight"}),)
    lstm = nn.utils.spectral_norm(nn.LSTM(2, 2), "weight_hh_l0")
    assert hooks_of(tmp_path, lstm) == (LoadHook(name, {"fn.name": "weight_hh_l0"}),)


def test_lazy_modules_load_by_a_method_of_their_own(tmp_path: Path) -> None:
    lazy = LoadHook("torch.nn.modules.lazy.LazyModuleMixin._lazy_load_hook")
    assert hooks_of(tmp_path, nn.LazyLinear(2)) == (lazy,)
    tracked = LoadHook(NORM, {"track_running_stats": True})
    assert hooks_of(tmp_path, nn.LazyBatchNorm1d()) == (tracked, lazy)


def test_a_class_that_is_not_known_may_load_in_any_way(tmp_path: Path) -> None:
    assert hooks_of(tmp_path, models.SimpleModel()) is None
    for module in (
        "torch.ao.nn.quantized.modules.linear",
        "torch.nn.quantized.modules.linear",
        "torchx",
    ):
        made = builders.module(Global(module, "Linear"))
        assert built(tmp_path, made).modules[""].load_hooks is None


LINEAR = Global("torch.nn.modules.linear", "Linear")
HOOKS = "_load_state_dict_pre_hooks"


@pytest.mark.parametrize(
    "attributes",
    [
        {HOOKS: {0: 7}},
        {HOOKS: 7},
        {HOOKS: {0: Call(Global("functools", "partial"), (Global("m", "f"),))}},
        {HOOKS: {0: Call(Global("builtins", "getattr"), (Call(LINEAR, (), {}, new=True), "f"))}},
        {HOOKS: {0: Call(Global("builtins", "getattr"), ())}},
        {
            HOOKS: {
                0: Call(
                    Global("builtins", "getattr"),
                    (Call(Global("m", "Lazy"), (), {}, new=True), "_lazy_load_hook"),
                )
            }
        },
        {HOOKS: {0: Call(Global("torch.nn.modules.module", "_WrappedHook"), (), {}, new=True)}},
        {
            HOOKS: {
                0: Call(
                    Global("torch.nn.utils.spectral_norm", "SpectralNormLoadStateDictPreHook"),
                    (),
                    {},
                    new=True,
                )
            }
        },
        {"_load_from_state_dict": Global("m", "f")},
    ],
)
def test_a_hook_that_nothing_tells_leaves_it_open(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    made = builders.module(LINEAR, attributes=attributes)
    assert built(tmp_path, made).modules[""].load_hooks is None


@pytest.mark.parametrize("attributes", [{}, {"track_running_stats": None}])
def test_a_normalisation_without_its_setting_leaves_it_open(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    made = builders.module(
        Global("torch.nn.modules.batchnorm", "BatchNorm1d"), attributes=attributes
    )
    assert built(tmp_path, made).modules[""].load_hooks is None


def test_hooks_of_old_files_stand_without_a_wrapper(tmp_path: Path) -> None:
    made = builders.module(
        LINEAR, attributes={HOOKS: OrderedDict([(3, Global("gone", "fix_names"))])}
    )
    assert built(tmp_path, made).modules[""].load_hooks == (LoadHook("gone.fix_names"),)


def known_classes() -> list[type[nn.Module]]:
    for package in (nn.modules, nn.utils, nn.parallel, torch.ao.quantization, torch.ao.nn):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(_KNOWN):
                importlib.import_module(found.name)
    known: dict[type[nn.Module], None] = {}
    pending: list[type[nn.Module]] = [nn.Module]
    while pending:
        one = pending.pop()
        if one not in known:
            known[one] = None
            pending += one.__subclasses__()
    return [one for one in known if f"{one.__module__}.".startswith(_KNOWN)]


_KNOWN = (
    "torch.nn.modules.",
    "torch.nn.utils.",
    "torch.nn.parallel.",
    "torch.ao.quantization.observer",
    "torch.ao.quantization.fake_quantize",
    "torch.ao.quantization.stubs",
    "torch.ao.nn.qat.modules.",
    "torch.ao.nn.intrinsic.modules.",
    "torch.ao.nn.intrinsic.qat.modules.",
)


def test_the_table_of_classes_is_that_of_the_real_ones() -> None:
    classes = known_classes()
    assert len(classes) > 200
    attributes: dict[str, Any] = {"track_running_stats": True}
    for one in classes:
        found = inspect.getattr_static(one, "_load_from_state_dict")
        name = f"{found.__module__}.{found.__qualname__}"
        settings = attributes if name in (NORM, INSTANCE_NORM) else {}
        expected = () if found is nn.Module._load_from_state_dict else (LoadHook(name, settings),)
        assert load_hooks_of(f"{one.__module__}.{one.__qualname__}", attributes) == expected


def test_no_known_class_has_another_way_to_load_or_an_extra_state() -> None:
    for one in known_classes():
        assert one.load_state_dict is nn.Module.load_state_dict
        assert one.set_extra_state is nn.Module.set_extra_state
        assert one.get_extra_state is nn.Module.get_extra_state


def test_the_names_of_hooks_are_those_that_torch_has() -> None:
    lazy = nn.modules.lazy.LazyModuleMixin._lazy_load_hook
    assert f"{lazy.__module__}.{lazy.__qualname__}" == (
        "torch.nn.modules.lazy.LazyModuleMixin._lazy_load_hook"
    )
    assert nn.modules.module._WrappedHook.__module__ == "torch.nn.modules.module"


# Roots -----------------------------------------------------------------------------------------

MODULE = builders.module(parameters={"w": WEIGHT})


def test_the_module_can_lie_deeper(tmp_path: Path) -> None:
    for tree, root in (
        ({"model": MODULE, "epoch": 3}, None),
        ({"model": MODULE, "ema": MODULE}, None),
        ({"model": MODULE, "state_dict": {"w": WEIGHT}}, None),
        ({"model": MODULE, "other": builders.module()}, "model"),
    ):
        assert list(built(tmp_path, tree, root).tensors) == ["w"]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"w": WEIGHT}, "a state_dict"),
        ({"model": {"w": WEIGHT}, "ema": {"w": WEIGHT}}, "a state_dict"),
        ({"model": MODULE, "ema": builders.module(parameters={"w": WEIGHT})}, "several models"),
        ({"epoch": 3}, "no model"),
    ],
)
def test_a_file_without_one_module_is_no_model(tmp_path: Path, tree: object, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        built(tmp_path, tree)
    assert caught.value.problem.startswith(f"holds {said}")
    assert caught.value.hint
    assert caught.value.place is None


# Hostile files ---------------------------------------------------------------------------------


def test_a_module_inside_itself_is_refused(tmp_path: Path) -> None:
    inner = builders.module()
    outer = builders.module(modules={"inner": inner})
    assert isinstance(inner.state, dict)
    inner.state["_modules"]["again"] = outer
    with pytest.raises(SpecError, match="inside itself"):
        built(tmp_path, outer)


@pytest.mark.parametrize(
    "made",
    [
        builders.module(parameters={"a.b": WEIGHT}),
        builders.module(parameters={"a": WEIGHT}, buffers={"a": WEIGHT}),
        builders.module(buffers={"a": 3}),
        builders.module(parameters={"a": [WEIGHT]}),
        builders.module(modules={"a": 3}),
        builders.module(modules={"": builders.module()}),
        builders.module(
            modules={"a": builders.module(modules={"b": MODULE}), "a.b": builders.module()}
        ),
    ],
)
def test_what_no_module_of_torch_can_be_is_refused(tmp_path: Path, made: Call) -> None:
    with pytest.raises(SpecError):
        built(tmp_path, made)


def test_a_name_of_a_module_can_have_a_dot_as_old_files_have_it(tmp_path: Path) -> None:
    spec = built(tmp_path, builders.module(modules={"norm.1": MODULE}))
    assert list(spec.tensors) == ["norm.1.w"]
    assert list(spec.modules) == ["", "norm.1"]


@st.composite
def module_trees(draw: st.DrawFn, depth: int = 3) -> Call:
    """Modules in modules, with names that torch takes."""
    names = st.text("abcxyz_0", min_size=1, max_size=3)
    tensors = st.one_of(st.none(), strategies.tensors())
    held = draw(st.lists(names, unique=True, max_size=5))
    cut = draw(st.integers(0, len(held)))
    buffers = held[cut:]
    below = module_trees(depth - 1) if depth else st.nothing()
    inside = st.one_of(st.none(), below) if depth else st.none()
    return builders.module(
        draw(st.sampled_from([LINEAR, Global("gone", "Layer")])),
        parameters={name: draw(tensors) for name in held[:cut]},
        buffers={name: draw(tensors) for name in buffers},
        non_persistent=draw(st.lists(st.sampled_from(buffers), unique=True)) if buffers else [],
        modules={
            f"m{index}": draw(inside) for index in range(draw(st.integers(0, 2)) if depth else 0)
        },
    )


def expected(made: Call, prefix: str = "") -> Iterator[tuple[str, str, bool]]:
    state: Any = made.state
    transient = state["_non_persistent_buffers_set"]
    for name, tensor in state["_parameters"].items():
        if tensor is not None:
            yield prefix + name, "parameter", True
    for name, tensor in state["_buffers"].items():
        if tensor is not None:
            yield prefix + name, "buffer", name not in transient
    for name, inner in state["_modules"].items():
        if inner is not None:
            yield from expected(inner, f"{prefix}{name}.")


@given(made=module_trees())
def test_any_tree_of_modules_is_told_name_by_name(
    tmp_path_factory: pytest.TempPathFactory, made: Call
) -> None:
    spec = built(tmp_path_factory.mktemp("tree"), made)
    told = [(name, one.kind, one.is_persistent) for name, one in spec.tensors.items()]
    assert told == list(expected(made))
    assert {name.rpartition(".")[0] for name in spec.tensors} <= spec.modules.keys()


@given(data=st.data())
def test_a_damaged_module_gives_a_spec_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    pickled = builders.to_pickle(data.draw(module_trees(depth=1)))
    path = tmp_path_factory.mktemp("damaged") / "module.pt"
    path.write_bytes(torch_zip({}, data_pkl=data.draw(strategies.mutations(pickled))))
    with contextlib.suppress(CkptoolError):
        assert isinstance(spec_in(path), ModelSpec)


def test_class_names_are_text_and_nothing_more() -> None:
    hostile = nodes.Global("os", "system")
    assert load_hooks_of(str(hostile), {}) is None
    assert load_hooks_of(None, {}) is None


def test_whether_a_class_takes_an_extra_state_is_known_of_torchs_own_only(tmp_path: Path) -> None:
    """A pickle holds no class; those of torch.nn are known and take none."""
    path = tmp_path / "whole.pt"
    torch.save(nn.Sequential(nn.Linear(2, 2), Net()), path)
    with open_checkpoint(path) as checkpoint:
        modules = spec_of_module(checkpoint, str(path)).modules
    assert (modules[""].has_extra_state, modules["0"].has_extra_state) == (False, False)
    assert modules["1"].has_extra_state is None
