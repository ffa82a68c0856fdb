"""Edits killed at every stage of the writing: the source intact, the target old or new, no rest."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from ckptool.edit.write import _unfinished_name
from tests.edit.killing import SCENARIOS, UNFINISHED, Ending, Outcome, Report, Scenario, Stop

# Signals that can be heard, and what shells say of a program that one has ended.
_HEARD: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_LEAST_KILLS: Final = 60
"""In each scenario: eight calls, each killed before and after with three signals, and more."""
_LEFT_BEHIND: Final = "{} was left behind by an edit that was killed; it is removed"


def _report(name: str, folder: Path) -> Report:
    command = [sys.executable, "-m", "tests.edit.killing", name, str(folder)]
    root = Path(__file__).parent.parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    return Report.read(result.stdout)


class _Expected:
    """What has to be in the folder, by the calls that were made until the kill."""

    def __init__(self, scenario: Scenario, calls: Sequence[str], stop: Stop) -> None:
        self.unfinished = _unfinished_name(scenario.target)
        self.is_in_place = scenario.target == "src"
        self._scenario = scenario
        made = calls[: stop.call + (stop.moment != "before")]
        if stop.number == signal.SIGKILL:
            self.is_new = "replace" in made
            self.is_left = scenario.is_left_behind
            for name in made:
                self.is_left = name == "create" or (
                    self.is_left and name not in ("remove", "replace")
                )
        else:
            # The last time that anybody listens is behind the verification.
            self.is_new = stop.call >= calls.index("replace")
            self.is_left = False

    def folder(self) -> dict[str, str]:
        """What is there after the kill."""
        if self.is_in_place:
            found = {"src": "new" if self.is_new else "source"}
        else:
            found = {"src": "source"}
            if self.is_new or self._scenario.is_target_there:
                found["dst"] = "new" if self.is_new else "old"
        return found | ({self.unfinished: "?"} if self.is_left else {})

    def folder_again(self) -> dict[str, str]:
        """What is there when the command has run again."""
        return {"src": "new"} if self.is_in_place else {"src": "source", "dst": "new"}


def _shown(ending: Ending) -> dict[str, str]:
    """The folder; of a file that is not finished nobody knows how far it is."""
    return {name: "?" if name.startswith(".") else is_ for name, is_ in ending.folder.items()}


def _check_kill(outcome: Outcome, expected: _Expected) -> None:
    stop, killed = outcome.stop, outcome.killed
    assert outcome.stops > 1 if stop.is_repeated and not expected.is_new else outcome.stops > 0
    if stop.number == signal.SIGKILL:
        assert killed.status == -signal.SIGKILL
    else:
        assert killed.status == _HEARD[signal.Signals(stop.number)]
    assert (killed.out, killed.err) == ("", "")
    assert _shown(killed) == expected.folder()


def _check_again(outcome: Outcome, expected: _Expected, scenario: Scenario, clean: Ending) -> None:
    again = outcome.again
    assert again.folder == expected.folder_again()
    if expected.is_in_place and expected.is_new and scenario.twice:
        # There is nothing to be taken out any more.
        assert (again.status, again.out) == (scenario.twice, "")
        assert again.err.startswith("error: src: ")
        return
    assert again.status == 0
    if not (expected.is_in_place and expected.is_new):
        assert again.out == clean.out
    note = f"note: {_LEFT_BEHIND.format(expected.unfinished)}\n"
    assert again.err.count(note) == again.err.count("left behind") == expected.is_left


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_stage_leaves_the_source_and_the_old_target_or_the_new_one(
    name: str, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    report = _report(name, tmp_path)
    assert (report.clean.status, report.clean.folder.get(scenario.target)) == (0, "new")
    assert len(report.outcomes) >= _LEAST_KILLS
    for outcome in report.outcomes:
        expected = _Expected(scenario, report.calls, outcome.stop)
        try:
            _check_kill(outcome, expected)
            _check_again(outcome, expected, scenario, report.clean)
        except AssertionError as error:
            call = report.calls[outcome.stop.call]
            raise AssertionError(f"{outcome.stop} ({call}): {outcome}") from error


def test_there_are_enough_kills_of_every_format_and_target() -> None:
    assert len(SCENARIOS) * _LEAST_KILLS >= 200
    for kind in ("zip", "legacy", "safetensors"):
        names = [name for name in SCENARIOS if name.startswith(kind)]
        assert {f"{kind} to a new file", f"{kind} over another file", f"{kind} in place"} <= {
            *names
        }


def test_the_file_that_a_kill_leaves_has_a_telling_name() -> None:
    assert _unfinished_name("dst") == UNFINISHED.format("dst")
    assert _unfinished_name("x" * 255).endswith(".ckptool-unfinished")
    assert len(_unfinished_name("x" * 255)) < 255
