"""A live model's spec is what the model itself says."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ckptool import SpecError, StateDict, load_model_spec
from ckptool.spec.document import read_document, write_document
from ckptool.spec.model_spec import (
    Computed,
    Content,
    Fill,
    InitialValue,
    Random,
    Range,
    TensorSpec,
    UnknownValue,
)
from tests.running import SAMPLES

MODELS = SAMPLES / "models.py"


def spec_of(module: type[nn.Module]) -> dict[str, TensorSpec]:
    return dict(load_model_spec(module).spec.tensors)


# Names, kinds, persistence ---------------------------------------------------------------------


class Everything(nn.Module):
    """What a module can register, in every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3, affine=False)
        self.plain = nn.BatchNorm1d(3, track_running_stats=False)
        self.again = self.norm
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))])
        self.named = nn.ParameterDict({"a": nn.Parameter(torch.ones(1))})
        self.buffer = nn.Buffer(torch.ones(4), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("none", None)
        self.register_module("no_module", None)
        self.attribute = torch.ones(2)


def test_a_spec_has_every_name_with_its_kind_persistence_dtype_and_shape() -> None:
    module = Everything()
    spec = load_model_spec(Everything).spec
    parameters = dict(module.named_parameters(remove_duplicate=False))
    buffers = dict(module.named_buffers(remove_duplicate=False))
    saved = module.state_dict()
    assert spec.tensors.keys() == parameters.keys() | buffers.keys()
    assert [name for name, one in spec.tensors.items() if one.is_persistent] == list(saved)
    for name, one in spec.tensors.items():
        tensor = parameters.get(name, buffers.get(name))
        assert isinstance(tensor, Tensor)
        assert one.kind == ("parameter" if name in parameters else "buffer")
        assert one.shape == tuple(tensor.shape)
        assert f"torch.{one.dtype}" == str(tensor.dtype)
        assert one.is_persistent == (name in saved)
        assert (one.initial is None) == (one.kind == "parameter")


def test_a_spec_has_the_modules_with_what_is_none_and_what_is_tied() -> None:
    spec = load_model_spec(Everything).spec
    assert spec.modules.keys() == dict(Everything().named_modules(remove_duplicate=False)).keys()
    assert spec.modules[""].none_tensors == ("none", "nothing")
    assert spec.modules[""].none_modules == ("no_module",)
    assert spec.modules["plain"].none_tensors == (
        "running_mean", "running_var", "num_batches_tracked",
    )  # fmt: skip
    assert spec.modules["norm"].type == "torch.nn.modules.batchnorm.BatchNorm1d"
    assert spec.tensors["head.weight"].tied_to == "embed.weight"
    assert spec.tensors["again.running_var"].tied_to == "norm.running_var"
    assert spec.tensors["embed.weight"].tied_to is None


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(3)
        self.norm = nn.LazyBatchNorm1d()


def test_what_is_not_initialised_has_no_shape() -> None:
    spec = spec_of(Lazy)
    for name in ("fc.weight", "norm.running_mean"):
        assert (spec[name].dtype, spec[name].shape) == (None, None)
    assert spec["norm.running_mean"].initial == UnknownValue("not initialised")
    assert spec["norm.num_batches_tracked"].shape == ()


class OwnLoading(nn.Module):
    def get_extra_state(self) -> dict[str, int]:
        return {"x": 1}

    def set_extra_state(self, state: object) -> None:
        raise AssertionError(state)


def test_extra_state_is_seen_in_the_class() -> None:
    spec = load_model_spec(lambda: nn.Sequential(OwnLoading(), nn.Linear(1, 1))).spec
    assert [path for path, module in spec.modules.items() if module.has_extra_state] == ["0"]


# Initial values --------------------------------------------------------------------------------


class Values(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        for name, value in VALUES.items():
            self.register_buffer(name, value)
        self.register_buffer("random", torch.randn(3))
        self.register_buffer("from_weight", self.weight.detach() * 2)
        self.register_buffer("large", torch.arange(100_000).float())


NAN = torch.tensor([1.0, float("nan")])
VALUES = {
    "zeros": torch.zeros(3, 2),
    "negative_zero": torch.full((2,), -0.0),
    "infinite": torch.full((2,), -torch.inf),
    "flag": torch.ones(2, dtype=torch.bool),
    "number": torch.tensor(7),
    "tenths": torch.full((3,), 0.1, dtype=torch.bfloat16),
    "indices": torch.arange(5, 0, -1).expand(1, -1),
    "many": torch.arange(1 << 20),
    "table": torch.tensor([[1.0, 2.0], [3.0, 5.0]]).T,
    "mask": torch.ones(3, 3, dtype=torch.bool).tril(),
    "nan": NAN,
    "pair": torch.tensor([1 + 2j, 3j]).conj(),
    "empty": torch.empty(0),
}


def test_an_initial_value_is_a_fill_a_range_or_the_bytes() -> None:
    initial = {name: one.initial for name, one in spec_of(Values).items()}
    assert initial["zeros"] == Fill(0.0)
    assert str(initial["negative_zero"]) == str(Fill(-0.0))
    assert initial["infinite"] == Fill(-torch.inf)
    assert (initial["flag"], initial["number"]) == (Fill(True), Fill(7))
    assert initial["tenths"] == Fill(torch.tensor(0.1, dtype=torch.bfloat16).item())
    assert initial["indices"] == Range(5, -1)
    assert initial["many"] == Range(0, 1)
    assert initial["large"] == Computed()
    assert initial["random"] == Random()
    assert initial["from_weight"] == UnknownValue("made from parameters")


@pytest.mark.parametrize("name", ["table", "mask", "nan", "pair", "empty"])
def test_the_bytes_are_the_elements_in_row_major_order(name: str) -> None:
    initial = spec_of(Values)[name].initial
    assert isinstance(initial, Content)
    value = VALUES[name].resolve_conj().contiguous()
    read = torch.frombuffer(bytearray(initial.data or b"\0" * 8), dtype=value.dtype)
    assert torch.equal(
        read[: value.numel()].reshape(value.shape).view(torch.uint8), value.view(torch.uint8)
    )


def test_two_constructions_leave_the_random_generator_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_model_spec(Values)
    assert torch.equal(torch.get_rng_state(), before)


def spec_with(make: Callable[[], Tensor]) -> TensorSpec:
    """The spec of a buffer, once it has been written and read again."""

    def build() -> nn.Module:
        module = nn.Module()
        module.register_buffer("x", make())
        return module

    spec = load_model_spec(build).spec
    assert read_document(write_document(spec).encode()) == spec
    return spec.tensors["x"]


def nested(layout: torch.layout) -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)


def quantized(dtype: torch.dtype) -> Tensor:
    return torch.quantize_per_tensor(torch.randn(2, 2), 1, 0, dtype)


def wrapped() -> Tensor:
    from torch.testing._internal.two_tensor import TwoTensor

    pair: Tensor = TwoTensor(torch.randn(2, 2), torch.randn(2, 2))  # type: ignore[no-untyped-call]
    return pair


NOT_KEPT = UnknownValue("of a kind that is not kept")
ODD_KINDS: dict[str, tuple[Callable[[], Tensor], str, tuple[int, ...] | None]] = {
    "sparse": (lambda: torch.randn(2, 2).to_sparse(), "float32", (2, 2)),
    "sparse rows": (lambda: torch.randn(2, 2).to_sparse_csr(), "float32", (2, 2)),
    "sparse blocks": (lambda: torch.randn(2, 2).to_sparse_bsr((1, 1)), "float32", (2, 2)),
    "mkldnn": (lambda: torch.randn(2, 2).to_mkldnn(), "float32", (2, 2)),
    "nested": (lambda: nested(torch.strided), "float32", None),
    "jagged": (lambda: nested(torch.jagged), "float32", None),
    "quantized": (lambda: quantized(torch.qint8), "qint8", (2, 2)),
    "packed": (lambda: quantized(torch.quint4x2), "quint4x2", (2, 2)),
    "a wrapper": (wrapped, "float32", (2, 2)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD_KINDS)
def test_a_buffer_of_any_layout_is_described_and_its_value_is_not_claimed(kind: str) -> None:
    make, dtype, shape = ODD_KINDS[kind]
    spec = spec_with(make)
    assert (spec.dtype, spec.shape, spec.initial) == (dtype, shape, NOT_KEPT)


@pytest.mark.parametrize("dtype", ["int4", "uint1", "bits8", "bits16", "float4_e2m1fn_x2"])
def test_a_buffer_of_a_dtype_without_numbers_has_its_bytes(dtype: str) -> None:
    def viewed(value: Tensor) -> Tensor:
        return value.to(torch.uint8).view(getattr(torch, dtype))

    for value in (torch.zeros(4), torch.arange(4)):
        spec = spec_with(lambda value=value: viewed(value))  # type: ignore[misc]
        assert (spec.dtype, spec.initial) == (dtype, Content(bytes(value.int().tolist())))
    assert spec_with(lambda: viewed(torch.randint(255, (64,)))).initial == Random()
    assert spec_with(lambda: viewed(torch.zeros(1 << 20))).initial == Computed()


REPEATED: dict[str, tuple[Callable[[], Tensor], InitialValue]] = {
    "one": (lambda: torch.ones(1).expand(1 << 36), Fill(1.0)),
    "a number": (lambda: torch.tensor(5).expand(1 << 62), Fill(5)),
    "rows": (lambda: torch.arange(3).expand(1 << 61, 3), Computed()),
    "columns": (lambda: torch.arange(3)[:, None].expand(3, 1 << 33), Computed()),
    "random rows": (lambda: torch.randn(3).expand(1 << 33, 3), Random()),
    "no rows": (lambda: torch.empty(1, 0).expand(1 << 36, 0), Content(b"")),
    "one row": (lambda: torch.arange(3).expand(1, 3), Range(0, 1)),
    "few rows": (lambda: torch.arange(2).byte().expand(2, 2), Content(b"\0\1\0\1")),
    "conjugate rows": (
        lambda: torch.tensor([1j]).conj().expand(2, 1), Content(b"\0\0\0\0\0\0\x80\xbf" * 2)
    ),
    "windows": (lambda: torch.zeros(1 << 20).as_strided((1 << 19, 1 << 19), (1, 1)), Fill(0.0)),
    "uneven windows": (
        lambda: torch.arange(1 << 20).as_strided((1 << 19, 1 << 19), (1, 1)), Computed()
    ),
    "few windows": (
        lambda: torch.arange(3).byte().as_strided((2, 2), (1, 1)), Content(b"\0\1\1\2")
    ),
    "random windows": (
        lambda: torch.randn(1 << 20).as_strided((1 << 19, 1 << 19), (1, 1)), Random()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_elements_that_strides_repeat_are_looked_at_once(name: str) -> None:
    make, expected = REPEATED[name]
    assert spec_with(make).initial == expected


def test_an_element_between_others_is_looked_at_alone() -> None:
    assert spec_with(lambda: torch.tensor([1 + 2j]).conj().imag).initial == Fill(-2.0)
    assert spec_with(lambda: torch.arange(6)[1:2:5]).initial == Fill(1)


def test_a_buffer_that_is_another_one_each_time_is_random() -> None:
    for one, other in (
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2).double()),
        (torch.ones(2), torch.zeros(2)),
    ):
        kinds = itertools.cycle([one, other])
        assert spec_with(lambda kinds=kinds: next(kinds)).initial == Random()  # type: ignore[misc]

    names = itertools.cycle(["x", "y"])

    def build() -> nn.Module:
        module = nn.Module()
        module.register_buffer(next(names), torch.ones(1))
        return module

    assert load_model_spec(build).spec.tensors["x"].initial == Random()


def test_the_same_elements_with_other_strides_are_not_called_random() -> None:
    rows = torch.arange(6).reshape(2, 3)
    kinds = itertools.cycle([rows, rows.T.contiguous().T])
    assert spec_with(lambda: next(kinds)).initial == NOT_KEPT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([-(1 << 63), (1 << 63) - 1]), None),
        (torch.tensor([0, -(1 << 63), 0, -(1 << 63)]), None),
        (torch.tensor([0, 1 << 63], dtype=torch.uint64), None),
        (torch.tensor([(1 << 63) - 1, 1 << 63], dtype=torch.uint64), Range((1 << 63) - 1, 1)),
        (torch.tensor([-128, 127], dtype=torch.int8), Range(-128, 255)),
    ],
)
def test_a_step_that_64_bits_do_not_hold_makes_no_range(
    value: Tensor, expected: Range | None
) -> None:
    assert spec_with(lambda: value).initial == (expected or Content(value.numpy().tobytes()))


