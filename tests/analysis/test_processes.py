"""Work in several processes: the same answers, and nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from ckptool import diff, open_checkpoint
from ckptool.analysis.diff import numeric
from ckptool.analysis.processes import can_fork, divided
from ckptool.analysis.progress import UNWATCHED, Progress

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there it is done")

Work = Callable[[Sequence[int], Progress], list[list[int]]]


def squares(items: Sequence[int], progress: Progress) -> list[list[int]]:
    for _ in items:
        progress.advance(1)
    return [[item, item * item] for item in items]


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_results_come_in_the_items_order(count: int, shares: int) -> None:
    found = divided(squares, range(count), shares, UNWATCHED)
    assert found == [[item, item * item] for item in range(count)]
    assert children() == []


def test_progress_hears_of_all_of_it() -> None:
    class Heard:
        nbytes = 0

        def expect(self, nbytes: int) -> None:
            raise AssertionError

        def advance(self, nbytes: int) -> None:
            self.nbytes += nbytes

    heard = Heard()
    divided(squares, range(8), 2, heard)
    assert heard.nbytes == 8


def elsewhere(happens: Callable[[], object]) -> Work:
    """Squares, but for what happens in any other process than this one."""
    here = os.getpid()

    def work(items: Sequence[int], progress: Progress) -> list[list[int]]:
        if os.getpid() != here:
            happens()
        return squares(items, progress)

    return work


@pytest.mark.parametrize(
    "happens",
    [
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os.kill(os.getpid(), signal.SIGINT),
        lambda: 1 / 0,
        lambda: os._exit(0),
    ],
    ids=["killed", "interrupted", "failed", "gone"],
)
def test_what_another_process_does_not_answer_is_done_here(
    happens: Callable[[], object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert divided(elsewhere(happens), range(4), 2, UNWATCHED) == [
        [0, 0],
        [1, 1],
        [2, 4],
        [3, 9],
    ]
    assert children() == []
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_forked_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fork", refused)
    assert divided(squares, range(3), 2, UNWATCHED) == [[0, 0], [1, 1], [2, 4]]
    assert os.listdir("/proc/self/fd") == before


def test_no_process_is_left_when_this_one_fails() -> None:
    here, before = os.getpid(), os.listdir("/proc/self/fd")

    def work(items: Sequence[int], progress: Progress) -> list[list[int]]:
        if os.getpid() == here:
            raise KeyboardInterrupt
        threading.Event().wait()
        return []

    with pytest.raises(KeyboardInterrupt):
        divided(work, range(4), 3, UNWATCHED)
    assert children() == []
    assert os.listdir("/proc/self/fd") == before


def test_a_process_with_threads_is_not_doubled() -> None:
    assert can_fork()
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        assert not can_fork()
    finally:
        wait.set()
        thread.join()


def test_figures_do_not_depend_on_how_many_processes_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {f"layer.{n}": torch.randn(100 + n, generator=generator) for n in range(20)}
    torch.save(state, tmp_path / "a.pt")
    changed = {name: tensor * 1.1 + 0.01 for name, tensor in state.items()}
    changed["layer.3"][5] = torch.nan
    changed["layer.4"] = state["layer.4"].to(torch.bfloat16)
    torch.save(changed, tmp_path / "b.pt")
    monkeypatch.setattr(numeric, "_WORTH_A_PROCESS", 0)
    forks: list[int] = []
    fork = os.fork

    def counted() -> int:
        forks.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    with open_checkpoint(tmp_path / "a.pt") as a, open_checkpoint(tmp_path / "b.pt") as b:
        alone = diff(a, b)
        assert not forks
        shared = [diff(a, b, processes=count) for count in (2, 3)]
    assert len(forks) == 3
    for found in shared:
        assert [one.values for one in found.entries] == [one.values for one in alone.entries]
