"""The pickles in a file, wherever they are, and what is odd about the file around them.

A reader opens what it understands and refuses the rest. A scan has to go on: whoever loads the file
may be less careful. So records that contradict each other are all looked into, and so is what
follows an end.
"""

from __future__ import annotations

import re
from typing import Final

from ckptool.analysis.scan.archives import look_into_archive, look_into_members
from ckptool.analysis.scan.parts import Contents, Part
from ckptool.analysis.scan.streams import look_into_stream
from ckptool.errors import CkptoolError, MalformedCheckpointError
from ckptool.formats.archive import locate_directory, read_headers
from ckptool.formats.archive_layout import LOCAL_MAGIC
from ckptool.formats.damaged_archive import find_archive
from ckptool.formats.safetensors import is_safetensors, read_safetensors
from ckptool.formats.tar import is_tar, tar_members
from ckptool.sources import FileSource, Source

__all__ = ["look_into"]

_HEAD_BYTES: Final = 1 << 12
_NUMPY: Final = re.compile(rb"\x93NUMPY([\x01-\x03])\x00", re.DOTALL)
_NUMPY_OBJECTS: Final = re.compile(rb"'\|?O'")


def look_into(part: Part, contents: Contents) -> bool:
    """Add what a part holds to what was found; return whether it is of a known format."""
    head = part.source.read_up_to(0, _HEAD_BYTES)
    if head.startswith(LOCAL_MAGIC):
        look_into_archive(part, contents, look_into)
        return True
    is_known = _look_before_archive(part, head, contents)
    start = find_archive(part.source)
    if start:
        message = "an archive stands behind other bytes; torch.load does not look for it there"
        contents.note("suspicious", "hidden-archive", part.where, message, part.offset(start))
        look_into_archive(_archive_from(part, start), contents, look_into)
    contents.is_known = contents.is_known or is_known
    return is_known or bool(start)


def _look_before_archive(part: Part, head: bytes, contents: Contents) -> bool:
    if is_safetensors(part.source):
        _check_safetensors(part.source, part, contents)
        return True
    if _NUMPY.match(head):
        _look_into_array(part, head, contents)
        return True
    if is_tar(head):
        look_into_members(part, tar_members(part.source), contents, look_into)
        return True
    return look_into_stream(part, contents)


def _archive_from(part: Part, start: int) -> Part:
    """Offsets in an archive count from its own start, or from that of the file around it."""
    try:
        read_headers(part.source, locate_directory(part.source))
    except MalformedCheckpointError:
        return part.between(start)
    return part


def _check_safetensors(source: Source, part: Part, contents: Contents) -> None:
    """It holds no pickle; but its header can lie, where it is a file of its own."""
    try:
        if isinstance(source, FileSource):
            read_safetensors(source, contents.limits)
    except CkptoolError as error:
        contents.note_error(error, part)


def _look_into_array(part: Part, head: bytes, contents: Contents) -> None:
    """An array of objects is a pickle behind a header (numpy.lib.format)."""
    width = 2 if head[6] == 1 else 4
    start = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if _NUMPY_OBJECTS.search(head[:start]):
        look_into_stream(part.between(start), contents)
