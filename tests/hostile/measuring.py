"""Every case through every command, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case
from tests.hostile.every_command import FINDING

__all__ = ["Server", "problems", "served"]

FAILED: Final = 2
MOST_BYTES: Final = 200 << 20
"""What one process may need for all commands; an honest file needs a quarter of it."""


class Server:
    """The program `every_command`, which waits to be told of files."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def try_case(self, case: Case, folder: Path) -> Mapping[str, Any]:
        """Build the file of a case in a folder and return the document for it."""
        path, output = folder / "hostile.pt", folder / "free"
        output.mkdir(exist_ok=True)
        path.write_bytes(case.build())
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), str(output)]) + "\n")
        self._process.stdin.flush()
        document: Mapping[str, Any] = json.loads(self._process.stdout.readline())
        return document


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return in what the commands did worse than they promise; empty where they did well."""
    if "died" in document:
        return [f"the process ended with {document['died']}"]
    found = [f"event: {event}" for event in document["events"]]
    for one in document["commands"]:
        codes = (0, 1, 2) if one["name"] in FINDING else (0, 2)
        if one["leaked"] is not None:
            found.append(f"{one['command']}: {one['leaked']}")
        elif one["code"] not in codes:
            found.append(f"{one['command']}: exit code {one['code']}")
        elif (one["code"] == FAILED) != one["first_line"].startswith("error: "):
            found.append(f"{one['command']}: exit code {one['code']}, {one['first_line']!r}")
        if one["acting"]:
            found.append(f"{one['command']}: wrote {one['acting']}")
    if document["peak_bytes"] > MOST_BYTES:
        found.append(f"memory: {document['peak_bytes'] >> 20} MB")
    return found


@contextmanager
def served() -> Iterator[Server]:
    """A server that is there meanwhile."""
    command = [sys.executable, "-m", "tests.hostile.every_command"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()
