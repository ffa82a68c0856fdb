"""Mutated checkpoints by the hundred thousand: `python -m tests.fuzz --runs 300000 --seed 0`.

Each is opened as a user would open it, some are also listed, checked and shown. It must end with a
result or a CkptoolError, in little time and memory. Exit code 1 where one did not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.files import memory_folder
from tests.fuzz.sharding import Finding, Tally, fuzz


def main() -> int:
    """Run, write the findings out, and say in one line what came of it."""
    options = _options()
    started = time.monotonic()
    seconds = None if options.minutes is None else 60 * options.minutes

    def tell(finding: Finding) -> None:
        _write_out(
            options.findings / f"{finding.chunk}-{finding.run}-{finding.fault.step}", finding
        )

    with memory_folder() as folder:
        tally = fuzz(
            folder, options.seed, options.runs, tell, seconds=seconds, processes=options.processes
        )
    print(_summary(tally, time.monotonic() - started))
    return 1 if tally.findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=300_000, help="how many files")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same files")
    parser.add_argument("--minutes", type=float, help="run for so long instead")
    parser.add_argument("--processes", type=int, help="how many at a time; by default all cores")
    usual = Path(tempfile.gettempdir()) / "ckptool-fuzz"
    parser.add_argument("--findings", type=Path, default=usual, help=f"by default {usual}")
    return parser.parse_args()


def _write_out(folder: Path, finding: Finding) -> None:
    fault = finding.fault
    report = (
        f"{fault.exception} in step {fault.step}, at {fault.place}, {finding.times:,} times\n"
        f"seed {finding.seed}, chunk {finding.chunk}, run {finding.run}: "
        f"{' > '.join(finding.chain)}\n\n{fault.trace}\nminimal: {finding.minimal!r}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text(report, encoding="utf-8", errors="backslashreplace")
    (folder / "input.bin").write_bytes(finding.data)
    if finding.minimal is None:
        print(f"{fault.exception} in step {fault.step}, kept in {folder}", flush=True)
    else:
        (folder / "minimal.bin").write_bytes(finding.minimal)
        print(f"{folder}:\n{report.encode('ascii', 'backslashreplace').decode()}", flush=True)


def _summary(tally: Tally, seconds: float) -> str:
    outcomes = ", ".join(f"{name} {number:,}" for name, number in tally.outcomes.most_common())
    return (
        f"{tally.runs:,} runs in {seconds:.0f} s, {tally.runs / seconds:,.0f} a second, "
        f"{tally.peak >> 20} MiB at most; {outcomes}; {len(tally.findings)} findings"
    )


if __name__ == "__main__":
    sys.exit(main())
