"""A strict load worked out from a spec: what `nn.Module.load_state_dict` of torch 2.13 finds.

The modules are visited as torch visits them, each with the part of the state_dict below it, and
the rules of hooks may change that part. Keys are handed down by their next part, so that each is
looked at once per level and not once per module.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ckptool.checkpoint.modules import EXTRA_STATE
from ckptool.checkpoint.state_dict import Metadata
from ckptool.spec.copying import find_copy_problem
from ckptool.spec.model_spec import ModelSpec, ModuleSpec, TensorSpec
from ckptool.spec.module_load import (
    Given,
    LoadError,
    LoadResult,
    LoadRule,
    ModuleLoad,
    Settings,
)
from ckptool.tensors.refs import Components, TensorRef

__all__ = ["simulate_load"]


@dataclass(slots=True)
class _Part:
    """A module: its path, its own tensors by their own names, and its modules by theirs."""

    path: str
    spec: ModuleSpec
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    modules: dict[str, _Part] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What the names of all that is in it begin with."""
        return f"{self.path}." if self.path else ""


def simulate_load(
    spec: ModelSpec,
    tensors: Mapping[str, TensorRef | None],
    metadata: Metadata | None,
    rules: Mapping[str, LoadRule],
) -> LoadResult:
    """Return what a strict load finds; `rules` are those of load hooks by their names."""
    result = LoadResult()
    shapes: dict[str, tuple[int, ...]] = {}
    state: dict[str, Given] = {}
    for key, tensor in tensors.items():
        # Whatever the types promise, a file can have any key.
        if type(key) is str:
            state[key] = Given(key, None if tensor is None else tensor.shape, tensor)
        else:
            result.errors.append(LoadError(None, f"a key of the state_dict is no name: {key!r}"))
    pending = [(_tree_of(spec), state)]
    while pending:
        part, state = pending.pop()
        facts = (metadata or {}).get(part.path, {})
        load = ModuleLoad(part.prefix, facts, part.tensors, state, shapes, result)
        _run_hooks(load, part, rules)
        _take_own(load, part.spec)
        pending += reversed(_hand_down(load, part))
    return result


def _tree_of(spec: ModelSpec) -> _Part:
    parts = {"": _Part("", ModuleSpec(None, None))}
    parts |= {path: _Part(path, module) for path, module in spec.modules.items()}
    parents = _parents(parts)
    for path, parent in parents.items():
        parent.modules[path[len(parent.prefix) :]] = parts[path]
    for name, tensor in spec.tensors.items():
        path, _, own = name.rpartition(".")
        parts[path].tensors[own] = tensor
    return parts[""]


def _parents(parts: Mapping[str, _Part]) -> dict[str, _Part]:
    """The module that each is in, in the same order: a module's own name can have dots in it."""
    parents = {path: parts[""] for path in parts if path}
    above = [parts[""]]
    # All that is in a module comes right behind it.
    for part in sorted((parts[path] for path in parents), key=lambda part: part.prefix):
        while not part.prefix.startswith(above[-1].prefix):
            above.pop()
        parents[part.path] = above[-1]
        above.append(part)
    return parents


# One module ------------------------------------------------------------------------------------


def _run_hooks(load: ModuleLoad, part: _Part, rules: Mapping[str, LoadRule]) -> None:
    """Let the rules of a module's methods and then of its hooks change what it is given."""
    where = f"module {part.path!r}" if part.path else "the model itself"
    if part.spec.load_hooks is None:
        named = part.spec.type or "a class without a name"
        load.result.unknown.append(f"how {named} ({where}) loads is not recorded")
        return
    known: list[tuple[LoadRule, Settings]] = []
    for hook in part.spec.load_hooks:
        rule = rules.get(hook.name)
        if rule is None:
            load.result.unknown.append(f"what {hook.name} of {where} does is not known")
        elif not hook.settings.keys() >= set(rule.settings):
            load.result.unknown.append(f"the settings of {hook.name} of {where} are not recorded")
        else:
            known.append((rule, hook.settings))
    for rule, settings in sorted(known, key=lambda pair: not pair[0].is_method):
        rule.apply(load, settings)


