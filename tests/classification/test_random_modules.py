"""Modules of any structure: saved, classified, and compared with what they are alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ckptool import Model, check, classify, load_model_spec, open_checkpoint
from ckptool.spec.document import read_document, write_document
from ckptool.spec.strict_load import FrozenModel

NAMES = st.sampled_from(["weight", "bias", "mean", "cache", "layer", "0", "_x", "größe", "a b"])
SHAPES = st.lists(st.integers(0, 3), max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])


@st.composite
def modules(draw: st.DrawFn, depth: int = 3) -> nn.Module:
    """A module with parameters, buffers of both kinds, names that are None, and submodules."""
    module = nn.Module()
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        kind = draw(st.sampled_from(["parameter", "buffer", "cache", "none", "module", "again"]))
        match kind:
            case "parameter":
                value = torch.zeros(draw(SHAPES))
                module.register_parameter(name, nn.Parameter(value))
            case "buffer" | "cache":
                made = torch.zeros(draw(SHAPES), dtype=draw(DTYPES))
                module.register_buffer(name, made, persistent=kind == "buffer")
            case "none":
                module.register_buffer(name, None)
                module.register_parameter(name + "2", None)
                module.register_module(name + "3", None)
            case "module" if depth:
                module.register_module(name, draw(modules(depth - 1)))
            case "again" if module._modules:
                module.register_module(name, next(iter(module._modules.values())))
    return module


def forms(module: nn.Module, folder: Path) -> Iterator[Model]:
    """The module as a live model, as its spec, and saved whole."""
    live = load_model_spec(module)
    yield live
    yield FrozenModel(read_document(write_document(live.spec).encode()))
    torch.save(module, folder / "whole.pt")
    yield load_model_spec(folder / "whole.pt")


def kinds(module: nn.Module) -> dict[str, tuple[str, bool | None]]:
    """Every name of a module with its role and persistence."""
    found: dict[str, tuple[str, bool | None]] = {}
    saved = module.state_dict()
    for name, _ in module.named_parameters(remove_duplicate=False):
        found[name] = ("parameter", None)
    for name, _ in module.named_buffers(remove_duplicate=False):
        found[name] = ("buffer", name in saved)
    return found


PREFIXES = st.sampled_from(["", "module.", "_orig_mod.module."])


@given(module=modules(), prefix=PREFIXES)
def test_every_name_is_what_it_is_in_the_module(
    module: nn.Module, prefix: str, tmp_path: Path
) -> None:
    state = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    torch.save(state, tmp_path / "state.pt")
    expected = kinds(module)
    for model in forms(module, tmp_path):
        with open_checkpoint(tmp_path / "state.pt") as checkpoint:
            found = classify(checkpoint, model)
        match = found.match
        assert match is not None
        for one in found.entries:
            name = match.alignment.rename(one.name or "")
            assert (one.role, one.is_persistent) == expected.pop(name)
            assert (one.status, one.evidence, one.is_certain) == ("matched", "spec", True)
        absent = {one.name: (one.role, one.is_persistent) for one in found.absent}
        assert absent == {name: kind for name, kind in expected.items() if kind[1] is False}
        assert {one.status for one in found.absent} <= {"not-saved"}
        assert match.strict_load_with_prefix.is_ok is True
        expected = kinds(module)


@st.composite
def damaged(draw: st.DrawFn, module: nn.Module) -> dict[str, Tensor]:
    """A state_dict of the module with names dropped, added, renamed, reshaped, left over."""
    state = dict(module.state_dict())
    state |= {
        name: tensor
        for name, tensor in module.named_buffers(remove_duplicate=False)
        if draw(st.booleans())
    }
    for name in list(state):
        match draw(st.sampled_from(["keep", "keep", "drop", "rename", "reshape", "nest"])):
            case "drop":
                del state[name]
            case "rename":
                state[f"other.{name}"] = state.pop(name)
            case "reshape":
                state[name] = state[name].unsqueeze(0)
            case "nest":
                state[f"{name}.inner"] = state.pop(name)
    return state


@given(data=st.data(), module=modules())
def test_a_strict_load_is_what_torch_says_it_is(
    data: st.DataObject, module: nn.Module, tmp_path: Path
) -> None:
    state = data.draw(damaged(module))
    torch.save(state, tmp_path / "state.pt")
    try:
        module.load_state_dict(state, strict=True)
        is_ok = True
    except RuntimeError:
        is_ok = False
    answers = []
    for model in forms(module, tmp_path):
        with open_checkpoint(tmp_path / "state.pt", root="") as checkpoint:
            found = check(checkpoint, model)
        assert found.strict_load is not None
        assert found.strict_load.is_ok is is_ok
        codes = {finding.code for finding in found.findings if finding.kind == "load"}
        assert bool(codes) is not is_ok
        answers.append(
            {(finding.code, finding.name) for finding in found.findings if finding.kind == "load"}
        )
    assert answers[0] == answers[1] == answers[2]


def test_the_strategy_makes_modules_of_every_kind() -> None:
    """Otherwise the tests above would assert less than they seem to."""
    seen: set[tuple[str, bool | None]] = set()

    @given(module=modules())
    def look(module: nn.Module) -> None:
        seen.update(kinds(module).values())

    look()
    assert seen == {("parameter", None), ("buffer", True), ("buffer", False)}


@pytest.mark.parametrize("location", ["cuda:0", "mps", "meta"])
def test_where_tensors_were_does_not_change_what_they_are(location: str, tmp_path: Path) -> None:
    from tests.builders import Tensor as Built
    from tests.builders import torch_zip

    tensors = {
        "weight": Built("float32", (2,), location=location),
        "running_mean": Built("float32", (2,), location=location),
    }
    (tmp_path / "x.pt").write_bytes(torch_zip(tensors))
    model = load_model_spec(lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True))
    with open_checkpoint(tmp_path / "x.pt") as checkpoint:
        found = {one.name: one.role for one in classify(checkpoint, model).entries}
    assert found == {"weight": "parameter", "running_mean": "buffer"}
