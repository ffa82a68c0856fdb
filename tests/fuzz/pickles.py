"""Mutations of a pickle, opcode by opcode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

from tests import builders
from tests.fuzz.blind import BLIND, Mutator
from tests.fuzz.edges import NAMES, edge_number
from tests.fuzz.opcodes import ALIKE, KINDS, Argument, argument_of, split, with_argument

__all__ = ["CHANGES", "PICKLE", "change_pickle"]

Change: TypeAlias = Callable[[Random, list[bytes]], list[bytes]]

_MOST_CHANGES = 3

_LINES: Final = (
    b"", b"0", b"-1", b"00", b"01", b"1L", b"1_000", b" 1", b"0x10", b"9" * 30, b"9" * 5000, b"1e5",
    b"nan", b"-inf", b"''", b'"', b"'\\x'", b"'a", b"\\u123", b"\\ud800", b"\xff", b"\0", b"a b",
    b"torch", b"os",
)  # fmt: skip
_CONTENTS: Final = (
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"a" * 300, b"storage", b"cpu", b"cuda:0", b"0", b"-1",
    b"torch.sparse_coo", b"latin1", b"data", b"\x1b[2J",
    builders.to_pickle(builders.MAGIC_NUMBER),
)  # fmt: skip
_VALUES: Final = (
    builders.NONE, builders.NEWTRUE, builders.NEWFALSE, builders.EMPTY_LIST, builders.EMPTY_TUPLE,
    builders.EMPTY_DICT, builders.EMPTY_SET, builders.binint1(0), builders.binint1(1),
    builders.binint(-1), builders.binint((1 << 31) - 1), builders.long1(1 << 62),
    builders.long1((1 << 63) - 1), builders.long1(1 << 63), builders.long1(-(1 << 63)),
    builders.long1(1 << 70), builders.long1(1 << 2000), builders.binfloat(float("nan")),
    builders.binfloat(float("inf")), builders.binfloat(1e308), builders.binfloat(-0.0),
    builders.binunicode(""), builders.binunicode("\ud800"), builders.short_binbytes(b"\0"),
    builders.bytearray8(b"ab"), builders.binget(0), builders.binget(1), builders.binget(3),
)  # fmt: skip
_GLOBALS: Final = tuple(
    builders.global_(module, name)
    for module, names in {
        "torch._utils": (
            "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
            "_rebuild_parameter_with_state", "_rebuild_sparse_tensor", "_rebuild_qtensor",
            "_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage",
            "_rebuild_wrapper_subclass", "_rebuild_xla_tensor",
            "_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor",
        ),
        "torch._tensor": ("_rebuild_from_type", "_rebuild_from_type_v2"),
        "torch.nested._internal.nested_tensor": ("_rebuild_njt",),
        "torch.storage": ("UntypedStorage", "_load_from_bytes", "TypedStorage"),
        "torch": ("Size", "device", "float32", "bfloat16", "BoolStorage", "ComplexDoubleStorage"),
        "torch.serialization": ("_get_layout",),
        "torch.jit._pickle": ("build_intlist", "restore_type_tag"),
        "collections": ("OrderedDict", "defaultdict", "Counter", "deque"),
        "builtins": ("set", "frozenset", "complex", "bytes", "bytearray", "slice", "range"),
        "__builtin__": ("set", "complex", "bytes"),
        "_codecs": ("encode",),
        "copyreg": ("_reconstructor", "__newobj__"),
        "numpy.core.multiarray": ("_reconstruct", "scalar"),
        "numpy": ("dtype", "ndarray"),
        "": ("",),
        "os": ("system", "path.join"),
    }.items()
    for name in names
)  # fmt: skip


def change_argument(random: Random, opcodes: list[bytes]) -> list[bytes]:
    at = _pick(random, [i for i, code in enumerate(opcodes) if _kind(code) != Argument()])
    if at is not None:
        opcodes[at] = _with_edge(random, opcodes[at])
    return opcodes


def _with_edge(random: Random, opcode: bytes) -> bytes:
    kind = _kind(opcode)
    if kind.fixed:
        old = int.from_bytes(opcode[1:], "little")
        return opcode[:1] + edge_number(random, kind.fixed, old).to_bytes(kind.fixed, "little")
    if kind.lines:
        lines = argument_of(opcode).split(b"\n")
        lines[random.randrange(len(lines))] = random.choice(_LINES)
        return with_argument(opcode, b"\n".join(lines))
    if random.random() < 0.2:  # a count that lies
        end = 1 + kind.counted
        count = edge_number(random, kind.counted, int.from_bytes(opcode[1:end], "little"))
        return opcode[:1] + count.to_bytes(kind.counted, "little") + opcode[end:]
    content = argument_of(opcode)
    if random.random() < 0.5:
        content = random.choice(list(BLIND.values()))(random, content)
    elif random.random() < 0.5:
        content = random.choice(_CONTENTS)
    else:
        content = random.choice(NAMES).encode("utf-8", "surrogatepass")
    return with_argument(opcode, content)


def change_opcode(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Put another opcode in place of one, before the same argument."""
    at = _pick(random, opcodes)
    if at is not None and opcodes[at][0] in KINDS:
        opcodes[at] = bytes((random.choice(ALIKE[_kind(opcodes[at])]),)) + opcodes[at][1:]
    return opcodes


