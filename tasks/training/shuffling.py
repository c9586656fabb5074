"""The order of the train rows in an epoch, which depends on the seed and the number of the epoch alone.

So do the random numbers of layers such as Dropout. An epoch is therefore the same in one run or after a checkpoint, and
with rows from memory or from disk.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, cycle
from typing import Any

import keras
import numpy as np

from models.common.augmentation import Augment
from models.common.outputs import broadcast_target, network_input
from models.common.weights import all_layers, seed_generators
from tasks.data.examples import Columns, Examples, join
from tasks.data.schema import BATCH_ROWS, GROUP_ROWS
from tasks.data.streaming import Split, Stream

# A split of at most WHOLE_GROUPS row groups is shuffled as a whole, a larger one by windows of WINDOW_GROUPS.
WHOLE_GROUPS = 16
WINDOW_GROUPS = 8
# Rows are passed to TensorFlow in blocks of about this size.
BLOCK_BYTES = 16 * 2**20


class EpochOrder(keras.callbacks.Callback):
    """Tracks the epoch, draws the order of its rows, and seeds random layers such as Dropout at its start."""

    def __init__(self, rows: int, seed: int):
        super().__init__()
        self.rows, self.seed, self.epoch = rows, seed, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch, 1])
        for generator in seed_generators(self.model):  # Keras saves no state of theirs
            generator.state.assign(rng.integers(0, 2**31, generator.state.shape))
        for layer in all_layers(self.model):
            if isinstance(layer, Augment):
                layer.epoch.assign(epoch)

    def windows(self, epoch: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield the windows of an epoch: the row groups of each, and the permutation of their rows.

        The row groups come in random order, and the rows of a window are shuffled together.
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
    """Return how many row groups of a split with `groups` are shuffled together."""
    return groups if groups <= WHOLE_GROUPS else WINDOW_GROUPS


@dataclass(frozen=True)
class TrainingData:
    """The rows of a training, and how they are passed to Keras. outputs: of the network."""

    train: Split
    valid: Split
    outputs: list[str]
    batch_size: int
    order: EpochOrder


def training_arrays(examples: Examples, outputs: list[str]) -> tuple[Any, ...]:
    """Return what Keras trains on: (inputs, target[, weight]), the target for each of `outputs`."""
    pair = validation_arrays(examples, outputs)
    return pair if examples.weight is None else (*pair, examples.weight)


def validation_arrays(examples: Examples, outputs: list[str]) -> tuple[Any, Any]:
    """Return what Keras validates on: (inputs, target), the target for each of `outputs`; all rows count the same."""
    return network_input(examples.inputs), broadcast_target(examples.target, outputs, examples.own)


def shuffled_blocks(train: Split, order: EpochOrder, epochs: Iterable[int], block_rows: int) -> Iterator[Examples]:
    """Yield the shuffled rows of one epoch after another, in blocks.

    Another thread decodes rows on disk, one window ahead.

    Args:
        train: the rows.
        order: of the rows in each epoch.
        epochs: their numbers.
        block_rows: of a block; the last one of an epoch can be smaller.
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


# A function that takes rows of the window, the permutation of its rows, and whether it is the last of its epoch.
Window = tuple[Callable[[np.ndarray], Examples], np.ndarray, bool]


def windows_in_memory(train: Examples, order: EpochOrder, epochs: Iterable[int]) -> Iterator[Window]:
    """Yield each epoch as a single window; the arguments are those of `windows_on_disk`."""
    for epoch in epochs:
        yield train.take, order.draw(epoch), True


