"""The gate: what `check` finds in a file, with a model and without."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ckptool import Check, Finding, Model, check, classify, load_model_spec, open_checkpoint
from ckptool.spec.document import write_document
from ckptool.spec.strict_load import FrozenModel
from tests import builders
from tests.builders import Tensor, torch_zip
from tests.running import SAMPLES, json_of, run


def checked(path: Path, model: Model | None = None, **options: Any) -> Check:
    root = options.pop("root", None)
    with open_checkpoint(path, root=root, keep_defects=True) as checkpoint:
        return check(checkpoint, model, **options)


def codes(found: Check) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.name) for finding in found.findings}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.pt"


# A strict load ---------------------------------------------------------------------------------


class Net(nn.Module):
    """Every kind of name that a state_dict can have."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("cache", torch.zeros(2), persistent=False)
        self.register_buffer("nothing", None)


class WithExtraState(nn.Module):
    """`set_extra_state` would run on what the file holds, so it must never be called."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def get_extra_state(self) -> object:
        return {"steps": 3}

    def set_extra_state(self, state: object) -> None:
        raise AssertionError("a file's object reached the model's code")


def both(build: Callable[[], nn.Module]) -> list[Model]:
    """A live model, and its spec alone."""
    live = load_model_spec(build)
    return [live, FrozenModel(live.spec)]


def test_a_file_of_the_model_itself_passes(path: Path) -> None:
    torch.save(Net().state_dict(), path)
    for model in both(Net):
        found = checked(path, model)
        assert found.is_passed
        assert found.strict_load is not None
        assert found.strict_load.is_ok is True


def test_every_reason_has_its_code_and_says_both_sides(path: Path) -> None:
    state = Net().state_dict()
    del state["norm.weight"]
    state["cache"] = torch.zeros(2)
    state["nothing"] = torch.zeros(1)
    state["surplus"] = torch.zeros(1)
    state["scale"] = torch.ones(4)
    torch.save(state, path)
    for model in both(Net):
        found = checked(path, model)
        assert codes(found) == {
            ("missing", "norm.weight"),
            ("stale", "cache"),
            ("unexpected", "nothing"),
            ("unexpected", "surplus"),
            ("shape", "scale"),
        }
        details = {finding.name: finding.detail for finding in found.findings}
        assert details["scale"] == "[4] in the file, [3] in the model"
        assert "registered as None" in details["nothing"]
        assert "no such name" in details["surplus"]


def test_a_missing_name_whose_twin_is_there_says_so(path: Path) -> None:
    for gone, twin in (("head.weight", "embed.weight"), ("embed.weight", "head.weight")):
        state = Net().state_dict()
        del state[gone]
        torch.save(state, path)
        (finding,) = checked(path, load_model_spec(Net)).findings
        assert (finding.code, finding.name) == ("missing", gone)
        assert f"tied with {twin}" in finding.detail


def test_a_prefix_fails_as_it_is_and_would_load_without(path: Path) -> None:
    state = {f"_orig_mod.module.{name}": value for name, value in Net().state_dict().items()}
    torch.save(state, path)
    for model in both(Net):
        with open_checkpoint(path) as checkpoint:
            match = classify(checkpoint, model).match
        assert match is not None
        assert match.alignment.strip == "_orig_mod.module."
        assert match.strict_load.is_ok is False
        assert len(match.strict_load.unexpected) == len(state)
        assert match.strict_load_with_prefix.is_ok is True
        assert match.absent[0].status == "not-saved"
        assert not checked(path, model).is_passed


def test_what_is_no_tensor_does_not_load(path: Path) -> None:
    state: dict[Any, Any] = {**Net().state_dict(), "scale": "three", "epoch": 3, 7: None}
    torch.save(state, path)
    for model in both(Net):
        found = checked(path, model)
        assert found.strict_load is not None
        assert found.strict_load.is_ok is False
        assert "epoch" in found.strict_load.unexpected


def test_an_old_file_loads_through_the_hook_of_the_model(path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))

    with pytest.warns(FutureWarning):
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
    torch.save(old.state_dict(), path)
    build().load_state_dict(old.state_dict(), strict=True)
    for model in both(build):
        found = checked(path, model)
        assert found.strict_load is not None
        assert found.strict_load.is_ok is True
        assert found.is_passed
        entries = {one.name: one for one in found.contents.entries}
        assert entries["0.weight_g"].status == "matched"
        assert entries["0.weight_g"].role == "parameter"
        assert found.contents.absent == ()


def test_a_counter_that_is_older_than_the_file_is_filled_in(path: Path) -> None:
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    torch.save(dict(state), path)  # without _metadata torch takes it for a file of version 1
    for model in both(lambda: nn.BatchNorm1d(3)):
        found = checked(path, model)
        assert found.is_passed
        assert [(one.name, one.status) for one in found.contents.absent] == [
            ("num_batches_tracked", "supplied")
        ]
    torch.save(state, path)
    for model in both(lambda: nn.BatchNorm1d(3)):
        assert codes(checked(path, model)) == {("missing", "num_batches_tracked")}


def test_no_object_of_a_file_reaches_the_models_code(path: Path) -> None:
    torch.save(WithExtraState().state_dict(), path)
    for model in both(WithExtraState):
        found = checked(path, model)
        assert found.is_passed
    state = WithExtraState().state_dict()
    del state["_extra_state"]
    torch.save(state, path)
    for model in both(WithExtraState):
        assert codes(checked(path, model)) == {("missing", "_extra_state")}
    torch.save({**nn.Linear(2, 2).state_dict(), "_extra_state": torch.ones(1)}, path)
    for model in both(lambda: nn.Linear(2, 2)):
        assert codes(checked(path, model)) == {("unexpected", "_extra_state")}


class LooksAtValues(nn.Module):
    """A hook of its own that torch can only run on real tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            lambda _module, state, *_rest: state["fc.weight"].sum().item()
        )


