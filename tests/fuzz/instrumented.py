"""One container's reader under atheris: `python -m tests.fuzz.instrumented KIND FILE FLAG...`.

`tests.fuzz.guided` starts it with a corpus; FILE is where to write what is to be read, the flags
are those of libFuzzer.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from random import Random
from typing import cast

import atheris

from tests.fuzz.files import write
from tests.fuzz.mutate import mutate_as
from tests.fuzz.seeds import Kind

# Readers are imported when a file is of their format: too late to be instrumented.
with atheris.instrument_imports(include=["ckptool"]):
    import ckptool.formats

    for _module in pkgutil.iter_modules(ckptool.formats.__path__, "ckptool.formats."):
        import_module(_module.name)
    from tests.fuzz.readers import read_as


def main() -> None:
    """Fuzz until the flags say that it is enough; whatever is no CkptoolError ends the process."""
    kind, path = cast(Kind, sys.argv.pop(1)), Path(sys.argv.pop(1))

    def change(data: bytes, largest: int, seed: int) -> bytes:
        # Checksums and counts keep libFuzzer's own mutations out of most of a container.
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, largest))
        return mutate_as(random, kind, data).data[:largest]

    def run(data: bytes) -> None:
        write(path, data)
        read_as(kind, path)

    atheris.Setup(sys.argv, run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
