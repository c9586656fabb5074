"""A layer that Keras does not have, and which layers of a network are convolutions."""

import keras
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


REDUCTIONS = {"max": ops.max, "mean": ops.mean}