class TakesOldNames(nn.Module):
    """A method of its own that renames, as models do when a release changes names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def _load_from_state_dict(self, state: dict[str, Any], *rest: Any) -> None:
        for name in list(state):
            state[name.replace("linear.", "fc.")] = state.pop(name)
        super()._load_from_state_dict(state, *rest)


def test_a_hook_of_the_models_own_is_never_guessed(path: Path) -> None:
    torch.save(LooksAtValues().state_dict(), path)
    for model in both(LooksAtValues):
        answer = checked(path, model).strict_load
        assert answer is not None
        assert answer.is_ok is None
        assert answer.why_unknown
    assert checked(path, load_model_spec(LooksAtValues)).is_passed


def test_what_only_names_say_is_said_to_be_that(path: Path) -> None:
    old = {name.replace("fc.", "linear."): t for name, t in TakesOldNames().state_dict().items()}
    torch.save(old, path)
    found = checked(path, both(TakesOldNames)[1])
    assert {finding.code for finding in found.findings} == {"missing", "unexpected"}
    assert all(finding.detail.endswith("; by its name alone") for finding in found.findings)


def test_that_a_load_cannot_be_told_stands_in_the_last_line(path: Path, tmp_path: Path) -> None:
    torch.save(TakesOldNames().state_dict(), path)
    spec = tmp_path / "spec.json"
    spec.write_text(write_document(load_model_spec(TakesOldNames).spec))
    result = run("check", path, "--model", spec)
    assert result.code == 0
    assert result.out.endswith("passed; whether it loads cannot be told\n")


def test_a_value_that_cannot_be_loaded_has_its_own_code_and_name(path: Path) -> None:
    torch.save({**Net().state_dict(), "scale": "three"}, path)
    for model in both(Net):
        assert codes(checked(path, model)) == {("value", "scale")}
        assert checked(path, model, patterns=["norm.*"]).is_passed
        allowed = checked(path, model, allow=["unexpected", "missing", "shape"])
        assert codes(allowed) == {("value", "scale")}


def test_names_that_are_in_no_state_dict_are_not_the_models(path: Path) -> None:
    torch.save([torch.ones(2), torch.ones(2)], path)
    with open_checkpoint(path) as checkpoint:
        found = classify(checkpoint, load_model_spec(lambda: nn.ParameterList([torch.ones(2)])))
    assert {one.status for one in found.entries} == {"unexpected"}
    torch.save(torch.ones(2), path)
    with open_checkpoint(path) as checkpoint:
        found = classify(checkpoint, load_model_spec(AsBuffer))
    assert [one.status for one in found.entries] == ["unexpected"]


def test_a_buffer_of_a_saved_module_that_the_model_has_not_is_unexpected(path: Path) -> None:
    torch.save(AsBuffer(persistent=False), path)
    with open_checkpoint(path) as checkpoint:
        found = classify(checkpoint, load_model_spec(lambda: nn.Linear(1, 1, bias=False)))
    assert [(one.name, one.status) for one in found.entries] == [("scale", "unexpected")]


def test_versions_follow_the_names_when_a_prefix_is_put_before_them(path: Path) -> None:
    """A BatchNorm of version 2 without its counter does not load, inside another module neither."""
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    torch.save(state, path)
    for model in both(lambda: nn.Sequential(nn.BatchNorm1d(3))):
        with open_checkpoint(path) as checkpoint:
            match = classify(checkpoint, model).match
        assert match is not None
        assert match.alignment.add == "0."
        assert match.strict_load_with_prefix.missing == ("0.num_batches_tracked",)


def test_a_tensor_that_a_hook_resizes_is_no_mismatch(path: Path) -> None:
    from torch.ao.quantization import PerChannelMinMaxObserver

    observer = PerChannelMinMaxObserver()
    observer(torch.randn(3, 4))
    torch.save(observer.state_dict(), path)
    for model in both(PerChannelMinMaxObserver):
        found = checked(path, model)
        assert found.is_passed
        assert {one.status for one in found.contents.entries} == {"matched"}


def test_torch_runs_the_hooks_of_a_live_model(path: Path) -> None:
    old = {name.replace("fc.", "linear."): t for name, t in TakesOldNames().state_dict().items()}
    torch.save(old, path)
    live, frozen = both(TakesOldNames)
    found = checked(path, live)
    assert found.is_passed
    assert found.strict_load is not None
    assert found.strict_load.is_ok is True
    assert {one.status for one in found.contents.entries} == {"matched"}
    assert {one.status for one in found.contents.absent} == {"supplied"}
    answer = checked(path, frozen).strict_load
    assert answer is not None
    assert answer.is_ok is None
    assert "TakesOldNames" in (answer.why_unknown or "")


def test_a_lazy_model_takes_any_shape_each_time_anew(path: Path) -> None:
    for model in both(lambda: nn.LazyLinear(3)):
        for width in (4, 7):
            torch.save(nn.Linear(width, 3).state_dict(), path)
            assert checked(path, model).is_passed


# Roles -----------------------------------------------------------------------------------------


class AsParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))


class AsBuffer(nn.Module):
    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(2), persistent=persistent)


def test_the_models_word_goes_before_the_files_and_a_conflict_is_told(path: Path) -> None:
    torch.save(AsParameter(), path)
    model = load_model_spec(AsBuffer)
    found = checked(path, model)
    assert codes(found) == {("conflict", "scale")}
    (entry,) = found.contents.entries
    assert (entry.role, entry.is_persistent, entry.evidence) == ("buffer", True, "spec")


def test_another_persistence_is_a_conflict_too(path: Path) -> None:
    torch.save(AsBuffer(persistent=False), path)
    found = checked(path, load_model_spec(AsBuffer))
    assert ("conflict", "scale") in codes(found)


def test_another_kind_of_number_is_found_and_another_width_noted(path: Path) -> None:
    model = load_model_spec(AsBuffer)
    torch.save({"scale": torch.ones(2, dtype=torch.int64)}, path)
    found = checked(path, model)
    assert codes(found) == {("dtype", "scale")}
    assert found.strict_load is not None
    assert found.strict_load.is_ok is True
    torch.save({"scale": torch.ones(2, dtype=torch.bfloat16)}, path)
    found = checked(path, model)
    assert found.is_passed
    assert found.notes == (
        "1 tensor is bfloat16 in the file and float32 in the model; a load casts them",
    )


# Numbers ---------------------------------------------------------------------------------------

FLOATS = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinities_are_counted_as_torch_counts_them(
    dtype: torch.dtype, path: Path
) -> None:
    values = torch.tensor([1.0, -torch.inf, torch.nan, 0.0, torch.inf, 2.0]).to(dtype)
    torch.save({"x": values, "fine": torch.ones(3).to(dtype)}, path)
    wide = values.double()
    expected = {}
    for code, count in (("nan", wide.isnan().sum()), ("inf", wide.isinf().sum())):
        if count:
            expected[code] = f"{int(count)} of 6 elements are "
    found: dict[str, Finding] = {one.code: one for one in checked(path).findings}
    assert found.keys() == expected.keys()
    assert all(found[code].detail.startswith(said) for code, said in expected.items())
    assert {finding.name for finding in found.values()} == {"x"}


@given(numbers=st.lists(st.floats(width=32), min_size=1, max_size=20), is_complex=st.booleans())
def test_any_numbers_are_counted_as_torch_counts_them(
    numbers: list[float], is_complex: bool, tmp_path: Path
) -> None:
    values = torch.tensor(numbers)
    values = torch.complex(values, values.flip(0)) if is_complex else values
    torch.save({"x": values}, tmp_path / "x.pt")
    found: dict[str, str] = {one.code: one.detail for one in checked(tmp_path / "x.pt").findings}
    for code, count in (("nan", values.isnan().sum()), ("inf", values.isinf().sum())):
        assert found.get(code, "0").split()[0] == str(int(count))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_a_complex_element_counts_once(path: Path) -> None:
    values = torch.tensor([complex(torch.nan, torch.nan), complex(torch.inf, 0), 1j])
    for dtype in (torch.complex64, torch.complex32):
        torch.save({"x": values.to(dtype)}, path)
        details = {finding.code: finding.detail for finding in checked(path).findings}
        assert details["nan"] == "1 of 3 elements are NaN"
        assert details["inf"] == "1 of 3 elements are infinite"


def test_a_repeated_element_is_read_once_and_counted_each_time(path: Path) -> None:
    torch.save(
        {"x": torch.full((1,), torch.nan).expand(1 << 29), "y": torch.full((1,), torch.inf)}, path
    )
    found = checked(path)
    assert codes(found) == {("nan", "x"), ("inf", "y")}
    assert found.findings[0].detail.startswith("536,870,912 of 536,870,912 ")


def test_what_is_too_large_to_be_read_is_named_and_the_rest_is_checked(path: Path) -> None:
    windows = torch.zeros(40_000).as_strided((20_000, 20_000), (1, 1))
    torch.save({"x": windows, "y": torch.full((1,), torch.inf)}, path)
    found = checked(path)
    assert codes(found) == {("inf", "y")}
    assert found.notes[0].startswith("x was not read: ")
    assert found.tensors_read == 1


def test_a_tied_tensor_is_read_once_and_named_under_each_name(path: Path) -> None:
    bad = torch.full((2,), torch.nan)
    torch.save({"a": bad, "b": bad, "half": bad[:1]}, path)
    assert codes(checked(path)) == {("nan", "a"), ("nan", "b"), ("nan", "half")}


def test_impossible_statistics_are_found(path: Path) -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_var = torch.tensor([1.0, -9.7, -0.0])
    norm.running_mean = torch.tensor([0.0, torch.nan, 0.0])
    healthy = nn.BatchNorm1d(3)
    healthy(torch.randn(4, 3))
    torch.save(nn.Sequential(norm, healthy).state_dict(), path)
    found = checked(path)
    assert codes(found) == {
        ("nan", "0.running_mean"),
        ("negative-variance", "0.running_var"),
        ("counter", "0.num_batches_tracked"),
    }
    details = {finding.code: finding.detail for finding in found.findings}
    assert details["negative-variance"] == "1 of 3 elements are below zero"
    assert "running_mean" in details["counter"]


def test_statistics_in_a_list_of_pairs_are_checked_too(path: Path) -> None:
    norm = nn.BatchNorm1d(2)
    norm.running_var = torch.tensor([1.0, -1.0])
    norm.num_batches_tracked = torch.tensor([1])
    torch.save(list(norm.state_dict().items()), path)
    assert codes(checked(path)) == {
        ("negative-variance", "running_var"), ("counter", "num_batches_tracked"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "counter", [torch.tensor([3]), torch.tensor(3.0), torch.tensor(3, dtype=torch.int32)]
)
def test_a_counter_is_an_integer_of_64_bits_without_dimensions(
    counter: torch.Tensor, path: Path
) -> None:
    torch.save({**nn.BatchNorm1d(3).state_dict(), "num_batches_tracked": counter}, path)
    assert codes(checked(path)) == {("counter", "num_batches_tracked")}


def test_a_counter_of_zero_beside_fresh_statistics_is_fine(path: Path) -> None:
    torch.save(nn.BatchNorm1d(3).state_dict(), path)
    assert checked(path).is_passed


# Integrity -------------------------------------------------------------------------------------


def flip_byte(path: Path, record: str) -> None:
    """Change the last byte of a record, as a bad disk would."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(record)
    data = bytearray(path.read_bytes())
    at = info.header_offset
    at += 30 + int.from_bytes(data[at + 26 : at + 28], "little")
    at += int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
    data[at + info.file_size - 1] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_and_every_tensor_of_the_record_named(path: Path) -> None:
    shared = torch.zeros(4)
    torch.save({"a": shared[:2], "b": shared[2:], "c": torch.ones(2)}, path)
    flip_byte(path, "file/data/0")
    found = checked(path)
    assert codes(found) == {("crc", "a"), ("crc", "b")}
    assert "data/0" in found.findings[0].detail
    # What no tensor is in can be broken too.
    flip_byte(path, "file/version")
    assert ("crc", None) in codes(checked(path))


