"""What a process does beside computing, as an audit hook hears of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["Watch"]

_PARTS: Final = frozenset(
    {
        "annotated_doc", "annotated_types", "ckptool", "click", "markdown_it", "mdurl",
        "ml_dtypes", "numpy", "pydantic", "pydantic_core", "pygments", "rich", "shellingham",
        "tests", "typer", "typing_extensions", "typing_inspection",
    }
)  # fmt: skip
"""Ckptool and all that it is made of."""

_NAMED_BY_CASES: Final = frozenset(
    {"antigravity", "this", "webbrowser", "pip", "pty", "pdb", "timeit", "runpy", "turtle"}
)
"""Modules of the standard library that no command needs and that attacks name."""

_FILE_CHANGES: Final = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
     "os.chown", "os.truncate", "os.utime", "os.setxattr", "os.removexattr"}
)  # fmt: skip
_PREFIXES: Final = (
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile",
    "os.kill", "socket.", "ctypes.", "pty.", "urllib.", "http.client",
    "ftplib.", "smtplib.", "webbrowser.", "pickle.", "shutil.", "tempfile.", "code.", "cpython.",
)  # fmt: skip
_COMPILING: Final = frozenset({"exec", "compile"})
_OWN_VARIABLE: Final = b"PYDANTIC_DISABLE_PLUGINS"
"""Set by ckptool itself, so that whatever else is installed is not run."""
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SHOWN: Final = 200


class Watch:
    """Takes down imports, writing, processes, sockets and code, while it is told to listen.

    Below `free` files may be written. An audit hook cannot be taken away again, so that there is
    one of these in a process.
    """

    def __init__(self, free: Path) -> None:
        self.events: list[str] = []
        self._free = f"{free}{os.sep}"
        self._listens = False
        sys.addaudithook(self._hear)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen meanwhile."""
        self._listens = True
        try:
            yield
        finally:
            self._listens = False

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._listens and self._is_suspicious(event, args):
            self._listens = False
            self.events.append(f"{event} {args!r}"[:_SHOWN])
            self._listens = True

    def _is_suspicious(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "import":
            return _is_foreign(str(args[0]).partition(".")[0])
        if event == "open":
            return self._writes(*args[:3])
        if event in _FILE_CHANGES:
            return not self._is_free(args[0])
        if event in ("os.putenv", "os.unsetenv"):
            return bool(args[0] != _OWN_VARIABLE)
        if event in _COMPILING or event.startswith("ctypes."):
            return not _is_importing()
        return event.startswith(_PREFIXES)

    def _writes(self, path: object, mode: str | None, flags: int) -> bool:
        is_written = bool(flags & _WRITING) or any(letter in (mode or "") for letter in "wax+")
        return is_written and not self._is_free(path)

    def _is_free(self, path: object) -> bool:
        if isinstance(path, int):  # an open file: how it was opened was heard
            return True
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)
        return name.startswith(self._free) or name == os.devnull


def _is_foreign(module: str) -> bool:
    if module in _NAMED_BY_CASES:
        return True
    return module not in _PARTS and module not in sys.stdlib_module_names


def _is_importing() -> bool:
    """Whether this is the import system's own doing; what is imported was heard by its name."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
