"""A global of a pickle to a verdict: how severe it is that the pickle names it, and why.

The verdict is made from the name alone; nothing is imported or looked up. What is harmless is in
the tables by its exact name. What is dangerous is dangerous by whatever way the name leads there: a
pickle of protocol 4 walks through attributes, so that `serialization.os.system` of `torch` is
`os.system`.
"""

from __future__ import annotations

import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from ckptool.analysis.scan.dangerous_names import DANGEROUS, NAMES_OF_DANGER
from ckptool.analysis.scan.plain_names import PLAIN_NAMES
from ckptool.analysis.scan.torch_names import EARLIER_TORCH_NAMES, TORCH_NAMES
from ckptool.pickling.nodes import Global

__all__ = ["SEVERITIES", "Severity", "Verdict", "judge"]

Severity: TypeAlias = Literal["harmless", "unknown", "suspicious", "dangerous"]

SEVERITIES: Final[tuple[Severity, ...]] = ("harmless", "unknown", "suspicious", "dangerous")
"""From the least to the most severe."""


class Verdict(NamedTuple):
    """How severe a name is, and why in a few words."""

    severity: Severity
    reason: str


def judge(reference: Global) -> Verdict:
    """Say how severe it is that a pickle names this global; what its call is given is not known."""
    names = _spellings(reference)
    for rule in _RULES:
        verdict = rule(names)
        if verdict is not None:
            return verdict
    return _OTHER_PACKAGE


class _Names(NamedTuple):
    """A name as it is written, and as a pickle of protocol 2 would have it looked up."""

    written: Global
    found: Global

    @property
    def package(self) -> str:
        return self.found.module.partition(".")[0]


_Rule: TypeAlias = Callable[[_Names], Verdict | None]


def _spellings(written: Global) -> _Names:
    # Pickles of protocols below 3 name modules as Python 2 did; what loads them translates.
    module, name = NAME_MAPPING.get((written.module, written.name), written)
    if (module, name) == tuple(written):
        module = IMPORT_MAPPING.get(module, module)
    return _Names(written, Global(module, name))


# What is listed by its exact name --------------------------------------------------------------

_HARMLESS: Final = {**PLAIN_NAMES, **TORCH_NAMES, **EARLIER_TORCH_NAMES}


def _harmless(names: _Names) -> Verdict | None:
    reason = _HARMLESS.get(names.found)
    return None if reason is None else Verdict("harmless", reason)


# What leads to a dangerous name ----------------------------------------------------------------

_DEEPEST: Final = max(path.count(".") for path in DANGEROUS) + 1
# Packages keep copies of others in folders of these names: `six.moves.builtins.eval`.
_HOLDERS: Final = frozenset({"moves", "externals", "extern", "_vendor", "vendor", "vendored"})
_INTERNAL: Final = re.compile(r"__\w*__")
_ATTRIBUTES: Final = Verdict("dangerous", "reaches into the insides of an object")
_DANGEROUS_METHOD: Final = Verdict("dangerous", "has the name of a function that runs code")


def _dangerous(names: _Names) -> Verdict | None:
    for spelling in dict.fromkeys(names):
        reason = _reason_of(spelling)
        if reason is not None:
            return Verdict("dangerous", reason)
    walked = _parts(names.written.name)
    if any(_INTERNAL.fullmatch(part) for part in walked):
        return _ATTRIBUTES
    if len(walked) > 1 and walked[-1] in NAMES_OF_DANGER:
        return _DANGEROUS_METHOD
    return None


def _parts(path: str) -> list[str]:
    # Empty parts and blanks lead nowhere, but are no way past the table either.
    return [part for part in map(str.strip, path.split(".")) if part]


def _reason_of(reference: Global) -> str | None:
    """Why it is dangerous: by the last place of a walk that is, else by what its module is."""
    module, walked = _parts(reference.module), _parts(reference.name)
    path = module + walked
    for start in _starts(module, walked):
        first, *rest = path[start : start + _DEEPEST] or [""]
        # Modules keep others as `_os` too.
        reason = _listed([first, *rest]) or (_listed([first.lstrip("_"), *rest]) if start else None)
        if reason is not None:
            return reason
    return None


