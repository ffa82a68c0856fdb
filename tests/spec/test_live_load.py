"""A strict load into a live model is torch's own answer, in the words of one that is worked out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ckptool import Model, StateDict, TensorRef, load_model_spec
from ckptool.spec.live.model import LiveModel
from ckptool.spec.strict_load import FrozenModel, LoadError
from ckptool.tensors.dtypes import DTYPES
from ckptool.tensors.refs import Components, NoData, StorageRef, Strided, row_major_stride

NO_TENSOR = "what is in the file is no tensor"


def state(**tensors: TensorRef | None) -> StateDict:
    return StateDict(tensors, None)


def dense(shape: tuple[int, ...], dtype: str = "float32") -> TensorRef:
    storage = StorageRef("0", DTYPES[dtype], "cpu", 1 << 20, "little", {})
    data = Strided(storage, 0, row_major_stride(shape))
    return TensorRef(DTYPES[dtype], shape, False, data)


def both(build: Callable[[], nn.Module]) -> tuple[Model, Model]:
    """The live model, and what is known of it without its code."""
    live = load_model_spec(build)
    return live, FrozenModel(live.spec)


class Holder(nn.Module):
    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("x", buffer)


# What torch says -------------------------------------------------------------------------------


def test_what_is_no_tensor_is_said_in_the_same_words() -> None:
    for model in both(lambda: nn.Linear(1, 1)):
        answer = model.strict_load(state(weight=dense((1, 1)), bias=None))
        assert (answer.is_ok, answer.errors) == (False, (LoadError("bias", NO_TENSOR),))


def test_statistics_that_are_not_tracked_are_said_in_the_same_words() -> None:
    live, frozen = both(lambda: nn.Sequential(nn.InstanceNorm1d(2)))
    names = ("0.running_mean", "0.running_var")
    given = StateDict(dict.fromkeys(names, dense((2,))), None)
    answer = live.strict_load(given)
    assert answer == frozen.strict_load(given)
    assert tuple(error.name for error in answer.errors) == names


class LazyWithoutHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.UninitializedParameter()


def test_an_error_of_a_copy_has_the_name_that_it_is_about() -> None:
    for model in both(LazyWithoutHook):
        answer = model.strict_load(state(weight=dense((3,))))
        assert [error.name for error in answer.errors] == ["weight"]


@pytest.mark.filterwarnings("ignore")
def test_a_ragged_buffer_is_not_taken_for_a_lazy_one() -> None:
    def build() -> nn.Module:
        rows = [torch.ones(2), torch.ones(3)]
        return Holder(torch.nested.nested_tensor(rows, layout=torch.jagged))

    live, frozen = both(build)
    given = state(x=dense((2, 3)))
    assert (live.strict_load(given).is_ok, live.strict_load(given).shape) == (False, ("x",))
    answer = frozen.strict_load(given)
    assert (answer.is_ok, answer.errors) == (None, ())
    assert answer.why_unknown == "which shape the model's 'x' has is not recorded"
    assert frozen.strict_load(state(x=None)).errors == (LoadError("x", NO_TENSOR),)


# What stopped nothing --------------------------------------------------------------------------


class Lenient(nn.Linear):
    """Whatever is asked for, it does not mind names."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


class Swallows(nn.Linear):
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().load_state_dict(*args, **kwargs)
        except RuntimeError:
            return None


@pytest.mark.parametrize("kind", [Lenient, Swallows])
def test_a_model_that_does_not_object_has_loaded(kind: type[nn.Linear]) -> None:
    model = load_model_spec(lambda: kind(1, 1))
    answer = model.strict_load(state(weight=dense((1, 1)), other=dense((1,))))
    assert (answer.is_ok, answer.missing, answer.unexpected) == (True, (), ())


def test_of_a_failed_load_only_what_it_failed_for_is_told() -> None:
    answer = load_model_spec(lambda: Lenient(1, 1)).strict_load(state(weight=dense((7,))))
    assert (answer.is_ok, answer.missing, answer.shape) == (False, (), ("weight",))


