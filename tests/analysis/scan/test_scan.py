"""What a scan finds: every pickle in a file, the calls in it, and what contradicts itself."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckptool import scan
from ckptool.analysis.scan.result import ScannedFile
from ckptool.errors import InputError, NotACheckpointError
from ckptool.pickling.limits import Limits
from tests import builders, strategies
from tests.builders import (
    Call,
    Global,
    Tensor,
    ZipRecord,
    legacy,
    to_pickle,
    torch_records,
    torch_zip,
    with_record,
    zip_archive,
)
from tests.running import SAMPLES

W: Final = Tensor("float32", (2,))
EVIL: Final = Call(Global("os", "system"), ("id",))
EVIL_PICKLE: Final = to_pickle(EVIL)
TREE: Final = {"w": W, "x": EVIL}
MAGIC: Final = to_pickle(builders.MAGIC_NUMBER)


def scanned(data: bytes, tmp_path: Path, name: str = "model.pt") -> ScannedFile:
    path = tmp_path / name
    path.write_bytes(data)
    (file,) = scan(path).files
    return file


def findings(file: ScannedFile) -> list[tuple[str, str, str]]:
    return [(one.severity, one.code, one.where) for one in file.findings]


def calls(file: ScannedFile) -> list[str]:
    return [call for one in file.findings for call in one.calls]


def numpy_objects() -> bytes:
    written = io.BytesIO()
    np.save(written, np.array([None]), allow_pickle=True)
    data = written.getvalue()
    return data[: data.index(b"\x80")] + EVIL_PICKLE


def npz_objects() -> bytes:
    return zip_archive(
        [ZipRecord("a.npy", builders.numpy_array()), ZipRecord("b.npy", numpy_objects())]
    )


def tar_of(**members: bytes) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return written.getvalue()


def behind_last_record() -> bytes:
    return torch_zip({"w": W}) + EVIL_PICKLE


def between_records() -> bytes:
    """An archive with a record that only its local header leads to, before the directory."""
    hidden = zip_archive([ZipRecord("archive/hidden.bin", EVIL_PICKLE)], zip64_end=False)
    hidden = hidden[: hidden.index(b"PK\1\2")]
    whole = torch_zip({"w": W})
    start = whole.index(b"PK\1\2")
    moved = bytearray(whole[:start] + hidden + whole[start:])
    # Both end records and the locator between them count from the start of the file.
    places = ((b"PK\6\6", 48, 8), (b"PK\6\7", 8, 8), (b"PK\5\6", 16, 4))
    for magic, inside, width in places:
        at = moved.rindex(magic) + inside
        said = int.from_bytes(moved[at : at + width], "little")
        moved[at : at + width] = (said + len(hidden)).to_bytes(width, "little")
    return bytes(moved)


PAYLOAD: Final = b"cos\nsystem\nS'id'\n\x85R."
"""A pickle of protocol 0 as far as its first bytes tell, which goes on behind others."""


def in_data_pkl(*before: bytes, name: str = "data.pkl") -> bytes:
    records = {"version": b"3\n", name: b"".join(before) + PAYLOAD, "byteorder": b"little"}
    return zip_archive([ZipRecord(f"archive/{one}", data) for one, data in records.items()])


def like_safetensors() -> bytes:
    return b"B" + struct.pack("<I", 20) + b"\0\0\0{" + b'"' + b" " * 15 + b"0"


def with_header(descr: str, filler: int = 0) -> bytes:
    """An array whose header says its dtype in this way."""
    head = f"{{{descr}, 'fortran_order': False, 'shape': (1,), }}".encode() + b" " * filler + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(head)) + head + EVIL_PICKLE


def behind_directory() -> bytes:
    whole = torch_zip({"w": W}, zip64_end=False)
    end = whole.rindex(b"PK\5\6")
    return whole[:end] + EVIL_PICKLE + whole[end:]


def in_comment() -> bytes:
    return zip_archive(torch_records({"w": W}), comment=EVIL_PICKLE)


def old_tar() -> bytes:
    """A tar of before POSIX, without any magic number, whose member begins with filler."""
    written = io.BytesIO()
    data = b"S'" + b"a" * 5_000 + b"'\n0" + PAYLOAD
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, held in (("sys_info", to_pickle({})), ("storages", data)):
            info = tarfile.TarInfo(name)
            info.size = len(held)
            tar.addfile(info, io.BytesIO(held))
    old = bytearray(written.getvalue())
    for at in (0, old.index(b"storages")):
        old[at + 257 : at + 265] = bytes(8)
        total = sum(old[at : at + 148]) + 8 * 32 + sum(old[at + 156 : at + 512])
        old[at + 148 : at + 156] = f"{total:06o}\0 ".encode()
    return bytes(old)


def as_text(data: bytes) -> Call:
    return Call(Global("_codecs", "encode"), (data.decode("latin-1"), "latin1"))


HIDING: Final[dict[str, Callable[[], bytes]]] = {
    "in data.pkl": lambda: torch_zip(TREE),
    "in a deflated data.pkl": lambda: torch_zip(TREE, compress=True),
    "in a data.pkl with a wrong CRC": lambda: zip_archive(
        with_record(torch_records(TREE), "data.pkl", lambda one: replace(one, crc=7))
    ),
    "in a second pickle": lambda: torch_zip({"w": W}, extra_records={"extra.pkl": EVIL_PICKLE}),
    "under a harmless name": lambda: torch_zip({"w": W}, extra_records={"version2": EVIL_PICKLE}),
    "in the bytes of a storage": lambda: torch_zip(
        {"w": Tensor("uint8", (len(EVIL_PICKLE),), EVIL_PICKLE)}
    ),
    "in the second data.pkl": lambda: zip_archive(
        [*torch_records({"w": W}), ZipRecord("archive/data.pkl", EVIL_PICKLE)]
    ),
    "in the first data.pkl": lambda: zip_archive(
        [ZipRecord("archive/data.pkl", EVIL_PICKLE), *torch_records({"w": W})]
    ),
    "under another name in the local header": lambda: zip_archive(
        with_record(torch_records(TREE), "data.pkl", lambda one: replace(one, local_name="x"))
    ),
    "in an archive that is cut short": lambda: torch_zip(TREE)[:-100],
    "behind the archive": behind_last_record,
    "in a record that the directory leaves out": between_records,
    "before the archive": lambda: EVIL_PICKLE + torch_zip({"w": W}),
    "in an archive behind other bytes": lambda: b"#!/bin/sh\n" + torch_zip(TREE),
    "in an archive in an archive": lambda: builders.zip_around(torch_zip(TREE)),
    "in a deflated archive in an archive": lambda: zip_archive(
        [ZipRecord("a", torch_zip(TREE), compress=True)]
    ),
    "in a bare pickle": lambda: EVIL_PICKLE,
    "in an old bare pickle": lambda: b"cos\nsystem\n(S'id'\ntR.",
    "in a bare pickle without its end": lambda: EVIL_PICKLE[:-1],
    "in a bare pickle that breaks a rule": lambda: EVIL_PICKLE[:-1] + b"a.",
    "behind a bare pickle": lambda: to_pickle({"a": 1}) + EVIL_PICKLE,
    "in a legacy stream": lambda: legacy(TREE),
    "in place of the magic number": lambda: EVIL_PICKLE + legacy({"w": W})[len(MAGIC) :],
    "in the system information": lambda: (
        MAGIC + to_pickle(1001) + EVIL_PICKLE + to_pickle({}) + to_pickle([])
    ),
    "in the list of storages": lambda: (
        MAGIC + to_pickle(1001) + to_pickle({}) + to_pickle({}) + EVIL_PICKLE
    ),
    "behind the storages": lambda: legacy({"w": W}) + EVIL_PICKLE,
    "in a storage that a pickle carries": lambda: to_pickle(
        Call(Global("torch.storage", "_load_from_bytes"), (builders.Raw(_as_bytes(legacy(TREE))),))
    ),
    "in TorchScript's constants": lambda: builders.torchscript(
        builders.script_module("Net", {}), b"", constants=(EVIL,)
    ),
    "in a package": lambda: builders.torch_package({"model/model.pkl": EVIL}),
    "in an array of objects": numpy_objects,
    "in arrays of objects": npz_objects,
    "behind what looks like the magic of a tar": lambda: (
        b"S'" + b"a" * 255 + b"ustar'\n0" + PAYLOAD
    ),
    "behind what looks like a header of safetensors": lambda: in_data_pkl(like_safetensors()),
    "behind a number in hexadecimal": lambda: in_data_pkl(b"I0x10\n0"),
    "behind no items for something": lambda: in_data_pkl(b"N(e0"),
    "behind a number, in a legacy stream": lambda: (
        MAGIC + to_pickle(1001) + to_pickle({}) + b"I0x10\n0" + PAYLOAD
    ),
    "in DATA.PKL, behind filler": lambda: in_data_pkl(
        b"S'" + b"a" * 5_000 + b"'\n0", name="DATA.PKL"
    ),
    "in an array whose header has other quotes": lambda: with_header('"descr": "O"'),
    "in an array whose header is escaped": lambda: with_header("'descr': '\\x4f'"),
    "in an array with a long header": lambda: with_header("'descr': '|O'", filler=5_000),
    "in an array whose header says two things": lambda: with_header(
        "'descr': '<f4', 'descr': '|O'"
    ),
    "in an array with a field of objects": lambda: with_header(
        "'descr': [('a', '<f4'), ('b', 'O')]"
    ),
    "between the directory and its end": behind_directory,
    "in the comment of an archive": in_comment,
    "in a tar of before POSIX": old_tar,
    "in an archive that a storage is made of": lambda: to_pickle(
        Call(
            Global("torch.storage", "_load_from_bytes"),
            (as_text(torch_zip(TREE, compress=True)),),
        )
    ),
    "in a tar": lambda: tar_of(readme=b"hello", pickle=EVIL_PICKLE),
    "in an archive in a tar": lambda: tar_of(model=torch_zip(TREE)),
}


def _as_bytes(data: bytes) -> bytes:
    return builders.binbytes(data)


@pytest.mark.parametrize("place", HIDING)
def test_a_call_is_found(place: str, tmp_path: Path) -> None:
    file = scanned(HIDING[place](), tmp_path)
    assert "os.system('id')" in calls(file)
    (found,) = [one for one in file.findings if one.name == "os.system"][:1]
    assert (found.severity, found.code) == ("dangerous", "call")
    if found.offset is not None and "deflated" not in place:
        data = HIDING[place]()
        assert data[found.offset : found.offset + 1] == b"R"


BESIDE: Final[dict[str, tuple[str, str]]] = {
    "in a data.pkl with a wrong CRC": ("", ""),
    "in a second pickle": ("hidden-pickle", "archive/extra.pkl"),
    "under a harmless name": ("hidden-pickle", "archive/version2"),
    "in the bytes of a storage": ("hidden-pickle", "archive/data/0"),
    "in the second data.pkl": ("malformed", ""),
    "under another name in the local header": ("malformed", ""),
    "in an archive that is cut short": ("malformed", ""),
    "behind the archive": ("hidden-pickle", ""),
    "in a record that the directory leaves out": ("hidden-archive", "archive/hidden.bin"),
    "before the archive": ("hidden-archive", ""),
    "in a bare pickle that breaks a rule": ("malformed", ""),
    "behind the storages": ("hidden-pickle", ""),
}


@pytest.mark.parametrize("place", [place for place, (code, _) in BESIDE.items() if code])
def test_that_a_pickle_is_hidden_is_told_too(place: str, tmp_path: Path) -> None:
    file = scanned(HIDING[place](), tmp_path)
    code, where = BESIDE[place]
    assert ("suspicious", code, where) in findings(file)


ODD: Final[dict[str, tuple[Callable[[], bytes], tuple[str, str]]]] = {
    "a mark of encryption": (
        lambda: zip_archive([replace(one, flags=1) for one in torch_records({"w": W})]),
        ("suspicious", "encrypted"),
    ),
    "an absolute path": (
        lambda: zip_archive([*torch_records({"w": W}), ZipRecord("/etc/passwd", b"x")]),
        ("suspicious", "record-name"),
    ),
    "a path to a parent": (
        lambda: zip_archive([*torch_records({"w": W}), ZipRecord("archive/../../x", b"x")]),
        ("suspicious", "record-name"),
    ),
    "a path of another system": (
        lambda: zip_archive([*torch_records({"w": W}), ZipRecord("C:\\x", b"x")]),
        ("suspicious", "record-name"),
    ),
    "a bomb": (
        lambda: zip_archive([ZipRecord("archive/data.pkl", bytes(1 << 22), compress=True)]),
        ("suspicious", "limit"),
    ),
    "bytes behind": (lambda: torch_zip({"w": W}) + b"1234", ("unknown", "stray-bytes")),
    "bytes behind a stream": (lambda: legacy({"w": W}) + b"1234", ("unknown", "stray-bytes")),
    "bytes behind a pickle": (lambda: to_pickle(1) + b"\xff\xff", ("unknown", "stray-bytes")),
    "pickles in a row": (lambda: to_pickle(1) + to_pickle(2), ("unknown", "hidden-pickle")),
    "a lie in a header": (
        lambda: builders.safetensors({"w": W}, length_override=7),
        ("suspicious", "malformed"),
    ),
    "a stream cut short": (lambda: legacy({"w": W})[:-2], ("suspicious", "malformed")),
    "archives in archives": (
        lambda: _nested(6),
        ("suspicious", "not-read"),
    ),
    "a number in a registry": (
        lambda: builders.stream(builders.ext1(7), builders.EMPTY_TUPLE, b"R"),
        ("suspicious", "call"),
    ),
    "a call of what a call gives": (
        lambda: to_pickle(Call(Call(Global("collections", "OrderedDict"), ()), ())),  # type: ignore[arg-type]
        ("suspicious", "nested-call"),
    ),
    "a name that is only imported": (
        lambda: to_pickle([Global("os", "system")]),
        ("dangerous", "import"),
    ),
    "a name behind a key of many items": (
        lambda: in_data_pkl(b"}(" + b"N" * 70 + b"tNs0"),
        ("dangerous", "import"),
    ),
    "a class that evaluates its argument": (
        lambda: to_pickle(Call(Global("sympy", "Abs"), ("__import__('os')",))),
        ("dangerous", "call"),
    ),
    "a state that sets what Python looks at": (
        lambda: to_pickle(
            Call(
                Global("torch.jit._pickle", "restore_type_tag"),
                (Global("argparse", "Namespace"), ""),
                {"dump_patches": True, "__name__": "x"},
            )
        ),
        ("suspicious", "internal-state"),
    ),
    "a result that a function is told to call": (
        lambda: to_pickle(
            Call(
                Global("torch._tensor", "_rebuild_from_type_v2"),
                (Call(Global("m", "f"), ()), None, (), {}),
            )
        ),
        ("suspicious", "nested-call"),
    ),
    "TorchScript that writes a file": (
        lambda: builders.torchscript(
            builders.script_module("Net", {}),
            b"class Net(Module):\n  def __setstate__(self, x):\n    torch.save(x, 'y')\n",
        ),
        ("suspicious", "call"),
    ),
    "a pickle by its name only": (
        lambda: torch_zip({"w": W}, extra_records={"more.pkl": b"\xff\xff"}),
        ("suspicious", "malformed"),
    ),
    "more pickles than anybody reads": (lambda: b"N." * 5_000, ("suspicious", "limit")),
    "more names than anybody reads": (
        lambda: to_pickle([Global("m", f"C{n}") for n in range(1_500)]),
        ("suspicious", "limit"),
    ),
    "calls in calls of bytes": (
        lambda: b"c__builtin__\nbytearray\n" * 3_000 + b")R" + b"\x85R" * 2_999 + b".",
        ("harmless", ""),
    ),
    "a name through attributes": (
        lambda: b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93.",
        ("dangerous", "import"),
    ),
}


def _nested(times: int) -> bytes:
    data = torch_zip({"w": W})
    for _ in range(times):
        data = builders.zip_around(data)
    return data


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_about_a_file_is_told(name: str, tmp_path: Path) -> None:
    build, expected = ODD[name]
    if expected == ("harmless", ""):
        assert scanned(build(), tmp_path).findings == ()
        return
    assert expected in [(one.severity, one.code) for one in scanned(build(), tmp_path).findings]


@given(strategies.trees())
def test_honest_checkpoints_of_every_container_have_no_odd_structure(tree: object) -> None:
    for data in (torch_zip(tree), torch_zip(tree, compress=True), legacy(tree), to_pickle(tree)):
        file = _scan_bytes(data)
        assert {one.code for one in file.findings} <= {"call", "import", "nested-call", "limit"}


def _scan_bytes(data: bytes) -> ScannedFile:
    descriptor = os.memfd_create("checkpoint")
    try:
        os.write(descriptor, data)
        (file,) = scan(f"/proc/self/fd/{descriptor}").files
    finally:
        os.close(descriptor)
    return file


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_nothing_is_found_in_what_torch_saves(tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    torch.save(net.head, tmp_path / "c.pt")
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(net.state_dict()))
    with torch.serialization.skip_data():
        torch.save(state, tmp_path / "e.pt")
    found = scan(tmp_path)
    assert [one for _, one in found.findings()] == []
    assert [len(file.pickles) for file in found.files] == [1, 5, 1, 1 + 5 * 9, 1]


class Activated(torch.nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function


def test_a_function_of_torch_that_a_module_keeps_is_not_dangerous(tmp_path: Path) -> None:
    torch.save(Activated(torch.relu), tmp_path / "model.pt")
    told = [(one.severity, one.calls) for _, one in scan(tmp_path / "model.pt").findings()]
    assert ("unknown", ("builtins.getattr(torch._C._VariableFunctionsClass, 'relu')",)) in [
        (severity, tuple(call.replace("__builtin__", "builtins") for call in calls))
        for severity, calls in told
    ]
    assert {severity for severity, _ in told} == {"unknown"}
    for owner, function in ((Global("os", "x"), "relu"), ("torch._C", "from_file")):
        named = Global("torch._C", "_VariableFunctionsClass") if owner == "torch._C" else owner
        evil = to_pickle(Call(Global("builtins", "getattr"), (named, function)))
        assert scanned(evil, tmp_path, "x.pkl").findings[0].severity == "dangerous"


def test_the_samples_hold_nothing_but_the_canary() -> None:
    found = scan(SAMPLES)
    dangerous = [
        (file.path.name, one.calls) for file, one in found.findings() if one.severity == "dangerous"
    ]
    assert dangerous == [("canary.pt", ("io.open('the-canary-was-run', 'w')",))]
    assert not any(one.severity == "suspicious" for _, one in found.findings())


# Paths -----------------------------------------------------------------------------------------


def test_all_files_below_a_directory_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "evil.bin").write_bytes(torch_zip(TREE))
    (tmp_path / "a.pt").write_bytes(torch_zip({"w": W}))
    (tmp_path / "b" / "link.pt").symlink_to(tmp_path / "b" / "c" / "evil.bin")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "packed.pt").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(26))
    found = scan(tmp_path)
    names = [(str(file.path.relative_to(tmp_path)), file.not_read) for file in found.files]
    assert names == [
        ("a.pt", None),
        ("notes.txt", "a text file that begins with 'hello'"),
        ("packed.pt", "7z data"),
        ("b/link.pt", None),
        ("b/c/evil.bin", None),
    ]
    told = [(file.path.name, one.severity, one.code) for file, one in found.findings()]
    assert told == [
        ("packed.pt", "unknown", "not-read"),
        ("link.pt", "dangerous", "call"),
        ("evil.bin", "dangerous", "call"),
    ]
    assert found.count("dangerous") == 2
    assert found.has_at_least("unknown")
    assert found.has_at_least("dangerous")


def test_a_single_file_that_can_hold_no_pickle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotACheckpointError):
        scan(tmp_path / "notes.txt")
    with pytest.raises(InputError):
        scan(tmp_path / "missing")


def test_text_that_begins_like_an_old_pickle_is_none(tmp_path: Path) -> None:
    for text in ("class Net:\n    pass\n", "import os\nR", "(a, b)\n", "N is nothing"):
        path = tmp_path / "model.py"
        path.write_text(text)
        with pytest.raises(NotACheckpointError):
            scan(path)


def test_limits_hold_for_a_scan_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip({"w": W, "l": [[] for _ in range(100)]}))
    (file,) = scan(path, limits=Limits(opcodes=50)).files
    assert ("suspicious", "limit") in [(one.severity, one.code) for one in file.findings]


# Words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (Call(Global("os", "system"), ("rm -rf /",)), "os.system('rm -rf /')"),
        (Call(Global("m", "f"), (1, 2.5, None, True)), "m.f(1, 2.5, None, True)"),
        (Call(Global("m", "f"), ((1,), [2], {"a": 3})), "m.f((1,), [2], {'a': 3})"),
        (Call(Global("m", "f"), (EVIL,)), "m.f(os.system('id'))"),
        (Call(Global("m", "f"), (Global("os", "system"),)), "m.f(os.system)"),
        (Call(Global("m", "C"), (), {"a": 1}), "m.C() with state {'a': 1}"),
        (Call(Global("m", "f"), ("x" * 5000,)), "m.f('" + "x" * 900),
        (Call(Global("m", "f"), (list(range(100)),)), "more])"),
        (Call(Global("m", "f"), ([[[[[[[[1]]]]]]]],)), "<...>"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_calls_are_told_in_words(tree: object, words: str, tmp_path: Path) -> None:
    told = calls(scanned(to_pickle(tree), tmp_path))
    assert any(words in call for call in told), told
    assert all(len(call) < 1_100 for call in told)


def test_the_same_call_is_told_once_and_many_are_counted(tmp_path: Path) -> None:
    same = scanned(to_pickle([Call(Global("m", "f"), (1,)) for _ in range(5)]), tmp_path)
    assert [(one.calls, one.times) for one in same.findings] == [(("m.f(1)",), 5)]
    many = scanned(to_pickle([Call(Global("m", "f"), (n,)) for n in range(50)]), tmp_path)
    (one,) = many.findings
    assert (one.times, len(one.calls), one.calls[-1]) == (50, 21, "... 30 more calls")


@given(data=st.data(), tree=strategies.trees())
def test_any_broken_file_can_be_scanned(data: st.DataObject, tree: object) -> None:
    ways: list[Callable[[object], bytes]] = [torch_zip, legacy, to_pickle]
    whole = data.draw(st.sampled_from(ways))(tree)
    broken = data.draw(strategies.mutations(whole))
    try:
        file = _scan_bytes(broken)
    except NotACheckpointError:
        return
    assert isinstance(file, ScannedFile)


def test_nothing_that_a_scan_meets_is_run(tmp_path: Path) -> None:
    canary: Any = builders.canary(str(tmp_path / "was-run"))
    for data in (torch_zip(canary), legacy(canary), to_pickle(canary)):
        assert scanned(data, tmp_path).findings
    assert not (tmp_path / "was-run").exists()


def test_records_that_all_lie_in_each_other_are_not_read_again_and_again(tmp_path: Path) -> None:
    """Each local header is, to a pickle, a persistent id, and all that follows is each's data."""
    count = 5_000
    header = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"\n"
    body = (header + b"\x80\x02") * count + b"cm\nf\n)R."
    directory = b"".join(
        struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0,
            *[len(body) - n * (len(header) + 2) - len(header)] * 2,
            1, 0, 0, 0, 0, 0, n * (len(header) + 2),
        ) + b"\n"
        for n in range(count)
    )  # fmt: skip
    end = (b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    file = scanned(body + directory + struct.pack("<4sHHHHIIH", *end), tmp_path)
    assert ("suspicious", "malformed", "") in findings(file)
    assert "limit" in {one.code for one in file.findings}
    assert 1 <= len(file.pickles) < count
