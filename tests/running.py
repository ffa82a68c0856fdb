"""The command line under test: in this process, as a process, and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path
from typing import Any, Final, NamedTuple

from typer.testing import CliRunner

from ckptool.cli.app import app

__all__ = ["SAMPLES", "Result", "json_of", "run", "run_on_terminal", "run_process"]

SAMPLES: Final = Path(__file__).parent.parent / "sample_checkpoints"


class Result(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Result:
    """Run a command in this process, its output a pipe."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def json_of(*arguments: str | Path) -> dict[str, Any]:
    """Run a command with `--json` and return its document, read strictly."""
    result = run(*arguments, "--json")
    assert (result.code, result.err) == (0, ""), result
    document: dict[str, Any] = json.loads(result.out, parse_constant=_refuse_constant)
    return document


def _refuse_constant(name: str) -> object:
    raise AssertionError(f"a bare {name} is not JSON")


def run_process(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "ckptool", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "check": False, "timeout": 60} | options
    return subprocess.run(command, env={**os.environ, **(environment or {})}, **options)


def run_on_terminal(
    *arguments: str | Path, columns: int = 100, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a command with its output on a terminal; return its code and all that it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "CI", *([] if environment else ["NO_COLOR"])):
        variables.pop(name, None)
    command = [sys.executable, "-m", "ckptool", *map(str, arguments)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        written = _read_until_closed(ours)
    os.close(ours)
    return process.returncode, written.decode().replace("\r\n", "\n")


def _read_until_closed(descriptor: int) -> bytes:
    written = b""
    while select.select([descriptor], [], [], 60)[0]:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            break
        if not chunk:
            break
        written += chunk
    return written
