"""Every command over every case: an answer in little memory, and nothing else is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.case import Case
from tests.hostile.cases import CASES
from tests.hostile.measuring import Server, problems, served


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_command_answers_in_little_memory_and_does_nothing_else(
    case: Case, server: Server, tmp_path: Path
) -> None:
    document = server.try_case(case, tmp_path)
    assert not problems(document), document


def test_what_a_file_would_do_is_heard(server: Server, tmp_path: Path) -> None:
    case = Case("missing", "no file at all, so that the document itself is looked at", lambda: b"")
    document = dict(server.try_case(case, tmp_path))
    assert problems(document) == []
    assert len(problems({**document, "events": ["os.system (b'exit 7',)"]})) == 1
    assert len(problems({"died": -9})) == 1
