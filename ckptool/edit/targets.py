"""What operations are about: the root that is edited, its names, and paths from the top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from ckptool.analysis.selection import check_patterns, name_matcher
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.keypath import KeyPath, display
from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root, shortened
from ckptool.classification.classify import Classification, classify
from ckptool.classification.roles import ClassifiedEntry
from ckptool.errors import AmbiguousRootError, EntryNotFoundError

if TYPE_CHECKING:
    from ckptool.classification.matching import ModelMatch
    from ckptool.spec.strict_load import Model

__all__ = ["Targets", "ambiguous", "is_from_top"]

_FROM_TOP: Final = "/"


class Targets:
    """The parts of a checkpoint that can be named.

    The root is looked for when an operation is about it, so that others work where none is chosen.
    """

    def __init__(self, checkpoint: Checkpoint, model: Model | None) -> None:
        self.checkpoint = checkpoint
        self.model = model
        self._contents: Classification | None = None
        self._names: dict[str, KeyPath] | None = None

    @property
    def root(self) -> Root | None:
        """The root, None while no operation was about it and none is chosen."""
        return self.checkpoint.root

    @property
    def has_looked_inside(self) -> bool:
        """Whether an operation was about the root."""
        return self._contents is not None

    def take_root(self, root: Root) -> None:
        """Choose a root, before any operation is about it."""
        self.checkpoint = self.checkpoint.with_root(root)

    def require_root(self) -> Root:
        """Return the root that the edit is about; raise where there is none, or several fit."""
        self._classified()
        if self.checkpoint.root is None:
            raise EntryNotFoundError("a state_dict")
        return self.checkpoint.root

    def inside(self) -> list[ClassifiedEntry]:
        """Return the tensors and extra states in the root with what they are."""
        return [one for one in self._classified().entries if one.name is not None]

    def match(self) -> ModelMatch | None:
        """Return how the root stands to the model, None without one."""
        return self._classified().match

    def names(self) -> dict[str, KeyPath]:
        """Return all names in the root, those of other values than tensors too.

        What a safetensors file says of itself is none.
        """
        if self._names is None:
            self._classified()
            checkpoint = self.checkpoint
            self._names = {
                name: self.place(entry)
                for entry in checkpoint.entries
                if entry.tensor is not None or checkpoint.format != "safetensors"
                if (name := checkpoint.name_of(entry)) is not None
            }
        return self._names

    def root_tensors(self) -> dict[str, Entry]:
        """Return the tensors in the chosen root by their names, none where no root is chosen."""
        checkpoint = self.checkpoint
        if checkpoint.root is None:
            return {}
        named = ((checkpoint.name_of(one), one) for one in checkpoint.entries if one.tensor)
        return {name: entry for name, entry in named if name is not None}

    def place(self, entry: Entry) -> KeyPath:
        """Return the key path that goes with an entry: of a pair of name and tensor, the pair."""
        root = self.checkpoint.root
        is_pair = root is not None and root.pairs is not None and entry.keys[-1] == 1
        return entry.keys[:-1] if is_pair else entry.keys

    def paths(self) -> dict[str, KeyPath]:
        """Return all paths from the top, of containers and of what is in them."""
        return {
            _FROM_TOP + display(entry.keys[:n]): entry.keys[:n]
            for entry in self.checkpoint.entries
            for n in range(1, len(entry.keys) + 1)
        }

    def matching(self, patterns: Sequence[str]) -> Iterator[KeyPath]:
        """Yield what patterns match; raise EntryNotFoundError for one that matches nothing.

        One with `!` before it leaves out what others match.
        """
        for is_rooted, listed in ((False, self.names), (True, self.paths)):
            asked = [one for one in patterns if is_from_top(one) == is_rooted]
            if asked:
                known = listed()
                check_patterns(asked, list(known))
                is_wanted = name_matcher(asked)
                yield from (keys for name, keys in known.items() if is_wanted(name))

    def _classified(self) -> Classification:
        if self._contents is None:
            checkpoint = self.checkpoint
            if checkpoint.root is None and checkpoint.roots and self.model is None:
                raise ambiguous(checkpoint, "choose one with --root")
            self._contents = classify(checkpoint, self.model)
            self.checkpoint = self._contents.checkpoint
        return self._contents


def is_from_top(pattern: str) -> bool:
    """Whether a pattern is for paths from the top, and not for names in the root."""
    return pattern.removeprefix("!").startswith(_FROM_TOP)


def ambiguous(checkpoint: Checkpoint, what_to_do: str) -> AmbiguousRootError:
    """The error that an edit is about one root, and several fit."""
    paths = [root.path for root in checkpoint.roots]
    hint = f"{what_to_do}: {shortened(paths)}"
    return AmbiguousRootError("fit, and the edit is about one", roots=paths, hint=hint)
