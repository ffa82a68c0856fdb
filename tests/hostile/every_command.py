"""Runs every command over one file and says, as JSON, what came of it.

    python -m tests.hostile.every_command FILE [FOLDER]

All commands run in one process, under an audit hook and a bound on its memory. FOLDER is the one
place where they may write, a new one if it is not given. Without arguments, the program reads
both from its input, a JSON list in each line; it starts a process for each that has all modules
already.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from typer.main import get_command

from ckptool.cli.app import app
from tests.hostile.watching import Watch
from tests.running import SAMPLES

__all__ = ["COMMANDS", "FILE", "FINDING", "run_built"]

FILE: Final = "the file"
_OUTPUT: Final = "a new file"
_SPEC: Final = SAMPLES / "specs" / "my_model.json"
_SAMPLE: Final = SAMPLES / "my_model.pt"

COMMANDS: Final[tuple[tuple[str | Path, ...], ...]] = (
    ("inspect", FILE),
    ("inspect", FILE, "--tree"),
    ("inspect", FILE, "--json"),
    ("list", FILE),
    ("list", FILE, "--json", "--sha256"),
    ("show", FILE, "*"),
    ("check", FILE),
    ("check", FILE, "--model", _SPEC),
    ("diff", FILE, FILE),
    ("diff", FILE, _SAMPLE, "--json"),
    ("strip", FILE, "--dry-run", "--drop", "*", "--drop", "/*", "--training"),
    ("strip", FILE, "-o", _OUTPUT, "--training"),
    ("reset-buffers", FILE, "--dry-run", "--match", "*"),
    ("spec", FILE),
    ("scan", FILE),
    ("scan", FILE, "--json"),
    ("scan", FILE, "--sarif"),
)
"""A command with its arguments in each line."""

FINDING: Final = ("check", "diff", "scan")
"""The commands that end with 1 where they find something."""

MOST_MEMORY: Final = 1_500 << 20
"""The bytes of address space that the process may have; what needs more, fails."""

_HANGS: Final = 60
"""Seconds after which a process is ended."""

_FORGED: Final = "FORGED"
"""Names have this behind what would begin a new line, a column or an ESC sequence."""

_ACTING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    f"|[\n\t]{_FORGED}|Traceback \\(most recent"
)
_CHUNK: Final = 1 << 20
_MOST_FOUND: Final = 10
_NO_CODE: Final = -1
_SHOWN: Final = 200


def main(arguments: Sequence[str]) -> None:
    """Answer for one file, or for each that the input names."""
    sys.dont_write_bytecode = True
    _import_all()
    if not arguments:
        _serve()
        return
    path = Path(arguments[0])
    with TemporaryDirectory() as made:
        _report(path, Path(arguments[1] if len(arguments) > 1 else made))


def _import_all() -> None:
    """Have every command import what it needs: what is imported later is no command's own."""
    with TemporaryDirectory() as said:
        for command in COMMANDS:
            run_built(_filled(command, _SAMPLE, Path(os.devnull)), Path(said))


def _serve() -> None:
    gc.freeze()
    for line in sys.stdin:
        path, folder = json.loads(line)
        child = os.fork()
        if not child:
            try:
                signal.alarm(_HANGS)
                _report(Path(path), Path(folder))
                sys.stdout.flush()
            finally:
                os._exit(os.EX_SOFTWARE if sys.exc_info()[0] else os.EX_OK)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"died": os.waitstatus_to_exitcode(status)}), flush=True)


def _report(path: Path, folder: Path) -> None:
    """Run all commands and print the document."""
    path, folder = path.resolve(), folder.resolve()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    watch = Watch(folder)
    commands = [_tried(command, path, folder, watch) for command in COMMANDS]
    document = {"commands": commands, "events": watch.events, "peak_bytes": _peak_bytes()}
    print(json.dumps(document))


_PROGRAM: Final = get_command(app)
"""Built once: Typer would build it anew for each command."""


def run_built(arguments: Sequence[str | Path], said: Path) -> int:
    """Run a command with its output in files of a folder, and return its exit code."""
    with (
        open(said / "stdout", "w") as out,
        open(said / "stderr", "w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            _PROGRAM.main([str(argument) for argument in arguments], prog_name="ckptool")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else _NO_CODE
    return 0


def _filled(command: Sequence[str | Path], path: Path, output: Path) -> list[str | Path]:
    places = {FILE: path, _OUTPUT: output}
    return [places.get(str(part), part) for part in command]


def _tried(command: Sequence[str | Path], path: Path, folder: Path, watch: Watch) -> dict[str, Any]:
    filled = _filled(command, path, folder / "output")
    code, leaked = None, None
    start = time.perf_counter()
    try:
        with watch.listening():
            code = run_built(filled, folder)
    except BaseException as error:  # noqa: BLE001 - whatever a command lets through
        leaked = f"{type(error).__name__}: {error}"[:_SHOWN]
    seconds = time.perf_counter() - start
    (folder / "output").unlink(missing_ok=True)
    return {
        "command": " ".join(str(part) for part in command if part is not FILE),
        "name": command[0],
        "code": code,
        "seconds": round(seconds, 3),
        "first_line": (folder / "stderr").open().readline(_SHOWN).rstrip("\n"),
        "leaked": leaked,
        "acting": [*_acting(folder / "stdout"), *_acting(folder / "stderr")],
    }


def _acting(said: Path) -> list[str]:
    """What a terminal would act on, and lines and columns that a name has begun."""
    found: list[str] = []
    kept = "\n"
    with said.open(newline="") as text:
        while (chunk := text.read(_CHUNK)) and len(found) < _MOST_FOUND:
            kept += chunk
            found += [ascii(match[0]) for match in _ACTING.finditer(kept)]
            kept = kept[-len(_FORGED) :]
    return found[:_MOST_FOUND]


def _peak_bytes() -> int:
    """The most memory that this process had at a time.

    `getrusage` gives, after vfork, that of whoever started the process, where it had more.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


if __name__ == "__main__":
    main(sys.argv[1:])
