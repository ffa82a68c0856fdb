"""Rows in columns: a table on a terminal, plain lines where nobody says how wide it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, TypeAlias

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["GAP", "Column", "in_columns"]

Column: TypeAlias = tuple[str, Literal["left", "right"]]
"""A heading, and to which side the cells below it go."""

GAP: Final = 2
"""How many blanks are between two columns."""


def in_columns(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Text]],
    width: int | None,
    folding: Collection[int] = (0,),
) -> RenderableType:
    """Return rows below their headings; `width` is that of the terminal, None in a pipe.

    On a terminal the `folding` columns give way where there is no room. In a pipe nothing folds,
    and what a table measures again and again would take seconds for thousands of rows.
    """
    if width is None:
        return _lines(columns, rows)
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0))
    for index, (heading, justify) in enumerate(columns):
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=index not in folding)
    for row in rows:
        table.add_row(*row)
    return table


def _lines(columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> Text:
    headings = [Text(heading, "bold") for heading, _ in columns]
    lengths = [[cell_len(cell.plain) for cell in row] for row in (headings, *rows)]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    text = Text(no_wrap=True)
    for row, row_lengths in zip((headings, *rows), lengths, strict=True):
        if text:
            text.append("\n")
        for cell, length, wanted, (_, justify) in zip(
            row, row_lengths, widths, columns, strict=True
        ):
            blanks = " " * (wanted - length)
            text.append(blanks if justify == "right" else "").append_text(cell)
            text.append(blanks if justify == "left" else "").append(" " * GAP)
    return text
