"""A small model compiled by XLA, for the long calls of batch prediction."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

from tasks.prediction.saved_model import LoadedModel

Answer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
# A larger network spends its time in products of matrices, which XLA computes no faster (docs/speed.md).
MOST_WEIGHTS = 20_000
# Rows that the program computes at a time: what lies between their layers stays in the processor's cache.
BLOCK_ROWS = 512


def make_answer(model: LoadedModel, rows: int, at_once: bool = False) -> Answer:
    """Return `model.answer`, or a compiled program in its place if the model is small.

    Args:
        model: whose answer to a row depends on that row alone.
        rows: of a full call.
        at_once: make a first call now, which takes longer than those that follow.
    """
    small = sum(int(np.prod(weights.shape)) for weights in model.signature.variables) <= MOST_WEIGHTS
    answer = compiled(model, rows) if small else model.answer
    if at_once:
        import tensorflow as tf

        count = rows if small else 1
        with suppress(tf.errors.OpError, TypeError, ValueError):  # of zeros, which no row may have
            answer({name: np.zeros((count, *tensor.shape), tensor.dtype) for name, tensor in model.inputs.items()})
    return answer


def compiled(model: LoadedModel, rows: int) -> Answer:
    """Return `model.answer`, compiled by XLA for calls of `rows` rows.

    XLA fuses what is computed value by value, and the program goes over a call in blocks, so a small model takes two
    thirds of the time. It is compiled for one number of rows: a call of more than half of them is filled up with zeros,
    and a smaller one is not compiled. Its answers differ by rounding from those of a call that is not compiled. Without
    support for one of the model's operations, none is compiled.
    """
    import tensorflow as tf

    size = min(rows, BLOCK_ROWS)
    made_of = {name: tf.TensorSpec((size, *tensor.shape), tensor.dtype) for name, tensor in model.outputs.items()}

    @tf.function(jit_compile=True)
    def program(given):
        blocks = {name: tf.reshape(values, [-1, size, *values.shape[1:]]) for name, values in given.items()}
        answers = tf.map_fn(lambda block: model.signature(**block), blocks, fn_output_signature=made_of)
        return {name: tf.reshape(values, [rows, *values.shape[2:]]) for name, values in answers.items()}

    supported = True

    def answer(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal supported
        count = len(next(iter(columns.values())))
        if not supported or 2 * count <= rows:
            return model.answer(columns)
        try:
            made = program({name: tf.convert_to_tensor(filled_up(columns[name], rows)) for name in model.inputs})
        except (tf.errors.OpError, TypeError, ValueError):  # the last two of an answer that is not one for each row
            supported = False
            return model.answer(columns)
        return {name: value.numpy()[:count] for name, value in made.items()}

    return answer


def filled_up(values: np.ndarray, rows: int) -> np.ndarray:
    """Return an array of `rows` rows, the last of which are zeros."""
    missing = rows - len(values)
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)]) if missing else values
