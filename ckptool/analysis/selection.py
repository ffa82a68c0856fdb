"""Which entries a command is about: by name, by role."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ckptool.errors import EntryNotFoundError

__all__ = ["check_patterns", "find_entries", "glob_matcher", "name_matcher", "select"]

_COMPARED = 5_000


def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test for names: `*` is any run of characters, `?` is one, all else is itself."""
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(char) or re.escape(char) for char in pattern)
    compiled = re.compile(expression, re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


class Named(Protocol):
    """What can be asked for: by its name in the root, None outside of it, and by its role."""

    @property
    def name(self) -> str | None: ...

    @property
    def role(self) -> str: ...


Item = TypeVar("Item", bound=Named)


def select(
    entries: Sequence[Item], patterns: Sequence[str] = (), roles: Sequence[str] = ()
) -> tuple[Item, ...]:
    """Keep entries whose name matches one of the patterns and no `!` pattern, of one of the roles.

    Names that a model has and the file has not can be among them. Entries outside the root have no
    name, so a pattern leaves them out. Raises EntryNotFoundError for a pattern or role that nothing
    answers to.
    """
    kept = _by_name(entries, patterns) if patterns else list(entries)
    for role in roles:
        if not any(one.role == role for one in kept):
            there = ", ".join(dict.fromkeys(one.role for one in kept))
            raise EntryNotFoundError(f"the role {role!r}", hint=f"there are: {there}")
    return tuple(one for one in kept if not roles or one.role in roles)


def name_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test for names: one of the patterns matches, where there are any, and no `!` one."""
    wanted = [glob_matcher(pattern) for pattern in patterns if not pattern.startswith("!")]
    unwanted = [glob_matcher(pattern[1:]) for pattern in patterns if pattern.startswith("!")]
    return lambda name: (
        (not wanted or any(matches(name) for matches in wanted))
        and not any(matches(name) for matches in unwanted)
    )


def _by_name(entries: Sequence[Item], patterns: Sequence[str]) -> list[Item]:
    check_patterns(patterns, [one.name for one in entries if one.name is not None])
    is_wanted = name_matcher(patterns)
    kept = [one for one in entries if one.name is not None and is_wanted(one.name)]
    if not kept:
        raise EntryNotFoundError("all patterns together")
    return kept


def check_patterns(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raise EntryNotFoundError for a pattern that matches none of the names."""
    for pattern in patterns:
        matches = glob_matcher(pattern.removeprefix("!"))
        if not any(matches(name) for name in names):
            raise EntryNotFoundError(f"the pattern {pattern!r}", candidates=_close(pattern, names))


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

    if len(names) > _COMPARED:
        # Comparing with each would take seconds; a slip is mostly in the path, or in the last part.
        last = wanted.rpartition(".")[2]
        names = [name for name in names if name.endswith(last)]
    return difflib.get_close_matches(wanted, names[:_COMPARED], n=3, cutoff=0.5)
