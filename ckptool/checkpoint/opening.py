"""A path to a `Checkpoint`: the container read, its entries listed, its root chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

from ckptool.checkpoint.containers import mapping_of
from ckptool.checkpoint.entries import Defect, Entry, list_entries
from ckptool.checkpoint.keypath import KeyPath, display, display_key
from ckptool.checkpoint.roots import (
    Root,
    Survey,
    TrainingState,
    choose_root,
    find_root,
    shortened,
    survey,
)
from ckptool.errors import CutShortError, about
from ckptool.formats.container import Container, Damage, FileFacts, FormatName
from ckptool.formats.sniff import read_container
from ckptool.pickling.limits import Limits
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.sources import Extent, FileSource

__all__ = ["Checkpoint", "open_checkpoint"]

# Sharing can make far more places than a file has bytes; no honest file comes near its bytes.
_LEAVES_OF_ANY_FILE = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """An open checkpoint: everything that its directory and its pickles say.

    It holds the file open, so that values can be read later; use it as a context manager, or
    `close` it. `root` is the chosen state_dict, None where several of `roots` fit equally well;
    `is_root_given` says that the user named it. `defects` are the tensors that the file describes
    wrongly, empty unless they were to be kept. `limits` are those that it was read under.
    """

    source: FileSource
    container: Container
    entries: tuple[Entry, ...]
    survey: Survey
    root: Root | None
    is_root_given: bool = False
    defects: tuple[Defect, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def path(self) -> Path:
        """The path that it was opened by."""
        return self.source.path

    @property
    def format(self) -> FormatName:
        """The format's name, as the JSON says it."""
        return self.container.format

    @property
    def files(self) -> tuple[FileFacts, ...]:
        """The files it is kept in."""
        return (self.container.file,)

    @property
    def extents(self) -> Mapping[str, Extent]:
        """Where the file keeps which storage key."""
        return self.container.extents

    @property
    def globals(self) -> tuple[Global, ...]:
        """The names in its pickles, in the order of their first use."""
        return self.container.globals

    @property
    def roots(self) -> tuple[Root, ...]:
        """The subtrees that can be a state_dict, in file order."""
        return tuple(self.survey.roots.values())

    @property
    def training(self) -> tuple[TrainingState, ...]:
        """The subtrees that only resuming a training needs, in file order."""
        return tuple(self.survey.training.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know, though it is no error."""
        warnings = self.container.warnings
        if self.container.damage is not None:
            warnings = (f"cut short: {self.container.damage.what}", *warnings)
        if self.root is None and self.roots:
            fits = shortened([root.path for root in self.roots])
            return (*warnings, f"several roots fit: {fits}; choose one with --root")
        return warnings

    def locate(self, entry: Entry) -> tuple[Root, str] | None:
        """Return the root that an entry is in and its name there, None where it is in none.

        The chosen root goes before those that were not chosen, an inner one before an outer one.
        """
        chosen, keys = self.root, entry.keys
        is_plain = entry.member is None and not self.container.beside and not self.survey.training
        if is_plain and chosen is not None and keys[: len(chosen.keys)] == chosen.keys:
            return chosen, _name_in(chosen, keys)
        inside = list(self.roots_of(entry))
        if not inside:
            return None
        root = chosen if chosen is not None and chosen in inside else inside[0]
        return root, _name_in(root, keys)

    def roots_of(self, entry: Entry) -> Iterator[Root]:
        """Yield the roots that an entry is in, the innermost first.

        An attribute is in none, nor is what stands beside the tree, or training state in a root.
        """
        if entry.member == "attribute" or (entry.keys and entry.keys[0] in self.container.beside):
            return
        state = self.training_of(entry) if self.survey.training else None
        for root in self.survey.roots_above(entry.keys):
            if state is None or len(state.keys) <= len(root.keys):
                yield root

    def name_of(self, entry: Entry) -> str | None:
        """Return an entry's name in the chosen root, None outside of it."""
        place = self.locate(entry)
        return place[1] if place is not None and self.is_chosen(place[0]) else None

    def is_chosen(self, root: Root) -> bool:
        """Whether a root is the chosen one; where none is, each of them counts."""
        return self.root is None or root is self.root

    def training_of(self, entry: Entry) -> TrainingState | None:
        """Return the training state that an entry is part of."""
        return self.survey.training_above(entry.keys)

    def metadata_of(self, root: Root) -> Mapping[str, Node]:
        """Return a state_dict's `_metadata`: a table per module path; empty where it has none."""
        if type(root.node) is Opaque and type(root.node.state) is dict:
            return mapping_of(root.node.state.get("_metadata")) or {}
        return {}

    def with_root(self, root: Root) -> Checkpoint:
        """Return the same open checkpoint with another root chosen."""
        roots = {**self.survey.roots, root.keys: root}
        return replace(self, root=root, survey=Survey(roots, self.survey.training))

    def close(self) -> None:
        """Give the file back."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_checkpoint(
    path: str | Path,
    *,
    root: str | None = None,
    limits: Limits | None = None,
    keep_defects: bool = False,
) -> Checkpoint:
    """Open a checkpoint without running it.

    `root` is the displayed key path of the subtree to take as the state_dict. Only the directory
    and the pickles are read. Raises CkptoolError with `path` set. With `keep_defects` a tensor that
    reaches outside its storage, or whose storage the file lacks, is no error but one of `defects`,
    and so a file that is cut short is read as far as it goes.
    """
    path = Path(path)
    with about(path), ExitStack() as unless_opened:
        source = FileSource(path)
        unless_opened.callback(source.close)
        checkpoint = _open(source, root, limits or Limits(), keep_defects)
        unless_opened.pop_all()
        return checkpoint


def _open(source: FileSource, root: str | None, limits: Limits, keep_defects: bool) -> Checkpoint:
    if source.is_directory:
        from ckptool.formats.directories import name_directory

        raise name_directory(source.path)
    container = read_container(source, limits)
    most = min(limits.leaves, _LEAVES_OF_ANY_FILE + container.tree_bytes)
    option = "leaves" if most == limits.leaves else None
    defects: list[Defect] | None = [] if keep_defects or container.damage else None
    entries: list[Entry] = []
    for above, tree in [((), container.tree), *_beside(container)]:
        entries += list_entries(
            tree,
            container.script_classes,
            most=most,
            above=above,
            defects=defects,
            option=option,
        )
    if container.damage and not keep_defects:
        raise _cut_short(source.path, container.damage, entries, defects or ())
    tree, found = container.tree, survey(container.tree)
    chosen = choose_root(found.roots.values()) if root is None else find_root(tree, root)
    if chosen is not None:
        chosen = found.roots.get(chosen.keys, chosen)
        found = Survey({**found.roots, chosen.keys: chosen}, found.training)
    is_given = root is not None
    return Checkpoint(
        source, container, tuple(entries), found, chosen, is_given, tuple(defects or ()), limits
    )


def _cut_short(
    path: Path, damage: Damage, entries: Sequence[Entry], defects: Sequence[Defect]
) -> CutShortError:
    """The error for a file of which only a part is there: how much of it, and what is not."""
    tensors = sum(entry.tensor is not None for entry in entries)
    without = {entry.path: None for entry, _ in defects}
    return CutShortError(
        damage.what,
        record=damage.record,
        offset=damage.offset,
        whole=tensors - len(without),
        tensors=tensors,
        first_without=next(iter(without), None),
        hint=f"ckptool check {quote(str(path))} names all" if without else "save it again",
    )


def _beside(container: Container) -> Iterator[tuple[KeyPath, Node]]:
    for name, tree in container.beside.items():
        yield (name,), tree


def _name_in(root: Root, keys: KeyPath) -> str:
    """The name of an entry in its root; where that is a list of pairs, the first half."""
    inside = keys[len(root.keys) :]
    match inside:
        case (key,):
            return display_key(key)
        case (int() as index, 1) if root.pairs is not None and index < len(root.pairs):
            return root.pairs[index][0]
    return display(inside)
