"""What is no tensor: settings, counters, objects, and what a state_dict says of its modules."""

from __future__ import annotations

import argparse
import copy
import enum
import itertools
import pathlib
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from ckptool import LimitExceededError
from ckptool.analysis.diff import sameness
from ckptool.analysis.diff.sameness import Sameness
from ckptool.pickling.reader import read_pickle
from tests import builders, strategies
from tests.analysis.diff.comparing import changed_leaves, changes, compared
from tests.builders import Call, Global, to_pickle, torch_zip
from tests.oracle import TREES, WRITERS

NAN: Final = float("nan")


class Config:
    """An object of a class that ckptool never imports."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


class Mode(enum.Enum):
    TRAIN = 1
    EVAL = 2


def is_same(a: object, b: object, protocols: tuple[int, int] = (2, 2)) -> bool:
    """Whether two values are the same as the only leaf besides a tensor."""
    one, other = (
        partial(torch.save, {"w": torch.ones(1), "held": value}, pickle_protocol=protocol)
        for value, protocol in zip((a, b), protocols, strict=True)
    )
    return not changed_leaves(compared(one, other))


# Paths and changes -----------------------------------------------------------------------------


def test_every_leaf_is_compared_under_its_key_path() -> None:
    a = {"w": torch.ones(1), "epoch": 3, "args": {"lr": 0.1, "nested": {"x": 1}}, "gone": None}
    b = {"w": torch.ones(1), "epoch": 4, "args": {"lr": 0.1, "nested": {"x": 2}}, "come": "y"}
    found = compared(a, b)
    assert [(leaf.path, leaf.change, leaf.a, leaf.b) for leaf in found.leaves] == [
        ("epoch", "changed", 3, 4),
        ("args/lr", "same", 0.1, 0.1),
        ("args/nested/x", "changed", 1, 2),
        ("gone", "removed", None, None),
        ("come", "added", None, "y"),
    ]
    assert found.leaves_changed == 4
    assert not found.is_same


def test_a_leaf_against_a_tensor_is_one_removed_and_one_added() -> None:
    found = compared({"w": torch.ones(1), "x": 3}, {"w": torch.ones(1), "x": torch.ones(2)})
    assert (changes(found), changed_leaves(found)) == ({"x": "added"}, {"x": "removed"})


def test_a_leaf_in_a_state_dict_is_known_by_its_name_behind_a_prefix() -> None:
    tensors = {f"layer{n}.weight": torch.full((2,), n) for n in range(3)}
    a = {**tensors, "layer0._extra_state": {"amax": 1.0}}
    b = {f"module.{name}": value for name, value in a.items()}
    assert compared(a, b).is_same
    b["module.layer0._extra_state"] = {"amax": 2.0}
    (path,) = changed_leaves(compared(a, b))
    assert path.startswith("layer0._extra_state")


def test_the_settings_of_an_optimizer_are_compared() -> None:
    model = nn.Linear(2, 3)
    saved = [
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        for optimizer in (
            torch.optim.AdamW(model.parameters()),
            torch.optim.AdamW(model.parameters(), lr=0.5, amsgrad=True),
        )
    ]
    found = compared(*saved)
    assert changed_leaves(found) == {
        "optimizer/param_groups/0/lr": "changed",
        "optimizer/param_groups/0/amsgrad": "changed",
    }
    assert {leaf.part for leaf in found.leaves if leaf.change != "same"} == {"the optimizer"}
    assert compared(saved[0], copy.deepcopy(saved[0])).is_same


def test_hyper_parameters_are_compared() -> None:
    def lightning(**values: object) -> dict[str, object]:
        return {"state_dict": nn.Linear(2, 3).state_dict(), "hyper_parameters": values}

    torch.manual_seed(0)
    a = lightning(lr=0.1, layers=[1, 2, 3], name="x")
    b = {**a, "hyper_parameters": {"lr": 0.2, "layers": [1, 2, 4], "name": "x"}}
    assert set(changed_leaves(compared(a, b))) == {
        "hyper_parameters/lr",
        "hyper_parameters/layers",
    }


# Sameness --------------------------------------------------------------------------------------

Pair = tuple[object, object]
DIFFERENT: Final[dict[str, Pair]] = {
    "another int": (3, 4),
    "int and float": (1, 1.0),
    "int and bool": (1, True),
    "zero and False": (0, False),
    "float and bool": (1.0, True),
    "None and False": (None, False),
    "str and bytes": ("a", b"a"),
    "bytes and bytearray": (b"a", bytearray(b"a")),
    "NaN and None": (NAN, None),
    "NaN and a number": (NAN, 0.0),
    "infinities": (float("inf"), float("-inf")),
    "complex": (1 + 2j, 1 + 3j),
    "complex and float": (1 + 0j, 1.0),
    "large ints": (1 << 70, (1 << 70) + 1),
    "list and tuple": ([1, 2], (1, 2)),
    "order of a list": ([1, 2], [2, 1]),
    "length of a list": ([1], [1, 1]),
    "deep in a list": ([[1, [2, "x"]]], [[1, [2, "y"]]]),
    "a value of a dict": (Config(d={"x": 1}), Config(d={"x": 2})),
    "a key of a dict": (Config(d={"x": 1}), Config(d={"y": 1})),
    "the type of a key": (Config(d={1: "x"}), Config(d={"1": "x"})),
    "the type of a number as key": (Config(d={1: "x"}), Config(d={1.0: "x"})),
    "dict and OrderedDict": (Config(d={"x": 1}), Config(d=OrderedDict(x=1))),
    "an empty list and an empty dict": (Config(d=[]), Config(d={})),
    "sets": ({1, 2}, {1, 3}),
    "sets of tuples": ({(1, "x")}, {(1, "y")}),
    "namespaces": (argparse.Namespace(lr=0.1), argparse.Namespace(lr=0.2)),
    "an attribute more": (Config(x=1), Config(x=1, y=None)),
    "another class": (argparse.Namespace(lr=0.1), Config(lr=0.1)),
    "paths": (pathlib.PurePosixPath("/a/b"), pathlib.PurePosixPath("/a/c")),
    "members of an enumeration": (Mode.TRAIN, Mode.EVAL),
    "dtypes": (torch.float16, torch.float32),
    "devices": (torch.device("cpu"), torch.device("cuda", 0)),
    "sizes": (torch.Size([2, 3]), torch.Size([3, 2])),
    "functions": (torch.relu, torch.tanh),
    "array values": (np.arange(4), np.array([0, 1, 2, 4])),
    "array shapes": (np.arange(4), np.arange(4).reshape(2, 2)),
    "array dtypes": (np.arange(4), np.arange(4).astype("int32")),
    "an array and a list": (np.arange(2), [0, 1]),
    "numpy scalars": (np.float64(1.5), np.float64(2.5)),
    "numpy scalars of another type": (np.float64(1.5), np.float32(1.5)),
    "arrays of text": (np.array(["a", "b"]), np.array(["a", "c"])),
    "arrays of objects": (np.array([{}, None]), np.array([{}, 1])),
    "a defaultdict's factory": (Config(d=defaultdict(int)), Config(d=defaultdict(list))),
    "a defaultdict's items": (Config(d=defaultdict(int, a=1)), Config(d=defaultdict(int, a=2))),
    "counters": (Config(c=Counter("aab")), Config(c=Counter("abb"))),
}
SAME: Final[dict[str, Pair]] = {
    "NaN": (NAN, -NAN),
    "NaN in a list": ([1, NAN], [1, NAN]),
    "complex NaN": (complex(NAN, 1), complex(NAN, 1)),
    "an array with NaN": (np.array([1.0, NAN]), np.array([1.0, NAN])),
    "the order of keys": (Config(d={"x": 1, "y": 2}), Config(d={"y": 2, "x": 1})),
    "the order of keys of many types": (
        Config(d={1: "a", "1": "b", None: "c", (1, 2): "d"}),
        Config(d={(1, 2): "d", None: "c", "1": "b", 1: "a"}),
    ),
    "the order of attributes": (Config(x=1, y=2), Config(y=2, x=1)),
    "namespaces": (argparse.Namespace(a=[1], b="x"), argparse.Namespace(b="x", a=[1])),
    "an array of the other byte order": (np.arange(4, dtype="<i4"), np.arange(4, dtype=">i4")),
    "an array that is no view": (np.arange(8)[::2], np.array([0, 2, 4, 6])),
    "the order of a set": ({1, 9, 17}, {17, 9, 1}),
    "sets": ({"x", 1, None, 2.5}, {2.5, None, 1, "x"}),
    "frozensets": (frozenset({1, 2}), frozenset({2, 1})),
    "ordered": (Config(d=OrderedDict(a=1, b=[2])), Config(d=OrderedDict(a=1, b=[2]))),
    "defaultdicts": (Config(d=defaultdict(int, a=1)), Config(d=defaultdict(int, a=1))),
    "enumerations": (Mode.TRAIN, Mode.TRAIN),
    "empty things": ([(), [], "", b""], [(), [], "", b""]),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_values_that_mean_something_else_differ(case: str) -> None:
    a, b = DIFFERENT[case]
    assert not is_same(a, b)
    assert not is_same(b, a)


@pytest.mark.parametrize("case", SAME)
def test_values_that_mean_the_same_are_the_same(case: str) -> None:
    assert is_same(*SAME[case])


@pytest.mark.parametrize("case", DIFFERENT)
def test_protocols_do_not_matter(case: str) -> None:
    for value in DIFFERENT[case]:
        for protocols in itertools.combinations((2, 4, 5), 2):
            assert is_same(value, value, protocols), protocols


def test_a_set_of_objects_has_no_order() -> None:
    """The order of a set of strings is another one in each process."""

    def saved(*items: object) -> bytes:
        held = Call(Global("builtins", "set"), (list(items),))
        return torch_zip({"w": builders.Tensor("float32", (1,)), "held": held})

    assert compared(saved("a", "b"), saved("b", "a")).is_same
    pairs = ("a", 1), ("b", 2)
    assert compared(saved(*pairs), saved(*reversed(pairs))).is_same
    assert not compared(saved(*pairs), saved(*pairs[:1])).is_same


def test_keys_that_cannot_be_told_apart_are_no_trouble() -> None:
    def saved(*values: object) -> Config:
        return Config(d={float("nan"): value for value in values})

    assert is_same(saved({"x": 1}, {"y": 2}), saved({"x": 1}, {"y": 2}))
    assert not is_same(saved({"x": 1}, {"y": 2}), saved({"x": 1}, {"y": 3}))


def test_a_number_of_very_many_digits_is_a_value_and_a_key() -> None:
    large = 1 << 8_000
    assert is_same(large, large)
    assert not is_same(large, large + 1)
    assert is_same(Config(d={large: 1}), Config(d={large: 1}))
    assert not is_same(Config(d={large: 1}), Config(d={large + 1: 1}))


# Shared objects and cycles ---------------------------------------------------------------------


def test_cycles_are_no_trouble() -> None:
    def ring(length: int, value: object = 1) -> list[object]:
        first: list[object] = [value]
        last = first
        for _ in range(length - 1):
            last.append([value])
            last = last[-1]  # type: ignore[assignment]
        last.append(first)
        return first

    assert is_same(ring(1), ring(1))
    assert is_same(ring(3), ring(3))
    assert not is_same(ring(3), ring(3, 2))
    loop = Config(name="x")
    loop.me = loop  # type: ignore[attr-defined]
    other = Config(name="y")
    other.me = other  # type: ignore[attr-defined]
    assert is_same(loop, loop)
    assert not is_same(loop, other)


def test_a_dict_that_holds_itself_is_the_same_as_itself() -> None:
    a: dict[str, object] = {"w": torch.ones(1), "x": {"y": 1}}
    a["x"]["up"] = a  # type: ignore[index]
    a["x"]["here"] = a["x"]  # type: ignore[index]
    assert compared(a, a).is_same
    b: dict[str, object] = {"w": torch.ones(1), "x": {"y": 1}}
    b["x"]["up"] = b["x"]  # type: ignore[index]
    b["x"]["here"] = b["x"]  # type: ignore[index]
    assert changed_leaves(compared(a, b)) == {"x/up": "changed"}


def test_a_shared_object_is_the_same_as_two_equal_ones() -> None:
    shared = Config(x=1)
    assert is_same([shared, shared], [Config(x=1), Config(x=1)])
    assert not is_same([shared, shared], [Config(x=1), Config(x=2)])


def doubled(times: int, bottom: object = "x") -> list[object]:
    """A list that holds one list twice, which holds one twice, and so on."""
    shared: list[object] = [bottom]
    for _ in range(times):
        shared = [shared, shared]
    return shared


def test_exponential_sharing_inside_an_object_ends() -> None:
    assert is_same(Config(d=doubled(60)), Config(d=doubled(60)))
    assert not is_same(Config(d=doubled(60)), Config(d=doubled(60, "y")))
    assert not is_same(Config(d=doubled(60)), Config(d=doubled(61)))


def test_exponential_sharing_of_containers_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        is_same(doubled(60), doubled(60))


def test_sharing_that_is_entwined_in_different_ways_ends() -> None:
    """Pairs of nodes are more than nodes: each of A could be met by each of B."""

    def chain(count: int, steps: tuple[int, int]) -> list[list[object]]:
        nodes: list[list[object]] = [["x"] for _ in range(count)]
        for at, node in enumerate(nodes):
            node += [nodes[(at + step) % count] for step in steps]
        return nodes

    # All of them look alike, so both are the same however they are entwined.
    assert is_same(Config(x=chain(300, (1, 7))), Config(x=chain(300, (11, 2))))


# Written by whom -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("tree", TREES)
def test_a_file_that_was_saved_again_is_identical(tree: str, writer: str) -> None:
    torch.manual_seed(0)
    value = TREES[tree]()
    if (tree, writer) in {(name, "legacy") for name in ("every dtype", "views", "several parts")}:
        pytest.skip("torch itself cannot write it")
    again = partial(WRITERS[writer], value)
    for a, b in ((value, again), (again, value)):
        found = compared(a, b)
        assert found.is_same, (changes(found), changed_leaves(found))
        assert found.statement == "identical"


TREES_WITHOUT_TENSORS = st.recursive(
    strategies.scalars(),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(strategies.names(), children, max_size=4),
        st.dictionaries(strategies.names(), children, max_size=4).map(
            lambda state: Call(Global("argparse", "Namespace"), (), state, new=True)
        ),
    ),
    max_leaves=12,
)


@given(TREES_WITHOUT_TENSORS, TREES_WITHOUT_TENSORS)
def test_sameness_is_reflexive_symmetric_and_remembers_nothing_wrong(a: object, b: object) -> None:
    left, right, again = (read_pickle(to_pickle(value)).tree for value in (a, b, a))
    sameness = Sameness()
    answer = sameness.holds(left, right)
    assert sameness.holds(left, again)
    assert sameness.holds(right, left) == answer
    assert Sameness().holds(left, right) == answer
    several = [left, right], [again, right], [left, left]
    assert sameness.holds(several[0], several[1])
    assert sameness.holds(several[2], several[1]) == answer


# _metadata -------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


class Wrapper(nn.Module):
    """As DistributedDataParallel does: a version of its own, the model in an attribute."""

    _version = 7

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def versions_changed(state: Any, path: str = "1", version: int = 1) -> Any:
    state = copy.deepcopy(state)
    state._metadata[path]["version"] = version
    return state


def test_a_version_of_a_module_is_a_leaf_of_its_own() -> None:
    found = compared(network().state_dict(), versions_changed(network().state_dict()))
    assert changes(found) == {}
    assert [(leaf.path, leaf.change) for leaf in found.leaves] == [
        ("_metadata/", "same"),
        ("_metadata/0", "same"),
        ("_metadata/1", "changed"),
    ]
    (leaf,) = [leaf for leaf in found.leaves if leaf.change == "changed"]
    assert (leaf.a, leaf.b) == ({"version": 2}, {"version": 1})


def test_metadata_goes_behind_the_prefix_and_a_wrappers_own_is_left_out() -> None:
    wrapped = Wrapper(network())
    found = compared(network().state_dict(), wrapped.state_dict())
    assert (found.is_same, found.b.prefix) == (True, "module.")
    assert compared(wrapped.state_dict(), network().state_dict()).is_same
    twice = Wrapper(Wrapper(network())).state_dict()
    assert compared(network().state_dict(), twice).is_same
    found = compared(network().state_dict(), versions_changed(wrapped.state_dict(), "module.1"))
    assert changed_leaves(found) == {"_metadata/1": "changed"}


def test_a_root_that_has_lost_its_metadata_is_one_difference() -> None:
    state = network().state_dict()
    for a, b, change in ((state, dict(state), "removed"), (dict(state), state, "added")):
        found = compared(a, b)
        assert changed_leaves(found) == {"_metadata": change}
        assert found.notes == ()
    assert compared(dict(state), dict(state)).leaves == ()


def test_a_module_that_only_one_metadata_knows_is_added_or_removed() -> None:
    state = network().state_dict()
    more: Any = copy.deepcopy(state)
    more._metadata["extra"] = {"version": 1}
    assert changed_leaves(compared(state, more)) == {"_metadata/extra": "added"}
    assert changed_leaves(compared(more, state)) == {"_metadata/extra": "removed"}


def test_the_metadata_of_every_root_is_compared() -> None:
    a = {"model": network().state_dict(), "model_ema": network().state_dict()}
    b = {**a, "model_ema": versions_changed(a["model_ema"])}
    assert changed_leaves(compared(a, b)) == {"model_ema/_metadata/1": "changed"}
    assert changed_leaves(compared(a, b, root_a="model", root_b="model")) == {
        "model_ema/_metadata/1": "changed"
    }


def _save_tensors(path: pathlib.Path, strings: dict[str, str] | None = None) -> None:
    save_file({name: tensor.contiguous() for name, tensor in _tensors()}, path, strings)


def _tensors() -> Any:
    return network().state_dict().items()


def test_a_file_that_has_no_place_for_metadata_does_not_differ_in_it() -> None:
    state = network().state_dict()
    for a, b, lacks, has in (
        (state, _save_tensors, "B", "A"),
        (_save_tensors, state, "A", "B"),
    ):
        found = compared(a, b)
        assert found.is_same
        assert found.statement == "identical"
        assert found.notes == (
            f"{lacks} has no place for _metadata; that of {has} was not compared",
        )
    found = compared(dict(state), _save_tensors)
    assert (found.is_same, found.notes) == (True, ())


def test_the_strings_of_a_safetensors_file_are_compared_where_both_can_have_some() -> None:
    def with_format(value: str) -> Callable[[pathlib.Path], None]:
        return partial(_save_tensors, strings={"format": value})

    (path,) = changed_leaves(compared(with_format("pt"), with_format("np")))
    assert path == "__metadata__/format"
    assert compared(with_format("pt"), with_format("pt")).is_same
    assert compared(dict(_tensors()), with_format("pt")).is_same


def test_a_whole_module_has_no_metadata_to_compare() -> None:
    module = network()
    found = compared(module.state_dict(), module)
    assert not any("_metadata" in path for path in changed_leaves(found))
    assert len(found.notes) == 1


@pytest.mark.parametrize("metadata", [3, None, [1], {"": 3}, {1: {"version": 1}}, "text"])
def test_metadata_that_is_none_is_no_trouble(metadata: object) -> None:
    def saved(held: object) -> bytes:
        state = {"_metadata": held}
        items = [("w", builders.Tensor("float32", (1,)))]
        return torch_zip(Call(Global("collections", "OrderedDict"), (), state, items=items))

    assert compared(saved(metadata), saved(metadata)).is_same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared(saved(metadata), saved({"": {"version": 1}}))


def test_an_object_in_many_places_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    really = sameness._opened

    def counted(node: object) -> Any:
        opened.append(node)
        return really(node)

    monkeypatch.setattr(sameness, "_opened", counted)
    long, other = list(range(1_000)), [*range(999), -1]
    found = compared({f"k{n}": long for n in range(500)}, {f"k{n}": other for n in range(500)})
    assert found.leaves_changed == 500
    assert len(opened) < 5_000


def test_of_keys_that_are_objects_only_type_and_place_are_compared_and_a_note_says_so() -> None:
    def held(number: float) -> dict[str, object]:
        return {"model": {"w": torch.ones(1)}, "by tensor": {torch.tensor([number]): 1}}

    (note,) = compared(held(1), held(2)).notes
    assert note.startswith("keys that are objects")
