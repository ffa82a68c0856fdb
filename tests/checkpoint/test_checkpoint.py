"""Key paths, entries, roots and training state of built files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ckptool.checkpoint.entries import Cycle
from ckptool.checkpoint.globals import is_known_global
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.opening import Checkpoint, open_checkpoint
from ckptool.checkpoint.roots import find_root
from ckptool.errors import EntryNotFoundError, LimitExceededError, TensorError
from ckptool.pickling import nodes
from ckptool.pickling.limits import Limits
from tests import builders, strategies
from tests.builders import Call, Global, Tensor, torch_zip

WEIGHT = Tensor("float32", (2,))


def opened(
    folder: Path, tree: object, *, root: str | None = None, limits: Limits | None = None
) -> Checkpoint:
    path = folder / "checkpoint.pt"
    path.write_bytes(torch_zip(tree))
    return open_checkpoint(path, root=root, limits=limits)


def state(*names: str) -> dict[str, Tensor]:
    return {name: Tensor("float32", (2,)) for name in names}


# Key paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ((), ""),
        (("state_dict", "bn.running_mean"), "state_dict/bn.running_mean"),
        (("optimizer", "state", 0, "exp_avg"), "optimizer/state/0/exp_avg"),
        (("a/b", "c\\d"), "a\\/b/c\\\\d"),
        ((None, True, 1.5, b"x", (1, "y")), "None/True/1.5/b'x'/(1, 'y')"),
        ((nodes.Global("torch", "Tensor"),), "<torch.Tensor>"),
    ],
)
def test_a_key_path_is_shown_with_slashes(keys: KeyPath, shown: str) -> None:
    assert display(keys) == shown


@given(st.lists(strategies.names(), unique=True))
def test_different_paths_of_strings_are_shown_differently(names: list[str]) -> None:
    pairs = [(first, second) for first in names for second in names]
    assert len({display(pair) for pair in pairs}) == len(pairs)


# Entries ---------------------------------------------------------------------------------------


@given(tree=strategies.trees())
def test_every_tensor_of_a_tree_is_an_entry_in_file_order(
    tree: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with opened(tmp_path_factory.mktemp("tree"), tree) as checkpoint:
        found = [entry.tensor.shape for entry in checkpoint.entries if entry.tensor is not None]
        paths = [entry.keys for entry in checkpoint.entries]
    plain = list(_plain_tensors(tree))
    assert [shape for shape in found if shape in plain] == plain or len(found) > len(plain)
    assert len(set(map(repr, paths))) == len(paths)


def _plain_tensors(tree: object) -> list[tuple[int, ...]]:
    if isinstance(tree, Tensor):
        return [tree.shape]
    if isinstance(tree, Mapping):
        return [shape for value in tree.values() for shape in _plain_tensors(value)]
    if isinstance(tree, list | tuple):
        return [shape for value in tree for shape in _plain_tensors(value)]
    return []


def test_keys_keep_their_types(tmp_path: Path) -> None:
    tree = {0: WEIGHT, "0": Tensor("int8", ()), (1, 2): [Tensor("int8", (1,))]}
    checkpoint = opened(tmp_path, tree)
    assert [entry.keys for entry in checkpoint.entries] == [(0,), ("0",), ((1, 2), 0)]


def test_lists_of_scalars_and_empty_containers_are_leaves(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"h": [1, 2.5, None], "e": {}, "t": (), "m": [{"a": 1}]})
    assert {entry.path: entry.node for entry in checkpoint.entries} == {
        "h": [1, 2.5, None],
        "e": {},
        "t": (),
        "m/0/a": 1,
    }


def test_a_cycle_is_shown_where_it_closes(tmp_path: Path) -> None:
    tree: dict[str, object] = {"w": WEIGHT}
    tree["self"] = {"again": tree}
    checkpoint = opened(tmp_path, tree)
    last = checkpoint.entries[-1]
    assert (last.path, last.node) == ("self/again", Cycle(()))


def test_objects_with_tensors_are_walked_into_and_others_are_leaves(tmp_path: Path) -> None:
    holder = Call(Global("m", "Holder"), (), {"weight": WEIGHT, "note": "x"}, new=True)
    plain = Call(Global("argparse", "Namespace"), (), {"lr": 0.1}, new=True)
    called = Call(Global("m", "wrap"), (Tensor("int8", (1,)),))
    listed = Call(Global("m", "List"), (), appends=[Tensor("int8", (2,))])
    stateful = Call(Global("m", "S"), (), (Tensor("int8", (3,)), 5), new=True)
    checkpoint = opened(
        tmp_path, {"h": holder, "p": plain, "c": called, "l": listed, "s": stateful}
    )
    assert [entry.path for entry in checkpoint.entries] == [
        "h/weight", "h/note", "p", "c/0", "l/0", "s/__setstate__/0", "s/__setstate__/1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        Call(Global("collections", "OrderedDict"), ([["a", WEIGHT], ["b", WEIGHT]],)),
        Call(Global("collections", "OrderedDict"), ([("a", WEIGHT)],), items=[("b", WEIGHT)]),
        Call(Global("collections", "OrderedDict"), (), items=[("a", WEIGHT), ("b", WEIGHT)]),
        Call(
            Global("collections", "defaultdict"),
            (Call(Global("functools", "partial"), (1,)),),
            items=[("a", WEIGHT), ("b", WEIGHT)],
        ),
        Call(Global("collections", "defaultdict"), (None, {"a": WEIGHT, "b": WEIGHT})),
        Call(Global("m", "Config"), (), items=[("a", WEIGHT), ("b", WEIGHT)], new=True),
    ],
)
def test_mappings_are_read_however_they_were_written(made: Call, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"state_dict": made})
    assert [entry.path for entry in checkpoint.entries] == ["state_dict/a", "state_dict/b"]


def test_a_mapping_made_from_something_else_is_a_leaf(tmp_path: Path) -> None:
    for odd in ([["a", 1, 2]], [[{}, 1]], 7):
        made = Call(Global("collections", "OrderedDict"), (odd,))
        (entry,) = opened(tmp_path, {"odd": made}).entries
        assert entry.path == "odd"


def test_items_by_key_and_by_index_do_not_take_each_others_paths(tmp_path: Path) -> None:
    both = Call(Global("m", "C"), (), appends=[WEIGHT], items=[(0, WEIGHT)])
    paths = [entry.path for entry in opened(tmp_path, both).entries]
    assert paths == ["0", "__listed__/0"]


def test_sharing_that_makes_too_many_leaves_is_refused(tmp_path: Path) -> None:
    tree: object = [{"leaf": 1}]
    for _ in range(30):
        tree = [tree, tree]
    with pytest.raises(LimitExceededError) as caught:
        opened(tmp_path, tree, limits=Limits(leaves=10_000))
    assert caught.value.limit == "leaves"


def test_a_call_that_cannot_make_a_tensor_is_an_error_with_its_path(tmp_path: Path) -> None:
    broken = Call(Global("torch._utils", "_rebuild_tensor_v2"), (1, 2))
    with pytest.raises(TensorError) as caught:
        opened(tmp_path, {"layers": [broken]})
    assert caught.value.key_path == "layers/0"


# Modules ---------------------------------------------------------------------------------------


def test_a_whole_module_names_its_tensors_as_its_state_dict_would(tmp_path: Path) -> None:
    inner = builders.module(
        parameters={"weight": WEIGHT, "bias": None},
        buffers={"seen": Tensor("int64", ()), "cache": Tensor("float32", (3,)), "none": None},
        non_persistent=["cache"],
        attributes={"factor": 2, "extra": Tensor("float32", (1,))},
    )
    outer = builders.module(modules={"0": inner, "gone": None, "again": inner})
    checkpoint = opened(tmp_path, outer)
    tensors = [entry for entry in checkpoint.entries if entry.tensor is not None]
    assert [(entry.path, entry.member, entry.is_persistent) for entry in tensors] == [
        ("0.weight", "parameter", True),
        ("0.seen", "buffer", True),
        ("0.cache", "buffer", False),
        ("0.extra", "attribute", None),
        ("again.weight", "parameter", True),
        ("again.seen", "buffer", True),
        ("again.cache", "buffer", False),
        ("again.extra", "attribute", None),
    ]
    assert checkpoint.root is not None
    assert checkpoint.root.keys == ()


def test_a_module_of_before_1_6_has_persistent_buffers_only(tmp_path: Path) -> None:
    made = builders.module(buffers={"mean": WEIGHT})
    assert isinstance(made.state, dict)
    del made.state["_non_persistent_buffers_set"]
    (entry,) = (e for e in opened(tmp_path, made).entries if e.tensor is not None)
    assert entry.is_persistent is True


def test_a_module_whose_set_of_names_is_none_leaves_persistence_open(tmp_path: Path) -> None:
    made = builders.module(buffers={"mean": WEIGHT})
    assert isinstance(made.state, dict)
    made.state["_non_persistent_buffers_set"] = 7
    (entry,) = (e for e in opened(tmp_path, made).entries if e.tensor is not None)
    assert entry.is_persistent is None


# Roots -----------------------------------------------------------------------------------------

OPTIMIZER = {"state": {0: {"exp_avg": WEIGHT}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("tree", "root"),
    [
        (state("a", "b"), ""),
        (OrderedDict(state("a")), ""),
        ({"state_dict": state("a"), "epoch": 3}, "state_dict"),
        ({"model": state("a"), "optimizer": OPTIMIZER}, "model"),
        ({"model_state_dict": state("a"), "loss": Tensor("float32", ())}, "model_state_dict"),
        ({"net": state("a")}, "net"),
        ({"checkpoint": {"state_dict": state("a")}}, "checkpoint/state_dict"),
        ({"weights": [("a", WEIGHT), ("b", WEIGHT)]}, "weights"),
        ([("a", WEIGHT), ("b", WEIGHT)], ""),
        (WEIGHT, ""),
        ({"anything": state("a")}, "anything"),
        ({"generator": state("a"), "discriminator": state("a")}, None),
        ({"model": state("a"), "model_ema": state("a")}, None),
        ({"epoch": 3}, None),
    ],
)
def test_the_root_is_found(tree: object, root: str | None, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, tree)
    assert (checkpoint.root.path if checkpoint.root else None) == root


def test_several_roots_are_told_and_one_can_be_chosen(tmp_path: Path) -> None:
    tree = {"model": state("a"), "ema": {"model": state("a", "b")}}
    checkpoint = opened(tmp_path, tree)
    assert [root.path for root in checkpoint.roots] == ["model", "ema/model"]
    (warning,) = checkpoint.warnings
    assert "model, ema/model" in warning
    chosen = opened(tmp_path, tree, root="ema/model")
    assert chosen.root is not None
    assert chosen.root.path == "ema/model"
    assert chosen.warnings == ()


def test_any_subtree_can_be_chosen_as_the_root(tmp_path: Path) -> None:
    tree = {"a/b": {"c": [state("x")]}}
    for path, keys in (
        ("a\\/b/c/0", ("a/b", "c", 0)),
        ("a\\/b/c", ("a/b", "c")),
        ("/", ()),
        ("", ()),
    ):
        checkpoint = opened(tmp_path, tree, root=path)
        assert checkpoint.root is not None
        assert checkpoint.root.keys == keys
    with pytest.raises(EntryNotFoundError) as caught:
        opened(tmp_path, tree, root="a\\/b/nothing")
    assert caught.value.candidates == ("a\\/b/c",)


@given(names=st.lists(st.text(max_size=4), min_size=1, max_size=3))
def test_a_root_is_found_by_the_path_that_is_shown(names: list[str]) -> None:
    assume(display(tuple(names)) not in ("", "/"))  # both are the top
    tree: dict[str, object] = {"leaf": 1}
    for name in reversed(names):
        tree = {f"{name}?": tree, name: tree}
    assert find_root(tree, display(tuple(names))).keys == tuple(names)


def test_a_root_that_two_keys_could_mean_is_refused() -> None:
    with pytest.raises(EntryNotFoundError) as caught:
        find_root({0: {"a": 1}, "0": {"a": 1}}, "0")
    assert caught.value.hint == "several keys are shown like that"


def test_a_leaf_is_no_root(tmp_path: Path) -> None:
    for path in ("epoch", "model/a"):
        with pytest.raises(EntryNotFoundError, match="leaf"):
            opened(tmp_path, {"model": state("a"), "epoch": 1}, root=path)


def test_training_state_can_be_the_root_that_is_asked_for(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, {"model": state("a"), "opt": OPTIMIZER}, root="opt")
    names = [checkpoint.name_of(entry) for entry in checkpoint.entries if entry.tensor]
    assert any(name and name.startswith("state/") for name in names)


def test_a_root_can_lie_inside_an_object(tmp_path: Path) -> None:
    holder = Call(Global("m", "Holder"), (), {"weights": state("a")}, new=True)
    checkpoint = opened(tmp_path, {"holder": holder}, root="holder/weights")
    assert [place[1] for place in map(checkpoint.locate, checkpoint.entries) if place] == ["a"]


def test_a_name_is_what_follows_the_root(tmp_path: Path) -> None:
    tree = {"model": {"a/b": WEIGHT, "a": {"b": WEIGHT}}, "other": {"x.y": WEIGHT}}
    checkpoint = opened(tmp_path, tree, root="model")
    names = {entry.path: checkpoint.name_of(entry) for entry in checkpoint.entries}
    assert names == {"model/a\\/b": "a/b", "model/a/b": "a/b", "other/x.y": None}


def test_an_entry_is_in_the_chosen_root_before_an_inner_one(tmp_path: Path) -> None:
    tree = {"w": WEIGHT, "model": {"a.b": WEIGHT}, "ema": {"a.b": WEIGHT}}
    unsure = opened(tmp_path, tree)
    assert unsure.root is None
    assert [unsure.name_of(entry) for entry in unsure.entries] == ["w", "a.b", "a.b"]
    whole = opened(tmp_path, tree, root="/")
    assert [whole.name_of(entry) for entry in whole.entries] == ["w", "model/a.b", "ema/a.b"]


def test_a_root_that_is_a_list_of_tables_has_names(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, [{0: WEIGHT, 1: WEIGHT}], root="/")
    assert [checkpoint.name_of(entry) for entry in checkpoint.entries] == ["0/0", "0/1"]


def test_pairs_are_named_by_their_first_halves(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, [("a.weight", WEIGHT), ("a.bias", WEIGHT)])
    places = [checkpoint.locate(e) for e in checkpoint.entries if e.tensor is not None]
    assert [place and place[1] for place in places] == ["a.weight", "a.bias"]


# Training state --------------------------------------------------------------------------------


def test_training_state_is_recognised_by_its_shape(tmp_path: Path) -> None:
    tree = {
        "model": state("a"),
        "any name": OPTIMIZER,
        "schedulers": [{"last_epoch": 3, "base_lrs": [0.1], "_step_count": 4}],
        "amp": {"scale": 1.0, "growth_factor": 2, "backoff_factor": 0.5, "growth_interval": 9},
        "rng_state": Tensor("uint8", (16,)),
        "rngs": {"cuda_rng_state": [Tensor("uint8", (16,))], "numpy_random_state": "x"},
        "random_projection": Tensor("float32", (4,)),
    }
    checkpoint = opened(tmp_path, tree)
    assert {found.path: found.kind for found in checkpoint.training} == {
        "any name": "optimizer",
        "schedulers/0": "scheduler",
        "amp": "scaler",
        "rng_state": "rng",
        "rngs/cuda_rng_state": "rng",
        "rngs/numpy_random_state": "rng",
    }
    assert checkpoint.root is not None
    assert checkpoint.root.path == "model"


# Globals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "torch.float16", "torch.Size",
        "collections.OrderedDict", "torch.nn.modules.linear.Linear", "builtins.set",
        "__torch__.Net", "torch.optim.adam.Adam",
    ],
)  # fmt: skip
def test_the_names_of_plain_data_are_known(name: str) -> None:
    assert is_known_global(nodes.Global(*name.rsplit(".", 1)))


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "builtins.eval", "torch.hub.load", "torch.load", "argparse.Namespace",
        "torchvision.models.ResNet", "numpy.ndarray", "builtins.getattr", "torch.nnx.Evil",
    ],
)  # fmt: skip
def test_all_other_names_are_shown(name: str) -> None:
    assert not is_known_global(nodes.Global(*name.rsplit(".", 1)))