def test_only_what_was_read_is_said_to_be_right(path: Path) -> None:
    torch.save({"a.x": torch.ones(2), "b.x": torch.ones(2)}, path)
    flip_byte(path, "file/data/0")
    assert "the CRC of 1 of 8 records is right" in run("check", path, "--match", "b.*").out
    allowed = run("check", path, "--allow", "crc")
    assert allowed.code == 0
    assert "1 finding allowed; the CRC of 7 of 8 records is right" in allowed.out


def test_a_defect_is_that_of_one_tensor_though_another_looks_alike(path: Path) -> None:
    bad = torch.full((2,), torch.nan)
    torch.save({"w": {1: torch.ones(2), "1": bad}}, path)
    path.write_bytes(without_record(path.read_bytes(), "data/0"))
    assert {(one.code, one.path) for one in checked(path).findings} == {
        ("record", "w/1"), ("nan", "w/1"),
    }  # fmt: skip


def test_a_file_without_crc_is_no_worse_for_it(path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert checked(path).is_passed
    assert "no CRC is recorded" in run("check", path).out


def test_compressed_records_are_read_for_their_crc(path: Path) -> None:
    path.write_bytes(torch_zip({"w": Tensor("float32", (500,))}, compress=True))
    assert checked(path).is_passed


def without_record(data: bytes, name: str) -> bytes:
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w") as after:
        for info in before.infolist():
            if not info.filename.endswith(name):
                after.writestr(info.filename, before.read(info))
    return out.getvalue()


def test_a_missing_storage_is_a_finding_and_the_rest_is_still_checked(path: Path) -> None:
    torch.save({"gone": torch.ones(2), "bad": torch.full((2,), torch.nan)}, path)
    path.write_bytes(without_record(path.read_bytes(), "data/0"))
    assert codes(checked(path)) == {("record", "gone"), ("nan", "bad")}


def test_a_tensor_that_reaches_outside_its_storage_is_a_finding(path: Path) -> None:
    call = builders.Call(
        builders.Global("torch._utils", "_rebuild_tensor_v2"),
        (Tensor("float32", (2,)).storage, 1, (2,), (1,), False, {}),
    )
    path.write_bytes(torch_zip({"w": call, "fine": Tensor("float32", (2,))}))
    assert codes(checked(path)) == {("bounds", "w")}
    assert run("inspect", path).code == 2


# What is asked for, and what may pass -------------------------------------------------------------


@pytest.fixture
def stale() -> tuple[Path, Path]:
    return SAMPLES / "left_over_buffer.pt", SAMPLES / "specs" / "my_model.json"


def test_findings_can_be_allowed_by_code_and_by_name(stale: tuple[Path, Path]) -> None:
    path, spec = stale
    command = ("check", path, "--model", spec)
    assert run(*command).code == 1
    for allowed in ("stale", "stale:temp_*", "stale:temp_buffer"):
        result = run(*command, "--allow", allowed)
        assert (result.code, "passed, 1 allowed" in result.out) == (0, True)
    assert run(*command, "--allow", "stale:other*", "--allow", "missing").code == 1
    document = json_of(*command, "--allow", "stale")
    assert [one["allowed"] for one in document["findings"]] == [True]


def test_an_unknown_code_is_bad_usage(stale: tuple[Path, Path]) -> None:
    result = run("check", stale[0], "--allow", "everything")
    assert result.code == 2
    assert "negative-variance" in result.err


def test_filters_say_what_is_checked(path: Path, stale: tuple[Path, Path]) -> None:
    torch.save({"a.x": torch.full((2,), torch.nan), "b.x": torch.full((2,), torch.nan)}, path)
    assert codes(checked(path, patterns=["a.*"])) == {("nan", "a.x")}
    left_over, spec = stale
    assert run("check", left_over, "--model", spec, "--match", "weight").code == 0
    assert run("check", left_over, "--model", spec, "--role", "parameter").code == 0
    assert run("check", left_over, "--model", spec, "--match", "temp*").code == 1
    assert run("check", left_over, "--model", spec, "--match", "nothing").code == 2


def test_a_filter_does_not_hide_that_the_file_does_not_load(path: Path, tmp_path: Path) -> None:
    state = Net().state_dict()
    del state["norm.weight"]
    torch.save(state, path)
    spec = tmp_path / "spec.json"
    spec.write_text(write_document(load_model_spec(Net).spec))
    result = run("check", path, "--model", spec, "--match", "scale")
    assert result.code == 0
    last = "passed; it does not load for other names than those asked for\n"
    assert result.out.endswith(last)


def test_training_state_is_checked_too(path: Path) -> None:
    moments = {0: {"exp_avg": torch.full((2,), torch.nan)}}
    optimizer = {"state": moments, "param_groups": []}
    torch.save({"model": {"w": torch.ones(2)}, "optimizer": optimizer}, path)
    (finding,) = checked(path).findings
    assert (finding.code, finding.path) == ("nan", "optimizer/state/0/exp_avg")


def test_a_check_leaves_the_file_as_it_was(path: Path) -> None:
    torch.save(copy.deepcopy(Net().state_dict()), path)
    before = path.read_bytes()
    run("check", path)
    assert path.read_bytes() == before
