"""Verdicts: what is harmless is so by its exact name, and no way to a dangerous name is missed."""

from __future__ import annotations

import builtins
import importlib
import json
import pkgutil
import types
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import lr_scheduler, swa_utils

from ckptool import open_checkpoint
from ckptool.analysis.scan.dangerous_names import DANGEROUS, NAMES_OF_DANGER
from ckptool.analysis.scan.plain_names import PLAIN_NAMES
from ckptool.analysis.scan.torch_names import EARLIER_TORCH_NAMES, TORCH_NAMES
from ckptool.analysis.scan.verdicts import SEVERITIES, Severity, Verdict, judge
from ckptool.pickling.nodes import Global
from ckptool.pickling.tracer import trace_pickle
from tests import strategies
from tests.running import SAMPLES

HARMLESS: Final = {**PLAIN_NAMES, **TORCH_NAMES, **EARLIER_TORCH_NAMES}


def severity(module: str, name: str) -> Severity:
    return judge(Global(module, name)).severity


# Lists of scanners -----------------------------------------------------------------------------

LISTED: Final[dict[str, dict[str, str | list[str]]]] = json.loads(
    (Path(__file__).parents[2] / "hostile" / "listed_as_dangerous.json").read_text("utf-8")
)
# Plain values in modules that scanners list as a whole.
PLAIN_ALL_THE_SAME: Final = {
    Global("uuid", "UUID"),
    Global("types", "SimpleNamespace"),
    *(name for name in TORCH_NAMES if name.module == "torch.jit._pickle"),
}
# It calls nothing by itself, and honest models keep it.
NOT_DANGEROUS_ALONE: Final = {Global("functools", "partial")}
MADE_UP: Final = ("f", "Made", "_made_up", "made.up", "Made.up", "load", "UUID2", "Linear")


def listed(scanner: str) -> Iterator[Global]:
    for module, names in LISTED[scanner].items():
        if names != "*":
            yield from (Global(module, name) for name in names)
            continue
        for name in MADE_UP:
            yield Global(module, name)
            yield Global(f"{module}.sub", name)
            yield Global(f"{module}.sub.sub", name)


@pytest.mark.parametrize("scanner", LISTED)
def test_nothing_that_a_scanner_lists_as_dangerous_is_harmless(scanner: str) -> None:
    found = [name for name in listed(scanner) if judge(name).severity == "harmless"]
    assert found == []


@pytest.mark.parametrize("scanner", LISTED)
def test_what_is_harmless_in_a_listed_module_is_there_for_a_reason(scanner: str) -> None:
    whole = {module for module, names in LISTED[scanner].items() if names == "*"}
    within = {
        name
        for name in HARMLESS
        if any(f"{name.module}.".startswith(f"{module}.") for module in whole)
    }
    assert within <= PLAIN_ALL_THE_SAME


@pytest.mark.parametrize(
    "scanner", [name for name in LISTED if name.startswith(("pick", "modelscan"))]
)
def test_what_scanners_of_pickles_call_critical_is_dangerous(scanner: str) -> None:
    missed = {name for name in listed(scanner) if judge(name).severity != "dangerous"}
    assert missed <= NOT_DANGEROUS_ALONE


# The tables ------------------------------------------------------------------------------------


def test_no_name_is_in_both_tables() -> None:
    assert [name for name in HARMLESS if str(name) in DANGEROUS] == []


def test_every_line_of_the_tables_decides() -> None:
    assert {judge(name) for name in HARMLESS} == {
        Verdict("harmless", reason) for reason in HARMLESS.values()
    }
    for path, reason in DANGEROUS.items():
        module, _, name = path.rpartition(".")
        expected = Verdict("dangerous", reason)
        assert judge(Global(path, "f")) == expected
        assert not module or judge(Global(module, name)) == expected


def test_harmless_names_are_no_modules_and_have_nothing_in_common_with_names_of_danger() -> None:
    for module, name in HARMLESS:
        assert name not in NAMES_OF_DANGER
        assert name not in DANGEROUS, f"{module} may hold the module {name}"


def test_reasons_are_short_phrases() -> None:
    for reason in {*HARMLESS.values(), *DANGEROUS.values()}:
        assert len(reason) < 70
        assert not reason.endswith(".")
        assert reason[0].islower()


