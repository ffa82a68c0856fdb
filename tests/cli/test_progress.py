"""The bar that shows how far long work is."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
import torch

from ckptool import check, list_contents, open_checkpoint
from ckptool.analysis.details import details
from ckptool.cli import progress
from ckptool.cli.progress import ProgressBar, waiting


class Terminal(io.StringIO):
    """What a terminal is to the bar: something that says that it is one."""

    def isatty(self) -> bool:
        return True


def test_a_bar_says_how_much_was_read_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_SECONDS_BEFORE", 0.0)
    with ProgressBar() as bar:
        bar.expect(4_000_000)
        bar.advance(1_000_000)
        bar.advance(2_000_000)
    written = terminal.getvalue()
    assert "3.0/4.0 MB" in written
    assert written.rstrip().endswith("\x1b[2K")


def test_short_work_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with ProgressBar() as bar:
        bar.expect(10)
        bar.advance(10)
    assert terminal.getvalue() == ""


def test_without_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BEFORE", 0.0)
    monkeypatch.setattr("sys.stderr", stderr := io.StringIO())
    with ProgressBar() as bar:
        bar.expect(10)
        bar.advance(10)
    assert stderr.getvalue() == ""


def test_what_takes_long_is_said_while_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_SECONDS_BEFORE", 0.0)
    with waiting("reading [x]\x1b"):
        while "reading [x]\\x1b" not in terminal.getvalue():
            time.sleep(0.01)
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["short", "no terminal"])
def test_short_work_and_a_pipe_are_left_in_peace(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    with waiting("reading"):
        pass
    assert stream.getvalue().replace("\x1b[?25h", "") == ""


class Heard:
    """Adds up what it hears."""

    def __init__(self) -> None:
        self.expected = 0
        self.advanced = 0

    def expect(self, nbytes: int) -> None:
        self.expected += nbytes

    def advance(self, nbytes: int) -> None:
        self.advanced += nbytes


def test_all_that_is_expected_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    torch.save({"a": torch.ones(1000).t(), "b": torch.ones(30, 20).t(), "c": torch.ones(0)}, path)
    with open_checkpoint(path) as checkpoint:
        hashed, shown, checked = Heard(), Heard(), Heard()
        list_contents(checkpoint, with_hashes=True, progress=hashed)
        details(checkpoint, ["*"], shown)
        check(checkpoint, progress=checked)
    assert hashed.expected == hashed.advanced == 6400
    assert shown.expected == shown.advanced == 12800
    assert checked.expected == checked.advanced > 2 * 6400
