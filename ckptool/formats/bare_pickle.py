"""A pickle that torch did not write: `pickle.dump` of anything, tensors included.

A tensor that is pickled this way carries its storage inside, as the bytes of a legacy stream:
`torch.storage._load_from_bytes(b"...")`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ckptool.errors import CkptoolError, LimitExceededError
from ckptool.formats.container import Container, FileFacts
from ckptool.formats.legacy import read_stream
from ckptool.pickling.limits import Limits
from ckptool.pickling.literals import literal
from ckptool.pickling.machine import Interpreter
from ckptool.pickling.nodes import Global, Node, Opaque
from ckptool.pickling.reader import read_pickle
from ckptool.sources import BytesSource, Extent, FileSource
from ckptool.tensors.rebuild import REBUILD_CALLS
from ckptool.tensors.refs import StorageRef, storage_in

__all__ = ["LOAD_FROM_BYTES", "read_bare_pickle"]

LOAD_FROM_BYTES: Final = Global("torch.storage", "_load_from_bytes")


def read_bare_pickle(source: FileSource, limits: Limits) -> Container:
    """Read the one pickle of a file; what follows it is told and left alone."""
    if source.size > limits.pickle_bytes:
        raise LimitExceededError(
            "bytes in one pickle",
            allowed=limits.pickle_bytes,
            actual=source.size,
            option="pickle-bytes",
        )
    extents: dict[str, Extent] = {}
    calls = {**REBUILD_CALLS, LOAD_FROM_BYTES: _storage_reader(extents, limits)}
    pickle = read_pickle(source.read(0, source.size), calls=calls, limits=limits)
    rest = source.size - pickle.size
    return Container(
        source=source,
        format="pickle",
        file=FileFacts(source.path, source.size, pickle.protocol),
        tree=pickle.tree,
        tree_bytes=pickle.size,
        extents=extents,
        referenced=frozenset(extents),
        globals=pickle.globals,
        warnings=(f"{rest:,} bytes follow the end of the pickle",) if rest else (),
    )


def _storage_reader(extents: dict[str, Extent], limits: Limits) -> Interpreter:
    known: dict[int, tuple[Node, StorageRef | None]] = {}
    texts: dict[int, tuple[Node, Node]] = {}

    def interpret(node: Opaque) -> Node:
        if len(node.args) != 1:
            return node
        kept = node.args[0]
        # The same bytes are the same storage; they are held, so that no others get their identity.
        if id(kept) not in known:
            known[id(kept)] = kept, _read_storage(_bytes_of(kept, texts), extents, limits)
        return known[id(kept)][1] or node

    return interpret


def _bytes_of(kept: Node, texts: dict[int, tuple[Node, Node]]) -> Node:
    """What a call of `_codecs.encode` gives: the same bytes each time that it has the same text."""
    if type(kept) is not Opaque or not kept.args:
        return literal(kept)
    text = kept.args[0]
    if id(text) not in texts:
        texts[id(text)] = text, literal(kept)
    return texts[id(text)][1]


def _read_storage(data: Node, extents: dict[str, Extent], limits: Limits) -> StorageRef | None:
    if type(data) is not bytes:
        return None
    try:
        inner = read_stream(BytesSource(data), limits).pickle.tree
    except CkptoolError:
        return None
    storage = storage_in(inner)
    if storage is None or storage.extent is None:
        return None
    # Each stream numbers its storages anew, so a key of the whole file is made up.
    key = str(len(extents))
    extents[key] = storage.extent
    return replace(storage, key=key, extents=extents)
