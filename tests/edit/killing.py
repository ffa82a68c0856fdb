"""Edits that are killed: `python -m tests.edit.killing SCENARIO FOLDER` prints how each ended.

The command line runs in a child that was forked for it. At one call of `Files`, before it, with
half of its bytes or after it, the child says through a pipe that it is there, and waits. The signal
is on its way before the child may go on, so nothing is left to chance.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias
from unittest.mock import patch

from typer.main import get_command

from ckptool.cli.app import app, main
from ckptool.edit import files as files_module
from ckptool.edit import write
from ckptool.edit.files import Files
from ckptool.edit.verify import verify_file
from tests import builders
from tests.running import run

__all__ = [
    "CALLS",
    "SCENARIOS",
    "UNFINISHED",
    "Outcome",
    "Report",
    "Scenario",
    "Stop",
    "legacy_file",
    "safetensors_file",
    "tree",
    "watched",
    "zip_file",
]

Moment: TypeAlias = Literal["before", "amid", "after"]
Step: TypeAlias = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]

CALLS: Final = tuple(name for name in vars(Files) if not name.startswith("_"))
"""All calls that change a file system."""
_SIZED: Final = {"write", "copy_file_range", "sendfile"}
UNFINISHED: Final = ".{}.ckptool-unfinished"

# Files -----------------------------------------------------------------------------------------


def watched(step: Step) -> Files:
    """Return the calls that change a file system, each of which goes through `step`."""
    files = Files()
    for name in CALLS:
        setattr(files, name, partial(_one_step, step, name, getattr(files, name)))
    return files


def _one_step(step: Step, name: str, call: Callable[..., Any], *args: Any) -> Any:
    return step(name, call, args)


def halved(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with which a call writes or copies half of what it should."""
    if name == "write":
        return args[0], args[1][: len(args[1]) // 2]
    return *args[:-1], args[-1] // 2


def _weights(large: int) -> dict[str, builders.Tensor]:
    return {
        "weight": builders.Tensor("float32", (large, 64)),
        "bn.weight": builders.Tensor("float32", (4,)),
        "bn.bias": builders.Tensor("float32", (4,)),
        "bn.running_mean": builders.Tensor("float32", (4,), [3.5]),
        "bn.running_var": builders.Tensor("float32", (4,), [2.5]),
        "bn.num_batches_tracked": builders.Tensor("int64", (), [17]),
        "head.weight": builders.Tensor("float32", (8, 4)),
    }


def tree(large: int = 512) -> object:
    """What a training saves; `large` rows of its first weight are 256 bytes each."""
    momentum = {0: {"momentum_buffer": builders.Tensor("float32", (large, 64), [0.5])}}
    groups = [{"lr": 0.1, "params": [0]}]
    weights = builders.state_dict(_weights(large), {"": 1, "bn": 2})
    return {
        "state_dict": weights,
        "epoch": 3,
        "optimizer": {"state": momentum, "param_groups": groups},
    }


def zip_file(large: int = 512) -> bytes:
    """The same as torch saves it."""
    return builders.torch_zip(tree(large))


def legacy_file(large: int = 512) -> bytes:
    """The same as old torch saved it."""
    return builders.legacy(tree(large))


def safetensors_file(large: int = 512) -> bytes:
    """Its weights in a safetensors file."""
    return builders.safetensors(_weights(large), {"format": "pt"})


# What is killed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A command on `src`; what is in the folder before it, and what it lacks to be run twice."""

    source: Callable[[], bytes]
    command: tuple[str, ...]
    is_target_there: bool = False
    is_left_behind: bool = False
    constants: dict[str, int] = field(default_factory=dict)
    signals: tuple[int, ...] = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    twice: int = 0
    """How the command ends on a target that it has written."""

    @property
    def target(self) -> str:
        return "src" if "--in-place" in self.command else "dst"


_STRIP: Final = ("strip", "src", "--training")
_DROP: Final = ("strip", "src", "--drop", "head.*")
_RESET: Final = ("reset-buffers", "src")
_NEW: Final = ("-o", "dst")
_FORCED: Final = (*_NEW, "--force")
_SMALL_STEPS: Final = {"_STEP": 1 << 15, "_COPIED_BY_KERNEL": 1 << 12, "_FLUSHED": 1 << 16}
_THROUGH_MEMORY: Final = {"_COPIED_BY_KERNEL": 1 << 40, "_BUFFERED": 1 << 15}

SCENARIOS: Final[dict[str, Scenario]] = {
    "zip to a new file": Scenario(
        zip_file,
        (*_STRIP, *_NEW),
        signals=(signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    ),
    "zip over another file": Scenario(zip_file, (*_RESET, *_FORCED), is_target_there=True),
    "zip in place": Scenario(zip_file, (*_STRIP, "--in-place"), twice=2),
    "zip behind a killed edit": Scenario(
        zip_file, (*_STRIP, *_FORCED), is_target_there=True, is_left_behind=True
    ),
    "zip in many kernel copies": Scenario(zip_file, (*_STRIP, *_NEW), constants=_SMALL_STEPS),
    "zip in many writes": Scenario(
        zip_file, (*_DROP, "--in-place"), constants=_THROUGH_MEMORY, twice=2
    ),
    "legacy to a new file": Scenario(legacy_file, (*_RESET, *_NEW)),
    "legacy over another file": Scenario(legacy_file, (*_STRIP, *_FORCED), is_target_there=True),
    "legacy in place": Scenario(legacy_file, (*_RESET, "--in-place")),
    "safetensors to a new file": Scenario(safetensors_file, (*_DROP, *_NEW, "--verify")),
    "safetensors over another file": Scenario(
        safetensors_file, (*_RESET, *_FORCED, "--verify"), is_target_there=True
    ),
    "safetensors in place": Scenario(
        safetensors_file, (*_DROP, "--in-place"), constants=_SMALL_STEPS, twice=2
    ),
}


@dataclass(frozen=True)
class Stop:
    """Where a command is killed and how: at one call, or at that and at all that follow.

    The calls are numbered from zero; `number` is the signal's.
    """

    call: int
    moment: Moment
    number: int
    is_repeated: bool = False

    def is_at(self, call: int) -> bool:
        return call == self.call or (self.is_repeated and call > self.call)


@dataclass(frozen=True)
class Ending:
    """How a process ended, what it wrote, and what the folder holds: contents by their names."""

    status: int
    out: str
    err: str
    folder: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """One kill, how often the process stopped for it, and the same command again."""

    stop: Stop
    stops: int
    killed: Ending
    again: Ending


@dataclass(frozen=True)
class Report:
    """All kills of a scenario; `calls` are those of a command that nobody kills."""

    calls: list[str]
    clean: Ending
    outcomes: list[Outcome]

    @staticmethod
    def read(text: str) -> Report:
        """Return what a process has printed."""
        report = json.loads(text)
        outcomes = [
            Outcome(
                Stop(**one["stop"]),
                one["stops"],
                Ending(**one["killed"]),
                Ending(**one["again"]),
            )
            for one in report["outcomes"]
        ]
        return Report(report["calls"], Ending(**report["clean"]), outcomes)


# The processes ---------------------------------------------------------------------------------


class _Child:
    """The command line, which stops to be killed; it says so, and waits for a byte."""

    def __init__(self, stop: Stop | None, told: int, waiting: int) -> None:
        self._stop = stop
        self._told, self._waiting = told, waiting
        self._calls: list[str] = []

    def step(self, name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Make one call, and stop where that is wanted."""
        self._calls.append(name)
        stop = self._stop
        if stop is None or not stop.is_at(len(self._calls) - 1):
            return call(*args)
        if stop.moment == "before":
            self._wait()
            return call(*args)
        try:
            return call(*(halved(name, args) if stop.moment == "amid" else args))
        finally:
            self._wait()

    def _wait(self) -> None:
        os.write(self._told, b".")
        os.read(self._waiting, 1)

    def run(self, program: Callable[..., Any], scenario: Scenario, arguments: list[str]) -> int:
        """Run the command line and return its exit code; tell the calls where nobody kills it."""
        for name, value in scenario.constants.items():
            setattr(files_module, name, value)
        verify = verify_file
        with (
            patch.object(write, "Files", partial(watched, self.step)),
            patch.object(write, "verify_file", partial(self._verify, verify)),
            # Only a power cut tells the difference, and a slow disk.
            patch.object(os, "fsync"),
            # Making it takes longer than to run it.
            patch("typer.main.get_command", return_value=program),
        ):
            sys.argv = ["ckptool", *arguments]
            try:
                main()
            except SystemExit as error:
                return error.code if isinstance(error.code, int) else 1
            finally:
                if self._stop is None:
                    os.write(self._told, json.dumps(self._calls).encode())
        return 1

    def _verify(self, verify: Callable[..., None], *args: Any, **options: Any) -> None:
        # It changes nothing, but is a stage of the writing as well.
        self.step("verify_file", partial(verify, **options), args)


class _Driver:
    """Runs one scenario in one folder, over and over."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._work = folder / "work"
        self._streams = folder / "out", folder / "err"
        self._source = scenario.source()
        self._names = {self._source: "source", b"old": "old", b"left": "left"}
        self._known: dict[tuple[object, ...], Ending] = {}
        self._program = get_command(app)

    def report(self) -> Report:
        """Run the command as it is, and kill it at each of its calls."""
        self._prepare()
        # A child finds imported what a command imports when it runs.
        with chdir(self._work):
            run(*self._scenario.command)
        gc.freeze()
        self._names[(self._work / self._scenario.target).read_bytes()] = "new"
        self._prepare()
        told, clean = self._run()
        calls = json.loads(told)
        return Report(calls, clean, list(self._outcomes(calls)))

    def _outcomes(self, calls: list[str]) -> Iterator[Outcome]:
        for call, name in enumerate(calls):
            moments: list[Moment] = ["before", "after"]
            if name in _SIZED:
                moments.append("amid")
            for moment, number in itertools.product(moments, self._scenario.signals):
                yield self._kill(Stop(call, moment, number))
            yield self._kill(Stop(call, "before", signal.SIGINT, is_repeated=True))

    def _kill(self, stop: Stop) -> Outcome:
        self._prepare()
        told, killed = self._run(stop)
        return Outcome(stop, len(told), killed, self._again(killed))

    def _again(self, killed: Ending) -> Ending:
        """Run the command on what is there: once for each that is the same to the byte."""
        more = ("--force",) if killed.folder.get("dst") == "new" else ()
        state = more, *((path.name, path.read_bytes()) for path in sorted(self._work.iterdir()))
        if state not in self._known:
            _, self._known[state] = self._run(more=more)
        return self._known[state]

    def _prepare(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        (self._work / "src").write_bytes(self._source)
        if self._scenario.is_target_there:
            (self._work / "dst").write_bytes(b"old")
        if self._scenario.is_left_behind:
            (self._work / UNFINISHED.format(self._scenario.target)).write_bytes(b"left")

    def _run(self, stop: Stop | None = None, more: tuple[str, ...] = ()) -> tuple[bytes, Ending]:
        """Run the command in a child; return what it told, and how it ended."""
        ready, told = os.pipe()
        waiting, go = os.pipe()
        child = os.fork()
        if not child:
            os.close(ready)
            os.close(go)
            self._become(_Child(stop, told, waiting), [*self._scenario.command, *more])
        os.close(told)
        os.close(waiting)
        heard = b""
        while data := os.read(ready, 1 << 16):
            heard += data
            if stop is not None:
                os.kill(child, stop.number)
                # A killed one has closed its side.
                with suppress(BrokenPipeError):
                    os.write(go, b".")
        os.close(ready)
        os.close(go)
        _, status = os.waitpid(child, 0)
        return heard, self._ending(os.waitstatus_to_exitcode(status))

    def _ending(self, status: int) -> Ending:
        out, err = (path.read_text(encoding="utf-8") for path in self._streams)
        paths = self._work.iterdir()
        found = {path.name: self._names.get(path.read_bytes(), "other") for path in paths}
        return Ending(status, out, err, found)

    def _become(self, child: _Child, arguments: list[str]) -> NoReturn:
        code = 1
        try:
            for descriptor, path in zip((1, 2), self._streams, strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
            os.chdir(self._work)
            code = child.run(self._program, self._scenario, arguments)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _run_scenario() -> None:
    name, folder = sys.argv[1:]
    # A shell may have started this with signals ignored, which a program leaves as they are.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    report = _Driver(SCENARIOS[name], Path(folder).resolve()).report()
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    _run_scenario()
