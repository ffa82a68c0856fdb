"""Rates that the truth suite measures, told at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Keep a line for the end of the run."""
    return pytestconfig.stash.setdefault(_MEASURED, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    measured = config.stash.get(_MEASURED, [])
    if measured:
        terminalreporter.section("measured against the truth")
        for line in measured:
            terminalreporter.write_line(line)
