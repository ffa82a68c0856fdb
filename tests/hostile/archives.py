"""Archives that contradict themselves, or are not what they seem."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ckptool.errors import (
    ArchiveError,
    FileKind,
    LimitExceededError,
    NotACheckpointError,
    UnsupportedFormatError,
)
from tests import builders
from tests.builders import (
    REDUCE,
    TUPLE1,
    Tensor,
    ZipRecord,
    binunicode,
    global_,
    stream,
    torch_records,
    torch_zip,
    with_record,
    zip_archive,
)
from tests.hostile.case import EXIT_7, VALUES, Case, Opens, Refused

__all__ = ["CASES"]

_TREE: Final = {"w": VALUES}
_FOLDER: Final = "archive"
_MEGABYTE: Final = 1 << 20
_BOMB_BYTES: Final = 64 * _MEGABYTE
_INFLATION: Final = 200
_END: Final = struct.Struct("<4sHHHHIIH")
_LOCAL_NAME: Final = 30
_LOCAL_CRC: Final = 14
_LOCAL_SIZE: Final = 22
_FLAG_ENCRYPTED: Final = 0x0801
_LARGEST: Final = (1 << 64) - 1
_BZIP2, _LZMA, _AES = 12, 14, 99
_HEADERS: Final = "kim-em/lean-zip#1541"
_OVERLAPS: Final = "python/cpython#117779"
_HIDDEN: Final = "promptfoo/modelaudit#1043"
_FAIL_OPEN: Final = "protectai/modelscan#354"
_GAPS: Final = "protectai/modelscan#263"


def _evil() -> bytes:
    return stream(global_("os", "system"), binunicode(EXIT_7), TUPLE1, REDUCE)


def _records(**changes: object) -> list[ZipRecord]:
    """The records of the file, all without a descriptor, `data.pkl` changed."""
    plain = [replace(one, data_descriptor=False) for one in torch_records(_TREE)]
    return with_record(plain, "data.pkl", lambda one: replace(one, **changes))  # type: ignore[arg-type]


def _offset_of(data: bytes, name: str) -> int:
    """Where the local header of a record begins."""
    return data.index(name.encode()) - _LOCAL_NAME


def _differs(case: str, trick: str, **changes: object) -> Case:
    """The directory says this of data.pkl; its local header says the truth."""

    def build() -> bytes:
        honest = zip_archive(_records())
        lying = zip_archive(_records(**changes))
        end = honest.index(b"PK\1\2")
        return honest[:end] + lying[lying.index(b"PK\1\2") :]

    record = changes.get("name", "archive/data.pkl")
    return Case(
        case, trick, build, Refused(ArchiveError, {"record": record, "offset": 0}), _HEADERS
    )


def _patched_local(at: int, value: bytes) -> bytes:
    """An archive as torch writes it, something changed in the local header of data/0."""
    data = bytearray(torch_zip(_TREE))
    start = _offset_of(bytes(data), "archive/data/0") + at
    data[start : start + len(value)] = value
    return bytes(data)


def _local(name: str, trick: str, at: int, value: bytes) -> Case:
    data = _patched_local(at, value)
    fields = {"record": "archive/data/0", "offset": _offset_of(torch_zip(_TREE), "archive/data/0")}
    return Case(name, trick, lambda: data, Refused(ArchiveError, fields), _HEADERS)


def _end64(count: int | None = None, size: int | None = None, offset: int | None = None) -> bytes:
    """An archive whose ZIP64 end record lies, the short one pointing to it for everything."""
    data = bytearray(torch_zip(_TREE))
    end = len(data) - _END.size
    short = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data[end:] = _END.pack(b"PK\5\6", 0, 0, *short)
    end64 = end - 20 - 56
    for at, value in ((24, count), (32, count), (40, size), (48, offset)):
        if value is not None:
            data[end64 + at : end64 + at + 8] = struct.pack("<Q", value)
    return bytes(data)


def _end(field: int, value: int, width: str = "<H") -> bytes:
    """An archive without ZIP64, something changed in its end record."""
    data = bytearray(torch_zip(_TREE, zip64_end=False))
    at = len(data) - _END.size + field
    data[at : at + struct.calcsize(width)] = struct.pack(width, value)
    return bytes(data)


def _with(*extra: ZipRecord, first: Sequence[ZipRecord] = ()) -> bytes:
    return zip_archive([*first, *torch_records(_TREE), *extra])


def _extra(name: str, trick: str, record: str, outcome: Opens | Refused, thread: str = "") -> Case:
    return Case(name, trick, lambda: _with(ZipRecord(record, b"x")), outcome, thread)


def _outside(record: str) -> Refused:
    """A record that lies outside the folder of all others is named."""
    return Refused(ArchiveError, {"record": record})


def _overlapping() -> bytes:
    """The quoted kind: a thousand records of the directory share the bytes of one."""
    records = torch_records(_TREE)
    shared = [
        ZipRecord(f"archive/data/{n}", bytes(8), local_offset=0, in_local=False)
        for n in range(1, 1_000)
    ]
    return zip_archive([*records, *shared])


def _inside_another() -> bytes:
    """A record whose header and bytes lie in the bytes of another."""
    whole = zip_archive(
        [ZipRecord("archive/inner.pkl", _evil(), data_descriptor=False)], alignment=0
    )
    inner = whole[: whole.index(b"PK\1\2")]
    outer = ZipRecord("archive/outer", inner, data_descriptor=False)
    first = zip_archive([*torch_records(_TREE), outer])
    at = first.index(inner)
    hidden = ZipRecord(
        "archive/inner.pkl", _evil(), local_offset=at, in_local=False, data_descriptor=False
    )
    return zip_archive([*torch_records(_TREE), outer, hidden])


def _deflated(name: str, **changes: object) -> bytes:
    big = Tensor("uint8", (_BOMB_BYTES,), bytes(_BOMB_BYTES))
    records = with_record(
        torch_records({"w": big}),
        name,
        lambda one: replace(one, compress=True, **changes),  # type: ignore[arg-type]
    )
    return zip_archive(records)


def _wrong_inflated(claimed: int, actual: int) -> bytes:
    """A deflated storage that inflates to another size than both headers say."""
    tensor = Tensor("uint8", (claimed,), bytes(claimed))
    records = with_record(
        torch_records({"w": tensor}),
        "data/0",
        lambda one: replace(one, data=bytes(actual), compress=True, size=claimed),
    )
    return zip_archive(records)


def _twice(record: str) -> Refused:
    return Refused(ArchiveError, {"record": record})


_ANY_ARCHIVE_ERROR: Final = Refused(ArchiveError)

DIRECTORIES: Final = (
    _differs(
        "local-name-differs", "the directory has another name for data.pkl", name="archive/data.pk2"
    ),
    _differs(
        "local-size-differs", "the directory makes data.pkl shorter", size=4, compressed_size=4
    ),
    _differs(
        "local-method-differs", "the directory says deflated, the local header stored", method=8
    ),
    _differs("local-crc-differs", "the directory has another CRC", crc=1),
    _local(
        "local-size-beside-a-descriptor",
        "a local header has a size that neither its descriptor nor the directory has",
        _LOCAL_SIZE,
        struct.pack("<I", 4),
    ),
    _local(
        "local-crc-beside-a-descriptor",
        "a local header has a CRC that neither its descriptor nor the directory has",
        _LOCAL_CRC,
        struct.pack("<I", 4),
    ),
    Case(
        "duplicate-data-pkl",
        "two records are named data.pkl, and the second one has the code",
        lambda: _with(ZipRecord("archive/data.pkl", _evil())),
        _twice("archive/data.pkl"),
        _OVERLAPS,
    ),
    Case(
        "duplicate-data-pkl-first",
        "the same the other way round",
        lambda: _with(first=[ZipRecord("archive/data.pkl", _evil())]),
        _twice("archive/data.pkl"),
        _OVERLAPS,
    ),
    Case(
        "duplicate-storage",
        "two records are named data/0",
        lambda: _with(ZipRecord("archive/data/0", b"\xff" * 8)),
        _twice("archive/data/0"),
        _OVERLAPS,
    ),
    Case(
        "duplicate-but-for-case",
        "a second pickle is named DATA.PKL: torch takes names that differ in case for the same",
        lambda: _with(ZipRecord("archive/DATA.PKL", _evil())),
        _twice("archive/DATA.PKL"),
    ),
    Case(
        "overlap-a-thousand",
        "a thousand records of the directory share the bytes of one",
        _overlapping,
        _ANY_ARCHIVE_ERROR,
        _OVERLAPS,
    ),
    Case(
        "overlap-inside",
        "a record lies in the bytes of another",
        _inside_another,
        Refused(ArchiveError, {"record": "archive/inner.pkl"}),
        _OVERLAPS,
    ),
    Case(
        "local-header-behind-the-end",
        "the directory puts data.pkl at 2**63",
        lambda: zip_archive(_records(local_offset=1 << 63, zip64=True)),
        Refused(ArchiveError, {"record": "archive/data.pkl", "offset": 1 << 63}),
    ),
    Case(
        "local-header-at-2-64",
        "the directory puts data.pkl at 2**64 - 1",
        lambda: zip_archive(_records(local_offset=_LARGEST, zip64=True)),
        Refused(ArchiveError, {"record": "archive/data.pkl", "offset": _LARGEST}),
    ),
    Case(
        "zip64-size-2-64",
        "data.pkl has 2**64 - 1 bytes, by all headers",
        lambda: zip_archive(_records(size=_LARGEST, compressed_size=_LARGEST, zip64=True)),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "zip64-count-2-64",
        "the directory has 2**64 - 1 records",
        lambda: _end64(count=_LARGEST),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "zip64-directory-size-2-64",
        "the directory has 2**64 - 1 bytes",
        lambda: _end64(size=_LARGEST),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "zip64-directory-offset-2-64",
        "the directory is at 2**64 - 1",
        lambda: _end64(offset=_LARGEST),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "zip64-extra-missing",
        "sizes stand in a ZIP64 field that is not there",
        lambda: zip_archive(_records(size=0xFFFFFFFF, compressed_size=0xFFFFFFFF)),
        Refused(ArchiveError, {"record": "archive/data.pkl"}),
    ),
    Case(
        "count-too-small",
        "the end record counts fewer records than there are",
        lambda: zip_archive(torch_records(_TREE), entries=1),
        _ANY_ARCHIVE_ERROR,
        _FAIL_OPEN,
    ),
    Case(
        "count-too-large",
        "the end record counts more records than there are",
        lambda: zip_archive(torch_records(_TREE), entries=60_000),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "directory-too-small",
        "the end record makes the directory shorter than it is",
        lambda: _end(12, 46, "<I"),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "directory-elsewhere",
        "the end record puts the directory behind the end",
        lambda: _end(16, 0x7FFFFFFF, "<I"),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "split-over-disks",
        "the end record says that this is disk 3",
        lambda: _end(4, 3),
        _ANY_ARCHIVE_ERROR,
    ),
    Case(
        "extra-field-too-long",
        "a local header's extra field reaches over all that follows",
        lambda: _patched_local(28, b"\xff\xff"),
        _ANY_ARCHIVE_ERROR,
        "nih-at/libzip#551",
    ),
    Case(
        "record-that-no-directory-names",
        "a pickle lies between the records, and the directory does not say so",
        lambda: _with(ZipRecord("archive/hidden.pkl", _evil(), in_central=False)),
        stands_for=_HIDDEN,
    ),
    Case(
        "archive-behind-archive",
        "a second archive follows the first one, whose directory nobody reads",
        lambda: zip_archive(torch_records({"v": VALUES}), prefix=torch_zip(_TREE)),
        Opens(("v",)),
        _HIDDEN,
    ),
    Case(
        "end-record-in-the-comment",
        "the comment of the archive is the end record of another one",
        lambda: zip_archive(
            torch_records(_TREE), comment=_END.pack(b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
        ),
        Refused(NotACheckpointError),
    ),
)

RECORDS: Final = (
    Case(
        "bad-record-first",
        "a record before data.pkl has a compression that no reader knows",
        lambda: _with(first=[ZipRecord("archive/a", b"x", method=_AES)]),
        Refused(ArchiveError, {"record": "archive/a"}),
        _FAIL_OPEN,
    ),
    Case(
        "CVE-2025-10156",
        "a record before data.pkl has a wrong CRC, at which a scanner stops",
        lambda: _with(first=[ZipRecord("archive/a", b"x", crc=1)]),
        stands_for="CVE-2025-10156 (asamassekou10/ship-safe#43)",
    ),
    Case(
        "crc-of-data-pkl-wrong",
        "data.pkl has a wrong CRC",
        lambda: zip_archive(_records(crc=1)),
        Refused(ArchiveError, {"record": "data.pkl"}),
        "CVE-2025-10156 (asamassekou10/ship-safe#43)",
    ),
    Case(
        "encrypted-flag",
        "all records are marked as encrypted, and are not",
        lambda: zip_archive([replace(one, flags=_FLAG_ENCRYPTED) for one in torch_records(_TREE)]),
        stands_for=_GAPS,
    ),
    Case(
        "method-bzip2",
        "data.pkl is compressed in a way that torch does not read",
        lambda: zip_archive(_records(method=_BZIP2)),
        Refused(ArchiveError, {"record": "archive/data.pkl"}),
        _GAPS,
    ),
    Case(
        "method-lzma-of-a-storage",
        "a storage is",
        lambda: zip_archive(
            with_record(torch_records(_TREE), "data/0", lambda one: replace(one, method=_LZMA))
        ),
        Refused(ArchiveError, {"record": "archive/data/0"}),
        _GAPS,
    ),
    Case(
        "seven-zip",
        "a 7z archive under the name of a checkpoint",
        lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24),
        Refused(NotACheckpointError, {"file_kind": FileKind.SEVEN_ZIP}),
        "asamassekou10/ship-safe#43",
    ),
    Case(
        "CVE-2025-32434",
        "the tar of old torch, which weights_only once let through with its code",
        lambda: builders.tar_of_old_torch(),
        Refused(UnsupportedFormatError, {"file_kind": FileKind.OLD_TAR}),
        "CVE-2025-32434 (github/advisory-database#6063)",
    ),
    Case(
        "second-pickle",
        "a second pickle lies beside data.pkl",
        lambda: torch_zip(_TREE, extra_records={"payload.pkl": _evil()}),
        stands_for=_HIDDEN,
    ),
    Case(
        "pickle-among-the-storages",
        "a pickle lies among the storages, where no tensor refers to it",
        lambda: torch_zip(_TREE, extra_records={"data/1": _evil()}),
        stands_for="promptfoo/modelaudit#1098",
    ),
    Case(
        "pickle-behind-the-pickle",
        "a second pickle follows STOP in data.pkl",
        lambda: torch_zip(_TREE, data_pkl=builders.to_pickle(_TREE) + _evil()),
        stands_for="promptfoo/modelaudit#1654",
    ),
    _extra(
        "name-absolute", "a record is named /etc/passwd", "/etc/passwd", _outside("/etc/passwd")
    ),
    _extra(
        "name-of-the-parent", "a record is named ../../evil", "../../evil", _outside("../../evil")
    ),
    _extra(
        "name-of-the-parent-inside",
        "a record is named archive/../../evil",
        "archive/../../evil",
        Opens(),
    ),
    _extra(
        "name-with-backslashes",
        "a record is named archive\\..\\..\\evil",
        "archive\\..\\..\\evil",
        _outside("archive\\..\\..\\evil"),
    ),
    _extra("name-of-a-drive", "a record is named C:/evil", "C:/evil", _outside("C:/evil")),
    _extra(
        "name-with-nul",
        "a record is named data.pkl, and more behind a NUL",
        "archive/data.pkl\0.txt",
        Opens(),
    ),
    _extra("name-empty", "a record has no name", "", _outside("")),
    _extra("name-of-another-folder", "a record names another folder", "b/", _outside("b/")),
    _extra("name-of-only-the-folder", "a record is named archive/", "archive/", Opens()),
    _extra(
        "name-with-escapes",
        "a record's name clears the screen",
        "archive/\x1b[2J\x1b]0;FORGED\x07",
        Opens(),
    ),
    _extra(
        "name-with-lines",
        "a record's name begins a new line",
        "archive/x\nFORGED: nothing found\r\nFORGED",
        Opens(),
    ),
    _extra(
        "name-of-sixty-thousand",
        "a record's name has sixty thousand characters",
        "archive/" + "n" * 60_000,
        Opens(),
    ),
    Case(
        "name-that-is-not-utf-8",
        "a record's name is no text",
        lambda: _with(ZipRecord("archive/xyz", b"x")).replace(b"archive/xyz", b"archive/\xff\xfez"),
    ),
    Case(
        "folder-with-backslash",
        "the folder ends in a backslash, as of archives made on Windows",
        lambda: torch_zip(_TREE).replace(b"archive/", b"archive\\"),
        Refused(NotACheckpointError),
    ),
    Case(
        "folder-of-the-parent",
        "the archive name is '..'",
        lambda: torch_zip(_TREE, archive_name=".."),
    ),
    Case(
        "folder-with-escapes",
        "the archive name is an ESC sequence",
        lambda: torch_zip(_TREE, archive_name="\x1b[31mFORGED"),
    ),
    Case(
        "records-twenty-thousand",
        "twenty thousand records that no tensor refers to",
        lambda: _with(*(ZipRecord(f"archive/data/x{n}", b"") for n in range(20_000))),
    ),
)

BOMBS: Final = (
    Case(
        "data-pkl-deflated-1000-to-1",
        "data.pkl is 64 MB of nothing, deflated to 64 kB",
        lambda: zip_archive(
            with_record(
                torch_records(_TREE, data_pkl=bytes(_BOMB_BYTES)),
                "data.pkl",
                lambda one: replace(one, compress=True),
            )
        ),
        Refused(
            LimitExceededError,
            {"limit": "bytes per deflated byte", "allowed": _INFLATION, "option": "inflation"},
        ),
    ),
    Case(
        "data-pkl-inflates-to-more",
        "data.pkl inflates to a thousand times of what is said",
        lambda: zip_archive(
            with_record(
                torch_records(_TREE, data_pkl=bytes(_BOMB_BYTES)),
                "data.pkl",
                lambda one: replace(one, compress=True, size=70_000),
            )
        ),
        Refused(ArchiveError, {"record": "data.pkl"}),
    ),
    Case(
        "byteorder-deflated",
        "the record of the byte order is 64 MB, deflated",
        lambda: zip_archive(
            with_record(
                torch_records(_TREE),
                "byteorder",
                lambda one: replace(one, data=b"l" * _BOMB_BYTES, compress=True),
            )
        ),
        Refused(LimitExceededError, {"limit": "bytes in one record", "actual": _BOMB_BYTES}),
    ),
    Case(
        "storage-deflated",
        "a storage is 64 MB of zeros, deflated to 64 kB: honest, but large",
        lambda: _deflated("data/0"),
    ),
    Case(
        "storage-inflates-to-more",
        "a deflated storage inflates to 64 MB, and eight bytes are said",
        lambda: _wrong_inflated(8, _BOMB_BYTES),
    ),
    Case(
        "storage-inflates-to-less",
        "a deflated storage inflates to eight bytes, and 64 MB are said",
        lambda: _wrong_inflated(_BOMB_BYTES, 8),
    ),
    Case(
        "storage-of-broken-deflate",
        "a storage is said to be deflated, and is not",
        lambda: zip_archive(
            with_record(torch_records(_TREE), "data/0", lambda one: replace(one, method=8))
        ),
    ),
)

CASES: Final = (*DIRECTORIES, *RECORDS, *BOMBS)