def found(name: Global) -> Any:
    return getattr(importlib.import_module(name.module), name.name)


def is_no_python_class(name: Global) -> bool:
    """Storages that only TorchScript names, and names of earlier torch that files still have."""
    return (
        name.name.endswith("Storage")
        or name.module == "torch.tensor"
        or name.name == "_rebuild_sparse_csr_tensor"
    )


@pytest.mark.filterwarnings("ignore")
def test_every_name_of_torch_is_in_the_installed_torch_and_no_module() -> None:
    if torch.__version__ < "2.13":
        pytest.skip("the table is frozen at torch 2.13")
    for name in TORCH_NAMES:
        if not is_no_python_class(name):
            assert not isinstance(found(name), types.ModuleType), name
    for storage in ("FloatStorage", "UntypedStorage", "QUInt4x2Storage"):
        assert isinstance(found(Global("torch", storage)), type)


@pytest.mark.filterwarnings("ignore")
def test_every_plain_name_of_python_and_numpy_is_there_and_no_module() -> None:
    missing = set()
    for name in PLAIN_NAMES:
        try:
            assert not isinstance(found(name), types.ModuleType), name
        except (ImportError, AttributeError):
            missing.add(name.module.partition(".")[0])
    # pathlib is a package since Python 3.13; numpy has each name where one of its versions has it.
    assert missing <= {"pathlib", "numpy", "scipy"}


def classes_in(package: types.ModuleType, *kinds: type) -> Iterator[type]:
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            # A class within a function cannot be pickled.
            is_named = isinstance(value, type) and "<locals>" not in value.__qualname__
            if is_named and issubclass(value, kinds):
                yield value


@pytest.mark.filterwarnings("ignore")
def test_every_class_of_modules_optimizers_and_schedules_is_harmless() -> None:
    kinds = (nn.Module, optim.Optimizer, lr_scheduler.LRScheduler)
    classes = {*classes_in(nn.modules, *kinds), *classes_in(optim, *kinds)}
    assert len(classes) > 150
    assert {one for one in classes if severity(one.__module__, one.__qualname__) != "harmless"} == (
        set()
    )


def test_what_torch_allows_where_it_loads_weights_only_is_harmless() -> None:
    allowed = torch._weights_only_unpickler._get_allowed_globals()
    names = [Global(*path.rpartition(".")[::2]) for path in allowed]
    assert len(names) > 100
    assert {name for name in names if judge(name).severity != "harmless"} == set()


def test_modules_of_torch_are_harmless_by_nothing_but_exact_names() -> None:
    for module in ("torch", "torch.nn", "torch.nn.modules.module", "torch.optim", "torch._utils"):
        for name in ("os", "warnings", "f", "Made", "functools", "sys", "load"):
            assert severity(module, name) in ("suspicious", "dangerous")


# What honest files name ------------------------------------------------------------------------


def plain_values() -> object:
    generator = np.random.default_rng(0)
    return {
        "array": np.arange(3.0),
        "scalar": np.float64(1),
        "masked": np.ma.masked_array([1.0], [False]),
        "generator": generator,
        "state": np.random.RandomState(0),
        "tensors": [torch.ones(2, dtype=torch.bfloat16), torch.ones(2).to_sparse()],
        "parameter": nn.Parameter(torch.ones(2)),
        "buffer": nn.Buffer(torch.ones(2)),
        "settings": (torch.device("cpu"), torch.Size([1]), torch.float16, torch.strided),
        "path": Path("a"),
        "bytes": (b"\xff", bytearray(b"\x01"), 1j, {1}, frozenset({2}), slice(1), range(2)),
    }


def nets() -> Iterator[object]:
    yield nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.Flatten())
    yield nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    yield nn.TransformerEncoderLayer(8, 2, 16, activation=nn.functional.gelu)
    yield nn.ModuleDict({"rnn": nn.LSTM(2, 3), "more": nn.ModuleList([nn.Embedding(3, 2)])})
    yield nn.DataParallel(nn.Linear(2, 2))
    yield nn.utils.spectral_norm(nn.Linear(2, 2))
    yield swa_utils.AveragedModel(nn.Linear(2, 2)).module


