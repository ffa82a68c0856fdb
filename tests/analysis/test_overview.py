"""Selection, sizes, ties, hashes and fingerprints."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool.analysis.overview import Contents, Overview, list_contents, overview
from ckptool.analysis.selection import glob_matcher
from ckptool.analysis.sizes import Total
from ckptool.checkpoint.opening import open_checkpoint
from ckptool.errors import EntryNotFoundError
from tests import builders, strategies
from tests.builders import Call, Global, Storage, Tensor, legacy, safetensors, torch_zip

STATE = {
    "conv.weight": Tensor("float32", (2, 3)),
    "bn.weight": Tensor("float32", (4,)),
    "bn.running_mean": Tensor("float32", (4,)),
    "bn.running_var": Tensor("float32", (4,)),
    "bn.num_batches_tracked": Tensor("int64", ()),
}


def opened(folder: Path, data: bytes, **options: object) -> Contents:
    path = folder / "checkpoint.pt"
    path.write_bytes(data)
    return list_contents(open_checkpoint(path), **options)  # type: ignore[arg-type]


def looked_at(folder: Path, tree: object) -> Overview:
    return overview(opened(folder, torch_zip(tree)))


def names(contents: Contents) -> list[str | None]:
    return [one.name for one in contents.entries]


# Selection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*", "a.b\nc", True),
        ("bn.*", "bn.weight", True),
        ("bn.*", "xbn.weight", False),
        ("?", "a", True),
        ("?", "ab", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.b", "axb", False),
        ("(*)+", "(x)+", True),
    ],
)
def test_a_glob_means_what_it_says(pattern: str, name: str, is_match: bool) -> None:
    assert glob_matcher(pattern)(name) is is_match


@given(strategies.names())
def test_a_name_without_wildcards_matches_itself_only(name: str) -> None:
    if "*" not in name and "?" not in name:
        assert glob_matcher(name)(name)
        assert not glob_matcher(name)(name + "x")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["bn.*"], ["bn.weight", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]),
        (["*.weight", "*_var"], ["conv.weight", "bn.weight", "bn.running_var"]),
        (["!bn.*"], ["conv.weight"]),
        (["bn.*", "!*running*"], ["bn.weight", "bn.num_batches_tracked"]),
    ],
)
def test_patterns_choose_and_leave_out(
    patterns: list[str], expected: list[str], tmp_path: Path
) -> None:
    assert names(opened(tmp_path, torch_zip(STATE), patterns=patterns)) == expected


@pytest.mark.parametrize(
    ("options", "candidates"),
    [
        ({"patterns": ["bn.runing_mean"]}, ("bn.running_mean", "bn.running_var")),
        ({"patterns": ["bn.*", "!bn.*"]}, ()),
        ({"patterns": ["*", "!nothing"]}, ()),
        ({"roles": ["parameter"]}, ()),
        ({"patterns": ["conv*"], "roles": ["buffer"]}, ()),
    ],
)
def test_what_matches_nothing_is_an_error(
    options: dict[str, list[str]], candidates: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(EntryNotFoundError) as caught:
        opened(tmp_path, torch_zip(STATE), **options)
    assert caught.value.candidates == candidates


def test_roles_choose(tmp_path: Path) -> None:
    found = opened(tmp_path, torch_zip(STATE), roles=["buffer"])
    assert names(found) == ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]


def test_entries_are_sorted_as_asked(tmp_path: Path) -> None:
    data = torch_zip(STATE)
    assert names(opened(tmp_path, data)) == list(STATE)
    assert names(opened(tmp_path, data, sort="name")) == sorted(STATE)
    by_bytes = opened(tmp_path, data, sort="bytes").entries
    sizes = [one.nbytes for one in by_bytes]
    assert sizes == sorted(sizes, reverse=True)


# Sizes and ties --------------------------------------------------------------------------------


def test_totals_count_shared_bytes_once(tmp_path: Path) -> None:
    tied = Tensor("float32", (10,))
    again = Tensor("float32", (10,), storage=tied.storage)
    seen = looked_at(tmp_path, {"a": tied, "b": again, "c": Tensor("float32", (1,))})
    assert seen.sizes.totals["other_tensors"].count == 3
    assert seen.sizes.totals["other_tensors"].nbytes == 44
    tied_paths = {
        one.name: [other.path for other in seen.ties.get(id(one.entry), ())] for one in seen.entries
    }
    assert tied_paths == {"a": ["a", "b"], "b": ["a", "b"], "c": []}


def test_tensors_out_of_numpy_arrays_are_not_tied_to_each_other(tmp_path: Path) -> None:
    def from_numpy(data: bytes) -> Call:
        dtype = Call(Global("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None))
        empty = (Global("numpy", "ndarray"), (0,), b"b")
        array = Call(
            Global("numpy._core.multiarray", "_reconstruct"), empty, (1, (1,), dtype, False, data)
        )
        rebuild = Global("torch._utils", "_rebuild_device_tensor_from_numpy")
        return Call(rebuild, (array, Global("torch", "float32"), "xla:0", False))

    seen = looked_at(tmp_path, {"a": from_numpy(b"\0\0\x80\x3f"), "b": from_numpy(b"\0\0\0\x40")})
    assert not seen.ties
    assert seen.sizes.totals["other_tensors"] == Total(2, 8)


def test_slices_of_one_storage_are_not_tied_and_use_what_they_span(tmp_path: Path) -> None:
    storage = Storage("float32", bytes(400))
    tree = {
        "first": Tensor("float32", (10,), storage=storage),
        "overlap": Tensor("float32", (10,), storage=storage, offset=5),
        "far": Tensor("float32", (2, 2), storage=storage, offset=50, stride=(10, 1)),
    }
    seen = looked_at(tmp_path, tree)
    (use,) = seen.sizes.storages
    # The union of the spans: 15 elements, and 12 for a view with a gap that has 4.
    assert (use.nbytes, use.used_bytes) == (400, 96)
    assert use.paths == ("first", "overlap", "far")
    assert not seen.ties


def test_a_view_with_gaps_uses_its_elements_only(tmp_path: Path) -> None:
    storage = Storage("float32", bytes(400))
    column = Tensor("float32", (10,), storage=storage, stride=(10,))
    seen = looked_at(tmp_path, {"column": column})
    assert seen.sizes.used_bytes == 40


@given(offsets=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_used_bytes_are_those_that_some_tensor_covers(
    offsets: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = Storage("uint8", bytes(50))
    tree = [Tensor("uint8", (10,), storage=storage, offset=at) for at in offsets]
    covered = {byte for at in offsets for byte in range(at, at + 10)}
    assert looked_at(tmp_path_factory.mktemp("used"), tree).sizes.used_bytes == len(covered)


def test_storages_that_nothing_refers_to_are_named(tmp_path: Path) -> None:
    data = torch_zip({"a": Tensor("float32", (2,))}, extra_records={"data/lost": bytes(12)})
    seen = overview(opened(tmp_path, data))
    assert seen.sizes.unreferenced == ("lost",)
    assert (seen.sizes.nbytes, seen.sizes.used_bytes) == (20, 8)


# Hashes and fingerprints -----------------------------------------------------------------------


@given(state=strategies.state_dicts())
def test_a_content_hash_is_over_the_elements(
    state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = opened(tmp_path_factory.mktemp("hash"), torch_zip(state), with_hashes=True)
    assert [found.hashes[id(one)] for one in found.entries] == [
        hashlib.sha256(tensor.elements()).hexdigest() for tensor in state.values()
    ]


def expected_fingerprint(state: Mapping[str, Tensor]) -> str:
    lines = [
        (
            f"{name}\t{tensor.dtype}\t{list(tensor.shape)}\t"
            f"{hashlib.sha256(tensor.elements()).hexdigest()}\n"
        ).encode("utf-8", "surrogatepass")
        for name, tensor in state.items()
    ]
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        torch_zip(STATE),
        torch_zip(dict(reversed(STATE.items())), byteorder="big", compress=True),
        torch_zip({"model": STATE, "optimizer": {"state": {}, "param_groups": []}}),
        legacy(STATE),
        safetensors(STATE),
        torch_zip(list(STATE.items())),
    ],
    ids=["zip", "reversed", "nested", "legacy", "safetensors", "pairs"],
)
def test_the_fingerprint_is_the_same_for_every_container(data: bytes, tmp_path: Path) -> None:
    found = opened(tmp_path, data, with_hashes=True)
    assert found.fingerprint == expected_fingerprint(STATE)


def test_a_part_of_the_root_has_no_fingerprint(tmp_path: Path) -> None:
    found = opened(tmp_path, torch_zip(STATE), patterns=["bn.*"], with_hashes=True)
    assert found.fingerprint is None
    assert opened(tmp_path, torch_zip(STATE)).fingerprint is None
    two = torch_zip({"generator": STATE, "discriminator": dict(STATE)})
    assert opened(tmp_path, two, with_hashes=True).fingerprint is None


def test_components_are_hashed_in_their_order(tmp_path: Path) -> None:
    values = Tensor("qint8", (2, 2))
    made = builders.quantized(values, scale=0.5, zero_point=3)
    (one,) = (found := opened(tmp_path, torch_zip({"q": made}), with_hashes=True)).entries
    content = values.elements() + struct.pack("<dq", 0.5, 3)
    assert found.hashes[id(one)] == hashlib.sha256(content).hexdigest()


def test_a_root_has_what_is_listed_in_it(tmp_path: Path) -> None:
    flag = Tensor("float32", (2,))
    tree = {"w": flag, "inner": {"a": flag, "b": Tensor("float32", (1,))}, "rng_state": {}}
    (tmp_path / "t.pt").write_bytes(torch_zip(tree))
    with open_checkpoint(tmp_path / "t.pt", root="/") as checkpoint:
        seen = overview(list_contents(checkpoint))
    assert {keys: total.count for keys, total in seen.roots.items()} == {(): 3, ("inner",): 2}
    assert seen.roots[()].nbytes == 12
