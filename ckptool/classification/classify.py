"""The verdict on every tensor of a checkpoint, and on every name that a model has besides.

Without a model the file's own evidence decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptool.checkpoint.opening import Checkpoint
from ckptool.classification.evidence import classify_by_evidence
from ckptool.classification.roles import AbsentTensor, ClassifiedEntry
from ckptool.errors import about

if TYPE_CHECKING:
    from ckptool.classification.matching import ModelMatch
    from ckptool.spec.strict_load import Model

__all__ = ["Classification", "classify"]


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Every tensor and extra state of a checkpoint with what it is, in file order.

    `checkpoint` has the root that the model fits; `match` is None without a model.
    """

    checkpoint: Checkpoint
    entries: tuple[ClassifiedEntry, ...]
    match: ModelMatch | None = None

    @property
    def absent(self) -> tuple[AbsentTensor, ...]:
        """The names that the model has and the root has not."""
        return () if self.match is None else self.match.absent


def classify(checkpoint: Checkpoint, model: Model | None = None) -> Classification:
    """Say of every tensor what it is, and with a model how it stands to it.

        >>> from ckptool import classify, load_model_spec, open_checkpoint
        >>> model = load_model_spec("models.py:MyModel(10, 5)")
        >>> with open_checkpoint("model.pt") as checkpoint:
        ...     for one in classify(checkpoint, model).entries:
        ...         print(one.name, one.role, one.is_persistent, one.status)

    Raises AmbiguousRootError where several roots fit the model equally well and the user named
    none.
    """
    with about(checkpoint.path):
        if model is None:
            return Classification(checkpoint, classify_by_evidence(checkpoint))
        from ckptool.classification.align import fit_root

        checkpoint = fit_root(checkpoint, model.spec)
        by_file = classify_by_evidence(checkpoint)
        if checkpoint.root is None:
            return Classification(checkpoint, by_file)
        from ckptool.classification.matching import match_root

        entries, match = match_root(checkpoint, checkpoint.root, model, by_file)
        return Classification(checkpoint, entries, match)
