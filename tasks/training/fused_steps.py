"""Fused epochs: the steps of an epoch as one compiled program, behind Keras' own `fit`.

`keras.Model.fit` calls `train_function` with an iterator of the data until an epoch is done, and `test_function`
likewise. Here both loop over Keras' own `train_step` and `test_step` inside one program: over rows that lie on the
device, or over blocks of rows that are read from disk. Callbacks, history, metrics, weights stay Keras'.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import keras
import tensorflow as tf

from tasks.data.examples import Examples
from tasks.data.schema import BATCH_ROWS
from tasks.data.streaming import Split
from tasks.training.hardware import has_convolutions
from tasks.training.shuffling import (
    EpochOrder,
    block_rows,
    data_options,
    endless_blocks,
    ordered_parts,
    to_learn,
    to_validate,
)

# Steps of one call. Ctrl-C is heard between calls, and progress told: convolutions take long.
STEPS_PER_CALL = 4096
CONVOLUTION_STEPS_PER_CALL = 32

# Every training compiles programs of its own, which TensorFlow takes for one that is traced again and again.
tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())

Function = Callable[[Iterator[Any]], dict[str, Any]]


@contextmanager
def fused(
    model: keras.Model, train: Split, valid: Split, outputs: list[str], batch_size: int, order: EpochOrder, xla: bool
) -> Iterator[dict[str, Any]]:
    """Have `fit` of a compiled model run fused epochs in the block; yield the arguments that give it the rows.

    outputs: the target is given for each. order: of the rows in each epoch. xla: compile the training by XLA.
    The last batch of an epoch is smaller where batch_size does not divide the rows.
    """
    steps = CONVOLUTION_STEPS_PER_CALL if has_convolutions(model) else STEPS_PER_CALL
    valid_rows = min(BATCH_ROWS, valid.rows)
    data: dict[str, Any] = {}
    if isinstance(train, Examples):
        learnt = to_learn(train, outputs)
        calls = step_ranges(train.rows // batch_size, steps)
        model.train_function = over_memory(model, model.train_step, learnt, train.rows, batch_size, calls, xla, order)
        data |= {"x": signals(), "steps_per_epoch": len(calls)}
    else:
        rows = min(steps * batch_size, block_rows(train, batch_size))
        model.train_function = over_blocks(model, model.train_step, rows, train.rows, batch_size, xla)
        data |= {"x": endless_blocks(train, outputs, order, rows), "steps_per_epoch": -(-train.rows // rows)}
    if isinstance(valid, Examples):
        calls = step_ranges(valid.rows // valid_rows, steps)
        validated = to_validate(valid, outputs)
        model.test_function = over_memory(model, model.test_step, validated, valid.rows, valid_rows, calls)
        data |= {"validation_data": signals(), "validation_steps": len(calls)}
    else:
        rows = valid.head().rows
        model.test_function = over_blocks(model, model.test_step, rows, valid.rows, valid_rows)
        parts = ordered_parts(valid, outputs).repeat().prefetch(2)
        data |= {"validation_data": parts, "validation_steps": valid.groups}
    try:
        yield data
    finally:
        model.train_function = model.test_function = None  # Keras makes its own again


def step_ranges(steps: int, longest: int) -> list[tuple[int, int]]:
    """Return the first step, and the one behind the last, of each call of an epoch; there is at least one call."""
    return [(first, min(first + longest, steps)) for first in range(0, max(steps, 1), longest)]


def signals() -> tf.data.Dataset:
    """Return an endless data set, for `fit` wants one, that stands for rows which are in memory."""
    return tf.data.Dataset.from_tensors(0).repeat().with_options(data_options())


def over_memory(
    model: keras.Model,
    step: Callable,
    arrays: Any,
    rows: int,
    batch_size: int,
    calls: list[tuple[int, int]],
    xla: bool = False,
    order: EpochOrder | None = None,
) -> Function:
    """Return a function that runs `step` on the batches of `arrays` that the next of `calls` names.

    rows: of each array. order: of the rows, anew in each epoch; None: as they lie.
    """
    data = tf.nest.map_structure(tf.constant, arrays)
    full, rest = divmod(rows, batch_size)
    loop, once = make_loop(model, step, batch_size, xla), make_step(model, step, rest or batch_size)
    # Where nothing is compiled, an epoch is best a single call.
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


def over_blocks(
    model: keras.Model, step: Callable, block: int, rows: int, batch_size: int, xla: bool = False
) -> Function:
    """Return a function of an iterator of blocks of rows that runs `step` on each of a block's batches.

    block: rows of a block, a multiple of batch_size; the last one of the `rows` of an epoch can have fewer.
    """
    rest = rows % batch_size
    loop, once = make_loop(model, step, batch_size, xla), make_step(model, step, rest)
    zero = tf.constant(0)

    def function(iterator: Iterator[Any]) -> dict[str, Any]:
        data = next(iterator)
        given = len(tf.nest.flatten(data)[0])
        full = given // batch_size
        # Of one shape, for a program is compiled for each.
        whole = tf.nest.map_structure(lambda values: pad(values, block - given), data)
        results = loop(whole, None, zero, tf.constant(full)) if full else {}
        return once(whole, None, tf.constant(full * batch_size)) if given % batch_size else results

    return function


def pad(values: tf.Tensor, rows: int) -> tf.Tensor:
    return tf.pad(values, [[0, rows], *([[0, 0]] * (values.shape.rank - 1))]) if rows else values


def make_loop(model: keras.Model, step: Callable, batch_size: int, xla: bool, rest: int = 0) -> Callable:
    """Return the program that runs `step` on batches `first` to `last` - 1 of (data, order, first, last).

    rest: rows of a smaller batch behind them.
    """

    def loop(data: Any, order: tf.Tensor | None, first: tf.Tensor, last: tf.Tensor) -> dict[str, tf.Tensor]:
        def body(number: tf.Tensor) -> tuple[tf.Tensor]:
            step(take(data, order, number * batch_size, batch_size))
            return (number + 1,)

        # One after another: each step reads what the last one wrote.
        tf.while_loop(lambda number: number < last, body, (first,), parallel_iterations=1)
        if rest:
            step(take(data, order, last * batch_size, rest))
        return model.get_metrics_result()

    return tf.function(loop, autograph=False, jit_compile=xla or None)


def make_step(model: keras.Model, step: Callable, rows: int) -> Callable:
    """Return the program that runs `step` on `rows` rows from `start` on, of (data, order, start)."""

    def once(data: Any, order: tf.Tensor | None, start: tf.Tensor) -> dict[str, tf.Tensor]:
        step(take(data, order, start, rows))
        return model.get_metrics_result()

    return tf.function(once, autograph=False)


def take(data: Any, order: tf.Tensor | None, start: tf.Tensor, rows: int) -> Any:
    """Return `rows` rows of every tensor in `data`, the ones that `order` names from `start` on."""
    if order is None:
        return tf.nest.map_structure(
            lambda values: tf.slice(values, [start, *([0] * (values.shape.rank - 1))], [rows, *values.shape[1:]]), data
        )
    numbers = tf.slice(order, [start], [rows])  # of a fixed size, unlike order[start:end], which XLA would pad
    return tf.nest.map_structure(lambda values: tf.gather(values, numbers), data)
