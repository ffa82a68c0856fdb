"""Which entries a command is about: by name, by role."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ckptool.classify.roles import ClassifiedEntry
from ckptool.errors import EntryNotFoundError

__all__ = ["find_entries", "glob_matcher", "select"]


def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test for names: `*` is any run of characters, `?` is one, all else is itself."""
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(char) or re.escape(char) for char in pattern)
    compiled = re.compile(expression, re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def select(
    entries: Sequence[ClassifiedEntry], patterns: Sequence[str] = (), roles: Sequence[str] = ()
) -> tuple[ClassifiedEntry, ...]:
    """Keep entries whose name matches one of the patterns and no `!` pattern, of one of the roles.

    Entries outside the root have no name, so a pattern leaves them out. Raises
    EntryNotFoundError for a pattern or role that nothing answers to.
    """
    kept = list(entries)
    if patterns:
        kept = [one for one in entries if one.name is not None]
        names = [one.name for one in kept if one.name is not None]
        wanted: list[Callable[[str], bool]] = []
        unwanted: list[Callable[[str], bool]] = []
        for pattern in patterns:
            matches = glob_matcher(pattern.removeprefix("!"))
            if not any(map(matches, names)):
                raise EntryNotFoundError(
                    f"the pattern {pattern!r}", candidates=_close(pattern, names)
                )
            (unwanted if pattern.startswith("!") else wanted).append(matches)
        kept = [
            one
            for one in kept
            if one.name is not None
            and (not wanted or any(matches(one.name) for matches in wanted))
            and not any(matches(one.name) for matches in unwanted)
        ]
    if roles:
        for role in roles:
            if not any(one.role == role for one in kept):
                raise EntryNotFoundError(f"the role {role!r}")
        kept = [one for one in kept if one.role in roles]
    if not kept and patterns:
        raise EntryNotFoundError("all patterns together")
    return tuple(kept)


def find_entries(paths: Sequence[str], wanted: str) -> list[str]:
    """Return the paths or names that `wanted` means: itself, else what it matches as a pattern."""
    if wanted in paths:
        return [wanted]
    matches = glob_matcher(wanted)
    found = [path for path in paths if matches(path)]
    if not found:
        raise EntryNotFoundError(repr(wanted), candidates=_close(wanted, paths))
    return found


def _close(wanted: str, names: Sequence[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
