"""What ckptool and torch say of the same load, for every architecture and every damage."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import torch

from ckptool import check, load_model_spec, open_checkpoint
from ckptool.spec.document import write_document
from ckptool.spec.strict_load import Model, StrictLoad
from tests.truth.architectures import ARCHITECTURES, build, build_saved
from tests.truth.damages import DAMAGES, copy_of
from tests.truth.strict_oracle import Answer, load_strictly

__all__ = ["FORMS", "Form", "Loads", "Outcome", "model_of"]

Form: TypeAlias = Literal["live", "frozen"]
FORMS: Final[tuple[Form, ...]] = ("live", "frozen")


class Outcome(NamedTuple):
    """The answers of torch and of ckptool."""

    expected: Answer
    found: StrictLoad

    @property
    def is_unknown(self) -> bool:
        return self.found.is_ok is None

    @property
    def is_right(self) -> bool:
        """Whether ckptool's answer is torch's, down to the names where torch tells them."""
        expected, found = self
        names = (found.missing, found.unexpected, found.shape)
        is_same = expected[1:4] == tuple(map(frozenset, names)) or not expected.has_names
        return found.is_ok == expected.is_ok and is_same


class Loads:
    """The outcomes of an architecture by damage, worked out once; files go to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, Form], dict[str, Outcome]] = {}

    def of(self, name: str, form: Form) -> dict[str, Outcome]:
        if (name, form) not in self._known:
            self._known[name, form] = self._outcomes(name, model_of(name, form, self._folder))
        return self._known[name, form]

    def _outcomes(self, name: str, model: Model) -> dict[str, Outcome]:
        saved = build_saved(name)
        path = self._folder / "damaged.pt"
        outcomes = {}
        for damage, inflict in DAMAGES.items():
            state = inflict(copy_of(saved.state_dict()), saved)
            if state is None:
                continue
            torch.save(state, path)
            with open_checkpoint(path) as checkpoint:
                found = check(checkpoint, model).strict_load
            assert found is not None
            # A load gives lazy layers their shapes, so each gets a model of its own.
            outcomes[damage] = Outcome(load_strictly(build(name), state), found)
        return outcomes


def model_of(name: str, form: Form, folder: Path) -> Model:
    """An architecture as a live model, or from a spec file made of that."""
    live = _live(name)
    if form == "live":
        return live
    path = folder / "spec.json"
    path.write_text(write_document(live.spec))
    return load_model_spec(path)


@cache
def _live(name: str) -> Model:
    return load_model_spec(ARCHITECTURES[name])
