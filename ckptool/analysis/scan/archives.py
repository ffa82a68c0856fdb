"""Archives: every record that can be a pickle or a file of its own, and what contradicts itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Final

from ckptool.analysis.scan.parts import Contents, Part, head_of, part_of
from ckptool.analysis.scan.streams import is_hidden_pickle, look_into_stray
from ckptool.errors import (
    CkptoolError,
    LimitExceededError,
    MalformedCheckpointError,
    PickleStreamError,
)
from ckptool.formats.archive import Archive, locate_directory, read_archive, read_headers
from ckptool.formats.archive_layout import DEFLATED, ENCRYPTED, LOCAL_MAGIC
from ckptool.formats.damaged_archive import data_start, walk_records
from ckptool.sources import Extent

__all__ = ["look_into_archive", "look_into_members"]

_PICKLE_NAME: Final = re.compile(r"\.(pkl|pickle)$", re.IGNORECASE)
# The members of the tar that torch wrote before 0.1.10.
_OLD_PICKLES: Final = frozenset({"storages", "tensors", "pickle", "sys_info"})
# At the top of a TorchScript archive, and what debuggers read beside its code.
_SCRIPT_PICKLE: Final = re.compile(r"^[^/]*/[^/]*\.pkl$|^[^/]*/code/.*\.debug_pkl$", re.IGNORECASE)
# What TorchScript can do to files when it is called, and on loading in a `__setstate__`.
_SCRIPT_FILES: Final = re.compile(rb"\b(torch|aten)\.(save|from_file)\b")
_MANY_SOURCE_BYTES: Final = 1 << 24
_OUTSIDE: Final = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")
_FILE_HEAD: Final = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04|\x93NUMPY", re.DOTALL)
# A descriptor, and what some writers put behind it.
_GAP_BYTES: Final = 64


def look_into_archive(part: Part, contents: Contents) -> None:
    """Add the pickles in an archive's records, and what is wrong with the archive."""
    contents.is_known = True
    try:
        archive = read_archive(part.source)
    except CkptoolError as error:
        contents.note_error(error, part)
        records = list(_every_record(part))
    else:
        folder = "" if archive.name is None else f"{archive.name}/"
        records = [(folder + name, extent) for name, extent in archive.records.items()]
        _look_between(part, archive, contents)
    look_into_members(part, records, contents)


def look_into_members(
    part: Part, members: Iterable[tuple[str, Extent]], contents: Contents
) -> None:
    """Add the pickles in the records of an archive, or the members of a tar."""
    contents.is_known = True
    records = list(members)
    is_expected = _expected({name for name, _ in records})
    for index, (name, extent) in enumerate(records):
        if not contents.opcodes_left:
            message = f"its parts lie in each other; {len(records) - index:,} were not looked into"
            contents.note("suspicious", "limit", part.where, message, part.start)
            return
        if _OUTSIDE.search(name):
            message = "its name leads out of the folder that it would be unpacked to"
            where = part.within(name)
            contents.note("suspicious", "record-name", where, message, part.offset(extent.offset))
        if extent.size and _may_be_file(name, extent, contents):
            _look_into_record(part, name, extent, contents, is_expected)
        elif "/code/" in name and name.endswith(".py"):
            _look_into_script(part, name, extent, contents)


def _look_into_record(
    part: Part,
    name: str,
    extent: Extent,
    contents: Contents,
    is_expected: Callable[[str], bool],
) -> None:
    inner = part_of(part, name, extent, contents, is_expected=_is_pickle_by_name(name))
    if inner is None:
        return
    before = len(contents.pickles)
    is_known = False
    try:
        is_known = contents.look(inner, contents)
    except (MalformedCheckpointError, LimitExceededError) as error:
        contents.note_error(error, inner)
    if len(contents.pickles) > before and not is_expected(name):
        message = "a pickle that torch.load does not read stands beside the one that it does"
        contents.note("suspicious", "hidden-pickle", inner.where, message, inner.start)
    elif not is_known and _is_pickle_by_name(name):
        contents.note("suspicious", "not-read", inner.where, "is no pickle, as its name says")


def _is_pickle_by_name(name: str) -> bool:
    return name in _OLD_PICKLES or _PICKLE_NAME.search(name) is not None


