"""Names in the file against names in the model: the prefix between them, and the root that fits.

Wrappers put their own attribute before every name (`module.` of DistributedDataParallel,
`_orig_mod.` of torch.compile), and a model can be a part of another (`model.`, `bert.`). Which
prefix it is gets read off the names themselves, so that chains of any wrappers are found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from ckptool.checkpoint.opening import Checkpoint
from ckptool.checkpoint.roots import Root, find_root, shortened
from ckptool.checkpoint.state_dict import StateDict, state_dicts_of
from ckptool.errors import AmbiguousRootError
from ckptool.spec.model_spec import ModelSpec, TensorSpec
from ckptool.tensors.refs import TensorRef

__all__ = ["LEAST_SHARE", "Alignment", "align", "endings_of", "fit_root", "prefix_pairs"]

# Further in, a common part of two names is more likely chance than a wrapper's attribute.
_DEEPEST_PREFIX: Final = 8
_PREFIXES_OF_ONE_NAME: Final = 8
_CANDIDATES: Final = 8
LEAST_SHARE: Final = 1 / 3
"""What a smaller share of the names agrees on is no prefix."""

Endings: TypeAlias = Mapping[str, Sequence[str]]
"""Names by how they end behind one of their dots: the parts before it."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How names of the file become names of the model: `strip` goes, then `add` comes before them.

    Without `strip` every name gets `add`; with it only names that begin with it are touched.
    `matched` counts the names that the model has after that, `matched_as_is` before.
    """

    strip: str
    add: str
    matched: int
    matched_as_is: int

    @property
    def is_identity(self) -> bool:
        """Whether names stay as they are."""
        return not self.strip and not self.add

    def rename(self, name: str) -> str:
        """Return the model's name for a name in the file."""
        if not name.startswith(self.strip):
            return name
        return self.add + name[len(self.strip) :]


def align(
    state: StateDict, spec: ModelSpec, *, is_fitting: bool = False, endings: Endings | None = None
) -> Alignment:
    """Find the prefix with which most names of a state_dict are the model's.

    One that would give two names to one is none. Names as they are go before any prefix that
    matches no more of them, and before all where they are known to be `is_fitting`. `endings` are
    those of the model's names, where they are known already.
    """
    names = [name for name, tensor in state.tensors.items() if tensor is not None]
    known = spec.tensors
    matching = [name for name in names if name in known]
    as_is = len(matching)
    best = Alignment("", "", as_is, as_is)
    if is_fitting or as_is in (len(names), len(known)):
        return best
    agreeing = sum(_has_its_shape(known[name], state.tensors[name]) for name in matching)
    for strip, add in prefix_pairs(names, endings_of(known) if endings is None else endings):
        # Where some names match as they are, another part in the place of one is another module.
        if strip and add and as_is:
            continue
        candidate = Alignment(strip, add, 0, as_is)
        renamed = {candidate.rename(name): name for name in names}
        if len(renamed) < len(names):
            continue
        pairs = [(known[new], state.tensors[old]) for new, old in renamed.items() if new in known]
        alike = sum(_has_its_shape(*pair) for pair in pairs)
        is_many = len(pairs) >= LEAST_SHARE * min(len(names), len(known))
        if is_many and len(pairs) > as_is and (alike, len(pairs)) > (agreeing, best.matched):
            best, agreeing = Alignment(strip, add, len(pairs), as_is), alike
    return best


def _has_its_shape(expected: TensorSpec, tensor: TensorRef | None) -> bool:
    return tensor is not None and expected.shape in (None, tensor.shape)


def endings_of(names: Iterable[str]) -> Endings:
    """Return the model's names by how they end, each with what stands before that."""
    endings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for prefix, ending in _cuts(name):
            if len(endings[ending]) < _PREFIXES_OF_ONE_NAME:
                endings[ending].append(prefix)
    return endings


def prefix_pairs(names: Iterable[str], endings: Endings) -> Iterator[tuple[str, str]]:
    """Yield the pairs of prefixes behind which names go on alike, those of the most names first.

    The first of a pair stands before `names`, the second before the names that `endings` are of.
    """
    votes: Counter[tuple[str, str]] = Counter()
    for name in names:
        for prefix, ending in _cuts(name):
            if ending in endings:
                votes.update((prefix, other) for other in endings[ending])
                break
    return (pair for pair, _ in votes.most_common(_CANDIDATES) if pair[0] != pair[1])


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """The ways to cut a name behind a dot, the one with the shortest prefix first."""
    at = 0
    for _ in range(_DEEPEST_PREFIX):
        yield name[:at], name[at:]
        at = name.find(".", at) + 1
        if not at:
            return


# The root --------------------------------------------------------------------------------------


def fit_root(checkpoint: Checkpoint, spec: ModelSpec) -> Checkpoint:
    """Return the checkpoint with the root that a model fits best, unless the user named one.

    Raises AmbiguousRootError where two fit equally well, or none can be chosen.
    """
    if checkpoint.is_root_given or len(checkpoint.roots) < 2:
        return _checked(checkpoint)
    endings = endings_of(spec.tensors)
    matches = {
        root.keys: align(state, spec, endings=endings).matched
        for root, state in state_dicts_of(checkpoint, checkpoint.roots)
    }
    most = max(matches.values())
    best = [root for root in checkpoint.roots if matches[root.keys] == most]
    if not most:
        return _checked(checkpoint)
    if len({id(root.node) for root in best}) > 1:
        raise _ambiguous("fit the model equally well", best)
    return checkpoint.with_root(best[0])


def _checked(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.root is None:
        if not checkpoint.roots:
            # A state_dict without tensors: an empty one, or one of other values.
            return checkpoint.with_root(find_root(checkpoint.container.tree, ""))
        raise _ambiguous("are there, and none fits the model", checkpoint.roots)
    return checkpoint


def _ambiguous(why: str, roots: Sequence[Root]) -> AmbiguousRootError:
    paths = [root.path for root in roots]
    return AmbiguousRootError(why, roots=paths, hint=f"choose one with --root: {shortened(paths)}")
