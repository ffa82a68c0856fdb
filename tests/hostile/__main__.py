"""What each case costs: `python -m tests.hostile`; `--table` prints that of the README."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.hostile.cases import CASES
from tests.hostile.measuring import served
from tests.hostile.readme import table


def main() -> None:
    """Print a line per case, the slowest first."""
    lines = []
    with served() as server, tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            document = server.try_case(case, Path(folder))
            if "died" in document:
                lines.append((float("inf"), name, f"ended by {document['died']}", 0))
                continue
            slowest = max(document["commands"], key=lambda one: one["seconds"])
            command = " ".join(Path(part).name for part in slowest["command"].split())
            lines.append((slowest["seconds"], name, command, document["peak_bytes"] >> 20))
    print(f"{'case':44} {'slowest command':44} {'seconds':>8} {'peak MB':>8}")
    for seconds, name, command, megabytes in sorted(lines, reverse=True):
        print(f"{name:44} {command:44} {seconds:8.3f} {megabytes:8}")


if __name__ == "__main__":
    if "--table" in sys.argv:
        print(table())
    else:
        main()
