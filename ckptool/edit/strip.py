"""What `strip` takes out of a checkpoint, resolved against its entries before any writing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.modules import is_module
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import choose_root, shortened
from ckptool.edit.averages import average_names, average_roots
from ckptool.edit.plan import Left, Plan, check_editable
from ckptool.edit.removal import Removal, plan_removal
from ckptool.edit.targets import Targets, is_from_top
from ckptool.edit.training_state import training_parts
from ckptool.errors import EditError, EntryConflictError, EntryNotFoundError, about

if TYPE_CHECKING:
    from ckptool.spec.strict_load import Model

__all__ = ["plan_strip"]

_AUTO: Final = "auto"


def plan_strip(
    checkpoint: Checkpoint,
    model: Model | None = None,
    *,
    buffers: bool = False,
    guess: bool = False,
    stale: bool = False,
    training: bool = False,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    ema: Literal["use", "drop"] | None = None,
    prefix: str | None = None,
    extract: bool = False,
) -> Plan:
    """Plan what is taken out of a checkpoint; `write_checkpoint` writes it.

        >>> from ckptool import open_checkpoint, plan_strip
        >>> with open_checkpoint("last.ckpt") as checkpoint:
        ...     plan = plan_strip(checkpoint, training=True, ema="use")
        ...     print([one.path for one in plan.removed], plan.bytes_before, plan.nbytes)

    `buffers`: all that are certain, with `guess` the likely ones too. `stale`: left-over buffers,
    by the model's word. `training`: all that only resuming needs. `drop` and `keep` are patterns
    for names in the root, or for paths from the top where they begin with `/`. `ema`: which of two
    sets of weights stays. `prefix` goes from the names in the root, `auto` is the one that the
    model tells. `extract`: the root alone becomes the file.

    Bytes that no tensor uses any more go as well. Raises EntryNotFoundError where nothing is taken
    out, EntryConflictError where two names would be one, EditError for what cannot be edited, and
    AmbiguousRootError where several roots fit.
    """
    with about(checkpoint.path):
        check_editable(checkpoint)
        targets, removal = Targets(checkpoint, model), Removal()
        if ema is not None:
            _choose_weights(targets, removal, ema)
        if buffers or guess:
            _drop_buffers(targets, removal, guess=guess)
        if stale:
            _drop_stale(targets, removal)
        if training:
            _drop_training(targets, removal)
        for keys in targets.matching(drop):
            removal.gone[keys] = None
        if keep:
            _keep(targets, removal, keep)
        if prefix is not None:
            _drop_prefix(targets, removal, prefix)
        return plan_removal(targets, removal, extract=extract)


# EMA weights -----------------------------------------------------------------------------------


def _choose_weights(targets: Targets, removal: Removal, how: Literal["use", "drop"]) -> None:
    """Of weights and their EMA let one set go."""
    checkpoint = targets.checkpoint
    removal.has_chosen_weights = True
    pairs = average_roots(checkpoint)
    if not pairs:
        _choose_names(targets, removal, how)
        return
    for keys, (average, raw) in pairs.items():
        if how == "drop":
            removal.gone[keys] = None
        elif keys[: len(raw.keys)] == raw.keys:
            # The EMA stands among the weights: only they go.
            own = (entry for entry in checkpoint.entries if _is_own(entry, raw.keys, checkpoint))
            removal.gone.update((entry.keys, None) for entry in own)
        else:
            removal.gone[raw.keys] = None
        ema, weights = f"{average.path} (the EMA)", f"{raw.path or '/'} (the weights)"
        both = (weights, ema) if how == "drop" else (ema, weights)
        removal.notes.append("{} stays, {} goes".format(*both))
    _settle_root(targets, removal)


def _settle_root(targets: Targets, removal: Removal) -> None:
    """Take the one root that stays where none was chosen, or the chosen one goes."""
    checkpoint = targets.checkpoint
    if checkpoint.root is not None and not removal.is_gone(checkpoint.root.keys):
        return
    if checkpoint.is_root_given:
        raise EditError("the root that was named would go")
    stay = [root for root in checkpoint.roots if not removal.is_gone(root.keys)]
    chosen = choose_root(stay)
    if chosen is not None:
        targets.take_root(chosen)


def _choose_names(targets: Targets, removal: Removal, how: Literal["use", "drop"]) -> None:
    """The same among the names of one state_dict."""
    targets.require_root()
    entries = targets.root_tensors()
    found = average_names({name: entry.node for name, entry in entries.items()})
    if found is None:
        removal.unmet.append("EMA weights beside others")
        return
    removal.gone.update((targets.place(entries[name]), None) for name in found.all)
    if how == "drop":
        return
    if found.is_swapped:
        raise EditError(
            "its EMA is in mmcv's form, whose hook exchanges both before it saves: "
            "the names of the weights have the EMA already",
            hint="--ema drop leaves the EMA",
        )
    removal.taken = {entries[raw].keys: entries[name] for name, raw in found.raw.items()}


# Buffers ---------------------------------------------------------------------------------------


def _drop_buffers(targets: Targets, removal: Removal, *, guess: bool) -> None:
    """Take out buffers: those that are certain, or the likely ones too."""
    buffers = [one for one in targets.inside() if one.role == "buffer"]
    likely = [one for one in buffers if not one.is_certain and not guess]
    certain = [one for one in buffers if one.is_certain or guess]
    for one in certain:
        removal.gone[targets.place(one.entry)] = None
    for one in likely:
        why = f"a buffer by its {one.evidence}, which is not certain; --guess takes it along"
        removal.left.append(Left(one.entry.path, why))
    if not certain:
        removal.unmet.append("a buffer" if guess else "a buffer that is certain")
    if likely:
        removal.hints.append(f"--guess takes {len(likely):,} likely ones along, --model tells")


def _drop_stale(targets: Targets, removal: Removal) -> None:
    """Take out the buffers that the model has and does not save."""
    if targets.model is None:
        raise EditError("only a model tells which buffers are left over", hint="--model MODEL")
    stale = [one.entry for one in targets.inside() if one.status == "stale"]
    for entry in stale:
        removal.gone[targets.place(entry)] = None
    if not stale:
        removal.unmet.append("a left-over buffer")


# Everything else -------------------------------------------------------------------------------


def _drop_training(targets: Targets, removal: Removal) -> None:
    """Take out what only resuming a training needs, in all of the file."""
    parts = training_parts(targets.checkpoint)
    for keys, weights in parts:
        if weights:
            inside = shortened([root.path for root in weights])
            why = f"it holds weights: {inside}; --drop '/{display(keys)}' takes it out"
            removal.left.append(Left(display(keys), why))
        else:
            removal.gone[keys] = None
    if not parts:
        removal.unmet.append("training state")


def _keep(targets: Targets, removal: Removal, patterns: Sequence[str]) -> None:
    """Take out what no pattern matches: of the names in the root, of the parts of the file."""
    rooted = [pattern for pattern in patterns if is_from_top(pattern)]
    named = [pattern for pattern in patterns if not is_from_top(pattern)]
    if named:
        wanted, depth = set(targets.matching(named)), len(targets.require_root().keys)
        removal.gone.update(_others(targets.names().values(), wanted, depth))
    if rooted:
        entries = targets.checkpoint.entries
        every = (entry.keys for entry in entries)
        removal.gone.update(_others(every, set(targets.matching(rooted)), 0))


def _others(
    every: Iterable[KeyPath], wanted: set[KeyPath], depth: int
) -> Iterator[tuple[KeyPath, None]]:
    """Yield the outermost parts below a depth that neither are wanted nor hold anything wanted."""
    above = {keys[:n] for keys in wanted for n in range(len(keys))}
    for keys in every:
        parts = [keys[:n] for n in range(depth + 1, len(keys) + 1)]
        part = next((part for part in parts if part not in above), None)
        if part is not None and part not in wanted:
            yield part, None


def _drop_prefix(targets: Targets, removal: Removal, prefix: str) -> None:
    """Take a prefix off the names in the root."""
    root = targets.require_root()
    if prefix == _AUTO:
        prefix = _prefix_of_model(targets)
    if is_module(root.node):
        raise EditError("a module that was saved whole has no prefix before its names")
    # What is part of a value has its place in that, and not in the root.
    depth = len(root.keys) + 1
    old = {
        name: keys
        for name, keys in targets.names().items()
        if len(keys) == depth and not removal.is_gone(keys)
    }
    new: dict[str, str] = {}
    for name, keys in old.items():
        short = name.removeprefix(prefix) or name
        if short in new:
            raise EntryConflictError(short, names=[new[short], name])
        new[short] = name
        if short != name:
            removal.renamed[keys] = short
    if not removal.renamed:
        removal.unmet.append(f"names that begin with {prefix!r}")
        return
    removal.prefix = prefix
    rest = len(old) - len(removal.renamed)
    if rest:
        removal.notes.append(f"names that do not begin with {prefix!r} stay as they are: {rest:,}")


def _prefix_of_model(targets: Targets) -> str:
    if targets.model is None:
        raise EditError("only a model tells the prefix", hint="--model MODEL, or name the prefix")
    match = targets.match()
    if match is None or not match.alignment.strip:
        raise EntryNotFoundError("a prefix that the model's names lack")
    strip, add = match.alignment.strip, match.alignment.add
    if add:
        raise EditError(
            f"the model's names begin with {add!r} in place of {strip!r}, which no edit puts there",
            hint=f"--prefix '{strip}' only takes it off",
        )
    return strip


def _is_own(entry: Entry, root_keys: tuple[object, ...], checkpoint: Checkpoint) -> bool:
    place = checkpoint.locate(entry)
    return place is not None and place[0].keys == root_keys