class OnMeta(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("b", torch.empty(2, device="meta"))


def test_a_buffer_that_its_constructor_puts_on_the_meta_device_was_not_made_from_parameters() -> (
    None
):
    assert spec_of(OnMeta)["b"].initial == UnknownValue("not initialised")


# Construction ----------------------------------------------------------------------------------


class LooksAtValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        self.weight = nn.Parameter(torch.full((2,), 3.0))
        self.register_buffer("total", torch.tensor(self.weight.sum().item()))
        self.weight.data = torch.zeros(2)


def test_a_constructor_may_look_at_the_values_of_its_parameters() -> None:
    spec = spec_of(LooksAtValues)
    assert spec["total"].initial == Fill(6.0)
    assert spec["weight"].shape == (2,)


class LooksAndCannotBeCopied(LooksAtValues):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_such_a_constructor_may_give_what_cannot_be_copied() -> None:
    model = load_model_spec(LooksAndCannotBeCopied)
    assert model.spec.tensors["total"].initial == Fill(6.0)
    assert model.strict_load(StateDict({}, None)).missing == ("weight", "total")


class CatchesTheRefusal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        try:
            self.fc.weight.sum().item()
            self.extra = nn.Linear(2, 2)
        except RuntimeError:
            pass


def test_a_constructor_that_catches_the_refusal_of_values_is_run_again_too() -> None:
    assert "extra.weight" in spec_of(CatchesTheRefusal)


def test_parameters_are_on_the_meta_device_while_a_model_is_built() -> None:
    devices = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("b", torch.ones(1))
            devices.append((self.fc.weight.device.type, self.b.device.type))

    load_model_spec(Watched)
    assert devices == [("meta", "cpu")] * 2
    assert nn.Linear(2, 2).weight.device.type == "cpu"


def test_registering_is_as_before_when_a_constructor_fails() -> None:
    register = nn.Module.register_parameter

    def fail() -> nn.Module:
        raise ValueError("no")

    with pytest.raises(SpecError):
        load_model_spec(fail)
    assert nn.Module.register_parameter is register


class Temporaries(nn.Module):
    """Parameters that live and die while it is built, so that their ids come again."""

    def __init__(self) -> None:
        super().__init__()
        for n in range(50):
            nn.Linear(2, 2)
            setattr(self, f"fc{n}", nn.Linear(2, 2))
            nn.Linear(2, 2)


def test_every_parameter_goes_to_the_meta_device_though_others_are_thrown_away() -> None:
    devices: set[str] = set()

    def build() -> nn.Module:
        module = Temporaries()
        devices.update(parameter.device.type for parameter in module.parameters())
        return module

    load_model_spec(build)
    assert devices == {"meta"}


def test_a_model_of_any_size_costs_what_its_largest_layer_does() -> None:
    """Forty billion parameters, in a process that may have two gigabytes."""
    code = """
import resource, torch
from torch import nn
from ckptool import load_model_spec
def build():
    return nn.Sequential(*(nn.Linear(10_000, 10_000, bias=False) for _ in range(400)))
spec = load_model_spec(build).spec
assert len(spec.tensors) == 400
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_instance_stays_as_it_is_and_its_values_are_not_initial_ones() -> None:
    module = nn.BatchNorm1d(2)
    module(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    spec = load_model_spec(module).spec
    assert spec.origin == "instance"
    assert spec.tensors["running_mean"].initial == UnknownValue("of an instance")
    assert module.weight.device.type == "cpu"
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def trained() -> nn.BatchNorm1d:
    module = nn.BatchNorm1d(2)
    module(torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    return module


class OnABackbone(nn.Module):
    """Puts layers of its own behind a model that was there before."""

    def __init__(self, backbone: nn.Module, *, is_looking: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        if is_looking:
            self.head.weight.sum().item()


@pytest.mark.parametrize("is_looking", [False, True])
def test_a_part_that_was_there_before_stays_as_it_is(is_looking: bool) -> None:
    backbone = trained()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    model = load_model_spec(lambda: OnABackbone(backbone, is_looking=is_looking))
    assert model.spec.tensors["backbone.running_mean"].initial == UnknownValue("of an instance")
    assert model.spec.tensors["norm.running_mean"].initial == Fill(0.0)
    assert model.strict_load(StateDict({}, None)).is_ok is False
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_a_model_that_a_callable_only_hands_out_stays_as_it_is() -> None:
    module = trained()
    spec = load_model_spec(lambda: module).spec
    assert spec.tensors["running_mean"].initial == UnknownValue("of an instance")
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}


# The user's own code ---------------------------------------------------------------------------


def test_a_callable_of_a_file_is_built_with_its_arguments() -> None:
    model = load_model_spec(f"{MODELS}:MyModel(10, hidden_size=5)")
    assert model.spec.origin == "constructed"
    assert model.spec.source == f"{MODELS}:MyModel(10, hidden_size=5)"
    assert model.spec.tensors["weight"].shape == (5, 10)


def test_a_callable_of_a_package_is_built() -> None:
    spec = load_model_spec("torch.nn:Linear(3, 2)").spec
    assert list(spec.tensors) == ["weight", "bias"]


WRONG = """
import torch
from torch import nn

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        print("hello")
        raise RuntimeError("no\\nluck")

class Quits(nn.Module):
    def __init__(self):
        raise SystemExit(3)

class Needs(nn.Module):
    def __init__(self, size):
        super().__init__()

def gives():
    return {"a": 1}

model = nn.Linear(2, 2)
number = 3
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong_models.py"
    path.write_text(WRONG)
    return path


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("Broken", "RuntimeError: no luck"),
        ("Quits()", "SystemExit: 3"),
        ("Needs", "missing 1 required positional argument: 'size'"),
        ("Needs(1, 2)", "takes 2 positional arguments but 3 were given"),
        ("gives", "dict"),
        ("number", "int"),
        ("Brokn", "'Brokn'"),
    ],
)
def test_an_error_of_the_users_code_is_told_as_it_is(call: str, said: str, wrong: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{wrong}:{call}")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_the_line_in_the_users_file_is_named(
    wrong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{wrong}:Broken")
    line = WRONG.splitlines().index('        raise RuntimeError("no\\nluck")') + 1
    assert caught.value.message.endswith(f"({wrong}, line {line})")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "unfinished_models.py"
    path.write_text("x = 1\ndef f(:\n")
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{path}:f")
    assert f"({path}, line 2)" in caught.value.message


def test_a_name_that_is_not_there_has_close_ones(wrong: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{wrong}:Brokn")
    assert caught.value.hint == "close: Broken"
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{wrong}:Needs")
    assert "arguments go behind the name" in (caught.value.hint or "")


def test_an_instance_in_a_file_is_a_model(wrong: Path) -> None:
    spec = load_model_spec(f"{wrong}:model").spec
    assert (spec.origin, list(spec.tensors)) == ("instance", ["weight", "bias"])


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SpecError, match="No module named 'no_such_package'"):
        load_model_spec("no_such_package:Model")


LAZY_NAMES = """
def __getattr__(name):
    raise ImportError("its requirements are not installed")
"""


def test_a_module_that_fails_to_give_a_name_is_told_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lazy_names.py"
    path.write_text(LAZY_NAMES)
    with pytest.raises(SpecError, match="its requirements are not installed"):
        load_model_spec(f"{path}:Model")


ODD_MODULES = """
from torch import nn

class Norm(nn.BatchNorm1d):
    def __init__(self):
        super().__init__(2)
        del self.track_running_stats

class NoModules(nn.Linear):
    def named_modules(self, *args, **kwargs):
        raise RuntimeError("not mine")
"""


def test_a_model_that_cannot_be_described_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "odd_modules.py"
    path.write_text(ODD_MODULES)
    with pytest.raises(SpecError, match="not mine"):
        load_model_spec(f"{path}:NoModules(1, 1)")
    norm = load_model_spec(f"{path}:Norm").spec
    assert [hook.settings for hook in norm.modules[""].load_hooks or ()] == [{}]


def test_an_instance_is_not_called(wrong: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_model_spec(f"{wrong}:model()")
    assert caught.value.hint == "leave out the parentheses"
