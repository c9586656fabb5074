"""Batches: the train split in an order that the seed and the number of the epoch alone decide.

So is what random layers draw. An epoch is then the same whether it follows the one before in the same run or
after a checkpoint.
"""

from collections.abc import Iterator

import keras
import numpy as np

from tasks.examples import Examples


class EpochOrder(keras.callbacks.Callback):
    """Keeps the number of the running epoch, draws the order of the rows in it, and seeds layers such as Dropout."""

    def __init__(self, rows: int, seed: int):
        super().__init__()
        self.rows, self.seed, self.epoch = rows, seed, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch, 1])
        for variable in self.model.variables:
            if variable.name.startswith("seed_generator_state"):  # no part of what Keras saves
                variable.assign(rng.integers(0, 2**31, variable.shape))

    def draw(self) -> Iterator[np.ndarray]:
        """Yield the row numbers of the epoch, int64 [rows], once."""
        yield np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)


def shuffled_batches(train: Examples, target, batch_size: int, order: EpochOrder):
    """Return a `tf.data.Dataset` of (inputs, target[, weight]) batches, shuffled anew by `order` in each epoch.

    target: as Keras compares it with the outputs. The last batch is smaller where batch_size does not divide
    the rows.
    """
    import tensorflow as tf

    arrays = (train.x, target) if train.weight is None else (train.x, target, train.weight)
    tensors = tf.nest.map_structure(tf.constant, arrays)
    numbers = tf.data.Dataset.from_generator(order.draw, output_signature=tf.TensorSpec([order.rows], tf.int64))
    batches = numbers.flat_map(lambda rows: tf.data.Dataset.from_tensor_slices(rows).batch(batch_size))
    batches = batches.apply(tf.data.experimental.assert_cardinality(-(-order.rows // batch_size)))
    return batches.map(
        lambda rows: tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors), num_parallel_calls=2
    ).prefetch(tf.data.AUTOTUNE)
