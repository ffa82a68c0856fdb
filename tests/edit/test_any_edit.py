"""Any file, any part of it taken out: torch loads what it would have after deleting that itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from ckptool import open_checkpoint
from ckptool.checkpoint.keypath import display
from tests import builders, strategies
from tests.edit.results import load, overhang, pickle_of, same, saved, strip, without
from tests.oracle import WRITERS

WASTE_ALLOWED: Final = 15  # a run of bytes begins where its widest dtype can be counted from

# Objects that nobody knows ----------------------------------------------------------------------


@given(kept=strategies.trees(), build=st.sampled_from((builders.torch_zip, builders.legacy)))
def test_objects_that_nobody_knows_are_written_as_they_were(
    kept: object, build: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Taken out of a file, a last part leaves the very bytes of a file that never had it."""
    assume(not _sets_a_key_twice(kept))  # which no plan can keep
    folder = tmp_path_factory.mktemp("objects")
    gone = builders.Tensor("float32", (2,))
    (folder / "src.pt").write_bytes(build({"kept": kept, "gone": gone}))
    (folder / "expected.pt").write_bytes(build({"kept": kept}))
    plan = strip(folder / "src.pt", folder / "dst.pt", drop=["/gone"])
    with open_checkpoint(folder / "expected.pt") as a, open_checkpoint(folder / "dst.pt") as b:
        for one, other in zip(a.entries, b.entries, strict=True):
            assert (one.path, type(one.node)) == (other.path, type(other.node))
        sizes = [sum(one.size for one in file.container.extents.values()) for file in (a, b)]
    assert plan.kept[1] == sizes[1]
    if sizes[0] > sizes[1]:
        return  # some bytes were not in use
    if build is builders.torch_zip:
        assert pickle_of(folder / "dst.pt") == pickle_of(folder / "expected.pt")
    else:
        assert (folder / "dst.pt").read_bytes() == (folder / "expected.pt").read_bytes()


def _sets_a_key_twice(tree: object) -> bool:
    if isinstance(tree, builders.Call):
        keys = [key for key, _ in tree.items]
        parts = [*tree.args, tree.state, *tree.appends, *tree.items]
        return len(set(keys)) < len(keys) or any(map(_sets_a_key_twice, parts))
    below = list(tree.values()) if isinstance(tree, dict) else tree
    return isinstance(below, list | tuple) and any(map(_sets_a_key_twice, below))


# Any state_dict ---------------------------------------------------------------------------------


def _resaved(tree: Any, path: Path) -> None:
    path.write_bytes(builders.torch_zip(tree))
    torch.save(load(path), path)


def _built_zip(tree: Any, path: Path) -> None:
    path.write_bytes(builders.torch_zip(tree))


def _built_legacy(tree: Any, path: Path) -> None:
    storages = [tensor.storage for tensor in tree.values()]
    # torch reads no untyped storages of the old stream.
    assume(all(storage.is_typed for storage in storages))
    path.write_bytes(builders.legacy(tree))


def matches(pattern: str, name: str) -> bool:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(char) or re.escape(char) for char in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None


