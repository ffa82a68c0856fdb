"""Strategies for hypothesis: names, trees with tensors in them, and files gone wrong."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from hypothesis import strategies as st

from tests import builders
from tests.builders import Call, Global, Storage, Tensor

__all__ = [
    "DTYPES",
    "files",
    "globals_",
    "keys",
    "mutations",
    "names",
    "scalars",
    "shapes",
    "state_dicts",
    "storages",
    "tensors",
    "trees",
    "views",
]

DTYPES: Final = sorted(builders.ITEMSIZES.keys() - {"qint8", "quint8", "qint32"})
"""The dtypes of plain strided tensors."""

_AWKWARD_NAMES: Final = (
    "", ".", "..", "/", "\\", "\\/", "a/b", "a\\b", "a..b", " ", "\t", "\n", "\r\n", "\0", "\x7f",
    "\x9b31m", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "[/nope]x", "[bold]x[/bold]",
    "blocks[attn].weight", "[link=file:///]x", ":smile:", "\ud800", "a\udfffb", "\u202eevil",
    "\u200b", "\ufeff", "e\u0301", "名前", "🔥" * 3, "a" * 5000, "*", "?", "[a-z]", "!x", "-x",
    "--json", "%s", "{0}", "__class__", "../../etc/passwd", "NaN", "null", "0", "-0",
)  # fmt: skip
_USUAL_NAMES: Final = (
    "weight", "bias", "layer1.0.bn1.running_mean", "bn.running_mean", "bn.running_var",
    "bn.num_batches_tracked", "module.fc.weight", "_orig_mod.fc.weight", "blocks.11.qkv.weight",
    "state_dict", "model", "optimizer", "epoch", "_metadata", "state", "param_groups", "exp_avg",
)  # fmt: skip


def names(*, surrogates: bool = True) -> st.SearchStrategy[str]:
    """Names as files have them, and names that a terminal, a shell or a path trips over."""
    awkward = [name for name in _AWKWARD_NAMES if surrogates or _is_encodable(name)]
    anything = st.characters() if surrogates else st.characters(codec="utf-8")
    return st.one_of(
        st.sampled_from(_USUAL_NAMES), st.sampled_from(awkward), st.text(anything, max_size=20)
    )


def _is_encodable(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def keys() -> st.SearchStrategy[object]:
    """Dict keys: mostly names, and the other kinds that pickles allow."""
    atoms = st.one_of(
        names(), st.integers(-(1 << 70), 1 << 70), st.booleans(), st.none(), st.binary(max_size=4),
        st.floats(allow_nan=False),
    )  # fmt: skip
    return st.one_of(names(), atoms, st.tuples(atoms, atoms), st.just(()))


def scalars() -> st.SearchStrategy[object]:
    """Leaves that are no tensors."""
    return st.one_of(_plain_scalars(), names(), st.complex_numbers(), st.binary(max_size=20))


def _plain_scalars() -> st.SearchStrategy[object]:
    texts = names(surrogates=False)
    numbers = st.one_of(st.integers(-(1 << 70), 1 << 70), st.floats())
    return st.one_of(st.none(), st.booleans(), numbers, texts, st.binary(min_size=1, max_size=20))


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes with 0-d, empty and size-one dimensions among them."""
    return st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def storages(
    draw: st.DrawFn, dtype: str | None = None, min_numel: int = 0, max_numel: int = 64
) -> Storage:
    """A storage of any bit pattern, NaN and the like included; a bool is 0 or 1."""
    chosen = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    numel = draw(st.integers(min_numel, max(min_numel, max_numel)))
    size = numel * builders.ITEMSIZES[chosen]
    data = draw(st.binary(min_size=size, max_size=size))
    if chosen == "bool":
        data = bytes(byte & 1 for byte in data)
    location = draw(st.sampled_from(("cpu", "cpu", "cuda:0", "mps")))
    return Storage(chosen, data, location)


