"""A file that was written, held against its plan before it gets its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ckptool.analysis.progress import Progress
from ckptool.checkpoint.entries import Entry
from ckptool.checkpoint.opening import open_checkpoint
from ckptool.edit.plan import Plan
from ckptool.errors import CkptoolError, OutputError
from ckptool.formats.content import Copy, Piece, size_of
from ckptool.sources import CHUNK_BYTES, FileSource
from ckptool.tensors.refs import Strided, TensorRef

__all__ = ["verify_file"]


def verify_file(plan: Plan, path: Path, progress: Progress, *, is_whole: bool) -> None:
    """Read a file again; raise OutputError where it is not what the plan says.

    Its size, and every byte that does not come from the source as it is, are compared with the
    plan; then it is opened, and has to hold the entries of the plan. With `is_whole` the bytes that
    were copied are compared with the source as well.
    """
    if is_whole:
        progress.expect(plan.nbytes)
    try:
        with closing(FileSource(path)) as source:
            has_its_size = source.size == plan.nbytes
            if not has_its_size or not _has_pieces(source, plan, progress, is_whole):
                raise _differs("its bytes differ")
        with open_checkpoint(path, limits=plan.checkpoint.limits) as written:
            found = [_facts(entry) for entry in written.entries]
    except CkptoolError as error:
        raise error if isinstance(error, OutputError) else _differs(error.message) from error
    if found != [_facts(entry) for entry in plan.entries]:
        raise _differs("it holds other entries")


def _differs(why: str) -> OutputError:
    return OutputError(
        f"what was written is not what was planned ({why}); it was thrown away",
        hint="the disk or the memory may be faulty; try again elsewhere",
    )


def _has_pieces(source: FileSource, plan: Plan, progress: Progress, is_whole: bool) -> bool:
    at = 0
    for piece in plan.pieces():
        if is_whole or not isinstance(piece, Copy):
            for chunk in _chunks(piece):
                if source.read(at, len(chunk)) != chunk:
                    return False
                at += len(chunk)
                progress.advance(len(chunk) if is_whole else 0)
        else:
            at += size_of(piece)
    return True


def _chunks(piece: Piece) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        yield piece
    elif isinstance(piece, Copy):
        end = piece.offset + piece.size
        for at in range(piece.offset, end, CHUNK_BYTES):
            yield piece.source.read(at, min(CHUNK_BYTES, end - at))
    else:
        yield from piece.chunks()


def _facts(entry: Entry) -> tuple[object, ...]:
    """What an entry has to be again: its place, and of a tensor all but its elements."""
    tensor = entry.tensor
    if tensor is None:
        return entry.path, type(entry.node)
    return entry.path, str(tensor.dtype), tensor.shape, tensor.requires_grad, _place(tensor)


def _place(tensor: TensorRef) -> object:
    data = tensor.data
    if isinstance(data, Strided):
        return data.storage.key, data.offset, data.stride, data.is_conjugate, data.is_negative
    return tensor.layout
