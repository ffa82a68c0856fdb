"""Names of plain data outside of torch: Python's own containers and values, and numpy's arrays.

Each is here by its exact name, as Python 3 has it; a pickle of protocol 2 names the same as Python
2 did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ckptool.pickling.nodes import Global

__all__ = ["PLAIN_NAMES"]

_CONTAINER: Final = "a container of Python: plain data"
_VALUE: Final = "a value of Python: plain data"
_OBJECT: Final = "makes an object of a class, which is named beside it"
_ARRAY: Final = "an array of numpy: plain data"
_SCALAR: Final = "a number type of numpy: plain data"
_RANDOM: Final = "the state of a random generator: plain data"
_MATRIX: Final = "a sparse matrix: plain data"

_PATHS: Final = "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"
_SPARSE: Final = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")

_TABLE: Final = (
    # The types that `ckptool.checkpoint.globals` knows
    (
        _VALUE,
        "builtins",
        "bool bytearray bytes complex float int object range slice str",
    ),
    (_CONTAINER, "builtins", "dict frozenset list set tuple"),
    (_CONTAINER, "collections", "ChainMap Counter OrderedDict UserDict UserList defaultdict deque"),
    (_CONTAINER, "argparse", "Namespace"),
    (_CONTAINER, "types", "SimpleNamespace"),
    (_OBJECT, "copyreg", "__newobj__ __newobj_ex__ _reconstructor"),
    ("bytes, as protocol 2 writes them", "_codecs", "encode"),
    (_VALUE, "array", "_array_reconstructor array"),
    (_VALUE, "datetime", "date datetime time timedelta timezone"),
    (_VALUE, "decimal", "Decimal"),
    (_VALUE, "fractions", "Fraction"),
    (_VALUE, "uuid", "UUID"),
    (_VALUE, "time", "struct_time"),
    (_VALUE, "io", "BytesIO StringIO"),
    (_VALUE, "_io", "BytesIO StringIO"),
    (_VALUE, "itertools", "count"),
    ("a pattern of text", "re", "_compile"),
    ("a path, which is not opened", "pathlib", _PATHS),
    ("a path, which is not opened", "pathlib._local", _PATHS),
    (_RANDOM, "random", "Random"),
    # numpy
    (_ARRAY, "numpy", "dtype matrix ndarray recarray"),
    (_ARRAY, "numpy.matrixlib.defmatrix", "matrix"),
    *((_ARRAY, f"numpy.{core}.multiarray", "_reconstruct scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.records", "recarray record") for core in ("core", "_core")),
    (_ARRAY, "numpy.rec", "recarray record"),
    (_ARRAY, "numpy.ma.core", "MaskedArray _mareconstruct"),
    (_ARRAY, "numpy.ma", "MaskedArray"),
    (
        _SCALAR,
        "numpy",
        "bool bool_ bytes_ clongdouble complex128 complex64 datetime64 double float16 float32 "
        "float64 int16 int32 int64 int8 intc intp longdouble longlong object_ single str_ "
        "timedelta64 ubyte uint uint16 uint32 uint64 uint8 uintc uintp ulonglong ushort void",
    ),
    (_RANDOM, "numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor"),
    (_RANDOM, "numpy.random", "__RandomState_ctor"),
    (_RANDOM, "numpy.random._mt19937", "MT19937"),
    (_RANDOM, "numpy.random._pcg64", "PCG64 PCG64DXSM"),
    (_RANDOM, "numpy.random._philox", "Philox"),
    (_RANDOM, "numpy.random._sfc64", "SFC64"),
    (_RANDOM, "numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence"),
    # scipy, by its modules of today and of before 1.8
    *((_MATRIX, f"scipy.sparse._{kind}", f"{kind}_array {kind}_matrix") for kind in _SPARSE),
    *((_MATRIX, f"scipy.sparse.{kind}", f"{kind}_matrix") for kind in _SPARSE),
)


def _globals() -> Iterator[tuple[Global, str]]:
    for reason, module, names in _TABLE:
        for name in names.split():
            yield Global(module, name), reason


PLAIN_NAMES: Final[Mapping[Global, str]] = dict(_globals())
"""What each is, in words."""