def _look_into_script(part: Part, name: str, extent: Extent, contents: Contents) -> None:
    if extent.size > _MANY_SOURCE_BYTES:
        return
    code = part_of(part, name, extent, contents)
    found = code and _SCRIPT_FILES.search(code.source.read_up_to(0, code.source.size))
    if code and found:
        message = f"its TorchScript calls {found[0].decode()}, which writes or reads files"
        contents.note("suspicious", "call", code.where, message, code.start)


def _may_be_file(name: str, extent: Extent, contents: Contents) -> bool:
    """Whether a record is to be looked into; values of tensors can begin like anything."""
    head = head_of(extent)
    if _is_pickle_by_name(name) or _FILE_HEAD.match(head):
        return True
    trace = contents.trace(head)
    problem = trace.problem
    goes_on = isinstance(problem, PickleStreamError) and len(head) < problem.wanted <= extent.size
    return goes_on or is_hidden_pickle(trace)


def _expected(names: set[str]) -> Callable[[str], bool]:
    """Which records are pickles that torch reads, by the kind of archive that it is."""
    inside = {name.partition("/")[2].lower() for name in names}
    if ".data/extern_modules" in inside or "data.pkl" not in inside:
        return lambda _: True
    if inside & {"constants.pkl", "bytecode.pkl"}:
        return lambda name: _SCRIPT_PICKLE.search(name) is not None
    return lambda name: name.partition("/")[2] == "data.pkl"


def _every_record(part: Part) -> Iterator[tuple[str, Extent]]:
    """All records that a local header or the directory leads to, each once."""
    seen: set[tuple[int, int]] = set()
    for name, extent in chain(_by_local_headers(part), _by_directory(part)):
        if extent[1:3] not in seen:
            seen.add(extent[1:3])
            yield name, extent


def _by_local_headers(part: Part) -> Iterator[tuple[str, Extent]]:
    for record in walk_records(part.source):
        yield record.name, record.extent


def _by_directory(part: Part) -> Iterator[tuple[str, Extent]]:
    try:
        headers = read_headers(part.source, locate_directory(part.source))
    except MalformedCheckpointError:
        return  # it is the directory itself that is wrong
    for header in headers:
        start = data_start(part.source, header.offset)
        if start is not None:
            stored_size = min(header.stored_size, part.source.size - start)
            is_deflated = header.method == DEFLATED
            size = header.size if is_deflated else stored_size
            yield header.text, Extent(part.source, start, size, stored_size, is_deflated)


def _look_between(part: Part, archive: Archive, contents: Contents) -> None:
    """Note marks of encryption, and look into the bytes that are no record's."""
    directory = locate_directory(part.source)
    headers = sorted(read_headers(part.source, directory), key=attrgetter("offset"))
    marked = next((header for header in headers if header.flags & ENCRYPTED), None)
    if marked is not None:
        message = "is marked as encrypted, which torch ignores and other readers stop at"
        where = part.within(marked.text)
        contents.note("suspicious", "encrypted", where, message, part.offset(marked.offset))
    # Each record ends where its bytes do; none stands before the first.
    ends = [0, *(extent.offset + extent.stored_size for extent in archive.records.values())]
    starts = [*(header.offset for header in headers), directory.offset]
    for end, start in zip(sorted(ends), starts, strict=True):
        if start - end > (_GAP_BYTES if end else 0):
            _look_into_gap(part.between(end, start), contents)
    end = directory.offset + directory.size
    if end != directory.ends_from:
        message = "readers disagree on where its directory is: bytes stand behind it"
        contents.note("suspicious", "malformed", part.where, message, part.offset(end))
        _look_into_gap(part.between(end, directory.ends_from), contents)
    if directory.ends_to < part.source.size:
        look_into_stray(part.between(directory.ends_to), contents)


def _look_into_gap(gap: Part, contents: Contents) -> None:
    # Descriptors are behind the data that they describe.
    start = gap.source.read_up_to(0, _GAP_BYTES).find(LOCAL_MAGIC)
    hidden = list(walk_records(gap.source, start)) if start >= 0 else []
    if not hidden:
        look_into_stray(gap, contents)
    for record in hidden:
        message = "a record that the directory does not name"
        where, at = gap.within(record.name), gap.offset(record.extent.offset)
        contents.note("suspicious", "hidden-archive", where, message, at)
        inner = part_of(gap, record.name, record.extent, contents)
        if inner is not None:
            contents.look(inner, contents)