@pytest.mark.parametrize(("kind", "is_ok"), [(nn.Linear, False), (Lenient, True)])
def test_whether_an_extra_state_that_is_not_taken_matters_is_for_torch_to_say(
    kind: type[nn.Linear], is_ok: bool
) -> None:
    names = {"weight": (1, 1), "bias": (1,)}
    live: dict[str, Any] = {name: torch.ones(shape) for name, shape in names.items()}
    with contextlib.nullcontext() if is_ok else pytest.raises(RuntimeError):
        kind(1, 1).load_state_dict({**live, "_extra_state": None}, strict=True)
    given = state(**{name: dense(shape) for name, shape in names.items()}, _extra_state=None)
    answer = load_model_spec(lambda: kind(1, 1)).strict_load(given)
    assert (answer.is_ok, answer.unexpected) == (is_ok, () if is_ok else ("_extra_state",))


# Where torch cannot be asked -------------------------------------------------------------------


class Quits(nn.Linear):
    def _load_from_state_dict(self, *args: Any) -> None:
        raise SystemExit


def test_a_model_that_fails_on_tensors_without_data_has_not_answered() -> None:
    answer = load_model_spec(lambda: Quits(1, 1)).strict_load(state())
    assert answer.is_ok is None
    assert "SystemExit" in (answer.why_unknown or "")
    assert answer.missing == ("weight", "bias")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_cannot_be_put_on_the_meta_device_has_not_answered() -> None:
    script = torch.jit.script(nn.Linear(1, 1))
    answer = load_model_spec(script).strict_load(state())
    assert answer.is_ok is None
    assert "meta device" in (answer.why_unknown or "")


@pytest.mark.parametrize("shape", [(2,), (0, 0, 0)])
def test_a_tensor_that_torch_cannot_make_is_compared_by_its_shape(shape: tuple[int, ...]) -> None:
    for model in both(lambda: Holder(torch.zeros(shape))):
        answer = model.strict_load(state(x=dense((1 << 40, 1 << 40, 0))))
        assert (answer.is_ok, answer.shape, answer.errors) == (False, ("x",), ())


ODD: dict[str, TensorRef] = {
    "quantized": TensorRef(DTYPES["qint8"], (2, 2), False, Components("quantized", (), 1, 1)),
    "nested": TensorRef(DTYPES["float32"], (2, -1), False, Components("nested", (), 1, 1)),
    "on the meta device": TensorRef(DTYPES["float32"], (2, 2), False, NoData((2, 1))),
    "bits": dense((2, 2), "bits8"),
    "of another shape": dense((3, 2), "bits8"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_torch_is_not_asked_about_is_answered_by_the_rules(kind: str) -> None:
    live, frozen = both(lambda: Holder(torch.zeros(2, 2)))
    answer = live.strict_load(state(x=ODD[kind]))
    assert answer == frozen.strict_load(state(x=ODD[kind]))
    assert answer.is_ok is False
    assert [*answer.shape, *(error.name for error in answer.errors)] == ["x"]


def test_what_the_rules_leave_open_is_not_known() -> None:
    sparse = TensorRef(DTYPES["float32"], (2, 2), False, Components("sparse_coo", (), 1, 1))
    live, frozen = both(lambda: Holder(torch.zeros(2, 2)))
    assert live.strict_load(state(x=sparse)) == frozen.strict_load(state(x=sparse))
    assert live.strict_load(state(x=sparse)).is_ok is None
    wrong = live.strict_load(state(x=sparse, y=dense((1,))))
    assert (wrong.is_ok, wrong.unexpected) == (False, ("y",))


# The model stays as it is ----------------------------------------------------------------------


class Uncopied(nn.Linear):
    """Cannot be copied, and counts how often it is asked to load."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.lock = threading.Lock()
        self.times = 0

    def _load_from_state_dict(self, *args: Any) -> None:
        self.times += 1
        super()._load_from_state_dict(*args)


class UncopiedWithOwnMethod(Uncopied):
    """Has the method that loads it as an attribute of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._load_from_state_dict = self._load_from_state_dict  # type: ignore[method-assign]


@pytest.mark.parametrize("build", [lambda: nn.Linear(1, 1), Uncopied, UncopiedWithOwnMethod])
def test_asking_twice_gives_the_same_answer(build: Callable[[], nn.Module]) -> None:
    model = load_model_spec(build)
    assert model.strict_load(state()) == model.strict_load(state())


@pytest.mark.parametrize("build", [Uncopied, UncopiedWithOwnMethod])
def test_a_model_that_cannot_be_copied_is_left_as_it_was(build: Callable[[], nn.Module]) -> None:
    model = load_model_spec(build)
    assert isinstance(model, LiveModel)
    before = dict(vars(model.module))
    assert model.strict_load(state()).missing == ("weight", "bias")
    assert vars(model.module) == before | {"times": 1}
