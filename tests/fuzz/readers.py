"""What guided fuzzing runs: the reader of each container, on a file that claims to be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from ckptool.errors import CkptoolError
from ckptool.formats.bare_pickle import read_bare_pickle
from ckptool.formats.container import Container
from ckptool.formats.legacy import read_legacy
from ckptool.formats.safetensors import read_safetensors
from ckptool.formats.sniff import read_container
from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource
from tests.fuzz.seeds import Kind

__all__ = ["READERS", "read_as"]

Reader: TypeAlias = Callable[[FileSource, Limits], Container]

# Which kind of archive a zip is, is asked of its records, by the one function for all files.
READERS: Final[dict[Kind, Reader]] = {
    "pickle": read_bare_pickle,
    "zip": read_container,
    "legacy": read_legacy,
    "safetensors": read_safetensors,
}


def read_as(kind: Kind, path: Path) -> str:
    """Read a file as one of a kind; say how it ended: `result`, or the kind of error."""
    source = FileSource(path)
    try:
        READERS[kind](source, Limits())
    except CkptoolError as error:
        return error.kind
    finally:
        source.close()
    return "result"
