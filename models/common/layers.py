"""Layers that Keras does not have, and which layers of a network are convolutions."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from models.common.weights import all_layers

CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3D,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def convolutions(model: keras.Model) -> list[keras.Layer]:
    """Return the convolutions of `model`, in their order."""
    return [layer for layer in all_layers(model) if isinstance(layer, CONVOLUTIONS)]


@keras.saving.register_keras_serializable("heaviside")
class DepthPool(keras.layers.Layer):
    """Pooling over the channels: [batch, height, width, channels] -> [batch, height, width, channels / pool_size].

    Channel k of the output is the maximum, or the mean, of the channels k * pool_size to (k + 1) * pool_size - 1 at the
    same place; float32 in and out, no weights. A. Géron, "Hands-on machine learning", uses it in the chapter on CNNs to
    learn invariances other than to translation.

    Raises ValueError unless pool_size divides the number of channels, and for another `reduce`.
    """

    def __init__(self, pool_size: int = 2, reduce: str = "max", **settings):
        super().__init__(**settings)
        if pool_size < 1:
            raise ValueError(f"pool_size is {pool_size}, expected 1 or more")
        if reduce not in REDUCTIONS:
            raise ValueError(f"reduce is {reduce!r}, expected {' or '.join(REDUCTIONS)}")
        self.pool_size, self.reduce = pool_size, reduce

    def build(self, input_shape):
        self.compute_output_shape(input_shape)

    def call(self, inputs):
        *places, channels = ops.shape(inputs)
        groups = ops.reshape(inputs, (*places, channels // self.pool_size, self.pool_size))
        return REDUCTIONS[self.reduce](groups, axis=-1)

    def compute_output_shape(self, input_shape):
        *places, channels = input_shape
        if channels % self.pool_size:
            raise ValueError(f"pool_size is {self.pool_size}, which does not divide the {channels} channels")
        return (*places, channels // self.pool_size)

    def get_config(self):
        return {**super().get_config(), "pool_size": self.pool_size, "reduce": self.reduce}


@keras.saving.register_keras_serializable("heaviside")
class PiecewiseLinear(keras.layers.Layer):
    """Piecewise linear encoding: [batch, features] -> [batch, features * bins], float32 from 0 to 1.

    The bins of a feature hold equally many of the rows that the layer was adapted to. The number of a bin is 0 for a
    value below it, 1 for one above it, and between them where in the bin the value lies. Y. Gorishniy et al., "On
    embeddings for numerical features in tabular deep learning", NeurIPS 2022. A bin without a width, which a value
    that many rows share leads to, is always 0.

    Raises ValueError unless `bins` is at least 1.
    """

    def __init__(self, bins: int, **settings):
        super().__init__(**settings)
        if bins < 1:
            raise ValueError(f"bins is {bins}, expected 1 or more")
        self.bins = bins

    def build(self, input_shape):
        shape = (input_shape[-1], self.bins)
        self.low = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="low")
        self.width = self.add_weight(shape=shape, initializer="ones", trainable=False, name="width")

    def adapt(self, rows: np.ndarray | Iterable[np.ndarray]) -> None:
        """Place the bins. rows: float32 [rows, features], or several such arrays."""
        whole = np.concatenate([rows] if isinstance(rows, np.ndarray) else [*rows])
        if not self.built:
            self.build(whole.shape)
        edges = np.quantile(whole, np.linspace(0, 1, self.bins + 1), axis=0).T.astype(np.float32)
        self.low.assign(edges[:, :-1])
        self.width.assign(np.diff(edges))

    def call(self, inputs):
        width = ops.expand_dims(self.width, 0)
        place = (ops.expand_dims(inputs, -1) - ops.expand_dims(self.low, 0)) / ops.where(width > 0, width, 1.0)
        inside = ops.where(width > 0, ops.clip(place, 0.0, 1.0), 0.0)
        return ops.reshape(inside, (-1, inputs.shape[-1] * self.bins))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] * self.bins)

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


REDUCTIONS = {"max": ops.max, "mean": ops.mean}
