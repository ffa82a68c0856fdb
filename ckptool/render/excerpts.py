"""Elements as text, in numpy's way of writing arrays."""

from __future__ import annotations

from ckptool.analysis.excerpt import Excerpt

__all__ = ["excerpt_text"]

_COLUMNS = 80


def excerpt_text(excerpt: Excerpt) -> str:
    """Return the elements as nested lists, dots in the place of those that were cut."""
    import numpy as np

    elements = excerpt.elements
    return np.array2string(
        elements,
        separator=", ",
        threshold=elements.size if excerpt.edge_items is None else 0,
        edgeitems=excerpt.edge_items,
        max_line_width=_COLUMNS,
    )
