"""The pickles in a file, wherever they are, and what is odd about the file around them.

A reader opens what it understands and refuses the rest. A scan has to go on: whoever loads the file
may be less careful. So records that contradict each other are all looked into, and so is what
follows an end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.analysis.scan.archives import look_into_archive, look_into_members
from ckptool.analysis.scan.parts import Contents, Part
from ckptool.analysis.scan.streams import look_for_pickle, look_into_stream
from ckptool.errors import CkptoolError, MalformedCheckpointError
from ckptool.formats.archive import locate_directory, read_headers
from ckptool.formats.archive_layout import LOCAL_MAGIC
from ckptool.formats.damaged_archive import find_archive
from ckptool.formats.npy import is_npy, objects_start
from ckptool.formats.safetensors import is_safetensors, read_safetensors
from ckptool.formats.tar import is_tar, tar_members
from ckptool.sources import FileSource

__all__ = ["look_into"]

_HEAD_BYTES: Final = 1 << 12


def look_into(part: Part, contents: Contents) -> bool:
    """Add what a part holds to what was found; return whether it is of a known format."""
    head = part.source.read_up_to(0, _HEAD_BYTES)
    if head.startswith(LOCAL_MAGIC):
        look_into_archive(part, contents)
        return True
    is_known = _look_before_archive(part, head, contents)
    start = find_archive(part.source)
    if start:
        message = "an archive stands behind other bytes, where only some readers look for it"
        contents.note("suspicious", "hidden-archive", part.where, message, part.offset(start))
        look_into_archive(_archive_from(part, start), contents)
    contents.is_known = contents.is_known or is_known
    return is_known or bool(start)


def _look_before_archive(part: Part, head: bytes, contents: Contents) -> bool:
    """Look into a part by its first bytes; what only looks like a format may be a pickle too."""
    if is_safetensors(part.source) and _is_sound_safetensors(part, contents):
        look_for_pickle(part, contents)
        return True
    if is_npy(head):
        _look_into_array(part, contents)
        return True
    members = list(tar_members(part.source)) if is_tar(head) else []
    if members:
        look_into_members(part, members, contents)
        if not part.is_expected:
            look_for_pickle(part, contents)
            return True
    is_known = bool(members) or is_safetensors(part.source)
    return look_into_stream(part, contents) or is_known


def _archive_from(part: Part, start: int) -> Part:
    """Offsets in an archive count from its own start, or from that of the file around it."""
    try:
        read_headers(part.source, locate_directory(part.source))
    except MalformedCheckpointError:
        return part.between(start)
    return part


def _is_sound_safetensors(part: Part, contents: Contents) -> bool:
    """Whether a file is one; it then holds no pickle. A header that lies is noted."""
    if not isinstance(part.source, FileSource):
        return False
    try:
        read_safetensors(part.source, contents.limits)
    except CkptoolError as error:
        contents.note_error(error, part)
        return False
    return True


def _look_into_array(part: Part, contents: Contents) -> None:
    start = objects_start(part.source)
    if start is not None:
        body = part.between(start)
        look_into_stream(replace(body, is_expected=body.source.size > 0), contents)
