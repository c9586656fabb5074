"""Losses that Keras does not have, by their name in `models.M.compile.loss`."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("heaviside")
def half_squared_error(y_true, y_pred):
    """Return (y_true - y_pred)^2 / 2, mean over the last axis: [batch, outputs] -> [batch]."""
    return ops.mean(ops.square(ops.cast(y_true, y_pred.dtype) - y_pred), axis=-1) / 2


@keras.saving.register_keras_serializable("heaviside")
def signed_half_squared_error(y_true, y_pred):
    """Return (s - y_pred)^2 / 4, mean over the last axis, with s = 2 y_true - 1: [batch, outputs] -> [batch].

    The labels 0 and 1 are compared with an output of -1 and 1. The derivative of an error is -1 or 1, as that of
    `half_squared_error` is where the output is 0 or 1: both make the same steps.
    """
    return ops.mean(ops.square(2 * ops.cast(y_true, y_pred.dtype) - 1 - y_pred), axis=-1) / 4


OWN = {"half_squared_error": half_squared_error, "signed_half_squared_error": signed_half_squared_error}


def get_loss(name: str, label_smoothing: float | None = None):
    """Return a loss. label_smoothing: of categorical_crossentropy, the share of a label that all classes get."""
    if label_smoothing:
        return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
    return OWN.get(name) or keras.losses.get(name)