@given(
    state=strategies.state_dicts(surrogates=False).filter(bool),
    data=st.data(),
    write=st.sampled_from((_built_zip, _built_legacy, _resaved)),
)
def test_any_names_of_any_state_dict_go_as_torch_would_delete_them(
    state: dict[str, builders.Tensor],
    data: st.DataObject,
    write: Callable[[Any, Path], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(state, folder / "src.pt")
    asked = data.draw(st.lists(st.sampled_from(list(state)), min_size=1, unique=True))
    # A leading "/" would mean a path from the top, and "!" what is left out.
    patterns = ["?" + name[1:] if name.startswith(("/", "!")) else name for name in asked]
    is_kept = data.draw(st.booleans())
    gone = {
        name for name in state if is_kept != any(matches(pattern, name) for pattern in patterns)
    }
    assume(gone)
    options: dict[str, Any] = {"keep" if is_kept else "drop": patterns}
    strip(folder / "src.pt", folder / "dst.pt", root="/", **options)
    expected, found = load(folder / "src.pt"), load(folder / "dst.pt")
    for name in gone:
        del expected[name]
    same(expected, found)
    assert all(waste <= WASTE_ALLOWED for waste in overhang(found).values())


@given(tree=strategies.trees(opaque=False), data=st.data())
def test_any_part_of_any_tree_goes_as_torch_would_delete_it(
    tree: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("part")
    (folder / "src.pt").write_bytes(builders.torch_zip(tree))
    with open_checkpoint(folder / "src.pt") as checkpoint:
        every = [one.keys[:n] for one in checkpoint.entries for n in range(1, len(one.keys) + 1)]
    assume(every)
    keys = data.draw(st.sampled_from(every))
    assume(not {"*", "?"} & set(display(keys)))
    strip(folder / "src.pt", folder / "dst.pt", drop=[f"/{display(keys)}"])
    expected, found = load(folder / "src.pt"), load(folder / "dst.pt")
    holder = functools.reduce(lambda above, key: above[key], keys[:-1], expected)
    del holder[keys[-1]]
    same(expected, found)


@st.composite
def views_of_one(draw: st.DrawFn) -> dict[str, builders.Tensor]:
    """Views of one storage, of another dtype's width now and then."""
    storage = draw(strategies.storages(min_numel=1))
    count = draw(st.integers(2, 6))
    return {f"view {n}": draw(strategies.views(storage)) for n in range(count)}


@given(state=views_of_one(), data=st.data(), is_zip=st.booleans())
def test_views_that_stay_share_what_they_shared_and_no_more_bytes_than_that(
    state: dict[str, builders.Tensor],
    data: st.DataObject,
    is_zip: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("views")
    (_built_zip if is_zip else _built_legacy)(state, folder / "src.pt")
    gone = data.draw(
        st.lists(st.sampled_from(list(state)), min_size=1, max_size=len(state) - 1, unique=True)
    )
    plan = strip(folder / "src.pt", folder / "dst.pt", drop=gone)
    expected, found = load(folder / "src.pt"), load(folder / "dst.pt")
    for name in gone:
        del expected[name]
    same(expected, found)
    assert all(waste <= WASTE_ALLOWED for waste in overhang(found).values())
    used = [tensor for tensor in found.values() if tensor.numel()]
    assert bool(plan.kept[1]) == bool(used)


def test_a_storage_that_is_cut_can_be_counted_in_every_dtype(tmp_path: Path) -> None:
    base = torch.arange(16, dtype=torch.int32).to(torch.uint16)
    state = {"all": base, "odd": base[3:4], "wide": base.view(torch.uint32)[4:6]}
    src, dst = saved(state, tmp_path / "src.pt"), tmp_path / "dst.pt"
    strip(src, dst, drop=["all"])
    same(without(load(src), "all"), load(dst))
    assert list(overhang(load(dst)).values()) == [2, 0]


@pytest.mark.parametrize("writer", ["zip", "legacy"])
def test_an_empty_view_goes_along_with_the_part_that_stays(writer: str, tmp_path: Path) -> None:
    base = torch.arange(4.0)
    WRITERS[writer]({"all": base, "empty": base[:0], "last": base[3:]}, tmp_path / "src.pt")
    strip(tmp_path / "src.pt", tmp_path / "dst.pt", drop=["all"])
    same(without(load(tmp_path / "src.pt"), "all"), load(tmp_path / "dst.pt"))


def test_a_parameter_on_a_part_of_a_storage_moves_with_it(tmp_path: Path) -> None:
    flat = torch.arange(9.0)
    src = saved({"gone": flat, "weight": nn.Parameter(flat[4:])}, tmp_path / "src.pt")
    plan = strip(src, tmp_path / "dst.pt", drop=["gone"])
    same(without(load(src), "gone"), load(tmp_path / "dst.pt"))
    assert [(one.path, one.what) for one in plan.changed] == [("weight", "compacted")]


def test_a_sparse_tensor_says_that_its_storage_shrinks(tmp_path: Path) -> None:
    flat = torch.arange(8)
    sparse = torch.sparse_coo_tensor(
        flat[4:].reshape(1, 4), torch.ones(4), (8,), check_invariants=True
    )
    src = saved({"sparse": sparse, "gone": torch.ones(1)}, tmp_path / "src.pt")
    plan = strip(src, tmp_path / "dst.pt", drop=["gone"])
    same(without(load(src), "gone"), load(tmp_path / "dst.pt"))
    assert [(one.path, one.what) for one in plan.changed] == [("sparse", "compacted")]
