"""An inert tree to pickle bytes: the reader's inverse, which imports and looks up nothing either.

A tree that was read from a pickle of Python 3's C pickler becomes the same bytes again: the memo
is numbered, items are batched and frames are cut as `Modules/_pickle.c` does it. What another
pickler wrote comes out in that form, and is stable from then on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from ckptool.pickling.nodes import (
    ExtensionCode,
    Global,
    Node,
    Opaque,
    OutOfBandBuffer,
    PersistentId,
)
from ckptool.pickling.spelling import (
    ATOMS,
    LONGEST_REFERENCE,
    is_line,
    line,
    refer,
    reference,
    spelled,
)

__all__ = ["write_pickle"]

_BATCH: Final = 1000
_FRAME_BYTES: Final = 1 << 16
_LEAST_FRAME: Final = 4
_FRAME_HEADER: Final = 9
_LEAST_OWN: Final = 2
"""Shorter strings than this are one object for all that are equal."""
_LONGEST_SHORT: Final = 0xFF

_UINT32: Final = struct.Struct("<I").pack
_UINT64: Final = struct.Struct("<Q").pack


def write_pickle(
    tree: Node,
    *,
    protocol: int,
    replaced: Mapping[int, Node] | None = None,
    lower: Callable[[Node], Node] | None = None,
    source: bytes = b"",
) -> bytes:
    """Return a tree as a pickle; protocols below 1 are written as 1.

    `replaced` says by the identity of a node what is written in its place, wherever it stands.
    `lower` turns a format's own node into the call that it was read from. `source` is the pickle
    that the tree was read from: it tells which short strings were one object, as far as nothing
    was edited before them.
    """
    writer = _Writer(max(protocol, 1), replaced or {}, lower, source)
    return writer.write(tree)


class _Writer:
    """Saves one node after the other; what comes later waits in `_pending`, the next one last.

    Nothing recurses, so that any depth that could be read can be written. Opcodes go into `_out`,
    which in protocols with frames is the frame that is open.
    """

    def __init__(
        self,
        protocol: int,
        replaced: Mapping[int, Node],
        lower: Callable[[Node], Node] | None,
        source: bytes,
    ) -> None:
        self._protocol = protocol
        self._replaced = replaced
        self._lower = lower
        self._source = source
        self._head = 2 if protocol >= 2 else 0
        self._short: dict[int, str | bytes] = {}
        self._out = bytearray()
        self._framed: bytearray | None = bytearray() if protocol >= 4 else None
        self._memo: dict[int, int] = {}
        self._memoized = 0
        self._pending: list[tuple[Callable[[Any], None], Any]] = []

    def write(self, tree: Node) -> bytes:
        head = b"\x80%c" % self._protocol if self._protocol >= 2 else b""
        self._pending.append((self._save, tree))
        while self._pending:
            step, argument = self._pending.pop()
            step(argument)
        self._out += b"."
        if self._framed is None:
            return head + self._out
        self._close_frame()
        return head + self._framed

    # What every node goes through ---------------------------------------------------------------

    def _save(self, node: Node) -> None:
        if self._framed is not None and len(self._out) >= _FRAME_BYTES:
            self._close_frame()
        node = self._replaced.get(id(node), node)
        kind = type(node)
        if kind in ATOMS:
            self._out += ATOMS[kind](node, self._protocol)
            return
        if self._lower is not None and kind not in _SAVERS:
            node = self._lower(node)
            kind = type(node)
        index = self._memo.get(id(node))
        if index is None:
            _SAVERS[kind](self, node)
        elif self._source and kind in (str, bytes) and len(node) < _LEAST_OWN:
            self._repeat(node, index)
        else:
            self._refer(index)

    def _save_all(self, nodes: Sequence[Node]) -> None:
        """Save nodes one behind the other: at once as far as they are atoms."""
        for at, node in enumerate(nodes):
            if type(node) not in ATOMS:
                self._pending.extend([(self._save, later) for later in reversed(nodes[at:])])
                return
            self._save(node)

    def _emit(self, opcode: bytes) -> None:
        self._out += opcode

    def _then(self, step: Callable[[Any], None], argument: Any) -> None:
        """Take a step when all that is saved after this call is written."""
        self._pending.append((step, argument))

    def _memoize(self, node: Node) -> None:
        index = self._memoized
        self._memoized += 1
        self._memo[id(node)] = index
        if self._protocol >= 4:
            self._out += b"\x94"
        elif index <= _LONGEST_SHORT:
            self._out += b"q%c" % index
        else:
            self._out += b"r" + _UINT32(index)

    def _refer(self, index: int) -> None:
        self._out += refer(index)

    def _is_made(self, node: Node, discard: bytes) -> bool:
        """Whether a node that holds itself was made on the way: what was saved goes again."""
        index = self._memo.get(id(node))
        if index is None:
            return False
        self._out += discard
        self._refer(index)
        return True

    # Frames -------------------------------------------------------------------------------------

    def _close_frame(self) -> None:
        if self._framed is not None:
            if len(self._out) >= _LEAST_FRAME:
                self._framed += b"\x95" + _UINT64(len(self._out))
            self._framed += self._out
            self._out.clear()

    def _emit_data(self, header: bytes, data: bytes | bytearray) -> None:
        """Write a string; a long one stands between two frames."""
        if self._framed is None or len(data) < _FRAME_BYTES:
            self._out += header
            self._out += data
        else:
            self._close_frame()
            self._framed += header
            self._framed += data

    # Text and bytes -----------------------------------------------------------------------------

    def _save_text(self, node: str | bytes) -> None:
        self._emit_data(*spelled(node, self._protocol))
        if len(node) < _LEAST_OWN:
            self._short[self._memoized] = node
        self._memoize(node)

    def _repeat(self, node: str | bytes, index: int) -> None:
        """Save a short string again.

        Python has one object for all that are equal, and whoever pickled them may have had several.
        Where the source has the same string here, or a reference to one, it is written so too.
        """
        at = self._head + len(self._out)
        if self._framed is not None:
            at += len(self._framed) + _FRAME_HEADER
        if self._source.startswith(b"".join(spelled(node, self._protocol)), at):
            self._save_text(node)
            return
        referred = reference(self._source[at : at + LONGEST_REFERENCE])
        self._refer(index if self._short.get(referred) != node else referred)

    def _save_bytearray(self, node: bytearray) -> None:
        self._emit_data(b"\x96" + _UINT64(len(node)), node)
        self._memoize(node)

    # Collections --------------------------------------------------------------------------------

    def _save_tuple(self, node: tuple[Node, ...]) -> None:
        if not node:
            self._out += b")"
            return
        if len(node) > 3 or self._protocol < 2:
            self._out += b"("
        self._then(self._end_tuple, node)
        self._save_all(node)

    def _end_tuple(self, node: tuple[Node, ...]) -> None:
        is_marked = len(node) > 3 or self._protocol < 2
        if not self._is_made(node, b"1" if is_marked else b"0" * len(node)):
            self._out += b"t" if is_marked else _TUPLES[len(node)]
            self._memoize(node)

    def _save_list(self, node: list[Node]) -> None:
        self._out += b"]"
        self._memoize(node)
        if len(node) == 1:
            self._then(self._emit, b"a")
            self._save_all(node)
        elif node:
            self._append_batch((node, 0))

    def _append_batch(self, batch: tuple[list[Node], int]) -> None:
        node, at = batch
        if at + _BATCH < len(node):
            self._then(self._append_batch, (node, at + _BATCH))
        self._out += b"("
        self._then(self._emit, b"e")
        self._save_all(node[at : at + _BATCH])

    def _save_dict(self, node: dict[Node, Node]) -> None:
        self._out += b"}"
        self._memoize(node)
        if len(node) == 1:
            self._set_only_item(node)
        elif node:
            self._set_batch((iter(node.items()), len(node)))

    def _set_only_item(self, node: dict[Node, Node]) -> None:
        self._then(self._emit, b"s")
        ((key, value),) = node.items()
        self._save_all((key, value))

    def _set_batch(self, batch: tuple[Any, int]) -> None:
        """A batch that is full is followed by another one, though it may be empty."""
        items, left = batch
        if left >= _BATCH:
            self._then(self._set_batch, (items, left - _BATCH))
        self._out += b"("
        self._then(self._emit, b"u")
        self._save_all(list(chain.from_iterable(islice(items, _BATCH))))

    # Objects ------------------------------------------------------------------------------------

    def _save_global(self, node: Global) -> None:
        if self._protocol >= 4 or not all(map(is_line, node)):
            self._then(self._end_global, node)
            self._save_all((node.module, node.name))
        else:
            self._out += b"c" + line(node.module) + line(node.name)
            self._memoize(node)

    def _end_global(self, node: Global) -> None:
        self._out += b"\x93"
        self._memoize(node)

    def _save_extension(self, node: ExtensionCode) -> None:
        width = 1 if node.code <= _LONGEST_SHORT else 2 if node.code <= 0xFFFF else 4
        self._out += _EXTENSIONS[width] + node.code.to_bytes(width, "little")

    def _save_buffer(self, node: OutOfBandBuffer) -> None:
        self._out += b"\x97\x98" if node.is_readonly else b"\x97"

    def _save_persistent_id(self, node: PersistentId) -> None:
        self._then(self._emit, b"Q")
        self._then(self._save, node.value)

    def _save_object(self, node: Opaque) -> None:
        _CONSTRUCTIONS[node.construction](self, node)

    def _reduce(self, node: Opaque) -> None:
        self._then(self._end_object, (node, b"R"))
        self._save_all((node.callee, node.args))

    def _newobj(self, node: Opaque) -> None:
        self._then(self._end_object, (node, b"\x81"))
        self._save_all((node.callee, node.args))

    def _newobj_ex(self, node: Opaque) -> None:
        self._then(self._end_object, (node, b"\x92"))
        self._save_all((node.callee, node.args, node.kwargs))

    def _obj(self, node: Opaque) -> None:
        self._out += b"("
        self._then(self._end_object, (node, b"o"))
        self._save_all((node.callee, *node.args))

    def _inst(self, node: Opaque) -> None:
        self._out += b"("
        named = b"i" + line(node.callee.module) + line(node.callee.name)
        self._then(self._end_object, (node, named))
        self._save_all(node.args)

    def _set(self, node: Opaque) -> None:
        self._out += b"\x8f"
        self._memoize(node)
        self._give(node)

    def _frozenset(self, node: Opaque) -> None:
        self._out += b"("
        self._then(self._end_frozenset, node)
        self._save_all(node.added or ())

    def _end_frozenset(self, node: Opaque) -> None:
        if not self._is_made(node, b"1"):
            self._out += b"\x91"
            self._memoize(node)

    def _end_object(self, made: tuple[Opaque, bytes]) -> None:
        node, opcode = made
        self._out += opcode
        if not self._is_made(node, b"0"):
            self._memoize(node)
            self._give(node)

    def _give(self, node: Opaque) -> None:
        """Give an object what it gets after it is made: items, then its state."""
        if node.has_state:
            self._then(self._emit, b"b")
            self._then(self._save, node.state)
        if node.added:
            self._then(self._add_batch, (node.added, 0))
        if node.keyed:
            self._then(self._set_items, (iter(node.keyed.items()), len(node.keyed)))
        if node.listed:
            self._then(self._append_items, (node.listed, 0))

    def _append_items(self, batch: tuple[list[Node], int]) -> None:
        """As `_append_batch`, but for one item that is left over."""
        node, at = batch
        if at + 1 < len(node):
            if at + _BATCH < len(node):
                self._then(self._append_items, (node, at + _BATCH))
            self._out += b"("
            self._then(self._emit, b"e")
            self._save_all(node[at : at + _BATCH])
        else:
            self._then(self._emit, b"a")
            self._save_all(node[at:])

    def _set_items(self, batch: tuple[Any, int]) -> None:
        """As `_set_batch`, but for one item that is left over, and for what is left of none."""
        items, left = batch
        if left > _BATCH:
            self._then(self._set_items, (items, left - _BATCH))
        self._then(self._emit, b"u" if left > 1 else b"s")
        self._out += b"(" if left > 1 else b""
        self._save_all(list(chain.from_iterable(islice(items, _BATCH))))

    def _add_batch(self, batch: tuple[list[Node], int]) -> None:
        node, at = batch
        if at + _BATCH <= len(node):
            self._then(self._add_batch, (node, at + _BATCH))
        self._out += b"("
        self._then(self._emit, b"\x90")
        self._save_all(node[at : at + _BATCH])


# The tables -----------------------------------------------------------------------------------

_TUPLES: Final = {1: b"\x85", 2: b"\x86", 3: b"\x87"}
_EXTENSIONS: Final = {1: b"\x82", 2: b"\x83", 4: b"\x84"}

_SAVERS: Final[dict[type, Callable[[_Writer, Any], None]]] = {
    str: _Writer._save_text,
    bytes: _Writer._save_text,
    bytearray: _Writer._save_bytearray,
    tuple: _Writer._save_tuple,
    list: _Writer._save_list,
    dict: _Writer._save_dict,
    Global: _Writer._save_global,
    ExtensionCode: _Writer._save_extension,
    OutOfBandBuffer: _Writer._save_buffer,
    PersistentId: _Writer._save_persistent_id,
    Opaque: _Writer._save_object,
}
_CONSTRUCTIONS: Final = {
    "reduce": _Writer._reduce,
    "newobj": _Writer._newobj,
    "newobj_ex": _Writer._newobj_ex,
    "obj": _Writer._obj,
    "inst": _Writer._inst,
    "set": _Writer._set,
    "frozenset": _Writer._frozenset,
}
