"""What `strip` takes out of a checkpoint, resolved against its entries before any writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ckptool.analysis.selection import check_patterns, glob_matcher
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.modules import is_module
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root, choose_root, shortened
from ckptool.classification.classify import Classification, classify
from ckptool.classification.roles import ClassifiedEntry
from ckptool.edit.averages import average_names, average_roots
from ckptool.edit.metadata import ancestors_of, edited_metadata
from ckptool.edit.plan import Changed, Left, Plan, Removed, check_editable, make_plan
from ckptool.edit.storages import compact
from ckptool.edit.training_state import training_parts
from ckptool.edit.tree import TreeEdit
from ckptool.errors import (
    AmbiguousRootError,
    EditError,
    EntryConflictError,
    EntryNotFoundError,
    about,
)
from ckptool.formats.content import EditedTree
from ckptool.tensors.refs import TensorRef, storages_of

if TYPE_CHECKING:
    from ckptool.spec.strict_load import Model

__all__ = ["plan_strip"]

_FROM_TOP = "/"
_AUTO = "auto"


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
    check_editable(checkpoint)
    with about(checkpoint.path):
        strip = _Strip(checkpoint, model)
        if ema is not None:
            strip.choose_weights(ema)
        if buffers or guess:
            strip.drop_buffers(guess=guess)
        if stale:
            strip.drop_stale()
        if training:
            strip.drop_training()
        if drop:
            strip.drop_matching(drop)
        if keep:
            strip.keep_matching(keep)
        if prefix is not None:
            strip.drop_prefix(prefix)
        return strip.plan(extract=extract)


class _Strip:
    """Operations resolved one after the other, all against the checkpoint as it was read.

    `gone` are the key paths that are taken out, `renamed` those that get another name.
    """

    def __init__(self, checkpoint: Checkpoint, model: Model | None) -> None:
        self._checkpoint = checkpoint
        self._model = model
        self._contents: Classification | None = None
        self._gone: dict[KeyPath, None] = {}
        self._renamed: dict[KeyPath, str] = {}
        self._taken: dict[KeyPath, Entry] = {}
        self._prefix = ""
        self._left: list[Left] = []
        self._notes: list[str] = []
        self._unmet: list[str] = []
        self._hints: list[str] = []

    # Operations ---------------------------------------------------------------------------------

    def choose_weights(self, how: Literal["use", "drop"]) -> None:
        """Take out the weights, or the EMA of them."""
        pairs = average_roots(self._checkpoint)
        if not pairs:
            self._choose_names(how)
            return
        for keys, (average, raw) in pairs.items():
            if how == "drop":
                self._gone[keys] = None
            elif average.keys[: len(raw.keys)] == raw.keys:
                inside = (one for one in self._checkpoint.entries if self._is_own(one, raw))
                self._gone.update((entry.keys, None) for entry in inside)
            else:
                self._gone[raw.keys] = None
            stays, goes = (raw, average) if how == "drop" else (average, raw)
            which = "the weights" if how == "drop" else "the EMA"
            self._notes.append(f"{stays.path or '/'} stays, {which}; {goes.path or '/'} goes")
        self._settle_root()

    def _is_own(self, entry: Entry, root: Root) -> bool:
        place = self._checkpoint.locate(entry)
        return place is not None and place[0].keys == root.keys

    def _settle_root(self) -> None:
        """Take the one root that stays where none was chosen, or the chosen one goes."""
        checkpoint = self._checkpoint
        if checkpoint.root is not None and not self._is_gone(checkpoint.root.keys):
            return
        if checkpoint.is_root_given:
            raise EditError("the root that was named would be taken out")
        stay = [root for root in checkpoint.roots if not self._is_gone(root.keys)]
        chosen = choose_root(stay)
        if chosen is not None:
            self._checkpoint = checkpoint.with_root(chosen)

    def _choose_names(self, how: Literal["use", "drop"]) -> None:
        entries = {one.name: one.entry for one in self._inside() if one.entry.tensor is not None}
        found = average_names(_tensors(entries))
        if found is None:
            self._fail("EMA weights beside others")
            return
        self._gone.update((entries[name].keys, None) for name in found.all)
        if how == "drop":
            return
        if found.is_swapped:
            raise EditError(
                "its EMA is in mmcv's form, whose hook has exchanged both before it saved: "
                "the names of the weights have the EMA already",
                hint="--ema drop leaves the EMA",
            )
        self._taken = {entries[raw].keys: entries[name] for name, raw in found.raw.items()}

    def drop_buffers(self, *, guess: bool) -> None:
        """Take out buffers: those that are certain, or the likely ones too."""
        likely = []
        is_any = False
        for one in self._inside():
            if one.role == "buffer":
                if one.is_certain or guess:
                    self._take_out(one.entry)
                    is_any = True
                else:
                    likely.append(one)
        why = "a buffer by its {}, which is not certain; --guess takes it along"
        self._left += [Left(one.entry.path, why.format(one.evidence)) for one in likely]
        if not is_any:
            self._fail("a buffer that is certain" if not guess else "a buffer")
        if likely:
            self._hints.append(f"--guess takes {len(likely):,} likely ones along, --model tells")

    def drop_stale(self) -> None:
        """Take out the buffers that the model has and does not save."""
        if self._model is None:
            raise EditError("only a model tells which buffers are left over", hint="--model MODEL")
        stale = [one for one in self._inside() if one.status == "stale"]
        for one in stale:
            self._take_out(one.entry)
        if not stale:
            self._fail("a left-over buffer")

    def drop_training(self) -> None:
        """Take out what only resuming a training needs, in all of the file."""
        parts = training_parts(self._checkpoint)
        for keys, weights in parts:
            if weights:
                inside = shortened([root.path for root in weights])
                why = f"it holds weights: {inside}; --drop '/{display(keys)}' takes it out"
                self._left.append(Left(display(keys), why))
            else:
                self._gone[keys] = None
        if not parts:
            self._fail("training state")

    def drop_matching(self, patterns: Sequence[str]) -> None:
        """Take out names in the root and paths from the top."""
        for keys in self._matching(patterns):
            self._gone[keys] = None

    def keep_matching(self, patterns: Sequence[str]) -> None:
        """Take out all others: names in the root, and parts of the file."""
        named = [pattern for pattern in patterns if not pattern.startswith(_FROM_TOP)]
        if named:
            wanted = set(self._matching(named))
            self._gone.update((k, None) for k in self._names().values() if k not in wanted)
        rooted = [pattern for pattern in patterns if pattern.startswith(_FROM_TOP)]
        if rooted:
            wanted = set(self._matching(rooted))
            for entry in self._checkpoint.entries:
                keys = entry.keys
                if not any(keys[:n] in wanted for n in range(1, len(keys) + 1)):
                    self._gone[keys] = None

    def drop_prefix(self, prefix: str) -> None:
        """Take a prefix off the names in the root."""
        if prefix == _AUTO:
            prefix = self._prefix_of_model()
        root = self._root()
        if is_module(root.node):
            raise EditError("a module that was saved whole has no prefix before its names")
        depth = len(root.keys)
        old = {
            str(name): keys[: depth + 1]
            for name, keys in self._names().items()
            if not self._is_gone(keys) and (root.pairs is not None or len(keys) == depth + 1)
        }
        new: dict[str, str] = {}
        for name in old:
            short = name[len(prefix) :] if name.startswith(prefix) else name
            if short in new:
                raise EntryConflictError(short, names=[new[short], name])
            new[short] = name
            if short and short != name:
                self._renamed[old[name]] = short
        if not self._renamed:
            self._fail(f"names that begin with {prefix!r}")
            return
        self._prefix = prefix
        rest = len(old) - len(self._renamed)
        if rest:
            self._notes.append(f"{rest:,} names do not begin with {prefix!r} and stay")

    def _prefix_of_model(self) -> str:
        if self._model is None:
            raise EditError("only a model tells the prefix", hint="--model MODEL, or name it")
        self._inside()
        match = None if self._contents is None else self._contents.match
        if match is None or not match.alignment.strip:
            raise EntryNotFoundError("a prefix that the model's names lack")
        if match.alignment.add:
            raise EditError(
                f"the model's names begin with {match.alignment.add!r} in place of "
                f"{match.alignment.strip!r}, which no edit puts there",
                hint=f"--prefix '{match.alignment.strip}' only takes it off",
            )
        return match.alignment.strip

    # What they are resolved against -------------------------------------------------------------

    def _root(self) -> Root:
        self._inside()
        root = self._checkpoint.root
        if root is None:
            raise EntryNotFoundError("a state_dict")
        return root

    def _inside(self) -> list[ClassifiedEntry]:
        """The tensors and extra states in the root; one has to be chosen."""
        if self._contents is None:
            checkpoint = self._checkpoint
            if checkpoint.root is None and self._model is None and checkpoint.roots:
                paths = [root.path for root in checkpoint.roots]
                hint = f"choose one with --root: {shortened(paths)}"
                raise AmbiguousRootError("fit, and the edit is about one", roots=paths, hint=hint)
            self._contents = classify(checkpoint, self._model)
            self._checkpoint = self._contents.checkpoint
        return [one for one in self._contents.entries if one.name is not None]

    def _names(self) -> dict[str, KeyPath]:
        """All names in the root, those of other values than tensors too."""
        self._inside()
        names = ((self._checkpoint.name_of(one), one) for one in self._checkpoint.entries)
        return {name: self._place(entry) for name, entry in names if name is not None}

    def _place(self, entry: Entry) -> KeyPath:
        """The key path that is taken out with an entry: of a pair of name and tensor, the pair."""
        root = self._checkpoint.root
        is_pair = root is not None and root.pairs is not None and entry.keys[-1] == 1
        return entry.keys[:-1] if is_pair else entry.keys

    def _matching(self, patterns: Sequence[str]) -> Iterator[KeyPath]:
        rooted = [pattern for pattern in patterns if pattern.startswith(_FROM_TOP)]
        named = [pattern for pattern in patterns if not pattern.startswith(_FROM_TOP)]
        places: list[tuple[list[str], Callable[[], dict[str, KeyPath]]]] = [
            (named, self._names),
            (rooted, self._paths),
        ]
        for asked, listed in places:
            if asked:
                known = listed()
                check_patterns(asked, list(known))
                tests = [glob_matcher(pattern) for pattern in asked]
                yield from (k for name, k in known.items() if any(test(name) for test in tests))

    def _paths(self) -> dict[str, KeyPath]:
        """All paths from the top, of parts and of what is in them."""
        return {
            _FROM_TOP + display(entry.keys[:n]): entry.keys[:n]
            for entry in self._checkpoint.entries
            for n in range(1, len(entry.keys) + 1)
        }

    def _take_out(self, entry: Entry) -> None:
        self._gone[self._place(entry)] = None

    def _is_gone(self, keys: KeyPath) -> bool:
        return any(keys[:n] in self._gone for n in range(len(keys) + 1))

    def _fail(self, wanted: str) -> None:
        self._unmet.append(wanted)

    # The plan -----------------------------------------------------------------------------------

    def plan(self, *, extract: bool) -> Plan:
        """Put everything together; raise EntryNotFoundError where nothing would be taken out."""
        root = self._root() if extract else self._checkpoint.root
        is_extracted = extract and root is not None and bool(root.keys)
        if extract and not is_extracted:
            self._fail("a root below the top, which is to be the file")
        if not (self._gone or self._renamed or is_extracted):
            wanted = " nor ".join(self._unmet) or "nothing that is to be taken out"
            raise EntryNotFoundError(wanted, hint="; ".join(self._hints) or None)
        self._notes += [f"nothing matches {wanted}" for wanted in self._unmet]
        container = self._checkpoint.container
        edit = TreeEdit(container.tree)
        outermost = [keys for keys in self._gone if not self._is_gone(keys[:-1])]
        for keys in outermost:
            edit.drop(keys)
        for keys, entry in self._taken.items():
            edit.exchange(keys, entry.node)
        for keys, name in self._renamed.items():
            self._rename(edit, keys, name)
        self._edit_metadata(edit)
        replaced = edit.replaced()
        tree = root.node if is_extracted and root is not None else container.tree
        kept = compact(container, EditedTree(tree, replaced))
        edited = EditedTree(tree, {**replaced, **kept.moved})
        if is_extracted and root is not None:
            outermost = [*self._outside(root.keys), *(k for k in outermost if _is_in(k, root.keys))]
        if not self._taken and not any("stays, the" in note for note in self._notes):
            self._notes += self._two_sets()
        return make_plan(
            "strip",
            self._checkpoint,
            kept.storages,
            edited,
            removed=self._removed(outermost),
            changed=list(self._changed(kept.moved)),
            left=self._left,
            notes=self._notes,
        )

    def _rename(self, edit: TreeEdit, keys: KeyPath, name: str) -> None:
        root = self._checkpoint.root
        if root is not None and root.pairs is not None:
            _, tensor = edit.node_at(keys)
            edit.exchange(keys, (name, tensor))
        else:
            edit.rename(keys, name)

    def _edit_metadata(self, edit: TreeEdit) -> None:
        """Let `_metadata` follow, and drop the flag that a load with `assign=True` left."""
        flagged = []
        for root in self._checkpoint.roots:
            if self._is_gone(root.keys):
                continue
            modules, prefix = set[str](), ""
            if root is self._checkpoint.root and self._contents is not None:
                modules, prefix = self._modules_gone(), self._prefix
            metadata, is_flagged = edited_metadata(root, modules, prefix)
            if metadata is not None:
                edit.set_attribute(root.node, "_metadata", metadata)
            if is_flagged:
                flagged.append(root.path or "/")
        if flagged:
            self._notes.append(
                "the flag that load_state_dict(assign=True) leaves in _metadata was dropped: "
                + shortened(flagged)
            )

    def _modules_gone(self) -> set[str]:
        """The modules of the root that nothing is left of; and a trap that a counter leaves."""
        names = self._names()
        stay = {name for name, keys in names.items() if not self._is_gone(keys)}
        for name in names:
            module, _, leaf = name.rpartition(".")
            if leaf == _COUNTER and name not in stay and f"{module}.running_mean" in stay:
                self._notes.append(
                    f"{name} goes and the version of its module stays, with which a strict load "
                    "misses it"
                )
        return ancestors_of(names) - ancestors_of(stay)

    def _outside(self, above: KeyPath) -> list[KeyPath]:
        """The outermost parts that are not below a key path."""
        found: dict[KeyPath, None] = {}
        for entry in self._checkpoint.entries:
            keys = entry.keys
            if keys[: len(above)] != above:
                split = next(n for n, key in enumerate(above) if keys[n : n + 1] != (key,))
                found[keys[: split + 1]] = None
        return list(found)

    def _removed(self, gone: Sequence[KeyPath]) -> list[Removed]:
        """What goes, each part with the tensors below it; what an EMA takes the place of, too."""
        below: dict[KeyPath, dict[int, TensorRef]] = {keys: {} for keys in (*gone, *self._taken)}
        for entry in self._checkpoint.entries:
            if entry.tensor is not None:
                for n in range(len(entry.keys) + 1):
                    if entry.keys[:n] in below:
                        below[entry.keys[:n]][id(entry.node)] = entry.tensor
        moved = {one.keys for one in self._taken.values()}
        return [
            Removed(display(keys), len(tensors), sum(one.nbytes for one in tensors.values()))
            for keys, tensors in below.items()
            if keys not in moved
        ]

    def _changed(self, moved: Mapping[int, TensorRef]) -> Iterator[Changed]:
        for keys, name in self._renamed.items():
            yield Changed(display(keys), "renamed", name)
        root = self._checkpoint.root
        for keys, entry in self._taken.items():
            name = display(keys[len(root.keys) :]) if root is not None else display(keys)
            yield Changed(entry.path, "renamed", name)
        for entry in self._checkpoint.entries:
            tensor = moved.get(id(entry.node))
            if tensor is not None and not self._is_gone(entry.keys):
                nbytes = sum(storage.nbytes for storage in storages_of(tensor))
                yield Changed(entry.path, "compacted", f"{nbytes} bytes")

    def _two_sets(self) -> Iterator[str]:
        """Say that the weights and an EMA of them are both kept."""
        for keys, (_, raw) in average_roots(self._checkpoint).items():
            if not self._is_gone(keys) and not self._is_gone(raw.keys):
                both = f"{raw.path or '/'} and {display(keys)}, its EMA,"
                yield f"{both} are both kept; --ema use or --ema drop keeps one"


_COUNTER = "num_batches_tracked"


def _tensors(entries: Mapping[str | None, Entry]) -> dict[str, TensorRef]:
    found = {name: entry.tensor for name, entry in entries.items() if name is not None}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _is_in(keys: KeyPath, above: KeyPath) -> bool:
    return keys[: len(above)] == above
