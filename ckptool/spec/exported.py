"""A program of `torch.export` (`.pt2`) as a `ModelSpec`: what its signature says, and no more."""

from __future__ import annotations

from collections.abc import Iterator

from ckptool.formats.archive import read_archive
from ckptool.formats.exported_program import ExportedProgram, ProgramTensor, read_exported_program
from ckptool.pickling.limits import Limits
from ckptool.sources import FileSource
from ckptool.spec.model_spec import ModelSpec, ModuleSpec, TensorSpec, UnknownValue

__all__ = ["spec_of_exported"]


def spec_of_exported(source: FileSource, limits: Limits) -> ModelSpec:
    """Say what the model that a program was exported from is made of.

    How its modules load stands in no program. The order of names is that of the model's
    `state_dict()` as far as the file tells it.
    """
    program = read_exported_program(read_archive(source), limits)
    first_names: dict[tuple[object, ...], str] = {}
    tensors: dict[str, TensorSpec] = {}
    paths = {"": None, **dict.fromkeys(program.modules)}
    for name in _in_order(program):
        tensor = program.tensors[name]
        first = name if tensor.place is None else first_names.setdefault(tensor.place, name)
        tensors[name] = _tensor_spec(tensor, None if first == name else first)
        paths[_owner(name)] = None
    modules = {path: ModuleSpec(program.modules.get(path), None, None) for path in paths}
    return ModelSpec(str(source.path), "exported", program.torch_version, tensors, modules)


def _tensor_spec(tensor: ProgramTensor, tied_to: str | None) -> TensorSpec:
    shape = tuple(size for size in tensor.shape or () if size is not None)
    is_known = tensor.shape is not None and len(shape) == len(tensor.shape)
    return TensorSpec(
        tensor.kind,
        tensor.is_persistent,
        tensor.dtype,
        shape if is_known else None,
        tied_to,
        UnknownValue("of a saved module") if tensor.kind == "buffer" else None,
    )


def _in_order(program: ExportedProgram) -> Iterator[str]:
    """Yield the names module by module, parameters before buffers, as `state_dict()` does."""
    owned: dict[str, list[str]] = {path: [] for path in ("", *program.modules)}
    for name in program.tensors:
        owned.setdefault(_owner(name), []).append(name)
    for names in owned.values():
        yield from sorted(names, key=lambda name: program.tensors[name].kind == "buffer")


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