def trainings() -> Iterator[object]:
    weights = list(nn.Linear(2, 2).parameters())
    for kind in (optim.SGD, optim.AdamW, optim.RMSprop, optim.Adagrad):
        yield kind(weights, lr=0.1)
    optimizer = optim.SGD(weights, lr=0.1)
    yield lr_scheduler.StepLR(optimizer, 2)
    yield lr_scheduler.CosineAnnealingLR(optimizer, 2)
    yield lr_scheduler.ReduceLROnPlateau(optimizer)


def names_in(data: bytes) -> set[Global]:
    return {name for name in trace_pickle(data).imports if isinstance(name, Global)}


HONEST: Final[dict[str, Callable[[], object]]] = {
    "values": plain_values,
    "nets": lambda: list(nets()),
    "trainings": lambda: list(trainings()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", HONEST)
def test_whole_live_objects_name_harmless_globals_only(
    name: str, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "whole.pt"
    torch.save(HONEST[name](), path, pickle_protocol=protocol)
    with open_checkpoint(path) as checkpoint:
        names = checkpoint.globals
    assert names
    assert {one for one in names if judge(one).severity != "harmless"} == set()


@pytest.mark.filterwarnings("ignore")
def test_metadata_of_a_distributed_checkpoint_name_harmless_globals_only(tmp_path: Path) -> None:
    save({"w": torch.ones(2), "epoch": 1}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    names = names_in((tmp_path / "dcp" / ".metadata").read_bytes())
    assert Global("torch.distributed.checkpoint.metadata", "Metadata") in names
    assert {name for name in names if judge(name).severity != "harmless"} == set()


@pytest.mark.parametrize(
    "path", sorted(one for one in SAMPLES.iterdir() if one.suffix in (".pt", ".ckpt")), ids=str
)
def test_samples_but_the_canary_name_nothing_dangerous(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        dangerous = [name for name in checkpoint.globals if judge(name).severity == "dangerous"]
    assert dangerous == ([Global("io", "open")] if path.name == "canary.pt" else [])


# Python 2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("__builtin__", "long", "harmless"),
        ("__builtin__", "unicode", "harmless"),
        ("__builtin__", "xrange", "harmless"),
        ("__builtin__", "set", "harmless"),
        ("copy_reg", "_reconstructor", "harmless"),
        ("UserDict", "IterableUserDict", "harmless"),
        ("__builtin__", "eval", "dangerous"),
        ("__builtin__", "reduce", "dangerous"),
        ("__builtin__", "file", "dangerous"),
        ("cStringIO", "open", "dangerous"),
        ("cPickle", "loads", "dangerous"),
        ("itertools", "imap", "dangerous"),
    ],
)
def test_names_of_python_2_are_judged_as_what_they_are_looked_up_as(
    module: str, name: str, expected: Severity
) -> None:
    assert severity(module, name) == expected


def test_modules_of_python_2_are_no_way_around_the_table() -> None:
    for old, new in IMPORT_MAPPING.items():
        if new in DANGEROUS:
            assert severity(old, "f") == "dangerous"


# Dotted names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("torch", "serialization.os.system", "dangerous"),
        ("torch", "hub.load", "dangerous"),
        ("torch", "ops.load_library", "dangerous"),
        ("collections", "_sys.modules", "dangerous"),
        ("random", "_os.system", "dangerous"),
        ("six.moves", "builtins.eval", "dangerous"),
        ("six.moves.builtins", "eval", "dangerous"),
        ("sklearn.externals.joblib", "load", "dangerous"),
        ("collections", "OrderedDict.__init__.__globals__", "dangerous"),
        ("collections", "OrderedDict.__class__", "dangerous"),
        ("models", "Net.__subclasses__", "dangerous"),
        ("models", "Net.__reduce__", "dangerous"),
        ("models", "__builtins__", "dangerous"),
        ("models", "__import__", "dangerous"),
        ("models", "helpers.anything.popen", "dangerous"),
        ("asyncio.unix_events", "_UnixSubprocessTransport._start", "dangerous"),
        ("builtins", "eval.__call__", "dangerous"),
        ("torch", "UntypedStorage.from_file", "dangerous"),
        ("os.", "system", "dangerous"),
        ("os", ".system", "dangerous"),
        (" os", "system", "dangerous"),
        ("torch", "nn.Linear", "suspicious"),
        ("torch.nn.modules.linear", "Linear.forward", "suspicious"),
        ("torch.nn.modules.linear", "Linear.Inner", "suspicious"),
        ("builtins", "str.format", "suspicious"),
        ("models", "Net.forward", "suspicious"),
        ("models", "Config.Inner", "unknown"),
        ("models", "_Config.Inner", "unknown"),
        ("__torch__.models", "Net", "harmless"),
        ("__torch__.models.___torch_mangle_0", "Net", "harmless"),
        ("__torch__.models", "Net.Inner", "unknown"),
        ("__torch__", "os.system", "dangerous"),
    ],
)
def test_dotted_names_are_as_bad_as_the_worst_that_they_lead_to(
    module: str, name: str, expected: Severity
) -> None:
    assert severity(module, name) == expected


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("models", "Net", "unknown"),
        ("__main__", "Net", "unknown"),
        ("models", "build", "unknown"),
        ("models", "eval", "suspicious"),
        ("models", "os", "suspicious"),
        ("sklearn.linear_model", "Ridge", "unknown"),
        ("sklearn.utils", "shuffle", "suspicious"),
        ("numpy", "sum", "suspicious"),
        ("torch", "sum", "suspicious"),
        ("functools", "partial", "suspicious"),
        ("copy", "deepcopy", "suspicious"),
        ("copyreg", "add_extension", "dangerous"),
        ("", "", "suspicious"),
        ("models", "", "suspicious"),
        ("models", "<lambda>", "suspicious"),
        ("a b", "c", "suspicious"),
        ("models", "\x1b[2J", "suspicious"),
        ("mymodels.os", "Net", "unknown"),
        ("__torch__", "", "suspicious"),
        ("__torch__extra", "Net", "unknown"),
    ],
)
def test_everything_else_is_judged_by_its_package(
    module: str, name: str, expected: Severity
) -> None:
    assert severity(module, name) == expected


