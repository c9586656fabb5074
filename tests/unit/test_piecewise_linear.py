"""The piecewise linear encoding of columns of numbers."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.common.layers import PiecewiseLinear

rows = arrays(np.float32, st.tuples(st.integers(2, 40), st.integers(1, 3)), elements=st.floats(-100, 100, width=16))


@given(rows, st.integers(1, 6))
def test_it_grows_with_the_value_from_0_to_1_and_keeps_the_order(values, bins):
    layer = PiecewiseLinear(bins)
    layer.adapt(values)
    encoded = keras.ops.convert_to_numpy(layer(values)).reshape(len(values), values.shape[1], bins)
    assert ((encoded >= 0) & (encoded <= 1)).all()
    for column in range(values.shape[1]):
        ordered = encoded[values[:, column].argsort(), column]
        assert (np.diff(ordered, axis=0) >= 0).all()


def test_a_value_lies_within_its_bin_and_beyond_those_before_it():
    layer = PiecewiseLinear(4)
    layer.adapt(np.arange(9, dtype=np.float32)[:, None])  # bins of a width of 2
    encoded = keras.ops.convert_to_numpy(layer(np.float32([[-5], [0], [3], [8], [99]])))
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_array_equal(encoded, expected)


def test_a_bin_that_one_value_fills_is_always_0():
    layer = PiecewiseLinear(4)
    layer.adapt(np.float32([[0]] * 9 + [[4]]))
    encoded = keras.ops.convert_to_numpy(layer(np.float32([[0], [2], [4]])))
    np.testing.assert_array_equal(encoded[:, :3], 0)
    assert encoded[:, 3].tolist() == sorted(encoded[:, 3])
    assert np.isfinite(encoded).all()


def test_groups_of_rows_place_the_bins_as_all_rows_do():
    values = np.random.default_rng(1).normal(size=(100, 2)).astype(np.float32)
    whole, parts = PiecewiseLinear(8), PiecewiseLinear(8)
    whole.adapt(values)
    parts.adapt(iter([values[:30], values[30:]]))
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_bins_it_is_refused():
    with pytest.raises(ValueError, match="bins is 0, expected 1 or more"):
        PiecewiseLinear(0)
