"""Fuzzing that follows coverage: `python -m tests.fuzz.guided [KIND...] --runs 50000`.

Each container's reader runs under atheris, beginning with the sound files of its kind. Exit code 1
where anything but a result or a CkptoolError came of it; the file is then kept.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, get_args

from tests.fuzz.files import memory_folder
from tests.fuzz.seeds import Kind, seeds

# libFuzzer's lines: `#12  INITED cov: 7 ft: 9 corp: 3/100b ...`, and `DONE` for `INITED`.
_STATE: Final = re.compile(r"(INITED|DONE)\s+cov: (\d+) ft: \d+ corp: (\d+)/")
_FLAGS: Final = ("-max_len=8192", "-timeout=20", "-rss_limit_mb=2048", "-len_control=0")
_TAIL_LINES: Final = 40


class Guided(NamedTuple):
    """How one target ended, in a line or in what it said last."""

    code: int
    text: str


def main() -> int:
    """Run the targets, as many at a time as there are cores, and say what came of each."""
    options = _options()
    options.findings.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        run = partial(_run, runs=options.runs, seed=options.seed, findings=options.findings)
        ended = list(threads.map(run, options.kinds or get_args(Kind)))
    for one in ended:
        print(one.text)
    return 1 if any(one.code for one in ended) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {get_args(Kind)}")
    parser.add_argument("--runs", type=int, default=50_000, help="how many files of each")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer, not 0")
    usual = Path(tempfile.gettempdir()) / "ckptool-fuzz"
    parser.add_argument("--findings", type=Path, default=usual, help=f"by default {usual}")
    return parser.parse_args()


def _run(kind: Kind, *, runs: int, seed: int, findings: Path) -> Guided:
    started = time.monotonic()
    with memory_folder() as folder:
        corpus = folder / "corpus"
        corpus.mkdir()
        for sound in seeds():
            if sound.kind == kind:
                (corpus / sound.name).write_bytes(sound.data)
        where = f"-artifact_prefix={findings / kind}-"
        flags = (*_FLAGS, f"-runs={runs}", f"-seed={seed}", where, str(corpus))
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.instrumented",
            kind,
            str(folder / "file"),
            *flags,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if ended.returncode:
        return Guided(ended.returncode, f"{kind}:\n{_tail(ended.stdout + ended.stderr)}")
    (_, cov, files), (_, cov_then, files_then) = _STATE.findall(ended.stderr)
    return Guided(
        0,
        f"{kind}: {runs:,} runs in {time.monotonic() - started:.0f} s, coverage {cov} -> "
        f"{cov_then}, corpus {files} -> {files_then} files",
    )


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(("#", "\tNEW_FUNC"))]
    return "\n".join(lines[-_TAIL_LINES:])


if __name__ == "__main__":
    sys.exit(main())