@st.composite
def views(draw: st.DrawFn, storage: Storage) -> Tensor:
    """A tensor that lies within a storage: any offset, any stride, overlapping ones too."""
    itemsize = builders.ITEMSIZES[storage.dtype]
    numel = len(storage.data) // itemsize
    offset = draw(st.integers(0, max(numel - 1, 0)))
    room = numel - 1 - offset
    if room < 0:
        return Tensor(storage.dtype, draw(_empty_shapes()), storage=storage)
    shape, stride = [], []
    for _ in range(draw(st.integers(0, 4))):
        step = draw(st.integers(0, max(room, 1)))
        size = draw(st.integers(0, 4 if step == 0 else min(4, room // step + 1)))
        room -= max(size - 1, 0) * step
        shape.append(size)
        stride.append(step)
    return Tensor(
        storage.dtype,
        shape,
        storage=storage,
        offset=offset,
        stride=stride,
        requires_grad=draw(st.booleans()) and storage.dtype in ("float32", "bfloat16"),
    )


def _empty_shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(shapes(), shapes()).map(lambda pair: (*pair[0], 0, *pair[1]))


@st.composite
def tensors(draw: st.DrawFn, dtype: str | None = None) -> Tensor:
    """A tensor: contiguous on a storage that fits, or any view of a larger one."""
    chosen = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    if draw(st.booleans()):
        return draw(views(draw(storages(chosen))))
    shape = draw(shapes())
    numel = Tensor("uint8", shape).reach()
    return Tensor(chosen, shape, storage=draw(storages(chosen, numel, numel)))


def globals_() -> st.SearchStrategy[Global]:
    """References to classes that torch, Python or nobody has."""
    modules = ("torch", "torch._utils", "builtins", "os", "argparse", "lightning.x", "no.such", "")
    members = ("Tensor", "eval", "system", "Namespace", "Config", "Outer.Inner", "ü", "")
    return st.builds(Global, st.sampled_from(modules), st.sampled_from(members))


@st.composite
def _calls(draw: st.DrawFn, children: st.SearchStrategy[object]) -> Call:
    return Call(
        draw(globals_()),
        tuple(draw(st.lists(children, max_size=2))),
        draw(st.one_of(st.none(), st.dictionaries(names(), children, max_size=2))),
        appends=draw(st.lists(children, max_size=2)),
        items=draw(st.lists(st.tuples(keys(), children), max_size=2)),
        new=draw(st.booleans()),
    )


def _containers(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    items = st.lists(st.tuples(keys(), children), max_size=4)
    return st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=4).map(tuple),
        items.map(dict),
        items.map(OrderedDict),
        st.lists(children, max_size=3).map(lambda values: [values, values]),
        _calls(children),
    )


def trees(*, opaque: bool = True, max_leaves: int = 20) -> st.SearchStrategy[object]:
    """Any value a checkpoint can hold; without `opaque` only what torch loads by itself."""
    if not opaque:
        plain = st.one_of(_plain_scalars(), tensors())
        return st.recursive(plain, _plain_containers, max_leaves=max_leaves)
    leaves = st.one_of(scalars(), tensors())
    marked = st.one_of(tensors().map(builders.parameter), tensors().map(builders.buffer))
    everything = st.one_of(leaves, globals_(), marked)
    return st.recursive(everything, _containers, max_leaves=max_leaves)


def _plain_containers(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    items = st.lists(st.tuples(names(surrogates=False), children), max_size=4)
    return st.one_of(st.lists(children, max_size=4), items.map(dict), items.map(OrderedDict))


@st.composite
def state_dicts(
    draw: st.DrawFn, max_size: int = 6, *, surrogates: bool = True
) -> dict[str, Tensor]:
    """Names to tensors, some of them tied, some of them slices of one storage."""
    chosen = draw(st.lists(names(surrogates=surrogates), unique=True, max_size=max_size))
    found: list[Tensor] = []
    for _ in chosen:
        how = draw(st.sampled_from(("fresh", "tied", "slice"))) if found else "fresh"
        earlier = draw(st.sampled_from(found)) if found else None
        if how == "fresh" or earlier is None:
            found.append(draw(tensors()))
        elif how == "tied":
            found.append(_again(earlier))
        else:
            found.append(draw(views(earlier.storage)))
    return dict(zip(chosen, found, strict=True))


def _again(tensor: Tensor) -> Tensor:
    return Tensor(
        tensor.dtype,
        tensor.shape,
        storage=tensor.storage,
        offset=tensor.offset,
        stride=tensor.stride,
        requires_grad=tensor.requires_grad,
        metadata=tensor.metadata,
    )


@st.composite
def files(draw: st.DrawFn, tree: st.SearchStrategy[object] | None = None) -> bytes:
    """A whole file of one of the containers that hold any tree."""
    value = draw(trees() if tree is None else tree)
    build: Callable[[object], bytes] = draw(
        st.sampled_from(
            (
                builders.torch_zip,
                lambda found: builders.torch_zip(found, archive_name="model", crc=False),
                lambda found: builders.torch_zip(found, zip64=True, byteorder="big"),
                lambda found: builders.torch_zip(found, compress=True, data_descriptor=False),
                lambda found: builders.torch_package({"model/model.pkl": found}),
                builders.legacy,
                builders.to_pickle,
            )
        )
    )
    return build(value)


_MUTATIONS: Final = ("flip", "byte", "cut", "drop", "insert", "duplicate", "swap")


@st.composite
def mutations(draw: st.DrawFn, data: bytes, max_changes: int = 4) -> bytes:
    """The bytes with a few of them flipped, replaced, cut off, left out, added or doubled."""
    changed = data
    for kind in draw(st.lists(st.sampled_from(_MUTATIONS), min_size=1, max_size=max_changes)):
        changed = _mutate(draw, kind, changed)
    return changed


def _mutate(draw: st.DrawFn, kind: str, data: bytes) -> bytes:
    start = draw(st.integers(0, len(data)))
    end = min(len(data), start + draw(st.integers(1, 64)))
    before, part, after = data[:start], data[start:end], data[end:]
    match kind:
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            return before + bytes(byte ^ bit for byte in part[:1]) + part[1:] + after
        case "byte":
            return before + draw(st.sampled_from(_EDGES)) + part[1:] + after
        case "cut":
            return before
        case "drop":
            return before + after
        case "insert":
            return before + draw(st.binary(min_size=1, max_size=16)) + part + after
        case "duplicate":
            return before + part + part + after
        case _:
            return before + part[::-1] + after


_EDGES: Sequence[bytes] = (b"\0", b"\x7f", b"\x80", b"\xff", b"\xff\xff\xff\xff", b".", b"R", b"q")