# Any names -------------------------------------------------------------------------------------

PATHS: Final = st.lists(
    st.one_of(
        strategies.names(),
        st.sampled_from(sorted({part for path in DANGEROUS for part in path.split(".")})),
        st.sampled_from(["Linear", "OrderedDict", "__globals__", "_os", "moves", "", " "]),
    ),
    max_size=5,
).map(".".join)
DANGEROUS_PAIRS: Final = st.sampled_from(
    [
        Global("os", "system"),
        Global("builtins", "eval"),
        Global("torch.hub", "load"),
        Global("_pickle", "loads"),
        *(Global(*path.rpartition(".")[::2]) for path in DANGEROUS if "." in path),
    ]
)


@given(PATHS, PATHS)
def test_any_name_has_a_verdict(module: str, name: str) -> None:
    verdict = judge(Global(module, name))
    assert verdict.severity in SEVERITIES
    assert verdict.reason
    if verdict.severity == "harmless":
        assert "." not in name


@given(DANGEROUS_PAIRS, PATHS, st.sampled_from(["torch", "collections", "models", "__torch__", ""]))
def test_nothing_that_is_put_around_a_dangerous_name_takes_the_danger_from_it(
    pair: Global, around: str, module: str
) -> None:
    assert severity(*pair) == "dangerous"
    assert severity(pair.module, f"{pair.name}.{around}") == "dangerous"
    assert severity(module, f"{around}.{pair}") == "dangerous"
    assert severity(module, f"{pair}.{around}") == "dangerous"


@pytest.mark.parametrize("name", ["n" * 1_000_000, "a." * 20_000, "os." * 20_000, "__" * 500_000])
def test_names_of_any_length_are_judged_in_time(name: str) -> None:
    assert severity(name, name) != "harmless"
    assert severity("collections", f"{name}.os.system") == "dangerous"


def test_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(builtins, "__import__", fail)
    assert severity("antigravity", "Flyer") == "dangerous"
    assert severity("no.such.module", "Net") == "unknown"
