"""Numpy arrays and scalars out of pickles, against numpy."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ckptool.pickling.nodes import Opaque
from ckptool.pickling.reader import read_pickle
from ckptool.tensors.arrays import read_array

NUMBERS = st.sampled_from(
    [np.dtype(code) for code in ("?", "i1", "<i2", ">i4", "i8", "u1", "<u2", ">u8", "f2", "<f4",
                                 ">f8", "c8", ">c16")]
)  # fmt: skip


@given(
    NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0))),
    st.sampled_from([2, 4, 5]),
    st.booleans(),
)
def test_an_array_is_read_as_numpy_pickled_it(
    array: np.ndarray[Any, Any], protocol: int, in_columns: bool
) -> None:
    kept = np.asarray(array, order="F" if in_columns else "C")
    found = read_array(read_pickle(pickle.dumps(kept, protocol=protocol)).tree)
    assert found is not None
    assert (found.dtype, found.shape) == (array.dtype.name, array.shape)
    values = found.values()
    assert values is not None
    flat = np.array(values, dtype=array.dtype.newbyteorder("="))
    again = flat.reshape(array.shape, order="F" if found.is_fortran else "C")
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(-3), np.bool_(True)])
def test_a_scalar_is_an_array_without_dimensions(scalar: Any, protocol: int) -> None:
    found = read_array(read_pickle(pickle.dumps(scalar, protocol=protocol)).tree)
    assert found is not None
    assert (found.dtype, found.shape, found.values()) == (scalar.dtype.name, (), [scalar])


@pytest.mark.parametrize(
    "array", [np.array(["a", "bc"]), np.array([1], "datetime64[s]"), np.zeros(2, "i4,f4")]
)
def test_elements_that_are_no_numbers_are_told_by_their_code(array: np.ndarray[Any, Any]) -> None:
    found = read_array(read_pickle(pickle.dumps(array)).tree)
    assert found is not None
    assert found.shape == array.shape
    assert found.values() is None


def test_other_objects_are_no_arrays() -> None:
    array = read_pickle(pickle.dumps(np.arange(3.0))).tree
    assert read_array("text") is None
    assert read_array(Opaque("not a global", ())) is None
    for state in (None, (1, (3,), None, False, b""), (1, (4,), array.state[2], False, b"short")):
        assert read_array(Opaque(array.callee, array.args, state=state)) is None
