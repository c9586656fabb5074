"""Convolution and pooling by hand, in NumPy: what the layers of a convolutional network compute, in their order.

Images are float64 [height, width, channels]; padding "same" adds zeros as Keras does, "valid" none.
"""

from collections.abc import Callable

import numpy as np

Reduce = Callable[..., np.ndarray]


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the middle of an image; raises ValueError where it is smaller than that."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"an image of {image.shape[0]} x {image.shape[1]} has no middle of {height} x {width}")
    return image[top : top + height, left : left + width]


def rescale(image: np.ndarray) -> np.ndarray:
    """Return uint8 pixels as numbers from 0 to 1."""
    return image.astype(np.float64) / 255


def line_filter(size: int, vertical: bool) -> np.ndarray:
    """Return a filter of ones along its middle and zeros elsewhere, float64 [size, size]."""
    kernel = np.zeros((size, size))
    kernel[:, size // 2] = 1
    return kernel if vertical else kernel.T


def pad(image: np.ndarray, field: int, stride: int) -> np.ndarray:
    """Return an image with zeros around it, so that a field of field x field pixels fits everywhere ("same")."""
    around = [max((-(-size // stride) - 1) * stride + field - size, 0) for size in image.shape[:2]]
    return np.pad(image, [(zeros // 2, zeros - zeros // 2) for zeros in around] + [(0, 0)])


def fields(image: np.ndarray, field: int, stride: int) -> np.ndarray:
    """Return what each neuron of a layer sees: [height, width, channels, field, field] of the output's size."""
    seen = np.lib.stride_tricks.sliding_window_view(image, (field, field), axis=(0, 1))
    return seen[::stride, ::stride]


def convolve(image: np.ndarray, kernels: np.ndarray, stride: int = 1, padding: str = "same") -> np.ndarray:
    """Return the feature maps of some filters: [height, width, filters], the sums over a field and all channels.

    Args:
        image: [height, width, channels].
        kernels: [filters, size, size]; each is applied to every channel alike.
        stride: pixels from a field to the next one.
        padding: "same" or "valid".
    """
    padded = pad(image, kernels.shape[1], stride) if padding == "same" else image
    return np.einsum("hwcij,fij->hwf", fields(padded, kernels.shape[1], stride), kernels)


def pool(image: np.ndarray, size: int, reduce: Reduce = np.max) -> np.ndarray:
    """Return the maximum, or the mean, of each field of size x size pixels; rows and columns left over are dropped."""
    return reduce(fields(image, size, size), axis=(3, 4))


def global_average(image: np.ndarray) -> np.ndarray:
    """Return the mean of each channel, [channels]."""
    return image.mean(axis=(0, 1))


def pool_depth(image: np.ndarray, size: int, reduce: Reduce = np.max) -> np.ndarray:
    """Return the maximum, or the mean, of each group of `size` channels, which must divide their number."""
    height, width, channels = image.shape
    return reduce(image.reshape(height, width, channels // size, size), axis=3)
