"""Small files built to make their reader work, or fall over: each command ends, in one answer."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import builders, strategies
from tests.builders import Call, Global, Tensor, torch_zip
from tests.running import SAMPLES, run

ITSELF: Final = "the file again"
COMMANDS: Final[tuple[tuple[str | Path, ...], ...]] = (
    ("list",),
    ("list", "--json", "--sha256"),
    ("inspect",),
    ("inspect", "--tree"),
    ("show", "*"),
    ("check",),
    ("check", "--model", SAMPLES / "specs" / "my_model.json"),
    ("diff", ITSELF),
    ("diff", SAMPLES / "my_model.pt", "--json"),
    ("strip", "--dry-run", "--drop", "*", "--drop", "/*", "--training"),
    ("reset-buffers", "--dry-run", "--match", "*"),
    ("spec",),
)
FINDING: Final = ("check", "diff")
"""The commands that end with 1 where they find something."""
MEMORY: Final = 1 << 30
VALUES: Final = Tensor("float32", (2,))
SPARSE: Final = Global("torch._utils", "_rebuild_sparse_tensor")


def filled(options: Sequence[str | Path], path: Path) -> list[str | Path]:
    return [path if option == ITSELF else option for option in options]


def reduced(callee: bytes) -> bytes:
    """A pickle that calls what these opcodes leave on the stack."""
    return b"\x80\x02" + callee + b")R."


def doubled(times: int) -> bytes:
    """Opcodes for a tuple of two that are the same tuple of two, and so on."""
    return b"K\x01" + b"2\x86" * times


def doubled_list(times: int) -> object:
    shared: list[object] = ["x"]
    for _ in range(times):
        shared = [shared, shared]
    return shared


def entwined_modules(count: int) -> Call:
    """Modules of which each holds the next one twice, without any tensor."""
    module: object = None
    for _ in range(count):
        module = builders.module(modules={"a": module, "b": module})
    assert isinstance(module, Call)
    return module


def with_pickle(data: bytes) -> bytes:
    """An archive around a pickle."""
    records = builders.with_record(
        builders.torch_records({"w": VALUES}),
        "data.pkl",
        lambda record: builders.ZipRecord(record.name, data),
    )
    return builders.zip_archive(records)


def tensor_call(*args: object) -> Call:
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), args)


CASES: Final[dict[str, Callable[[], bytes]]] = {
    "a callee that takes forever to hash": lambda: with_pickle(reduced(doubled(60))),
    "a callee that is nested without end": lambda: with_pickle(
        reduced(b"K\x01" + b"\x85" * 300_000)
    ),
    "a plain tuple that looks like a global": lambda: with_pickle(
        reduced(b"X\x0c\0\0\0torch._utilsX\x12\0\0\0_rebuild_tensor_v2\x86")
    ),
    "a location that takes forever to write": lambda: with_pickle(
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000"
        + doubled(60)
        + b"K\x02tQ."
    ),
    "lists that double": lambda: torch_zip(doubled_list(60)),
    "lists that double inside an object": lambda: torch_zip(
        {"w": VALUES, "x": Call(Global("m", "C"), (), {"x": doubled_list(60)}, new=True)}
    ),
    "modules that hold each other twice": lambda: torch_zip(entwined_modules(30)),
    "objects nested as deep as is read": lambda: torch_zip(nested_objects(160)),
    "a key that takes forever to write": lambda: torch_zip({endless(): VALUES, (1, endless()): 1}),
    "an attribute whose name takes forever to write": lambda: torch_zip(
        {"w": builders.with_attributes(VALUES, {endless(): VALUES})}  # type: ignore[dict-item]
    ),
    "a part whose name takes forever to write": lambda: torch_zip({"w": wrapper(endless())}),
    "a parameter whose name takes forever to write": lambda: torch_zip(
        builders.module(parameters={endless(): VALUES})  # type: ignore[dict-item]
    ),
    "a layout that takes forever to write": lambda: torch_zip(
        {"w": Call(SPARSE, (endless(), (2, 2), False, VALUES, VALUES, {}))}
    ),
    "a stride of zero": lambda: torch_zip(
        {"w": tensor_call(VALUES.storage, 0, (1 << 20, 1 << 20), (0, 0), False, {})}
    ),
    "a shape of many dimensions": lambda: torch_zip(
        {"w": tensor_call(VALUES.storage, 0, (1,) * 64, (0,) * 64, False, {})}
    ),
    "a name of many numbers": lambda: torch_zip(
        {".".join(["1"] * 1_100 + [str(n)]): VALUES for n in range(50)}
    ),
    "a name of one long number": lambda: torch_zip({"1" * 5_000: VALUES}),
    "a name of many dots": lambda: torch_zip({"." * 20_000: VALUES}),
    "a name of a million characters": lambda: torch_zip({"n" * 1_000_000: VALUES}),
    "a tensor under thousands of names": lambda: torch_zip({f"n{n}": VALUES for n in range(1_000)}),
    "thousands of roots": lambda: torch_zip([{"w": Tensor("float32", (1,))} for _ in range(2_000)]),
    "a script whose names are all quotes": lambda: builders.torchscript(
        builders.script_module("Net", {"w": VALUES}),
        b"class Net(Module):\n  __parameters__ = [" + b'"\\"' * 40_000 + b"]\n",
    ),
}


def endless() -> Call:
    """An object whose `repr` would never end."""
    return Call(Global("m", "C"), (doubled_list(60),))


def wrapper(name: object) -> Call:
    """A subclass that wraps a tensor under this name."""
    cls = Global("mine", "Wrapped")
    cpu = Call(Global("torch", "device"), (endless(),))
    args = (cls, Global("torch", "float32"), (2,), (1,), 0, None, cpu, False)
    rebuild = Global("torch._utils", "_rebuild_wrapper_subclass")
    from_type = Global("torch._tensor", "_rebuild_from_type_v2")
    return Call(from_type, (rebuild, cls, args, {name: VALUES}))


def nested_objects(times: int) -> object:
    node: object = 1
    for _ in range(times):
        node = Call(Global("m", "C"), (node,), None)
    return node


@pytest.mark.parametrize("name", CASES)
def test_every_command_ends_soon_and_in_little_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pt"
    path.write_bytes(CASES[name]())
    for command, *options in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "ckptool", command, path, *filled(options, path)],
            capture_output=True,
            timeout=60,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )
        assert done.returncode in ((0, 1, 2) if command in FINDING else (0, 2)), done.stderr
        assert b"Traceback" not in done.stderr
        assert (done.returncode == 2) == done.stderr.startswith(b"error: ")


@given(tree=strategies.trees(), data=st.data())
def test_a_broken_pickle_in_a_sound_archive_ends_in_an_answer(
    tree: object, data: st.DataObject, tmp_path: Path
) -> None:
    table = builders.StorageTable()
    pickle = data.draw(strategies.mutations(builders.to_pickle({"t": tree}, table=table)))
    records = [builders.ZipRecord("archive/data.pkl", pickle)]
    records += [
        builders.ZipRecord(f"archive/data/{key}", storage.data)
        for key, storage in table.by_key.items()
    ]
    path = tmp_path / "broken.pt"
    path.write_bytes(builders.zip_archive(records))
    for command, *options in COMMANDS:
        result = run(command, path, *filled(options, path))
        assert result.code in ((0, 1, 2) if command in FINDING else (0, 2))