def change_value(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Put another value in place of one, so that calls get what they do not expect."""
    pushes = [i for i, code in enumerate(opcodes) if code[:1] in b"NKMJGXUTCB\x88\x89\x8a\x8c)]}h"]
    at = _pick(random, pushes)
    if at is not None:
        opcodes[at] = random.choice(_VALUES)
    return opcodes


def change_global(random: Random, opcodes: list[bytes]) -> list[bytes]:
    at = _pick(random, [i for i, code in enumerate(opcodes) if code[:1] == b"c"])
    if at is not None:
        opcodes[at] = random.choice(_GLOBALS)
    return opcodes


def insert_opcode(random: Random, opcodes: list[bytes]) -> list[bytes]:
    code = random.choice(tuple(KINDS))
    bare = bytes((code,)) + b"\0" * KINDS[code].fixed
    whole = with_argument(bare, b"0") if KINDS[code].lines or KINDS[code].counted else bare
    inserted = random.choice((whole, random.choice(_VALUES), random.choice(_GLOBALS)))
    opcodes.insert(random.randrange(len(opcodes) + 1), inserted)
    return opcodes


def drop_opcodes(random: Random, opcodes: list[bytes]) -> list[bytes]:
    start = random.randrange(len(opcodes) + 1)
    del opcodes[start : start + random.choice((1, 1, 1, 2, 3, 10))]
    return opcodes


def swap_opcodes(random: Random, opcodes: list[bytes]) -> list[bytes]:
    if opcodes:
        one = random.randrange(len(opcodes))
        other = min(len(opcodes) - 1, one + random.choice((1, 1, 2, 5, 40)))
        opcodes[one], opcodes[other] = opcodes[other], opcodes[one]
    return opcodes


def repeat_opcodes(random: Random, opcodes: list[bytes]) -> list[bytes]:
    start = random.randrange(len(opcodes) + 1)
    end = start + random.choice((1, 1, 2, 5, 20))
    times = random.choice((1, 1, 1, 2, 30))
    return opcodes[:end] + opcodes[start:end] * times + opcodes[end:]


def move_opcodes(random: Random, opcodes: list[bytes]) -> list[bytes]:
    start = random.randrange(len(opcodes) + 1)
    end = start + random.choice((1, 2, 5, 20))
    moved, rest = opcodes[start:end], opcodes[:start] + opcodes[end:]
    at = random.randrange(len(rest) + 1)
    return rest[:at] + moved + rest[at:]


def splice(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Put a run of opcodes of another pickle in place of one."""
    from tests.fuzz.seeds import pickles  # which are found in archives, whose mutations use these

    other = split(random.choice(pickles()))
    start, at = random.randrange(len(other)), random.randrange(len(opcodes) + 1)
    length, room = random.choice((1, 3, 10, 40)), random.choice((0, 1, 3, 10))
    return opcodes[:at] + list(other[start : start + length]) + opcodes[at + room :]


def cut_opcodes(random: Random, opcodes: list[bytes]) -> list[bytes]:
    kept = opcodes[: random.randrange(len(opcodes) + 1)]
    return [*kept, builders.STOP] if random.random() < 0.7 else kept


def nest(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Wrap what is on the stack many times, or hide it below many empty containers."""
    depth = random.choice((3, 100, 490, 505, 3000))
    around = random.choice((builders.TUPLE1, builders.EMPTY_TUPLE + builders.TUPLE2))
    below = random.choice((builders.MARK, builders.EMPTY_LIST, builders.NONE))
    at = random.randrange(len(opcodes) + 1)
    inserted = random.choice(
        ([around * depth], [below * depth], [below * depth, builders.APPEND * depth])
    )
    return opcodes[:at] + inserted + opcodes[at:]


def share(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Let a value hold itself twice again and again: paths grow exponentially."""
    doubled = random.choice(
        (
            builders.DUP + builders.TUPLE2,
            builders.binput(9) + builders.EMPTY_LIST + builders.binget(9) + builders.APPEND
            + builders.binget(9) + builders.APPEND,
            builders.MARK + builders.binget(1) * 3 + builders.LIST + builders.binput(1),
        )
    )  # fmt: skip
    at = random.randrange(len(opcodes) + 1)
    return [*opcodes[:at], doubled * random.choice((3, 12, 30, 60)), *opcodes[at:]]


def close_cycle(random: Random, opcodes: list[bytes]) -> list[bytes]:
    """Put something that was made before into the container that is being filled."""
    index = random.randrange(12)
    recalled = random.choice((builders.binget(index), builders.DUP))
    inside = random.choice(
        (
            recalled + builders.APPEND,
            builders.binint1(index) + recalled + builders.SETITEM,
            recalled + builders.BUILD,
            builders.MARK + recalled + recalled + builders.SETITEMS,
            recalled + builders.TUPLE1 + builders.REDUCE,
        )
    )
    at = random.randrange(len(opcodes) + 1)
    return [*opcodes[:at], inside, *opcodes[at:]]


CHANGES: Final[dict[str, Change]] = {
    "change_argument": change_argument,
    "change_opcode": change_opcode,
    "change_value": change_value,
    "change_global": change_global,
    "insert_opcode": insert_opcode,
    "drop_opcodes": drop_opcodes,
    "swap_opcodes": swap_opcodes,
    "repeat_opcodes": repeat_opcodes,
    "move_opcodes": move_opcodes,
    "splice": splice,
    "cut_opcodes": cut_opcodes,
    "nest": nest,
    "share": share,
    "close_cycle": close_cycle,
}
_WEIGHTS: Final = (5, 3, 6, 3, 3, 3, 2, 2, 1, 2, 1, 1, 1, 2)


def change_pickle(random: Random, data: bytes) -> bytes:
    """Change a pickle in a few places; the lengths of its frames are mostly put right."""
    opcodes = list(split(data))
    for change in random.choices(
        list(CHANGES.values()), _WEIGHTS, k=random.randint(1, _MOST_CHANGES)
    ):
        opcodes = change(random, opcodes)
    if random.random() < 0.8:
        _mend_frames(opcodes)
    return b"".join(opcodes)


def _mend_frames(opcodes: list[bytes]) -> None:
    for at, opcode in enumerate(opcodes):
        if opcode[:1] == b"\x95":
            opcodes[at] = builders.frame(sum(map(len, opcodes[at + 1 :])))


def _kind(opcode: bytes) -> Argument:
    return KINDS.get(opcode[0], Argument()) if opcode else Argument()


def _pick(random: Random, places: Sequence[int] | list[bytes]) -> int | None:
    """One of these places; of a whole list of opcodes, any place in it."""
    if not places:
        return None
    chosen = random.randrange(len(places))
    place = places[chosen]
    return place if isinstance(place, int) else chosen


PICKLE: Final[dict[str, Mutator]] = {"change_pickle": change_pickle}
