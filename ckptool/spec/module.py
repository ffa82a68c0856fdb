"""A module that was saved whole, or a TorchScript archive, as a `ModelSpec`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Final, Literal

from ckptool.checkpoint.modules import Member, is_module, join, members
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import shortened
from ckptool.errors import SpecError
from ckptool.formats.container import ModuleAttributes
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.spec.model_spec import ModelSpec, ModuleSpec, TensorSpec, UnknownValue
from ckptool.spec.module_hooks import class_of, load_hooks_of
from ckptool.tensors.refs import Strided, TensorRef

__all__ = ["spec_of_module"]

_SCRIPT_NAME = re.compile(r"^__torch__\.|___torch_mangle_\d+\.")
_SAVED_VALUE: Final = UnknownValue("of a saved module")
_HINT: Final = "name the model's code, package.module:callable, or a spec that `ckptool spec` wrote"


def spec_of_module(checkpoint: Checkpoint, source: str) -> ModelSpec:
    """Say what the module that a checkpoint holds is made of.

    Raises SpecError where it holds none, several, or one that no `state_dict()` could be made of.
    """
    walk = _Walk(checkpoint.container.script_classes)
    module = _module_in(checkpoint)
    if not walk.is_known(module):
        raise SpecError(f"holds an object of {module.type}, whose code does not make it a module")
    walk.add("", module)
    origin: Literal["module", "torchscript"] = "module"
    if checkpoint.format == "torchscript":
        origin = "torchscript"
    return ModelSpec(source, origin, None, walk.tensors, walk.modules)


def _module_in(checkpoint: Checkpoint) -> Opaque:
    """The module that is the chosen root, or the only one where none is chosen."""
    roots = checkpoint.roots if checkpoint.root is None else (checkpoint.root,)
    modules = {id(root.node): root for root in roots if is_module(root.node)}
    if len(modules) == 1:
        [only] = modules.values()
        module: Opaque = only.node
        return module
    if modules:
        what = f"several models: {shortened([root.path for root in modules.values()])}"
    elif roots:
        what = (
            "a state_dict, which does not say which of its tensors are parameters and which buffers"
        )
    else:
        what = "no model"
    raise SpecError(f"holds {what}", hint=_HINT)


class _Walk:
    """A module and all below it, in the order of `state_dict()`."""

    def __init__(self, script_classes: Mapping[Global, ModuleAttributes]) -> None:
        self.tensors: dict[str, TensorSpec] = {}
        self.modules: dict[str, ModuleSpec] = {}
        self._script_classes = script_classes
        self._first_names: dict[Hashable, str] = {}
        self._on_the_way: set[int] = set()

    def is_known(self, module: Opaque) -> bool:
        """Whether it is a module, and no TorchScript object of another class."""
        return not _is_script(module) or module.type in self._script_classes

    def add(self, path: str, module: Opaque) -> None:
        """Add a module, its parameters, its buffers, and then its submodules.

        Going down module by module is safe: the tree's depth is bounded when it is read.
        """
        if id(module) in self._on_the_way:
            raise SpecError(f"the module at {path!r} is inside itself")
        if path in self.modules:
            raise SpecError(f"two modules have the path {path!r}")
        kept: dict[str, list[Member]] = {kind: [] for kind in _KINDS}
        for member in members(module, self._script_classes):
            kept[member.kind].append(member)
        tensors = [*kept["parameter"], *kept["buffer"]]
        self.modules[path] = _module_spec(module, tensors, kept["module"], kept["attribute"])
        for member in tensors:
            if member.node is not None:
                self._add_tensor(join(path, member.name), member)
        self._on_the_way.add(id(module))
        for member in kept["module"]:
            if member.node is not None:
                self._add_submodule(join(path, member.name), member.node)
        self._on_the_way.discard(id(module))

    def _add_submodule(self, path: str, node: Node) -> None:
        if not is_module(node):
            raise SpecError(f"{path!r} stands among the modules and is none")
        if self.is_known(node):
            self.add(path, node)

    def _add_tensor(self, name: str, member: Member) -> None:
        if "." in member.name or name in self.tensors:
            raise SpecError(f"no {member.kind} can have the name {name!r}")
        if type(member.node) is not TensorRef and type(member.node) is not Opaque:
            raise SpecError(f"the {member.kind} {name!r} is no tensor")
        first = self._first_names.setdefault(_place(member.node), name)
        self.tensors[name] = TensorSpec(
            "parameter" if member.kind == "parameter" else "buffer",
            member.is_persistent,
            *_dtype_and_shape(member.node),
            None if first == name else first,
            _SAVED_VALUE if member.kind == "buffer" else None,
        )


_KINDS: Final = ("parameter", "buffer", "module", "attribute")


def _module_spec(
    module: Opaque, tensors: list[Member], submodules: list[Member], others: list[Member]
) -> ModuleSpec:
    known = class_of(module)
    name = None if known is None else str(known)
    attributes = {member.name: member.node for member in others}
    if name is not None and _is_script(module):
        name = _SCRIPT_NAME.sub("", name)
        # The setting is a constant in the code; without it the counter is registered as None.
        attributes["track_running_stats"] = any(
            member.name == "num_batches_tracked" and member.node is not None for member in tensors
        )
    hooks = load_hooks_of(name, attributes)
    return ModuleSpec(
        name,
        hooks,
        # No module of torch's own has one; any other class may.
        None if hooks is None else False,
        none_tensors=tuple(member.name for member in tensors if member.node is None),
        none_modules=tuple(member.name for member in submodules if member.node is None),
    )


def _is_script(module: Opaque) -> bool:
    return module.type is not None and f"{module.type.module}.".startswith("__torch__.")


def _dtype_and_shape(node: Node) -> tuple[str | None, tuple[int, ...] | None]:
    """What a tensor says; nothing where it was not initialised, or was made in an unknown way."""
    if type(node) is not TensorRef:
        return None, None
    return node.dtype.name, None if -1 in node.shape else node.shape


def _place(node: Node) -> Hashable:
    """What makes two tensors one: the same elements, or the same object where there are none."""
    if type(node) is TensorRef and isinstance(node.data, Strided) and node.nbytes:
        return (node.data.storage.key, node.dtype, node.shape, *node.data[1:])
    return id(node)
