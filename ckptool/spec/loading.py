"""What the user calls MODEL, in any of its forms, as a `Model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptool.checkpoint.opening import open_checkpoint
from ckptool.errors import LimitExceededError, NotACheckpointError, SpecError, about
from ckptool.formats.archive import read_archive
from ckptool.formats.archive_layout import LOCAL_MAGIC
from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource
from ckptool.spec.document import is_spec_document, read_document
from ckptool.spec.model_spec import ModelSpec
from ckptool.spec.strict_load import FrozenModel, Model
from ckptool.spec.target import classes_in, read_target

if TYPE_CHECKING:
    from ckptool.spec.live.model import LiveSource

__all__ = ["load_model_spec"]

_HEAD_BYTES: Final = 4096
_LARGEST_DOCUMENT: Final = 1 << 30


def load_model_spec(model: str | Path | LiveSource) -> Model:
    """Return the model that a command's MODEL names, with its spec.

        >>> from ckptool import load_model_spec
        >>> model = load_model_spec("models.py:MyModel(10, hidden_size=5)")
        >>> for name, one in model.spec.tensors.items():
        ...     print(name, one.kind, one.is_persistent, one.dtype, one.shape)

    `model` is a file (a spec, a module that was saved whole, a TorchScript archive, a `.pt2`
    program), `package.module:callable` or `path/to/file.py:callable`, the last two with literal
    arguments or without; or an object of this process, a module or what builds one. Files are read
    inertly; torch is imported for live models only. Raises SpecError, or what the file's own reader
    raises.
    """
    if not isinstance(model, str | Path):
        from ckptool.spec.live.model import model_of_object

        return model_of_object(model)
    if model == "":
        raise SpecError("no model is named", hint="a file, or models.py:MyModel")
    path = Path(model)
    target = None if _is_there(path) else read_target(str(model))
    if target is not None:
        from ckptool.spec.live.model import model_of_target

        return model_of_target(target, str(model))
    with about(path):
        return FrozenModel(_spec_in_file(path))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name of any file: too long, say
        return False


def _spec_in_file(path: Path) -> ModelSpec:
    source = FileSource(path)
    try:
        head = b"" if source.is_directory else source.read_up_to(0, _HEAD_BYTES)
        if is_spec_document(head):
            return read_document(_whole(source))
        if head.startswith(LOCAL_MAGIC) and _is_exported(source):
            from ckptool.spec.exported import spec_of_exported

            return spec_of_exported(source, Limits())
    finally:
        source.close()
    return _spec_of_checkpoint(path)


def _whole(source: FileSource) -> bytes:
    if source.size > _LARGEST_DOCUMENT:
        raise LimitExceededError("bytes of a spec", allowed=_LARGEST_DOCUMENT, actual=source.size)
    return source.read(0, source.size)


def _is_exported(source: FileSource) -> bool:
    from ckptool.formats.exported_program import is_exported_program

    return is_exported_program(read_archive(source))


def _spec_of_checkpoint(path: Path) -> ModelSpec:
    from ckptool.spec.module import spec_of_module

    try:
        with open_checkpoint(path) as checkpoint:
            return spec_of_module(checkpoint, str(path))
    except NotACheckpointError as error:
        if path.suffix != ".py":
            error.hint = error.hint or "`ckptool spec` writes a spec that can be named here"
            raise
        classes = classes_in(path)
        named = ":".join((str(path), classes[0] if classes else "MyModel"))
        raise SpecError("a Python file; name the model in it", hint=f"--model {named}") from error
