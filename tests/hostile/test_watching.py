"""What a file could make a process do is heard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("deed", "heard"),
    [
        ("import this", "import"),
        ("import hypothesis", "import"),
        ("import os; os.system('exit 7')", "os.system"),
        ("import subprocess; subprocess.call(['true'])", "subprocess.Popen"),
        ("import os; os.fork() or os._exit(0)", "os.fork"),
        ("import socket; socket.socket()", "socket"),
        ("open(tainted, 'w')", "open"),
        ("import os; os.open(tainted, os.O_CREAT | os.O_WRONLY)", "open"),
        ("import os; os.mkdir(tainted)", "os.mkdir"),
        ("exec('1')", "exec"),
        ("eval('1')", "exec"),
        ("import pickle; pickle.loads(b'cos\\nsystem\\n.')", "pickle.find_class"),
        ("open(free, 'w').close(); open(__file__).close()", None),
        ("import json, ckptool.errors", None),
    ],
)
def test_each_deed_is_heard(deed: str, heard: str | None, tmp_path: Path) -> None:
    free = tmp_path / "free"
    free.mkdir()
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "sys.dont_write_bytecode = True\n"
        f"tainted, free = {str(tmp_path / 'x')!r}, {str(free / 'x')!r}\n"
        "from tests.hostile.watching import Watch\n"
        f"watch = Watch(Path({str(free)!r}))\n"
        "with watch.listening():\n"
        f"    {deed}\n"
        "print([event.split()[0] for event in watch.events])\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(_ROOT), "PATH": "/usr/bin:/bin"},
    )
    last = done.stdout.splitlines()[-1]
    assert (heard is None and last == "[]") or (heard is not None and f"'{heard}" in last)
