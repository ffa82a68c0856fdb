"""The table of the cases, as the README has it."""

from __future__ import annotations

from tests.hostile.cases import GROUPS

__all__ = ["table"]


def table() -> str:
    """Return the table in Markdown."""
    parts = []
    for group, cases in GROUPS.items():
        rows = "\n".join(
            f"| `{case.name}` | {_cell(case.trick)} | {case.stands_for} |" for case in cases
        )
        parts.append(f"### {group}\n\n| case | trick | stands for |\n|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("*", "\\*")
