"""The README's console blocks: commands, each with what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["README", "blocks", "commands", "rewritten", "run"]

ROOT: Final = Path(__file__).parent.parent.parent
README: Final = ROOT / "README.md"
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_PROMPT = "$ "


def blocks(text: str) -> list[str]:
    """Return the console blocks of a Markdown text."""
    return _BLOCK.findall(text)


def commands(block: str) -> list[str]:
    """Return the commands of a block, without their prompts."""
    return [line[len(_PROMPT) :] for line in block.splitlines() if line.startswith(_PROMPT)]


def run(block: str) -> str:
    """Return a block as it should be: its commands, each followed by what it prints now."""
    return "".join(f"{_PROMPT}{command}\n{_printed(command)}" for command in commands(block))


def rewritten(text: str) -> str:
    """Return a Markdown text with the output of all its commands made anew."""
    return _BLOCK.sub(lambda block: run(block[0]), text)


def _printed(command: str) -> str:
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout
