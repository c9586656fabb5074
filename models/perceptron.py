"""The perceptron: one threshold logic unit, step(w x + b), trained by the perceptron rule.

F. Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain",
Psychological Review 65, 1958. The rule: after each instance, w += eta (y - step) x and b += eta (y - step).

The rule is gradient descent, one instance at a time, on the half squared error (y - step)^2 / 2, if the derivative of
the step is taken as 1. (It is 0 wherever it exists.) The gradient of the loss with respect to the step is -(y - step),
and times x it is what the rule adds. So `fit` trains it with SGD(eta), batch size 1 and
`models.common.losses.half_squared_error`, under any Keras backend.
"""

import keras
from keras import ops

from models.common.outputs import Shapes


@ops.custom_gradient
def heaviside(z):
    """Return 1.0 where z >= 0, else 0.0, in the shape of z; its derivative is taken as 1."""

    def gradient(*arguments, upstream=None):
        return upstream if upstream is not None else arguments[0]

    return ops.cast(z >= 0, z.dtype), gradient


@keras.saving.register_keras_serializable("heaviside")
class ThresholdUnit(keras.layers.Layer):
    """step(w x + b): [batch, features] -> [batch, 1] of 0.0 and 1.0; weights start at zero."""

    activation = staticmethod(heaviside)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 1), initializer="zeros", name="kernel")
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)


def build(inputs: Shapes, name: str) -> keras.Model:
    """Return one threshold logic unit for one input [batch, features]; raises ValueError for several inputs."""
    if len(inputs) != 1:
        raise ValueError(f"a perceptron has one input, got {', '.join(inputs)}")
    [(input_name, shape)] = inputs.items()
    return keras.Sequential([keras.Input(shape, name=input_name), ThresholdUnit(name="output")], name=name)
