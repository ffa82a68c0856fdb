"""Which of the names in a pickle are torch's own, and which a reader should look at."""

from __future__ import annotations

import re

from ckptool.pickling.literals import BUILTINS
from ckptool.pickling.nodes import Global
from ckptool.tensors.dtypes import dtype_of_global, dtype_of_storage_class
from ckptool.tensors.rebuild import REBUILD_CALLS

__all__ = ["is_known_global"]

_MODULES = re.compile(r"(__torch__|torch\.(nn|optim|nested|jit\._pickle))(\.|$)")
_NAMES = frozenset(
    {
        Global("collections", "OrderedDict"),
        Global("collections", "defaultdict"),
        Global("collections", "Counter"),
        Global("_codecs", "encode"),
        Global("torch", "Size"),
        Global("torch", "device"),
        Global("torch", "Tensor"),
        Global("torch.serialization", "_get_layout"),
        *(
            Global(module, name)
            for module in BUILTINS
            for name in (
                "bool",
                "bytearray",
                "bytes",
                "complex",
                "dict",
                "float",
                "frozenset",
                "int",
                "list",
                "long",
                "object",
                "range",
                "set",
                "slice",
                "str",
                "tuple",
            )
        ),
        *(
            Global("torch", name)
            for name in ("per_tensor_affine", "per_channel_affine", "strided", "sparse_coo")
        ),
    }
)


def is_known_global(reference: Global) -> bool:
    """Whether a name stands for plain data: torch's tensors and modules, or a builtin container.

    Not every name in torch does (`torch.hub.load` is a function that downloads), so the known
    ones are listed and all others are shown.
    """
    return (
        reference in _NAMES
        or reference in REBUILD_CALLS
        or dtype_of_global(reference) is not None
        or dtype_of_storage_class(reference) is not None
        or _MODULES.match(f"{reference.module}.") is not None
    )
