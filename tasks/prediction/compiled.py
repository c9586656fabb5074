"""A small model compiled by XLA, for the long calls of batch prediction."""

from collections.abc import Callable, Mapping

import numpy as np

from tasks.prediction.saved_model import LoadedModel

Answer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
# A larger network spends its time in products of matrices, which XLA computes no faster (docs/speed.md).
MOST_WEIGHTS = 20_000


def compiled(model: LoadedModel, rows: int) -> Answer:
    """Return `model.answer`, compiled for calls of `rows` rows if the model is small.

    XLA fuses what is computed value by value, so such a model takes two thirds of the time. It compiles for one number
    of rows: a call of more than half of them is filled up with zeros, and a smaller one is not compiled. Its answers
    differ by rounding from those of a call that is not compiled. Without support for one of the model's operations,
    none is compiled.

    Args:
        model: whose answer to a row depends on that row alone.
        rows: of a full call.
    """
    if sum(int(np.prod(weights.shape)) for weights in model.signature.variables) > MOST_WEIGHTS:
        return model.answer
    import tensorflow as tf

    program = tf.function(lambda given: model.signature(**given), jit_compile=True)
    supported = True

    def answer(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal supported
        count = len(next(iter(columns.values())))
        if not supported or 2 * count <= rows:
            return model.answer(columns)
        try:
            made = program({name: tf.convert_to_tensor(filled_up(columns[name], rows)) for name in model.inputs})
        except tf.errors.OpError:
            supported = False
            return model.answer(columns)
        return {name: value.numpy()[:count] if value.shape.rank else value.numpy() for name, value in made.items()}

    return answer


def filled_up(values: np.ndarray, rows: int) -> np.ndarray:
    """Return an array of `rows` rows, the last of which are zeros."""
    missing = rows - len(values)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)]) if missing else values