def _take_own(load: ModuleLoad, spec: ModuleSpec) -> None:
    """Find what is there of a module's own parameters, persistent buffers and extra state."""
    for name, tensor in load.tensors.items():
        if tensor.is_persistent is False:
            continue
        given = load.given(name)
        if tensor.is_persistent is None:
            key = load.prefix + name
            load.result.doubts.append(f"whether the model saves {key!r} is not recorded")
        elif given is None:
            load.miss(name)
        if given is not None:
            _take(load, name, tensor, given)
    if spec.has_extra_state and load.given(EXTRA_STATE) is None:
        load.miss(EXTRA_STATE)


def _take(load: ModuleLoad, name: str, tensor: TensorSpec, given: Given) -> None:
    """Compare what is given with the tensor that takes it."""
    key, result = load.prefix + name, load.result
    if given.name is not None and given.name != key:
        result.renamed[given.name] = key
    shape = load.shape_of(name)
    is_lazy = tensor.dtype is None and shape is None
    if given.shape is None and is_lazy:
        result.doubts.append(f"whether {key!r} in the file is uninitialised cannot be told")
    elif given.shape is None:
        result.errors.append(LoadError(key, "what is in the file is no tensor"))
    elif shape is None and not is_lazy:
        result.doubts.append(f"which shape the model's {key!r} has is not recorded")
    elif not _fits(given.shape, shape):
        _refuse_shape(result, key, given, shape)
    elif given.tensor is not None:
        problem = find_copy_problem(key, given.tensor, tensor.dtype)
        if problem is not None and problem.is_certain:
            result.errors.append(LoadError(key, problem.sentence))
        elif problem is not None:
            result.doubts.append(problem.sentence)


def _fits(given: tuple[int, ...], shape: tuple[int, ...] | None) -> bool:
    if shape is None:
        # Without a hook that gives it a shape, a lazy tensor has no elements, and one dimension.
        return given in ((), (0,), (1,))
    # Before torch 0.4 there were no tensors of no dimension.
    return given == shape or (given == (1,) and shape == ())


def _refuse_shape(
    result: LoadResult, key: str, given: Given, shape: tuple[int, ...] | None
) -> None:
    data = None if given.tensor is None else given.tensor.data
    if isinstance(data, Components) and data.layout == "nested":
        result.errors.append(LoadError(key, "it is nested in the file: it has no one shape"))
    elif shape is None:
        problem = "the model's has no shape yet, and nothing gives it one"
        result.errors.append(LoadError(key, problem))
    else:
        result.shape.append(key)


def _hand_down(load: ModuleLoad, part: _Part) -> list[tuple[_Part, dict[str, Given]]]:
    """Sort the state_dict by the modules in this one; report what has no place."""
    below: dict[str, dict[str, Given]] = {name: {} for name in part.modules}
    # Names with dots in them; of none of them is another the beginning.
    dotted = sorted(f"{name}." for name in below if "." in name)
    places = {name for name, tensor in load.tensors.items() if tensor.is_persistent is not False}
    # Also where a tensor has that name: torch then takes it, and finds it unexpected.
    (places.discard if part.spec.has_extra_state is False else places.add)(EXTRA_STATE)
    start = len(load.prefix)
    for key, given in load.state.items():
        end = key.find(".", start)
        if end < 0:
            has_place = key[start:] in places
        elif (inner := below.get(key[start:end])) is not None:
            inner[key] = given
            continue
        else:
            has_place = key[start:end] in part.spec.none_modules
        if load.is_strict and not has_place:
            load.result.unexpected.append(key)
        # torch hands it down all the same.
        if dotted and (name := _name_before(key[start:], dotted)) is not None:
            below[name][key] = given
    return [(part.modules[name], state) for name, state in below.items()]


def _name_before(key: str, dotted: Sequence[str]) -> str | None:
    """Which of some sorted names, each with a dot behind it, a key begins with."""
    nearest = dotted[bisect_right(dotted, key) - 1]
    return nearest[:-1] if key.startswith(nearest) else None
