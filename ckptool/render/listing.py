"""One line per tensor, for pipes: no Rich, so that nothing is wrapped and nothing is slow."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.analysis.overview import Overview
from ckptool.render.escape import visible

__all__ = ["listing"]


def listing(overview: Overview) -> Iterator[str]:
    """Yield `path, role, dtype, shape, bytes` and, with hashes, `sha256`, separated by tabs.

    With hashes, the last line is `# fingerprint`, a tab and the fingerprint of the root.
    """
    for one in overview.entries:
        tensor = one.entry.tensor
        if tensor is None:
            continue
        line = (
            f"{visible(one.entry.path)}\t{one.role}\t{tensor.dtype}\t"
            f"{list(tensor.shape)}\t{tensor.nbytes}"
        )
        if overview.hashes:
            line += f"\t{overview.hashes.get(id(one)) or '-'}"
        yield line + "\n"
    if overview.fingerprint is not None:
        yield f"# fingerprint\t{overview.fingerprint}\n"
