"""What `module:callable(arguments)` names, read as text: nothing is imported or evaluated yet."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ckptool.errors import SpecError

__all__ = ["Target", "classes_in", "read_target"]

_TARGET: Final = re.compile(
    r"(?P<where>.+?\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<call>.+)", re.DOTALL
)
_EXAMPLE: Final = "models.py:MyModel(10, hidden_size=5)"


@dataclass(frozen=True, slots=True)
class Target:
    """A callable or a module instance: the file or module it is in, its name, its arguments.

    `args` is None where nothing is called: a name alone can be either.
    """

    where: str
    name: str
    args: tuple[Any, ...] | None = None
    kwargs: Mapping[str, Any] | None = None

    @property
    def is_file(self) -> bool:
        """Whether `where` is a file, and not a module that is imported by its name."""
        return self.where.endswith(".py")


def read_target(text: str) -> Target | None:
    """Read `package.module:callable` or `file.py:callable`, called with literals or not.

    None for text of another form. Raises SpecError for arguments that are no literals.
    """
    found = _TARGET.fullmatch(text)
    if found is None:
        return None
    call = found["call"].strip()
    try:
        expression = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{call!r} is no call in Python", hint=_EXAMPLE) from error
    if not isinstance(expression, ast.Call):
        return Target(found["where"], _dotted(expression, call))
    kwargs = {_keyword(one): _literal(one.value, call) for one in expression.keywords}
    if len(kwargs) < len(expression.keywords):
        raise SpecError("an argument is named twice", hint=_EXAMPLE)
    args = tuple(_literal(argument, call) for argument in expression.args)
    return Target(found["where"], _dotted(expression.func, call), args, kwargs)


def classes_in(path: Path) -> list[str]:
    """Return the classes at the top of a Python file, read as text, for a hint."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def _dotted(node: ast.expr, call: str) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise SpecError(f"{call!r} does not begin with a name", hint=_EXAMPLE)
    return ".".join([node.id, *reversed(parts)])


def _keyword(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise SpecError("arguments are literals; ** is not read", hint=_EXAMPLE)
    return keyword.arg


def _literal(node: ast.expr, call: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise SpecError(
            f"the argument {ast.get_source_segment(call, node)!r} is no literal",
            hint="numbers, strings, lists, dicts, True, False and None are; nothing is evaluated",
        ) from error
