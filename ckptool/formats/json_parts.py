"""JSON in a record, read part by part: each part has to be what its format says it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from ckptool.errors import ArchiveError
from ckptool.formats.archive import Archive, read_record
from ckptool.pickling.limits import Limits
from ckptool.tensors.refs import LARGEST_COUNT

__all__ = ["JsonPart", "read_json"]


class JsonPart(NamedTuple):
    """A part of a record's JSON; `place` is where it is, for the error that it is not as it should.

    Every method raises ArchiveError for a value of another kind.
    """

    record: str
    place: str
    value: Any

    def at(self, key: str) -> JsonPart:
        """The part of a table under a key that has to be there."""
        found = self.find(key)
        if found is None:
            raise self.wrong(f"has no {key!r}")
        return found

    def find(self, key: str) -> JsonPart | None:
        """The part under a key, None where it is absent or null."""
        value = self.table().get(key)
        return None if value is None else JsonPart(self.record, f"{self.place}.{key}", value)

    def parts(self) -> Iterator[JsonPart]:
        """The elements of a list."""
        if type(self.value) is not list:
            raise self.wrong("is no list")
        for index, value in enumerate(self.value):
            yield JsonPart(self.record, f"{self.place}[{index}]", value)

    def table(self) -> dict[str, Any]:
        """A table as it is."""
        if type(self.value) is not dict:
            raise self.wrong("is no table")
        return self.value

    def text(self) -> str:
        """A string."""
        if type(self.value) is not str:
            raise self.wrong("is no string")
        return self.value

    def flag(self) -> bool:
        """A boolean."""
        if type(self.value) is not bool:
            raise self.wrong("is neither true nor false")
        return self.value

    def number(self) -> int:
        """A number of elements, or one that stands for something."""
        if type(self.value) is not int or not 0 <= self.value <= LARGEST_COUNT:
            raise self.wrong("is no count")
        return self.value

    def wrong(self, problem: str) -> ArchiveError:
        """The error that this part is not as torch writes it."""
        return ArchiveError(f"{self.place or 'the JSON'} {problem}", record=self.record)


def read_json(archive: Archive, record: str, limits: Limits) -> JsonPart:
    """Return the whole JSON of a record; raise ArchiveError where it is none."""
    data = read_record(archive.records[record], limits, name=record, most=limits.header_bytes)
    try:
        return JsonPart(record, "", json.loads(data.decode()))
    except RecursionError as error:
        raise ArchiveError("its JSON is nested too deeply", record=record) from error
    except ValueError as error:
        raise ArchiveError(f"is not JSON: {error}", record=record) from error
