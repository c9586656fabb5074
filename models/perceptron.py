"""The perceptron: threshold logic units, step(w x + b) each, in one layer, trained by the perceptron rule.

F. Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain",
Psychological Review 65, 1958. The rule: after each instance, w += eta (y - step) x and b += eta (y - step).

The rule is gradient descent, one instance at a time, on the half squared error (y - step)^2 / 2, if the derivative of
the step is taken as 1. (It is 0 wherever it exists.) The gradient of the loss with respect to the step is -(y - step),
and times x it is what the rule adds. So `fit` trains it with SGD(eta), batch size 1 and
`models.common.losses.half_squared_error`, under any Keras backend. With the sign for a step, which answers -1 and 1,
`signed_half_squared_error` gives the same rule.
"""

from collections.abc import Sequence

import keras
from keras import ops

from models.common.outputs import MAIN_OUTPUT, Shapes


def unchanged(*arguments, upstream=None):
    """Return the gradient that came, as each backend of Keras passes it: the derivative is taken as 1."""
    return upstream if upstream is not None else arguments[0]


@ops.custom_gradient
def heaviside(z):
    """Return 1.0 where z >= 0, else 0.0, in the shape of z; its derivative is taken as 1."""
    return ops.cast(z >= 0, z.dtype), unchanged


@ops.custom_gradient
def sign(z):
    """Return 1.0 where z >= 0, else -1.0, in the shape of z; its derivative is taken as 1."""
    return 2 * ops.cast(z >= 0, z.dtype) - 1, unchanged


THRESHOLDS = {"heaviside": heaviside, "sign": sign}


@keras.saving.register_keras_serializable("heaviside")
class ThresholdUnit(keras.layers.Layer):
    """step(w x + b): [batch, features] -> [batch, 1], 0.0 or -1.0, and 1.0; weights start at zero.

    threshold: the step, "heaviside" or "sign". Raises ValueError for another one.
    """

    def __init__(self, threshold: str = "heaviside", **settings):
        super().__init__(**settings)
        if threshold not in THRESHOLDS:
            raise ValueError(f"threshold is {threshold!r}, expected {' or '.join(THRESHOLDS)}")
        self.threshold, self.activation = threshold, THRESHOLDS[threshold]

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 1), initializer="zeros", name="kernel")
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def call(self, inputs):
        return self.activation(ops.matmul(inputs, self.kernel) + self.bias)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}


def build(inputs: Shapes, name: str, further: Sequence[str] = (), threshold: str = "heaviside") -> keras.Model:
    """Return a layer of threshold logic units for one input [batch, features], each an output [batch, 1].

    Args:
        inputs: the shape of a row of the input.
        name: of the network.
        further: the names of the outputs besides the main one.
        threshold: "heaviside" for 0 and 1, "sign" for -1 and 1.

    Raises:
        ValueError: there are several inputs, the threshold is another one, or two outputs have one name.
    """
    if len(inputs) != 1:
        raise ValueError(f"a perceptron has one input, got {', '.join(inputs)}")
    [(input_name, shape)] = inputs.items()
    if MAIN_OUTPUT in further or len({*further}) < len(further):
        raise ValueError(f"further outputs need names of their own, other than {MAIN_OUTPUT!r}: {', '.join(further)}")
    if not further:
        unit = ThresholdUnit(threshold, name=MAIN_OUTPUT)
        return keras.Sequential([keras.Input(shape, name=input_name), unit], name=name)
    given = keras.Input(shape, name=input_name)
    units = {output: ThresholdUnit(threshold, name=output)(given) for output in (MAIN_OUTPUT, *further)}
    return keras.Model(given, units, name=name)
