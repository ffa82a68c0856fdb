"""Every case opens with its tensors, or is refused with the one error that says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptool import open_checkpoint
from ckptool.errors import CkptoolError
from tests import builders, strategies
from tests.hostile.case import Case, Opens
from tests.hostile.cases import CASES
from tests.hostile.every_command import COMMANDS, FILE, FINDING, run_built
from tests.hostile.readme import table

README = Path(__file__).with_name("README.md")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_opens_or_is_refused_in_its_one_way(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pt"
    path.write_bytes(case.build())
    if isinstance(case.outcome, Opens):
        with open_checkpoint(path) as checkpoint:
            tensors = tuple(entry.path for entry in checkpoint.entries if entry.tensor is not None)
        assert tensors == case.outcome.tensors
        return
    with pytest.raises(CkptoolError) as caught:
        open_checkpoint(path)
    assert type(caught.value) is case.outcome.error
    said = {name: getattr(caught.value, name) for name in case.outcome.fields}
    assert said == case.outcome.fields


def test_the_table_in_the_readme_is_that_of_the_cases() -> None:
    assert table() in README.read_text(), "python -m tests.hostile --table prints it"


@given(tree=strategies.trees(), data=st.data())
def test_a_broken_pickle_in_a_sound_archive_ends_in_an_answer(
    tree: object, data: st.DataObject, tmp_path: Path
) -> None:
    storages = builders.StorageTable()
    pickle = data.draw(strategies.mutations(builders.to_pickle({"t": tree}, table=storages)))
    records = [builders.ZipRecord("archive/data.pkl", pickle)]
    records += [
        builders.ZipRecord(f"archive/data/{key}", storage.data)
        for key, storage in storages.by_key.items()
    ]
    path = tmp_path / "broken.pt"
    path.write_bytes(builders.zip_archive(records))
    for command in COMMANDS:
        if "-o" not in command:
            code = run_built([path if part == FILE else part for part in command], tmp_path)
            assert code in ((0, 1, 2) if command[0] in FINDING else (0, 2))
