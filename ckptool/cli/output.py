"""The one place that prints: data on stdout, everything else on stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptool.errors import OutputError
from ckptool.render.escape import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "failures_to_write",
    "flush",
    "prepare",
    "print_error",
    "print_json",
    "print_lines",
    "print_notes",
    "print_rich",
    "print_warnings",
    "terminal_width",
    "write_file",
]

# Wide enough that nothing is wrapped or cut where no terminal says how wide it is.
_PIPE_WIDTH = 1_000_000_000


def prepare() -> None:
    """Let an ASCII terminal show `\\u540d` where a name has a character that it does not have.

    A process can also be started without any output (`>&-`); what it says then goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def terminal_width() -> int | None:
    """Return the columns of the terminal; None in a pipe, which FORCE_COLOR makes no terminal."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console().width


def flush() -> None:
    """Write what is still held back."""
    sys.stdout.flush()


@contextmanager
def failures_to_write() -> Iterator[None]:
    """Raise OutputError for output that cannot be written; BrokenPipeError stays what it is."""
    try:
        try:
            yield
        finally:
            flush()
    except OSError as error:
        # The interpreter would try again at its exit with what is still held back.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"the output cannot be written: {error.strerror}") from error


def print_lines(lines: Iterable[str]) -> None:
    """Write lines of data."""
    sys.stdout.writelines(lines)


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document."""
    from ckptool.render.json import dumps

    sys.stdout.write(dumps(document) + "\n")


def print_rich(renderable: RenderableType, *, no_color: bool) -> None:
    """Write for a person: as wide as the terminal, or without any width in a pipe."""
    from rich.console import Console

    console = Console(
        no_color=no_color or None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
    console.width = terminal_width() or _PIPE_WIDTH
    with console.capture() as captured:
        console.print(renderable)
    # A table fills its lines with blanks up to its width; nobody wants them in a pipe.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def print_warnings(warnings: Iterable[str]) -> None:
    """Write what a user should know, though it is no error, behind the data."""
    flush()
    sys.stderr.writelines(f"warning: {visible(warning)}\n" for warning in warnings)


def print_notes(notes: Iterable[str]) -> None:
    """Write what is worth knowing and wrong in no way, behind the data."""
    flush()
    sys.stderr.writelines(f"note: {visible(note)}\n" for note in notes)


def print_error(message: str, hint: str | None = None) -> None:
    """Write one line, and behind a blank line what can be done."""
    sys.stderr.write(f"error: {visible(message)}\n")
    if hint:
        sys.stderr.write(f"\nhint: {visible(hint)}\n")


def write_file(path: Path, text: str, *, force: bool) -> None:
    """Write a small file whole or not at all; raise OutputError where one is there, or it fails."""
    unfinished = path.parent / f".{os.getpid()}.unfinished"
    try:
        if path.is_dir():
            raise OutputError("it is a directory", path=path, hint="name the file inside it")
        if path.exists() and not force:
            raise OutputError("there is a file already", path=path, hint="--force replaces it")
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        finally:
            with suppress(OSError):
                unfinished.unlink()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot be written: {reason}", path=path) from error
