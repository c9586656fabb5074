"""Batches: the train split in an order that the seed and the number of the epoch alone decide.

So is what random layers draw. An epoch is then the same whether it follows the one before in the same run or
after a checkpoint, and whether its rows come from memory or from disk.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, cycle
from typing import Any

import keras
import numpy as np

from models.common.outputs import network_input, spread
from tasks.data.examples import Columns, Examples, join
from tasks.data.schema import BATCH_ROWS, GROUP_ROWS
from tasks.data.streaming import Split, Stream

# A split of no more row groups is shuffled whole; of a larger one, so many at a time are mixed with each other.
WHOLE_GROUPS = 16
WINDOW_GROUPS = 8
# Rows of a training's next call are handed over in blocks of about this many bytes.
BLOCK_BYTES = 16 * 2**20


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

    def windows(self, epoch: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield, for each window of an epoch, its row groups and in which order to take its rows.

        The row groups are mixed, taken some at a time, and their rows shuffled together.
        """
        rng = np.random.default_rng([self.seed, epoch])
        groups = np.arange(-(-self.rows // GROUP_ROWS))
        size = window_groups(len(groups))
        if len(groups) > size:
            groups = rng.permutation(groups)
        for first in range(0, len(groups), size):
            window = sorted(groups[first : first + size].tolist())
            yield window, rng.permutation(sum(len(self.rows_of(group)) for group in window))

    def rows_of(self, group: int) -> range:
        return range(group * GROUP_ROWS, min((group + 1) * GROUP_ROWS, self.rows))

    def draw(self, epoch: int) -> np.ndarray:
        """Return the row numbers of an epoch in their order, int32 [rows], each once."""
        order = [
            np.concatenate([np.asarray(self.rows_of(group), np.int32) for group in window])[permutation]
            for window, permutation in self.windows(epoch)
        ]
        return np.concatenate(order)


def window_groups(groups: int) -> int:
    """Return how many row groups of a split that has `groups` are shuffled together."""
    return groups if groups <= WHOLE_GROUPS else WINDOW_GROUPS


def to_learn(examples: Examples, outputs: list[str]) -> tuple[Any, ...]:
    """Return what Keras trains on: (inputs, target[, weight]), the target for each of `outputs`."""
    pair = to_validate(examples, outputs)
    return pair if examples.weight is None else (*pair, examples.weight)


def to_validate(examples: Examples, outputs: list[str]) -> tuple[Any, Any]:
    """Return what Keras validates on: (inputs, target), the target for each of `outputs`; every row counts."""
    return network_input(examples.inputs), spread(examples.target, outputs)


def shuffled_blocks(train: Split, order: EpochOrder, epochs: Iterable[int], block_rows: int) -> Iterator[Examples]:
    """Yield the shuffled rows of one epoch after another, `block_rows` at a time.

    The last block of an epoch has the rows that are left. Rows on disk are decoded by a thread of their own, a
    window ahead.
    """
    if isinstance(train, Examples):
        windows = windows_in_memory(train, order, epochs)
    else:
        windows = windows_on_disk(train, order, epochs)
    pieces: list[Examples] = []
    missing = block_rows
    for take, permutation, ends_epoch in windows:
        start = 0
        while start < len(permutation):
            rows = permutation[start : start + missing]
            pieces.append(take(rows))
            start, missing = start + len(rows), missing - len(rows)
            if not missing or (ends_epoch and start == len(permutation)):
                yield join(pieces)
                pieces, missing = [], block_rows


# How to take rows of a window, in which order, and whether the window is the last of its epoch.
Window = tuple[Callable[[np.ndarray], Examples], np.ndarray, bool]


def windows_in_memory(train: Examples, order: EpochOrder, epochs: Iterable[int]) -> Iterator[Window]:
    for epoch in epochs:
        yield train.take, order.draw(epoch), True


def windows_on_disk(train: Stream, order: EpochOrder, epochs: Iterable[int]) -> Iterator[Window]:
    """Yield windows whose rows are decoded, while a thread decodes those of the next.

    Both lie in memory that is used again: take the rows of a window before asking for the next one.
    """
    memory = cycle([window_memory(train), window_memory(train)])
    with ThreadPoolExecutor(max_workers=1) as decoder:
        ahead: deque[Any] = deque()
        for epoch in epochs:
            windows = [*order.windows(epoch)]
            for number, (groups, permutation) in enumerate(windows, start=1):
                decoded = decoder.submit(read_groups, train, groups, next(memory))
                ahead.append((decoded, permutation, number == len(windows)))
                if len(ahead) > 1:
                    yield decoded_window(train, *ahead.popleft())
        yield decoded_window(train, *ahead.popleft())


def window_memory(train: Stream) -> Columns:
    """Return columns with room for the rows of a window."""
    rows = window_groups(train.groups) * GROUP_ROWS
    return {name: np.empty((rows, *values.shape[1:]), values.dtype) for name, values in train.read(0).items()}


def decoded_window(train: Stream, columns: Future, permutation: np.ndarray, ends_epoch: bool) -> Window:
    return partial(take_columns, train, columns.result()), permutation, ends_epoch


def take_columns(train: Stream, columns: Columns, rows: np.ndarray) -> Examples:
    return train.see({name: values[rows] for name, values in columns.items()})


def read_groups(train: Stream, groups: list[int], memory: Columns) -> Columns:
    """Read row groups into `memory`, one after another; return the columns as far as they are filled."""
    filled = 0
    for group in groups:
        read = train.read(group)
        for name, values in read.items():
            memory[name][filled : filled + len(values)] = values
        filled += len(values)
    return {name: values[:filled] for name, values in memory.items()}


def shuffled_batches(train: Split, outputs: list[str], batch_size: int, order: EpochOrder):
    """Return a `tf.data.Dataset` of the batches (inputs, target[, weight]) of the running epoch of `order`.

    outputs: the target is given for each. The last batch is smaller where batch_size does not divide the rows.
    """
    size = block_rows(train, batch_size)

    def blocks() -> Iterator[Examples]:
        return shuffled_blocks(train, order, range(order.epoch, order.epoch + 1), size)

    return in_batches(dataset_of(blocks, train, partial(to_learn, outputs=outputs)), train.rows, batch_size)


def endless_blocks(train: Split, outputs: list[str], order: EpochOrder, size: int):
    """Return a `tf.data.Dataset` of `size` rows after another (inputs, target[, weight]), from the running epoch on."""

    def blocks() -> Iterator[Examples]:
        return shuffled_blocks(train, order, count(order.epoch), size)

    return dataset_of(blocks, train, partial(to_learn, outputs=outputs)).prefetch(2)


def ordered_parts(valid: Split, outputs: list[str]):
    """Return a `tf.data.Dataset` of (inputs, target), a part of the rows at a time, as they lie."""
    return dataset_of(valid.parts, valid, partial(to_validate, outputs=outputs))


def ordered_batches(valid: Split, outputs: list[str]):
    """Return a `tf.data.Dataset` of the batches (inputs, target) of BATCH_ROWS rows as they lie."""
    return in_batches(ordered_parts(valid, outputs), valid.rows, BATCH_ROWS)


def in_batches(blocks, rows: int, batch_size: int):
    """Return a `tf.data.Dataset` of batches from one of blocks that hold whole batches, of `rows` rows in all."""
    import tensorflow as tf

    batches = blocks.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block).batch(batch_size))
    return batches.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size))).prefetch(4)


def dataset_of(parts: Callable[[], Iterator[Examples]], split: Split, convert: Callable[[Examples], Any]):
    """Return a `tf.data.Dataset` of what `convert` makes of each of `parts()`, rows of `split`."""
    import tensorflow as tf

    spec = tf.nest.map_structure(
        lambda values: tf.TensorSpec([None, *values.shape[1:]], values.dtype), convert(split.head())
    )
    dataset = tf.data.Dataset.from_generator(lambda: map(convert, parts()), output_signature=spec)
    return dataset.with_options(data_options())


def data_options():
    """Return the `tf.data.Options` of every data set of rows.

    Without autotuning: its thread sleeps longer and longer between two looks, up to a minute, and the end of an
    iterator, at the end of each epoch, can have to wait for it (TensorFlow 2.21: `Model::OptimizeLoop`).
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def block_rows(split: Split, batch_size: int) -> int:
    """Return how many rows to hand over at a time: whole batches, of BLOCK_BYTES or a little more, or all."""
    head = split.head()
    row_bytes = sum(values.nbytes for values in head.inputs.values()) // head.rows
    return batch_size * -(-min(BLOCK_BYTES, split.rows * row_bytes) // (batch_size * row_bytes))
