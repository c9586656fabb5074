"""Convolution by hand against the layers of Keras, and its page."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.common.layers import DepthPool
from tasks.report import convolution
from tasks.report.convolution_page import HEIGHT, WIDTH, describe_convolution


def image_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(*rng.integers(7, 14, size=2), 3))


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5, 7]), st.sampled_from([1, 2, 3]), st.booleans())
def test_convolution_is_that_of_keras(seed, size, stride, same):
    image, padding = image_of(seed), "same" if same else "valid"
    kernels = np.random.default_rng(seed + 1).normal(size=(2, size, size))
    found = convolution.convolve(image, kernels, stride, padding)
    spread = np.repeat(np.moveaxis(kernels, 0, -1)[:, :, None], 3, axis=2)
    expected = keras.ops.conv(image[None].astype("float32"), spread.astype("float32"), stride, padding)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(expected)[0], rtol=1e-3, atol=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]))
def test_pooling_is_that_of_keras(seed, size):
    image = image_of(seed)
    batch = image[None].astype("float32")
    for layer, found in (
        (keras.layers.MaxPooling2D(size), convolution.pool(image, size)),
        (keras.layers.AveragePooling2D(size), convolution.pool(image, size, np.mean)),
        (keras.layers.GlobalAveragePooling2D(), convolution.global_average(image)),
        (DepthPool(3), convolution.pool_depth(image, 3)),
        (DepthPool(3, "mean"), convolution.pool_depth(image, 3, np.mean)),
        (keras.layers.CenterCrop(6, 5), convolution.center_crop(image, 6, 5)),
    ):
        expected = keras.ops.convert_to_numpy(layer(batch))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_picture_that_is_too_small_has_no_middle():
    with pytest.raises(ValueError, match="an image of 4 x 9 has no middle of 5 x 5"):
        convolution.center_crop(np.zeros((4, 9, 3)), 5, 5)


def test_the_page_shows_every_step_of_both_pictures():
    page = describe_convolution()
    assert [picture["name"] for picture in page["pictures"]] == ["china", "flower"]
    for picture in page["pictures"]:
        shapes = {step["title"]: step["shape"] for step in picture["steps"]}
        assert shapes["Crop"] == f"{HEIGHT} x {WIDTH} x 3"
        assert shapes["Convolve"] == f"{HEIGHT} x {WIDTH} x 2"
        assert shapes["Padding"] == f"{HEIGHT - 6} x {WIDTH - 6} x 2"
        assert shapes["Stride"] == shapes["Max-pool"] == f"{HEIGHT // 2} x {WIDTH // 2} x 2"
        assert shapes["Depth-wise pool"] == f"{HEIGHT} x {WIDTH} x 1"
        assert shapes["Global average"] == "2"
