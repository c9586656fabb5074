"""Fused steps: the steps of an epoch as one compiled program, called by Keras' own `fit`.

`keras.Model.fit` calls `model.train_function` and `model.test_function` with an iterator of the data until an epoch is
done, and makes them only where they are None. Here they are programs that loop over Keras' own `train_step` and
`test_step`: over rows on the device, or over blocks of rows from disk. Callbacks, history, metrics and weights stay
Keras'.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import keras
import tensorflow as tf

from tasks.data.examples import Examples
from tasks.data.schema import BATCH_ROWS
from tasks.training.hardware import has_convolutions
from tasks.training.shuffling import (
    EpochOrder,
    TrainingData,
    block_rows,
    data_options,
    endless_blocks,
    ordered_parts,
    training_arrays,
    validation_arrays,
)

# Steps of a call. Between calls Ctrl-C is handled and progress is logged, so slow steps need shorter calls.
STEPS_PER_CALL = 4096
CONVOLUTION_STEPS_PER_CALL = 32

Function = Callable[[Iterator[Any]], dict[str, Any]]


@contextmanager
def fused(model: keras.Model, data: TrainingData, xla: bool) -> Iterator[dict[str, Any]]:
    """Make `model.fit` run fused steps in the block; yield the arguments that give it the rows.

    The last batch of an epoch is smaller where the batch size does not divide the rows.

    Args:
        model: a compiled network.
        data: the rows.
        xla: compile the training by XLA.
    """
    tf.get_logger().addFilter(is_no_retracing)  # adding it twice changes nothing
    train, valid, batch_size = data.train, data.valid, data.batch_size
    steps = CONVOLUTION_STEPS_PER_CALL if has_convolutions(model) else STEPS_PER_CALL
    valid_rows = min(BATCH_ROWS, valid.rows)
    arguments: dict[str, Any] = {}
    if isinstance(train, Examples):
        arrays = training_arrays(train, data.outputs)
        calls = step_ranges(train.rows // batch_size, steps)
        model.train_function = steps_from_memory(
            model, model.train_step, arrays, train.rows, batch_size, calls, xla, data.order
        )
        arguments |= {"x": signals(), "steps_per_epoch": len(calls)}
    else:
        rows = min(steps * batch_size, block_rows(train, batch_size))
        model.train_function = steps_from_blocks(model, model.train_step, rows, train.rows, batch_size, xla)
        arguments |= {"x": endless_blocks(data, rows), "steps_per_epoch": -(-train.rows // rows)}
    if isinstance(valid, Examples):
        calls = step_ranges(valid.rows // valid_rows, steps)
        arrays = validation_arrays(valid, data.outputs)
        model.test_function = steps_from_memory(model, model.test_step, arrays, valid.rows, valid_rows, calls)
        arguments |= {"validation_data": signals(), "validation_steps": len(calls)}
    else:
        rows = valid.first_rows().rows
        model.test_function = steps_from_blocks(model, model.test_step, rows, valid.rows, valid_rows)
        parts = ordered_parts(valid, data.outputs).repeat().prefetch(2)
        arguments |= {"validation_data": parts, "validation_steps": valid.groups}
    try:
        yield arguments
    finally:
        model.train_function = model.test_function = None  # Keras makes its own again


def is_no_retracing(record: logging.LogRecord) -> bool:
    """Drop TensorFlow's warning of retracing: it counts the programs of every training as one function."""
    return "triggered tf.function retracing" not in record.getMessage()


def step_ranges(steps: int, longest: int) -> list[tuple[int, int]]:
    """Return the half-open range of steps of each call of an epoch; there is at least one call."""
    return [(first, min(first + longest, steps)) for first in range(0, max(steps, 1), longest)]


def signals() -> tf.data.Dataset:
    """Return an endless data set in place of the rows in memory; `fit` needs one."""
    return tf.data.Dataset.from_tensors(0).repeat().with_options(data_options())


def steps_from_memory(
    model: keras.Model,
    step: Callable,
    arrays: Any,
    rows: int,
    batch_size: int,
    calls: list[tuple[int, int]],
    xla: bool = False,
    order: EpochOrder | None = None,
) -> Function:
    """Return a function that runs `step` on the batches of the next of `calls`.

    Args:
        model: the network.
        step: its `train_step` or `test_step`.
        arrays: what the step takes.
        rows: of each array.
        batch_size: rows of a batch.
        calls: the half-open range of steps of each call of an epoch.
        xla: compile the steps by XLA.
        order: of the rows in each epoch; None: as they are.
    """
    data = tf.nest.map_structure(tf.constant, arrays)
    full, rest = divmod(rows, batch_size)
    loop, once = make_loop(model, step, batch_size, xla), make_step(model, step, rest or batch_size)
    # Without XLA an epoch is fastest as a single call.
    whole = make_loop(model, step, batch_size, xla=False, rest=rest)
    ranges = cycle([(last, tf.constant(first), tf.constant(last)) for first, last in calls])
    start, end = tf.constant(0), tf.constant(full * batch_size)
    drawn: tuple[int, tf.Tensor | None] = (-1, None)

    def function(_: Iterator[Any]) -> dict[str, Any]:
        nonlocal drawn
        if order and drawn[0] != order.epoch:
            drawn = order.epoch, tf.constant(order.draw(order.epoch))
        numbers = drawn[1]
        last, *bounds = next(ranges)
        if rows <= batch_size:
            return once(data, numbers, start)
        if not xla and len(calls) == 1:
            return whole(data, numbers, *bounds)
        results = loop(data, numbers, *bounds)
        return once(data, numbers, end) if rest and last == full else results

    return function