def _starts(module: Sequence[str], walked: Sequence[str]) -> Iterator[int]:
    """Yield where in a path a name may begin that the table has; the whole path comes last."""
    # The last part alone is the name of something in a module, whatever it is called.
    yield from reversed(range(len(module), len(module) + len(walked) - 1))
    yield from (index + 1 for index, part in enumerate(module) if part in _HOLDERS)
    yield 0


def _listed(path: Sequence[str]) -> str | None:
    """What the table says of the longest part of a path that it has, from the start of it."""
    reason, prefix = None, ""
    for part in path:
        prefix = f"{prefix}.{part}" if prefix else part
        reason = DANGEROUS.get(prefix, reason)
    return reason


# What is no plain name -------------------------------------------------------------------------

_NO_NAME: Final = Verdict("suspicious", "is no name that Python could look up")
_DOTTED: Final = Verdict("suspicious", "walks through attributes to what it names")
_CLASS: Final = re.compile(r"_*[A-Z]\w*")


def _malformed(names: _Names) -> Verdict | None:
    parts = f"{names.written.module}.{names.written.name}".split(".")
    return None if all(part.isidentifier() for part in parts) else _NO_NAME


def _dotted(names: _Names) -> Verdict | None:
    walked = names.written.name.split(".")
    if len(walked) == 1 or all(_CLASS.fullmatch(part) for part in walked):
        return None
    return _DOTTED


# Everything else, by its package ---------------------------------------------------------------

_SCRIPT_CLASS: Final = Verdict("harmless", "a class of TorchScript, which is no Python module")
_A_MODULE: Final = Verdict("suspicious", "has the name of a module that reaches the system")
_LIKE_DANGER: Final = Verdict("suspicious", "has the name of a function that runs code")
_OF_TORCH: Final = Verdict("suspicious", "of torch, but none of its names that are plain data")
_OF_PYTHON: Final = Verdict("suspicious", "of Python's own library, and no plain data")
_KEPT_CALL: Final = Verdict("suspicious", "keeps a function and arguments for a later call")
_OF_NUMBERS: Final = Verdict("suspicious", "a function of a library for numbers, and no plain data")
_OF_MAIN: Final = Verdict("unknown", "of the script that saved it, whatever is called so later")
_OTHER_PACKAGE: Final = Verdict(
    "unknown", "of another package: importing it runs code of that package"
)

_NUMERIC: Final = frozenset({
    "numpy", "scipy", "pandas", "sklearn", "tensorflow", "keras", "jax", "jaxlib", "flax",
    "xgboost", "lightgbm", "catboost", "statsmodels", "networkx", "sympy", "cupy", "polars",
    "pyarrow", "torchvision", "torchaudio", "torchtext",
})  # fmt: skip
_LATER_CALLS: Final = frozenset(
    {Global("functools", "partial"), Global("functools", "partialmethod")}
)


def _script_class(names: _Names) -> Verdict | None:
    # As a module it would be one that nobody has: TorchScript's reader finds it in the file's code.
    is_one = names.package == "__torch__" and "." not in names.found.name
    return _SCRIPT_CLASS if is_one else None


def _named_like_danger(names: _Names) -> Verdict | None:
    name = names.found.name.rpartition(".")[2]
    if name in NAMES_OF_DANGER:
        return _LIKE_DANGER
    return _A_MODULE if name.lstrip("_") in DANGEROUS else None


def _later_call(names: _Names) -> Verdict | None:
    return _KEPT_CALL if names.found in _LATER_CALLS else None


def _by_package(names: _Names) -> Verdict | None:
    package = names.package
    if package == "__main__":
        return _OF_MAIN
    if package == "torch":
        return _OF_TORCH
    if package in sys.stdlib_module_names:
        return _OF_PYTHON
    if package in _NUMERIC and not _CLASS.fullmatch(names.found.name.rpartition(".")[2]):
        return _OF_NUMBERS
    return None


_RULES: Final[tuple[_Rule, ...]] = (
    _harmless,
    _dangerous,
    _malformed,
    _script_class,
    _dotted,
    _named_like_danger,
    _later_call,
    _by_package,
)
"""The first that has a verdict decides; a name that none has one for is of another package."""
