"""The user's own code: imported, called, and its errors told as the user's."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ckptool.errors import SpecError
from ckptool.spec.target import Target

__all__ = ["find", "running_user_code"]

_OWN_FOLDER = Path(__file__).parent


def find(target: Target) -> Any:
    """Import what a target names and return the object, which is not called yet.

    Raises SpecError where the import fails or the name is not there.
    """
    with running_user_code(f"importing {target.where}"):
        found: Any = _import_file(Path(target.where)) if target.is_file else _import(target.where)
    for part in target.name.split("."):
        # A module can load its names when they are asked for, and fail in any way.
        with running_user_code(f"{target.where}:{target.name}"):
            try:
                found = getattr(found, part)
            except AttributeError as error:
                raise SpecError(
                    f"{target.where} has no {target.name!r}", hint=_names_like(found, part)
                ) from error
    return found


@contextlib.contextmanager
def running_user_code(what: str) -> Iterator[None]:
    """Tell whatever the user's code raises as its own error, with the line that it comes from.

    What it prints goes to stderr: stdout carries data only.
    """
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except SpecError:
            raise
        # Any code at all runs in here, and whatever it raises is the user's to read; `exit()` too.
        except (Exception, SystemExit) as error:
            raise SpecError(_told(what, error)) from error


def _told(what: str, error: BaseException) -> str:
    """The error as its author would read it: its class, its message, and the user's own line."""
    if isinstance(error, SyntaxError) and error.filename:
        said = error.msg
        where = f"{error.filename}, line {error.lineno}"
    else:
        said = " ".join(str(error).split())
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not _is_machinery(frame.filename)
        ]
        own = [frame for frame in frames if not _is_installed(frame.filename)] or frames
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else ""
    kind = type(error).__name__
    return f"{what}: {kind}{': ' if said else ''}{said}{f' ({where})' if where else ''}"


def _is_machinery(filename: str) -> bool:
    """Whether a frame is of this program, or of Python's import system."""
    path = Path(filename)
    return path.is_relative_to(_OWN_FOLDER) or path.parent.name == "importlib" or "<" in filename


def _is_installed(filename: str) -> bool:
    parts = Path(filename).parts
    is_library = Path(filename).is_relative_to(Path(contextlib.__file__).parent)
    return is_library or "site-packages" in parts or "dist-packages" in parts


def _import(name: str) -> ModuleType:
    # As `python -m` does: a module of the folder that the user stands in can be named.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, as `python path` would find its neighbours."""
    path = path.resolve()
    name = path.stem
    while (loaded := sys.modules.get(name)) is not None:
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
        # A file can have the name of a module that this program needs.
        name += "_"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _names_like(owner: Any, name: str) -> str | None:
    import difflib

    close = difflib.get_close_matches(name, dir(owner), n=3, cutoff=0.5)
    return f"close: {', '.join(close)}" if close else None
