"""Measure and compare: `python -m tests.benchmarks [FOLDER]`.

Each figure is the best of several whole processes, run in turn, with the file in the page cache.
Times depend on the machine; the ratios are what to look at. The bars are those that ckptool is
held to; nothing fails here when one is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

# A child's peak begins at that of its parent, so nothing large is imported or read before the
# processes are measured: other processes make the files.
ROUNDS: Final = 5
MEGABYTE: Final = 1_000_000


class Cost(NamedTuple):
    """What one process took: seconds, and bytes at its peak."""

    seconds: float
    peak: int


class Bar(NamedTuple):
    """One claim, what was measured, and whether it holds."""

    claim: str
    measured: str
    holds: bool


def main() -> None:
    """Make the files, measure, and say which bars hold."""
    usual = Path(tempfile.gettempdir()) / "ckptool-benchmarks"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else usual
    bars = [
        *measure_gigabyte(folder),
        *measure_many(folder),
        *measure_model(folder),
        *measure_diff(folder),
        *measure_edits(folder),
        measure_reader(folder),
    ]
    for bar in bars:
        print("holds " if bar.holds else "MISSED", f"{bar.claim}: {bar.measured}")


def measure_gigabyte(folder: Path) -> list[Bar]:
    path = made(folder, "gigabyte")
    costs = compare(
        {
            "torch.load(mmap=True)": torch_load(path, mmap=True),
            "torch.load": torch_load(path),
            "ckptool list": ckptool("list", path),
            "ckptool inspect": ckptool("inspect", path),
            "ckptool list, of 1 TB": ckptool("list", made(folder, "terabyte")),
        }
    )
    show("2,000 tensors, 1 GB", costs)
    listed = costs["ckptool list"]
    ratio = costs["torch.load(mmap=True)"].seconds / listed.seconds
    factor = costs["ckptool list, of 1 TB"].seconds / listed.seconds
    return [
        Bar("list takes at most 1/6 of an mmap load", f"1/{ratio:.1f}", ratio >= 6),
        Bar("list takes at most 45 MB", megabytes(listed.peak), listed.peak <= 45 * MEGABYTE),
        Bar("1 TB is no slower than 1 GB", f"{factor:.2f} of the time", factor <= 1.1),
    ]


def measure_many(folder: Path) -> list[Bar]:
    path = made(folder, "many")
    costs = compare(
        {
            "torch.load": torch_load(path),
            "ckptool list": ckptool("list", path),
            "ckptool inspect": ckptool("inspect", path),
        }
    )
    show("100,000 tensors", costs)
    ratio = costs["torch.load"].seconds / costs["ckptool list"].seconds
    claim = "list of 100,000 tensors takes at most 1/3 of a load"
    return [Bar(claim, f"1/{ratio:.1f}", ratio >= 3)]


def measure_reader(folder: Path) -> Bar:
    """The pickle reader alone, in this process."""
    from ckptool.pickling.reader import read_pickle

    data = made(folder, "pickle").read_bytes()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        read_pickle(data)
        best = min(best, time.perf_counter() - start)
    speed = len(data) / best / MEGABYTE
    return Bar("the reader takes 4 MB of pickle a second", f"{speed:.1f} MB/s", speed >= 4)


def measure_model(folder: Path) -> list[Bar]:
    path, spec = made(folder, "gigabyte"), made(folder, "spec")
    costs = compare(
        {
            "ckptool inspect": ckptool("inspect", path),
            "ckptool inspect --model": ckptool("inspect", path, "--model", spec),
            "ckptool check --model": ckptool("check", path, "--model", spec),
        }
    )
    show("2,000 tensors against a spec", costs)
    factor = costs["ckptool inspect --model"].seconds / costs["ckptool inspect"].seconds
    checked = costs["ckptool check --model"]
    models = str(Path(__file__).with_name("models.py"))
    built = compare(
        {
            "import torch": [sys.executable, "-c", "import torch"],
            "ckptool spec, 7 billion": ckptool("spec", f"{models}:seven_billion"),
            "ckptool spec, 70 billion": ckptool("spec", f"{models}:seventy_billion"),
        }
    )
    show("models on the meta device", built)
    peak = max(cost.peak for cost in built.values())
    return [
        Bar("inspect --model costs at most 1.3 of inspect", f"{factor:.2f}", factor <= 1.3),
        Bar("check takes at most 200 MB", megabytes(checked.peak), checked.peak <= 200 * MEGABYTE),
        Bar("a model of any size takes at most 1 GB", megabytes(peak), peak <= 1000 * MEGABYTE),
    ]


def measure_diff(folder: Path) -> list[Bar]:
    base, copy, tuned = (made(folder, name) for name in ("base", "copy", "tuned"))
    half = made(folder, "half base"), made(folder, "half tuned")
    costs = compare(
        {
            "cmp, equal": ["cmp", str(base), str(copy)],
            "ckptool list": ckptool("list", base),
            "diff, equal": ckptool("diff", base, copy),
            "diff --quick, equal": ckptool("diff", base, copy, "--quick"),
            "diff --quick, changed": ckptool("diff", base, tuned, "--quick"),
            "diff, all changed": ckptool("diff", base, tuned),
            "diff, bfloat16 changed": ckptool("diff", *half),
            "torch.load, torch.equal": torch_equal(base, tuned),
        }
    )
    show("a pair of 1 GB", costs)
    cmp, torch = costs["cmp, equal"].seconds, costs["torch.load, torch.equal"].seconds
    quick = max(costs[f"diff --quick, {how}"].seconds for how in ("equal", "changed"))
    more = quick - costs["ckptool list"].seconds
    changed = costs["diff, all changed"].seconds
    peak = max(cost.peak for label, cost in costs.items() if label.startswith("diff"))
    factors = {
        "diff of an equal pair": (costs["diff, equal"].seconds / cmp, 1.2),
        "diff of a pair with all changed": (changed / cmp, 2.0),
        "diff of a bfloat16 pair": (costs["diff, bfloat16 changed"].seconds / cmp, 3.0),
    }
    return [
        *(
            Bar(f"{what} takes at most {most} of cmp", f"{factor:.2f}", factor <= most)
            for what, (factor, most) in factors.items()
        ),
        Bar("diff --quick takes at most 0.5 s more than list", f"{more:.2f} s", more <= 0.5),
        Bar("diff is 8 times faster than torch", f"{torch / changed:.1f}", torch / changed >= 8),
        Bar("diff takes at most 150 MB", megabytes(peak), peak <= 150 * MEGABYTE),
    ]


def measure_edits(folder: Path) -> list[Bar]:
    """Edits that leave a gigabyte, beside a copy of as much; all wait until the disk has it."""
    training, weights = made(folder, "training"), made(folder, "weights")
    out = folder / "edited"
    copied = ["sh", "-c", f"cp '{weights}' '{out}' && sync '{out}'"]
    force = ("-o", out, "--force")
    costs = compare(
        {
            "cp, sync": copied,
            "strip": ckptool("strip", training, *force, "--training"),
            "strip --verify": ckptool("strip", training, *force, "--training", "--verify"),
            "reset-buffers": ckptool("reset-buffers", weights, *force),
            "reset-buffers --verify": ckptool("reset-buffers", weights, *force, "--verify"),
            "torch, strip": torch_edit(training, out, "kept = {'model': kept['model']}"),
            "torch, reset": torch_edit(
                weights, out, "[t.zero_() for n, t in kept.items() if 'running' in n]"
            ),
        }
    )
    show("1 GB that remains", costs)
    out.unlink()
    copy = costs["cp, sync"].seconds
    bars = [
        Bar(f"{label} takes at most {most} of cp and sync", f"{factor:.2f}", factor <= most)
        for label, most in (
            ("strip", 1.5),
            ("strip --verify", 2.5),
            ("reset-buffers", 1.5),
            ("reset-buffers --verify", 2.5),
        )
        for factor in [costs[label].seconds / copy]
    ]
    peak = max(cost.peak for label, cost in costs.items() if "-" in label or label == "strip")
    return [*bars, Bar("edits take at most 80 MB", megabytes(peak), peak <= 80 * MEGABYTE)]


def torch_edit(path: Path, out: Path, edit: str) -> list[str]:
    """The same with torch: everything is read, and all that stays is written."""
    code = (
        "import os, sys, torch; kept = torch.load(sys.argv[1], weights_only=True); "
        f"{edit}; torch.save(kept, sys.argv[2]); os.fsync(os.open(sys.argv[2], os.O_RDWR))"
    )
    return [sys.executable, "-c", code, str(path), str(out)]


def torch_equal(a: Path, b: Path) -> list[str]:
    code = (
        "import sys, torch; a, b = (torch.load(path, weights_only=True) for path in sys.argv[1:]); "
        "print(sum(torch.equal(a[name], b[name]) for name in a))"
    )
    return [sys.executable, "-c", code, str(a), str(b)]


def ckptool(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ckptool", *map(str, arguments)]


def torch_load(path: Path, *, mmap: bool = False) -> list[str]:
    code = f"import sys, torch; torch.load(sys.argv[1], weights_only=True, mmap={mmap})"
    return [sys.executable, "-c", code, str(path)]


def made(folder: Path, name: str) -> Path:
    """Return the path of a file, written now where it is not there yet."""
    path = folder / name
    if not path.exists():
        subprocess.run([sys.executable, "-m", "tests.benchmarks.files", name, path], check=True)
    return path


def compare(commands: dict[str, Sequence[str]]) -> dict[str, Cost]:
    """The least time and the least peak of each command; rounds alternate between them."""
    costs: dict[str, list[Cost]] = {label: [] for label in commands}
    for _ in range(ROUNDS):
        for label, command in commands.items():
            costs[label].append(run(command))
    return {
        label: Cost(min(cost.seconds for cost in found), min(cost.peak for cost in found))
        for label, found in costs.items()
    }


def run(command: Sequence[str]) -> Cost:
    """Run a process to its end; `wait4` gives the peak of this one process alone."""
    # As on a machine of a user's: compiled modules are kept.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    # 1 is what a comparison says of different files.
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(seconds, usage.ru_maxrss * 1024)


def show(title: str, costs: dict[str, Cost]) -> None:
    """Print a table; the first command is what the others are compared with."""
    first = next(iter(costs.values()))
    print(f"{title:<24} seconds  ratio    peak")
    for label, cost in costs.items():
        ratio = f"1/{first.seconds / cost.seconds:.1f}"
        print(f"{label:<24} {cost.seconds:7.3f} {ratio:>6} {megabytes(cost.peak):>7}")
    print()


def megabytes(nbytes: int) -> str:
    return f"{nbytes / MEGABYTE:.0f} MB"


if __name__ == "__main__":
    main()
