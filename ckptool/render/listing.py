"""One line per tensor, for pipes: no Rich, so that nothing is wrapped and nothing is slow."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.analysis.overview import Contents
from ckptool.render.escape import visible

__all__ = ["listing"]


def listing(contents: Contents) -> Iterator[str]:
    """Yield `path, role, dtype, shape, bytes` and, with hashes, `sha256`, separated by tabs.

    With a model the status comes last, `-` outside the root.

    With hashes, the last line is `# fingerprint`, a tab and the fingerprint of the root.
    """
    for one in contents.entries:
        tensor = one.entry.tensor
        if tensor is None:
            continue
        line = (
            f"{visible(one.entry.path) or '/'}\t{one.role}\t{tensor.dtype}\t"
            f"{list(tensor.shape)}\t{tensor.nbytes}"
        )
        if contents.hashes:
            line += f"\t{contents.hashes.get(id(one)) or '-'}"
        if contents.match is not None:
            line += f"\t{one.status or '-'}"
        yield line + "\n"
    if contents.fingerprint is not None:
        yield f"# fingerprint\t{contents.fingerprint}\n"
