"""Kinds of damage to a state_dict, each the same each time.

A damage gets a copy of the state_dict that it may change, and the model, and returns the damaged
one; None where there is nothing in the model for it to damage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["DAMAGES", "Damage", "State", "copy_of"]

State: TypeAlias = dict[Any, Any]
Damage: TypeAlias = Callable[[State, nn.Module], State | None]

_EXTRA_STATE: Final = "_extra_state"
_OLD_WEIGHT_NORM: Final = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def copy_of(state: State) -> State:
    """A state_dict with the same tensors and a metadata of its own."""
    copy: State = OrderedDict(state)
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        _set_metadata(copy, {path: dict(facts) for path, facts in metadata.items()})
    return copy


def _set_metadata(state: State, metadata: dict[str, dict[str, Any]]) -> None:
    state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]


def _metadata(state: State) -> dict[str, dict[str, Any]]:
    metadata: dict[str, dict[str, Any]] = state._metadata  # type: ignore[attr-defined]
    return metadata


def _tensors(state: State) -> list[str]:
    return [name for name, value in state.items() if isinstance(value, Tensor)]


def _parameters(state: State, model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False) if name in state]


def _buffers(state: State, model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers(remove_duplicate=False) if name in state]


def _middle(names: list[str]) -> str | None:
    return names[len(names) // 2] if names else None


def _replace(state: State, name: str | None, change: Callable[[Tensor], Tensor]) -> State | None:
    if name is None:
        return None
    state[name] = change(state[name])
    return state


def _of_dimensions(state: State, *allowed: int) -> list[str]:
    return [name for name in _tensors(state) if state[name].dim() in allowed]


def _renamed(state: State, rename: Callable[[str], str]) -> State | None:
    """Rename names in place, modules in the metadata left as they are."""
    names = {name: rename(name) for name in state}
    if all(old == new for old, new in names.items()):
        return None
    renamed: State = OrderedDict((names[name], value) for name, value in state.items())
    _set_metadata(renamed, _metadata(state))
    return renamed


# Names that are missing ------------------------------------------------------------------------


def _drop(state: State, names: list[str]) -> State | None:
    for name in names:
        del state[name]
    return state if names else None


def _drop_a_parameter(state: State, model: nn.Module) -> State | None:
    name = _middle(_parameters(state, model))
    return None if name is None else _drop(state, [name])


def _drop_a_buffer(state: State, model: nn.Module) -> State | None:
    name = _middle(_buffers(state, model))
    return None if name is None else _drop(state, [name])


def _drop_all_buffers(state: State, model: nn.Module) -> State | None:
    return _drop(state, _buffers(state, model))


def _drop_a_module(state: State, model: nn.Module) -> State | None:
    paths = [path for path, _ in model.named_modules() if path]
    for path in reversed(paths[: len(paths) // 2 + 1]):
        names = [name for name in state if name.startswith(f"{path}.")]
        if 0 < len(names) < len(state):
            return _drop(state, names)
    return None


def _drop_every_other(state: State, _model: nn.Module) -> State | None:
    return _drop(state, list(state)[::2]) if len(state) > 1 else None


def _drop_a_tied_name(state: State, model: nn.Module) -> State | None:
    once = {name for name, _ in model.named_parameters()}
    once |= {name for name, _ in model.named_buffers()}
    again = [name for name in _tensors(state) if name not in once]
    return _drop(state, again[:1])


def _drop_counters(state: State) -> State | None:
    return _drop(state, [name for name in state if name.endswith("num_batches_tracked")])


def _drop_counters_alone(state: State, _model: nn.Module) -> State | None:
    return _drop_counters(state)


def _drop_counters_and_versions(state: State, _model: nn.Module) -> State | None:
    """What torch 0.4 wrote: no counter, and no version that asks for one."""
    damaged = _drop_counters(state)
    return None if damaged is None else _with_versions(damaged, 1)


def _drop_counters_and_metadata(state: State, _model: nn.Module) -> State | None:
    damaged = _drop_counters(state)
    return None if damaged is None else dict(damaged)


def _drop_extra_states(state: State, _model: nn.Module) -> State | None:
    return _drop(state, [name for name in state if name.endswith(_EXTRA_STATE)])


# Names that are too many -----------------------------------------------------------------------


def _add_a_name(state: State, _model: nn.Module) -> State:
    state["added"] = torch.zeros(3)
    return state


def _add_a_name_to_a_module(state: State, model: nn.Module) -> State | None:
    paths = [path for path, _ in model.named_modules() if path]
    path = _middle(paths)
    if path is None:
        return None
    state[f"{path}.added"] = torch.zeros(3)
    return state


def _add_below_a_parameter(state: State, model: nn.Module) -> State | None:
    name = _middle(_parameters(state, model))
    if name is None:
        return None
    state[f"{name}.added"] = torch.zeros(3)
    return state


def _add_left_over_buffers(state: State, model: nn.Module) -> State | None:
    """What an earlier version of the model still saved."""
    left_over = {
        name: buffer.detach().clone()
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name not in state
    }
    state.update(left_over)
    return state if left_over else None


def _fill_what_is_none(state: State, model: nn.Module) -> State | None:
    """A tensor under a name that the model has registered as None."""
    names = [name for name in _registered_as_none(model) if name not in state]
    state.update({name: torch.zeros(4) for name in names})
    return state if names else None


def _registered_as_none(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                yield f"{path}.{name}" if path else name


def _add_an_extra_state(state: State, _model: nn.Module) -> State | None:
    if _EXTRA_STATE in state:
        return None
    state[_EXTRA_STATE] = torch.zeros(2)
    return state


def _add_a_nested_dict(state: State, _model: nn.Module) -> State:
    state["args"] = {"lr": 0.1, "mean": torch.zeros(3)}
    return state


# Names that are others -------------------------------------------------------------------------


def _rename(state: State, _model: nn.Module) -> State | None:
    chosen = _middle(_tensors(state))
    return _renamed(state, lambda name: f"{name}_renamed" if name == chosen else name)


def _swap_two_names(state: State, _model: nn.Module) -> State | None:
    names = _tensors(state)
    first = _middle(names)
    if first is None:
        return None
    for other in names:
        if state[other].shape != state[first].shape:
            state[first], state[other] = state[other], state[first]
            return state
    return None


def _as_old_weight_norm(state: State, _model: nn.Module) -> State | None:
    """The names of `torch.nn.utils.weight_norm`, which the newer one takes too."""

    def rename(name: str) -> str:
        for new, old in _OLD_WEIGHT_NORM.items():
            if name.endswith(new):
                return name.removesuffix(new) + old
        return name

    return _renamed(state, rename)


def _prefix(prefix: str) -> Damage:
    def damage(state: State, _model: nn.Module) -> State | None:
        return _renamed(state, lambda name: f"{prefix}{name}")

    return damage


def _reverse(state: State, _model: nn.Module) -> State:
    """No damage at all: the order of names does not count."""
    turned: State = OrderedDict(reversed(list(state.items())))
    _set_metadata(turned, _metadata(state))
    return turned


# Tensors that are others -----------------------------------------------------------------------


def _flatten(state: State, _model: nn.Module) -> State | None:
    return _replace(state, _middle(_of_dimensions(state, 2, 3, 4)), Tensor.flatten)


def _transpose(state: State, _model: nn.Module) -> State | None:
    names = [name for name in _of_dimensions(state, 2) if len(set(state[name].shape)) > 1]
    return _replace(state, _middle(names), Tensor.t)


def _lengthen(state: State, _model: nn.Module) -> State | None:
    names = [name for name in _of_dimensions(state, 1, 2, 3, 4) if state[name].numel()]
    return _replace(state, _middle(names), lambda tensor: torch.cat([tensor, tensor[:1]]))


def _shape_of_one(state: State, _model: nn.Module) -> State | None:
    return _replace(state, _middle(_tensors(state)), lambda tensor: tensor.new_zeros(()))


def _shape_of_one_from_none(state: State, _model: nn.Module) -> State | None:
    """The scalars of torch before 0.4 had one dimension; a load still takes them."""
    return _replace(state, _middle(_of_dimensions(state, 0)), lambda tensor: tensor.reshape(1))


def _shape_of_three_from_none(state: State, _model: nn.Module) -> State | None:
    return _replace(state, _middle(_of_dimensions(state, 0)), lambda tensor: tensor.repeat(3))


def _scalar_of_a_vector(state: State, _model: nn.Module) -> State | None:
    names = [name for name in _of_dimensions(state, 1) if state[name].numel() == 1]
    return _replace(state, _middle(names), lambda tensor: tensor.reshape(()))


def _empty(state: State, _model: nn.Module) -> State | None:
    names = [name for name in _of_dimensions(state, 1, 2) if state[name].numel()]
    return _replace(state, _middle(names), lambda tensor: tensor[:0])


def _cast(dtype: torch.dtype) -> Damage:
    def damage(state: State, _model: nn.Module) -> State | None:
        names = [name for name in _tensors(state) if state[name].is_floating_point()]
        state.update({name: state[name].to(dtype) for name in names})
        return state if names else None

    return damage


def _as_parameters(state: State, model: nn.Module) -> State | None:
    """What `state_dict(keep_vars=True)` gives."""
    names = _parameters(state, model)
    state.update({name: nn.Parameter(state[name].detach(), False) for name in names})
    return state if names else None


def _no_tensor(state: State, _model: nn.Module) -> State | None:
    name = _middle(_tensors(state))
    if name is None:
        return None
    state[name] = 3
    return state


# Metadata that is another ----------------------------------------------------------------------


def _with_versions(state: State, version: int | None) -> State:
    for facts in _metadata(state).values():
        facts["version"] = version
    return state


def _drop_metadata(state: State, _model: nn.Module) -> State:
    return dict(state)


def _empty_metadata(state: State, _model: nn.Module) -> State:
    _set_metadata(state, {})
    return state


def _old_versions(state: State, _model: nn.Module) -> State:
    return _with_versions(state, 1)


def _versions_of_none(state: State, _model: nn.Module) -> State:
    return _with_versions(state, None)


def _old_versions_and_fewer_buffers(state: State, model: nn.Module) -> State | None:
    """What an older torch wrote: hooks that fill in what was not there yet."""
    damaged = _drop_a_buffer(state, model)
    return None if damaged is None else _with_versions(damaged, 1)


DAMAGES: Final[dict[str, Damage]] = {
    "none": lambda state, _model: state,
    "a parameter dropped": _drop_a_parameter,
    "a buffer dropped": _drop_a_buffer,
    "all buffers dropped": _drop_all_buffers,
    "a module dropped": _drop_a_module,
    "every other name dropped": _drop_every_other,
    "a tied name dropped": _drop_a_tied_name,
    "counters dropped": _drop_counters_alone,
    "counters and versions dropped": _drop_counters_and_versions,
    "counters and metadata dropped": _drop_counters_and_metadata,
    "extra states dropped": _drop_extra_states,
    "a name added": _add_a_name,
    "a name added to a module": _add_a_name_to_a_module,
    "a name added below a parameter": _add_below_a_parameter,
    "left-over buffers": _add_left_over_buffers,
    "a tensor where None is registered": _fill_what_is_none,
    "an extra state added": _add_an_extra_state,
    "a nested dict added": _add_a_nested_dict,
    "renamed": _rename,
    "two names swapped": _swap_two_names,
    "names of the old weight_norm": _as_old_weight_norm,
    "prefixed by module": _prefix("module."),
    "prefixed by a compiled module": _prefix("_orig_mod.module."),
    "order reversed": _reverse,
    "flattened": _flatten,
    "transposed": _transpose,
    "one row more": _lengthen,
    "a scalar in its place": _shape_of_one,
    "a scalar made a vector of one": _shape_of_one_from_none,
    "a scalar made a vector of three": _shape_of_three_from_none,
    "a vector of one made a scalar": _scalar_of_a_vector,
    "without elements": _empty,
    "cast to half": _cast(torch.float16),
    "cast to integers": _cast(torch.int32),
    "saved as parameters": _as_parameters,
    "a number in place of a tensor": _no_tensor,
    "metadata dropped": _drop_metadata,
    "metadata emptied": _empty_metadata,
    "versions of one": _old_versions,
    "versions of None": _versions_of_none,
    "versions of one and a buffer dropped": _old_versions_and_fewer_buffers,
}
