"""The sound files that mutations begin with: small, of every format and kind of tensor."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from tests import builders
from tests.builders import Call, Global, Persistent, Storage, Tensor
from tests.fuzz.archives import records_of
from tests.fuzz.streams import parts_of

__all__ = ["Kind", "Seed", "pickles", "seeds"]

Kind: TypeAlias = Literal["pickle", "zip", "legacy", "safetensors"]

_SAMPLES: Final = Path(__file__).parents[2] / "sample_checkpoints"
# Larger ones are mutated in places where nothing is read, and take longer.
_LARGEST_SAMPLE = 3_000
_MAGIC: Final = builders.MAGIC_NUMBER
_END: Final = b"PK\5\6"


class Seed(NamedTuple):
    """A sound file, and what it is mutated as."""

    name: str
    kind: Kind
    data: bytes


@cache
def seeds() -> tuple[Seed, ...]:
    """Return all sound files, in an order that does not change."""
    return (*_zips(), *_scripts(), *_streams(), *_tables(), *_bare_pickles(), *_samples())


@cache
def pickles() -> tuple[bytes, ...]:
    """Return every pickle in the sound files, for its parts to be put into others."""
    found: list[bytes] = []
    for seed in seeds():
        if seed.kind == "pickle":
            found.append(seed.data)
        elif seed.kind == "legacy":
            found += parts_of(seed.data)[:-1]
        elif seed.kind == "zip":
            found += [one.data for one in records_of(seed.data) if one.name.endswith(".pkl")]
    return tuple(dict.fromkeys(found))


_WEIGHT: Final = Tensor("float32", (2, 3), requires_grad=True)
_COUNT: Final = Tensor("int64", (), [7])
_SHARED: Final = Storage("float32", bytes(32))


def _few() -> dict[str, Tensor]:
    return {
        "fc.weight": _WEIGHT,
        "fc.bias": Tensor("bfloat16", (3,)),
        "bn.running_var": Tensor("float64", (2,), storage=Storage("float64", bytes(32)), offset=1),
        "bn.num_batches_tracked": _COUNT,
        "mask": Tensor("bool", (0, 4)),
        "bits": Tensor("float8_e5m2", (2, 2), stride=(1, 2)),
        "z": Tensor("complex64", (1,)),
        "tied": Tensor("float32", (2, 2), storage=_SHARED, offset=2),
        "view": Tensor("float32", (4,), storage=_SHARED, stride=(2,)),
    }


def _state_dict() -> Call:
    return builders.state_dict(_few(), {"": 1, "fc": 1, "bn": 2})


def _plain() -> dict[object, object]:
    return {
        "none": None, "yes": True, "int": -5, "long": 1 << 80, "float": 0.5, "text": "a\nü",
        "bytes": b"\0\xff", "list": [1, [2, []]], "tuple": (1, (), (2, 3, 4, 5)),
        ("a", 1): {"b": {}}, 7: OrderedDict(x=1), None: {1, 2}, "complex": 1j,
    }  # fmt: skip


def _utils(name: str, *args: object) -> Call:
    return Call(Global("torch._utils", name), args)


def _layout(name: str) -> Call:
    return Call(Global("torch.serialization", "_get_layout"), (f"torch.{name}",))


def _array() -> Call:
    described = Call(
        Global("numpy", "dtype"), ("f4", False, True), (3, "<", None, None, None, -1, -1, 0)
    )
    made = (Global("numpy", "ndarray"), (0,), b"b")
    state = (1, (2,), described, False, bytes(8))
    return Call(Global("numpy._core.multiarray", "_reconstruct"), made, state)


def _composed() -> dict[str, object]:
    indices, values = Tensor("int64", (1, 3), [0, 2, 4]), Tensor("float32", (3,))
    csr = (Tensor("int64", (2,)), Tensor("int64", (1,)), Tensor("float32", (1,)), (1, 4))
    sizes = Tensor("int64", (2, 1), [1, 2])
    scales = (Global("torch", "per_channel_affine"), Tensor("float64", (2,)), _COUNT, 0)
    quantized = Tensor("qint8", (2, 2))
    float32 = Global("torch", "float32")
    wrapped = Global("mine", "Wrapped")
    device = Call(Global("torch", "device"), ("cpu",))
    shell = (wrapped, float32, (2, 3), (3, 1), 0, _layout("strided"), device, False)
    rebuild = Global("torch._utils", "_rebuild_wrapper_subclass")
    return {
        "coo": builders.sparse_coo(indices, values, (6,)),
        "csr": _utils("_rebuild_sparse_tensor", _layout("sparse_csr"), csr),
        "quantized": builders.quantized(Tensor("qint8", (2, 2)), scale=0.5, zero_point=3),
        "channels": _utils(
            "_rebuild_qtensor", quantized.storage, 0, (2, 2), (2, 1), scales, False, OrderedDict()
        ),
        "nested": _utils("_rebuild_nested_tensor", values, sizes, sizes, Tensor("int64", (2,))),
        "jagged": Call(
            Global("torch.nested._internal.nested_tensor", "_rebuild_njt"),
            ({"values": values, "offsets": Tensor("int64", (3,)), "_ragged_idx": 1},),
        ),
        "meta": _utils("_rebuild_meta_tensor_no_storage", float32, (2, 3), (3, 1), True),
        "wrapped": Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            (rebuild, wrapped, shell, {"packed": values}),
        ),
        "array": _array(),
        "xla": _utils("_rebuild_xla_tensor", _array(), float32, "xla:0", True),
    }


def _module() -> Call:
    norm = builders.module(
        Global("torch.nn.modules.batchnorm", "BatchNorm1d"),
        parameters={"weight": Tensor("float32", (2,)), "bias": None},
        buffers={"running_mean": Tensor("float32", (2,)), "count": _COUNT},
        non_persistent=["count"],
        attributes={"momentum": 0.1, "num_features": 2},
    )
    kept = builders.buffer(Tensor("float32", (2,)), persistent=False)
    return builders.module(
        Global("models", "Net"), parameters={"w": _WEIGHT}, buffers={"b": kept}, modules={"n": norm}
    )


def _training() -> dict[str, object]:
    states = {0: {"step": Tensor("float32", ()), "exp_avg": Tensor("float32", (2, 3))}}
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}]
    return {
        "epoch": 3,
        "state_dict": builders.state_dict({"w": _WEIGHT, "b": builders.parameter(_COUNT)}),
        "optimizer": {"state": states, "param_groups": groups},
        "hyper_parameters": Call(Global("argparse", "Namespace"), (), {"lr": 0.1}, new=True),
    }


def _zips() -> Iterator[Seed]:
    few = _few()
    for name, data in {
        "zip": builders.torch_zip(_state_dict()),
        "zip-deflated": builders.torch_zip(few, compress=True, data_descriptor=False),
        "zip-zip64": builders.torch_zip(few, zip64=True),
        "zip-big-endian": builders.torch_zip(few, byteorder="big"),
        "zip-old": builders.torch_zip(few, byteorder=None, zip64_end=False, alignment=0, crc=False),
        "zip-composed": builders.torch_zip(_composed()),
        "zip-module": builders.torch_zip(_module()),
        "zip-training": builders.torch_zip(_training()),
        "zip-plain": builders.torch_zip(_plain()),
        "zip-others": builders.torch_zip({"w": _WEIGHT}, extra_records={"x/y.txt": b"text"}),
        "zip-around": builders.zip_around(builders.torch_zip({"w": _WEIGHT})),
    }.items():
        yield Seed(name, "zip", data)


def _scripts() -> Iterator[Seed]:
    inner = builders.script_module("Inner", {"weight": _WEIGHT, "mean": Tensor("float32", (2,))})
    root = builders.script_module("Net", {"inner": inner, "training": True, "w": _WEIGHT})
    source = builders.script_source("Net", {"w": "Tensor"}, parameters=["w"])
    source += builders.script_source("Inner", {}, parameters=["weight"], buffers=["mean"])
    constants = (Tensor("float32", (2,)), _COUNT)
    yield Seed("torchscript", "zip", builders.torchscript(root, source, constants=constants))
    resources = {"model/model.pkl": _module(), "model/more.pkl": {"w": _WEIGHT}}
    package = builders.torch_package(resources, sources={"models.py": "class Net: pass\n"})
    yield Seed("torch-package", "zip", package)


def _streams() -> Iterator[Seed]:
    whole = Storage("float32", bytes(32), key="1")
    part = Storage("float32", bytes(32), key="1", view=("7", 2, 4))
    views = {
        "whole": Tensor("float32", (8,), storage=whole),
        "part": Tensor("float32", (4,), storage=part),
    }
    for name, data in {
        "legacy": builders.legacy(_state_dict()),
        "legacy-views": builders.legacy(views),
        "legacy-training": builders.legacy(_training()),
        "legacy-module": builders.legacy(_module(), little_endian=False),
    }.items():
        yield Seed(name, "legacy", data)


def _tables() -> Iterator[Seed]:
    few = {name: tensor for name, tensor in _few().items() if name != "z"}
    yield Seed("safetensors", "safetensors", builders.safetensors(few, {"format": "pt"}))
    yield Seed("safetensors-one", "safetensors", builders.safetensors({"w": _WEIGHT}))
    yield Seed("safetensors-empty", "safetensors", builders.safetensors({}))


def _bare_pickles() -> Iterator[Seed]:
    plain = {**_plain(), "array": bytearray(b"ab"), "frozen": frozenset("a"), "rest": slice(1)}
    plain["default"] = defaultdict(list, {"x": [plain["list"]]})
    for protocol in range(6):
        yield Seed(f"pickle-{protocol}", "pickle", pickle.dumps(plain, protocol))
    inner = builders.legacy(Tensor("float32", (4,)).storage)
    storage = Call(Global("torch.storage", "_load_from_bytes"), (inner,))
    args: tuple[object, ...] = (storage, 0, (2, 2), (2, 1), False, OrderedDict())
    tensors = {"t": _utils("_rebuild_tensor_v2", *args), "u": _utils("_rebuild_tensor_v2", *args)}
    yield Seed("pickle-tensors", "pickle", builders.to_pickle(tensors))
    yield Seed("pickle-persistent", "pickle", builders.to_pickle([Persistent("a"), Persistent(1)]))


def _samples() -> Iterator[Seed]:
    for path in sorted((*_SAMPLES.glob("*.pt"), *_SAMPLES.glob("*.safetensors"))):
        data = path.read_bytes()
        kinds: dict[bytes, Kind] = {b"PK\3\4": "zip", builders.to_pickle(_MAGIC): "legacy"}
        kind = next((kinds[head] for head in kinds if data.startswith(head)), None)
        # Some samples are broken on purpose.
        is_whole = kind != "zip" or _END in data
        if kind is not None and is_whole and len(data) <= _LARGEST_SAMPLE:
            yield Seed(path.name, kind, data)
