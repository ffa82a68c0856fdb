"""Everything that can be wrong with an input, as one tree of exceptions.

    CkptoolError                       message, path, hint
    ├── UnsupportedFormatError         recognised but not handled: file_kind, found, supported
    ├── NotACheckpointError            what it really is: file_kind, found
    ├── MalformedCheckpointError       the file breaks its own format
    │   ├── ArchiveError               record, offset
    │   ├── CutShortError              record, offset, whole, tensors
    │   ├── PickleStreamError          offset, opcode, breaks_off, wanted
    │   └── TensorError                key_path, storage_key, code
    ├── LimitExceededError             limit, allowed, actual, option
    ├── EntryNotFoundError             wanted, candidates
    ├── AmbiguousRootError             roots
    ├── SpecError                      no model, or a wrong spec file: place
    ├── InputError                     the file cannot be read at all: file_kind
    ├── EditError                      an edit that cannot be made: key_path
    │   ├── EntryConflictError         two entries would have one name: names
    │   └── SharedStorageError         bytes that are also another tensor's: others
    └── OutputError                    what a command says cannot be written

The fields come first and the sentence is built from them. Programming errors stay built-in
exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AmbiguousRootError",
    "ArchiveError",
    "CkptoolError",
    "CutShortError",
    "EditError",
    "EntryConflictError",
    "EntryNotFoundError",
    "FileKind",
    "InputError",
    "LimitExceededError",
    "MalformedCheckpointError",
    "NotACheckpointError",
    "OutputError",
    "PickleStreamError",
    "SharedStorageError",
    "SpecError",
    "TensorError",
    "UnsupportedFormatError",
    "about",
]


class FileKind(StrEnum):
    """What a path leads to, where that is no checkpoint that can be read."""

    SEVEN_ZIP = "7z"
    BZIP2 = "bzip2"
    DEVICE = "device"
    DIRECTORY = "directory"
    DISTRIBUTED = "distributed-checkpoint"
    ELF = "elf"
    EMPTY = "empty"
    EXPORTED_PROGRAM = "exported-program"
    GGUF = "gguf"
    GIT_LFS_POINTER = "git-lfs-pointer"
    GZIP = "gzip"
    HDF5 = "hdf5"
    HTML = "html"
    JSON = "json"
    KERAS = "keras"
    MISSING = "missing"
    MODEL_SPEC = "model-spec"
    NO_PERMISSION = "no-permission"
    NPY = "npy"
    NPZ = "npz"
    OLD_TAR = "torch-tar"
    ONNX = "onnx"
    PDF = "pdf"
    PNG = "png"
    RAR = "rar"
    SHARD_INDEX = "shard-index"
    STORE_ERROR = "store-error"
    TAR = "tar"
    TENSORFLOW = "tensorflow-checkpoint"
    TEXT = "text"
    UNKNOWN = "unknown"
    UNPACKED = "unpacked-checkpoint"
    XML = "xml"
    XZ = "xz"
    ZEROS = "zeros"
    ZIP = "zip"
    ZIP_AROUND = "zip-around-checkpoint"
    ZIP_BEHIND = "zip-behind-other-bytes"
    ZSTANDARD = "zstandard"


class CkptoolError(Exception):
    """An input that ckptool cannot do its job on: one line, and a hint where there is one."""

    def __init__(self, message: str, *, path: Path | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.path is None else f"{self.path}: {self.message}"

    @property
    def kind(self) -> str:
        """The class name without `Error`, in kebab case, as the JSON says it."""
        name = type(self).__name__.removesuffix("Error")
        return re.sub(r"(?!^)(?=[A-Z])", "-", name).lower()


@contextmanager
def about(path: Path | None) -> Iterator[None]:
    """Let errors say which file they are about, where they do not say it already."""
    try:
        yield
    except CkptoolError as error:
        error.path = error.path or path
        raise


class InputError(CkptoolError):
    """The file is not there, or the system does not let it be read; `file_kind` says which."""

    def __init__(
        self,
        message: str,
        *,
        path: Path | None = None,
        hint: str | None = None,
        file_kind: FileKind = FileKind.UNKNOWN,
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.file_kind = file_kind


class OutputError(CkptoolError):
    """The output cannot be written: the disk is full, say."""


class UnsupportedFormatError(CkptoolError):
    """A checkpoint of a format that is recognised but not handled."""

    def __init__(
        self,
        found: str,
        *,
        supported: Sequence[str] = (),
        verb: Literal["reads", "edits"] = "reads",
        hint: str | None = None,
        file_kind: FileKind | None = None,
    ) -> None:
        also = f"; it {verb} {', '.join(supported)}" if supported else ""
        super().__init__(f"{found} is not a format that ckptool {verb}{also}", hint=hint)
        self.found = found
        self.supported = tuple(supported)
        self.file_kind = file_kind


class NotACheckpointError(CkptoolError):
    """Something other than a checkpoint; `found` says what in words."""

    def __init__(self, file_kind: FileKind, found: str, *, hint: str | None = None) -> None:
        super().__init__(f"not a checkpoint: {found}", hint=hint)
        self.file_kind = file_kind
        self.found = found


class MalformedCheckpointError(CkptoolError):
    """A checkpoint that breaks the rules of its own format."""


class ArchiveError(MalformedCheckpointError):
    """The container contradicts itself; `offset` is in bytes from the start of the file."""

    def __init__(
        self,
        problem: str,
        *,
        record: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        where = f"record {record!r}: " if record is not None else ""
        at = f" (at byte {offset})" if offset is not None else ""
        super().__init__(f"{where}{problem}{at}", hint=hint)
        self.record = record
        self.offset = offset


class CutShortError(MalformedCheckpointError):
    """A file that ends too early; `offset` is where, `record` the part that it ends in.

    `whole` of its `tensors` still have all their bytes; both are None where what would name the
    tensors is itself cut off.
    """

    def __init__(
        self,
        damage: str,
        *,
        record: str | None = None,
        offset: int | None = None,
        whole: int | None = None,
        tensors: int | None = None,
        first_without: str | None = None,
        hint: str | None = None,
    ) -> None:
        parts = [f"cut short: {damage}"]
        if tensors is not None:
            parts.append(f"{whole:,} of {tensors:,} tensors have all their bytes")
        if first_without is not None:
            parts.append(f"the first without is {first_without!r}")
        super().__init__("; ".join(parts), hint=hint)
        self.record = record
        self.offset = offset
        self.whole = whole
        self.tensors = tensors


class PickleStreamError(MalformedCheckpointError):
    """A pickle that breaks off or does what no pickle may; `offset` is in bytes from its start.

    One that breaks off would have at least `wanted` bytes.
    """

    def __init__(
        self,
        problem: str,
        *,
        offset: int,
        opcode: str | None = None,
        breaks_off: bool = False,
        wanted: int = 0,
    ) -> None:
        by = f"{opcode} " if opcode is not None else ""
        super().__init__(f"pickle: {by}{problem} (at byte {offset} of the pickle)")
        self.offset = offset
        self.opcode = opcode
        self.breaks_off = breaks_off
        self.wanted = wanted


class TensorError(MalformedCheckpointError):
    """A tensor that the file describes wrongly; `key_path` is its displayed path.

    `code` says which rule a tensor and its storage break: `record`, the file lacks the storage;
    `size`, the storage is shorter than declared; `bounds`, the tensor reaches outside of it. None
    for anything else.
    """

    def __init__(
        self,
        problem: str,
        *,
        key_path: str | None = None,
        storage_key: str | None = None,
        code: Literal["record", "size", "bounds"] | None = None,
    ) -> None:
        entry = f"tensor {key_path!r}: " if key_path is not None else ""
        super().__init__(f"{entry}{problem}")
        self.problem = problem
        self.key_path = key_path
        self.storage_key = storage_key
        self.code = code


class LimitExceededError(CkptoolError):
    """The file asks for more than a reader should spend on it.

    `option` is the name by which `--limits` raises the limit, None for one that is fixed.
    """

    def __init__(self, limit: str, *, allowed: int, actual: int, option: str | None = None) -> None:
        # Some are only known to be exceeded, not by how much.
        enough = actual if actual > allowed + 1 else 10 * allowed
        super().__init__(
            f"more {limit} than are read: {actual:,} (at most {allowed:,})",
            hint=None if option is None else f"to read it all the same: --limits {option}={enough}",
        )
        self.limit = limit
        self.allowed = allowed
        self.actual = actual
        self.option = option


class EntryNotFoundError(CkptoolError):
    """A name, pattern, role or root that nothing in the file answers to."""

    def __init__(
        self, wanted: str, *, candidates: Sequence[str] = (), hint: str | None = None
    ) -> None:
        if hint is None and candidates:
            hint = f"close: {', '.join(candidates)}"
        super().__init__(f"nothing matches {wanted}", hint=hint)
        self.wanted = wanted
        self.candidates = tuple(candidates)


class AmbiguousRootError(CkptoolError):
    """Several subtrees can be the state_dict, and nothing tells which is meant."""

    def __init__(self, why: str, *, roots: Sequence[str], hint: str | None = None) -> None:
        super().__init__(f"{len(roots):,} roots {why}", hint=hint)
        self.roots = tuple(roots)


class EditError(CkptoolError):
    """An edit that the file does not allow; `key_path` is the displayed path that it is about."""

    def __init__(
        self, problem: str, *, key_path: str | None = None, hint: str | None = None
    ) -> None:
        where = f"{key_path!r}: " if key_path is not None else ""
        super().__init__(f"{where}{problem}", hint=hint)
        self.key_path = key_path


class EntryConflictError(EditError):
    """Two entries that would have one name; `names` are those that they have now."""

    def __init__(self, name: str, *, names: Sequence[str], hint: str | None = None) -> None:
        said = " and ".join(repr(one) for one in names)
        super().__init__(f"{said} would both be {name!r}", hint=hint)
        self.names = tuple(names)


class SharedStorageError(EditError):
    """Bytes that cannot be changed because they are another tensor's too: `others`."""

    def __init__(self, key_path: str, *, others: Sequence[str], hint: str | None = None) -> None:
        said = ", ".join(repr(one) for one in others)
        super().__init__(f"its bytes are also those of {said}", key_path=key_path, hint=hint)
        self.others = tuple(others)


class SpecError(CkptoolError):
    """A model that cannot be built or is not told, or a spec file that is wrong.

    `place` is where in the file, None where it is all of it.
    """

    def __init__(self, problem: str, *, place: str | None = None, hint: str | None = None) -> None:
        where = f"{place}: " if place is not None else ""
        super().__init__(f"{where}{problem}", hint=hint)
        self.problem = problem
        self.place = place