def steps_from_blocks(
    model: keras.Model, step: Callable, block: int, rows: int, batch_size: int, xla: bool = False
) -> Function:
    """Return a function that takes the next block of an iterator and runs `step` on each of its batches.

    Args:
        model: the network.
        step: its `train_step` or `test_step`.
        block: rows of a block, a multiple of the batch size; the last block of an epoch can have fewer.
        rows: of an epoch.
        batch_size: rows of a batch.
        xla: compile the steps by XLA.
    """
    rest = rows % batch_size
    loop, once = make_loop(model, step, batch_size, xla), make_step(model, step, rest)
    zero = tf.constant(0)

    def function(iterator: Iterator[Any]) -> dict[str, Any]:
        data = next(iterator)
        given = len(tf.nest.flatten(data)[0])
        full = given // batch_size
        # All blocks get the same shape, because a program is compiled for each shape.
        whole = tf.nest.map_structure(lambda values: pad(values, block - given), data)
        results = loop(whole, None, zero, tf.constant(full)) if full else {}
        return once(whole, None, tf.constant(full * batch_size)) if given % batch_size else results

    return function


def pad(values: tf.Tensor, rows: int) -> tf.Tensor:
    return tf.pad(values, [[0, rows], *([[0, 0]] * (values.shape.rank - 1))]) if rows else values


def make_loop(model: keras.Model, step: Callable, batch_size: int, xla: bool, rest: int = 0) -> Callable:
    """Return a program of (data, order, first, last) that runs `step` on the batches `first` to `last` - 1.

    Args:
        model: the network.
        step: its `train_step` or `test_step`.
        batch_size: rows of a batch.
        xla: compile the program by XLA.
        rest: rows of a smaller batch behind them.
    """

    def loop(data: Any, order: tf.Tensor | None, first: tf.Tensor, last: tf.Tensor) -> dict[str, tf.Tensor]:
        size = batch_size if xla else size_of(model, batch_size)

        def body(number: tf.Tensor) -> tuple[tf.Tensor]:
            step(take(data, order, number * batch_size, size))
            return (number + 1,)

        # Not in parallel: each step reads what the last one wrote.
        tf.while_loop(lambda number: number < last, body, (first,), parallel_iterations=1)
        if rest:
            step(take(data, order, last * batch_size, size_of(model, rest)))
        return model.get_metrics_result()

    return tf.function(loop, autograph=False, jit_compile=xla or None)


def make_step(model: keras.Model, step: Callable, rows: int) -> Callable:
    """Return a program of (data, order, start) that runs `step` once, on the rows from `start` on.

    Args:
        model: the network.
        step: its `train_step` or `test_step`.
        rows: of the batch.
    """

    def once(data: Any, order: tf.Tensor | None, start: tf.Tensor) -> dict[str, tf.Tensor]:
        step(take(data, order, start, size_of(model, rows)))
        return model.get_metrics_result()

    return tf.function(once, autograph=False)


def size_of(model: keras.Model, rows: int) -> int | tf.Tensor:
    """Return the rows of a batch; of a network with convolutions, hidden from TensorFlow's optimizer of graphs.

    Where it knows every shape, and by its count a program needs more than the 256 MiB that it takes for a processor's
    memory, it adds up three or more gradients in the order in which they are ready ("SchedulingPass" of TensorFlow's
    memory_optimizer.cc), as behind batch normalization. Sums in another order have other bits. A hidden size costs
    small networks a fifth of their speed, and they stay below that memory.
    """
    return tf.compat.v1.placeholder_with_default(rows, []) if has_convolutions(model) else rows


def take(data: Any, order: tf.Tensor | None, start: tf.Tensor, rows: int | tf.Tensor) -> Any:
    """Return rows of every tensor in `data`.

    Args:
        data: the tensors.
        order: row numbers; None: the rows as they are.
        start: where to begin in `order`, or in the rows.
        rows: how many.
    """
    if order is None:
        return tf.nest.map_structure(
            lambda values: tf.slice(values, [start, *([0] * (values.shape.rank - 1))], [rows, *values.shape[1:]]), data
        )
    numbers = tf.slice(order, [start], [rows])  # order[start:end] has no fixed size, and XLA would pad it
    return tf.nest.map_structure(lambda values: tf.gather(values, numbers), data)
