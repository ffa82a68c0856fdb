"""What the README shows is what the commands print."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.readme.blocks import README, ROOT, blocks, commands, run
from tests.readme.picture import PICTURE, draw

TEXT = README.read_text()
BLOCKS = blocks(TEXT)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: commands(block)[0])
def test_a_command_prints_what_stands_below_it(block: str) -> None:
    assert run(block) == block


def test_the_picture_is_what_inspect_prints() -> None:
    assert PICTURE.read_text() == draw()
    assert f"({PICTURE.relative_to(ROOT)})" in TEXT


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("example", "printed"),
    list(
        zip(
            EXAMPLES,
            [
                "parameter module True",
                "('temp_buffer',)",
                "only BatchNorm statistics differ",
                "['optimizer', 'lr_scheduler', 'rng_state'] 39423 15",
            ],
            strict=True,
        )
    ),
    ids=["without a model", "with a model", "two checkpoints", "an edit"],
)
def test_the_python_examples_run(example: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert printed in done.stdout


def test_two_commands_install_and_run_it_and_pass_the_tests() -> None:
    first, second = re.findall(r"^```bash\n(.*)\n```$", TEXT, re.MULTILINE)
    assert (first.split()[:2], second.split()[:2]) == (["pip", "install"], ["pip", "install"])
    assert second.endswith("python -m pytest -n auto")


def test_every_command_is_shown() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert list(scripts) == ["ckptool"]
    shown = {word for block in BLOCKS for word in re.findall(r"^\$ ckptool ([\w-]+)", block, re.M)}
    assert shown == {
        "inspect", "list", "show", "check", "diff", "strip", "reset-buffers", "scan", "spec",
    }  # fmt: skip


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "sample_checkpoints/README.md"])
def test_every_file_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:ckptool|tests|sample_checkpoints)/[\w./]*)`", text):
        assert Path(ROOT, path).exists(), path