def windows_on_disk(train: Stream, order: EpochOrder, epochs: Iterable[int]) -> Iterator[Window]:
    """Yield windows of decoded rows while a thread decodes the next window.

    The memory of both is used again: take the rows of a window before asking for the next one.

    Args:
        train: the rows.
        order: of the rows in each epoch.
        epochs: their numbers.
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
    """Return empty columns for the rows of a window."""
    rows = window_groups(train.groups) * GROUP_ROWS
    return {name: np.empty((rows, *values.shape[1:]), values.dtype) for name, values in train.read(0).items()}


def decoded_window(train: Stream, columns: Future, permutation: np.ndarray, ends_epoch: bool) -> Window:
    return partial(take_columns, train, columns.result()), permutation, ends_epoch


def take_columns(train: Stream, columns: Columns, rows: np.ndarray) -> Examples:
    return train.to_examples({name: values[rows] for name, values in columns.items()})


def read_groups(train: Stream, groups: list[int], memory: Columns) -> Columns:
    """Read row groups one after another; return their columns.

    Args:
        train: the rows on disk.
        groups: numbers of the row groups.
        memory: columns to read into; the returned ones are views of their filled part.
    """
    filled = 0
    for group in groups:
        read = train.read(group)
        for name, values in read.items():
            memory[name][filled : filled + len(values)] = values
        filled += len(values)
    return {name: values[:filled] for name, values in memory.items()}


def shuffled_batches(data: TrainingData):
    """Return a `tf.data.Dataset` of the batches (inputs, target[, weight]) of the current epoch.

    The last batch is smaller where the batch size does not divide the rows.
    """
    train, order = data.train, data.order
    size = block_rows(train, data.batch_size)

    def blocks() -> Iterator[Examples]:
        return shuffled_blocks(train, order, range(order.epoch, order.epoch + 1), size)

    convert = partial(training_arrays, outputs=data.outputs)
    return in_batches(dataset_of(blocks, train, convert), train.rows, data.batch_size)


def endless_blocks(data: TrainingData, size: int):
    """Return a `tf.data.Dataset` of blocks of `size` rows (inputs, target[, weight]), from the current epoch on."""

    def blocks() -> Iterator[Examples]:
        return shuffled_blocks(data.train, data.order, count(data.order.epoch), size)

    return dataset_of(blocks, data.train, partial(training_arrays, outputs=data.outputs)).prefetch(2)


def ordered_parts(valid: Split, outputs: list[str]):
    """Return a `tf.data.Dataset` of parts of the rows (inputs, target), in the order of the file."""
    return dataset_of(valid.parts, valid, partial(validation_arrays, outputs=outputs))


def ordered_batches(valid: Split, outputs: list[str]):
    """Return a `tf.data.Dataset` of batches (inputs, target) of BATCH_ROWS rows, in the order of the file."""
    return in_batches(ordered_parts(valid, outputs), valid.rows, BATCH_ROWS)


def in_batches(blocks, rows: int, batch_size: int):
    """Return a `tf.data.Dataset` of batches.

    Args:
        blocks: a `tf.data.Dataset` of blocks that hold whole batches.
        rows: of all blocks.
        batch_size: rows of a batch.
    """
    import tensorflow as tf

    batches = blocks.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block).batch(batch_size))
    return batches.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size))).prefetch(4)


def dataset_of(parts: Callable[[], Iterator[Examples]], split: Split, convert: Callable[[Examples], Any]):
    """Return a `tf.data.Dataset` of parts of a split.

    Args:
        parts: yields the parts.
        split: whose rows they are.
        convert: turns a part into what Keras takes.
    """
    import tensorflow as tf

    spec = tf.nest.map_structure(
        lambda values: tf.TensorSpec([None, *values.shape[1:]], values.dtype), convert(split.first_rows())
    )
    dataset = tf.data.Dataset.from_generator(lambda: map(convert, parts()), output_signature=spec)
    return dataset.with_options(data_options())


def data_options():
    """Return the `tf.data.Options` of every data set of rows, without autotuning.

    The thread of autotuning sleeps up to a minute, and an iterator that ends, at the end of each epoch, can have to
    wait for it (TensorFlow 2.21: `Model::OptimizeLoop`).
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def block_rows(split: Split, batch_size: int) -> int:
    """Return the rows of a block: whole batches of BLOCK_BYTES or a little more, at most all rows."""
    first = split.first_rows()
    row_bytes = sum(values.nbytes for values in first.inputs.values()) // first.rows
    return batch_size * -(-min(BLOCK_BYTES, split.rows * row_bytes) // (batch_size * row_bytes))
