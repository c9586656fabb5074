"""The values of a request as columns for a model, and its answers: nothing is lost, cut or invented on the way.

A value is taken if the model's type holds it: any number for a float, which may be rounded, and a whole number within
the range for an integer. NaN and infinity are refused in both directions. Rows count from 0 in every message.
"""

from collections.abc import Mapping
from http import HTTPStatus
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from runtime.errors import UserError, shortened
from serving.refusal import Refusal, bad
from tasks.prediction.chunks import call_rows, in_calls
from tasks.prediction.saved_model import LoadedModel, Tensor

# The names of the Open Inference Protocol; BF16 and BYTES have no type in NumPy.
DATATYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}") for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
MAX_DEPTH = 8  # of nested lists
SHOWN = 10  # names, in a message
WORDS = {bool: "a boolean", str: "a text", type(None): "null", dict: "an object", list: "a list"}


def check_types(model: LoadedModel) -> None:
    """Raise UserError if the model takes or gives something else than numbers and booleans."""
    for name, tensor in {**model.inputs, **model.outputs}.items():
        if tensor.dtype not in NAMES:
            raise UserError(f"{model.name} {model.version}: {name!r} is of type {tensor.dtype}, which is not served.")


def at(name: str, row: int, told: str) -> Refusal:
    return bad(f"input {shortened(repr(name))}, row {row}: {told}.")


def flattened(name: str, values: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """Return the values of nested lists in their order, and the shape; raises Refusal for lists of odd lengths."""
    flat: list[Any] = values
    shape: tuple[int, ...] = (len(values),)
    while flat and set(map(type, flat)) == {list}:
        lengths = {*map(len, flat)}
        if len(lengths) > 1:
            odd = next(number for number, part in enumerate(flat) if len(part) != len(flat[0]))
            raise at(name, odd // prod(shape[1:]), "its lists have different lengths")
        shape = (*shape, lengths.pop())
        if len(shape) > MAX_DEPTH:
            raise bad(f"input {shortened(repr(name))}: its lists are nested more than {MAX_DEPTH} deep.")
        flat = [*chain.from_iterable(flat)]
    if list in (kinds := {*map(type, flat)}) and len(kinds) > 1:
        odd = next(number for number, part in enumerate(flat) if isinstance(part, list) != isinstance(flat[0], list))
        raise at(name, odd // prod(shape[1:]), "lists and other values are mixed")
    return flat, shape


def rows_in(name: str, shape: tuple[int, ...], tensor: Tensor) -> int:
    """Return the rows of a column of this shape; a number may come as [rows] and as [rows, 1]."""
    rest = shape[1:]
    if shape and (rest == tensor.shape or (rest == (1,) and not tensor.shape)):
        return shape[0]
    wanted = ", ".join(["rows", *map(str, tensor.shape)])
    raise bad(f"input {shortened(repr(name))} has the shape {shortened(str([*shape]))}; [{wanted}] is needed.")


def column_of_json(name: str, flat: list[Any], rows: int, tensor: Tensor) -> np.ndarray:
    """Return a column of an input.

    Args:
        name: of the input.
        flat: its values as JSON gives them, row after row.
        rows: how many.
        tensor: the input.

    Raises:
        Refusal: a value is no number, or one that the input's type does not hold.
    """
    wanted = {bool} if tensor.dtype.kind == "b" else {int, float}
    size = max(1, len(flat) // max(1, rows))
    if set(map(type, flat)) - wanted:
        index, odd = next((index, value) for index, value in enumerate(flat) if type(value) not in wanted)
        kind = "boolean" if tensor.dtype.kind == "b" else "number"
        raise at(name, index // size, f"{WORDS.get(type(odd), 'a number')} is given, and a {kind} is needed")
    values = np.array(flat)
    if values.dtype == object:  # beyond 64 bits
        large = next(index for index, value in enumerate(flat) if abs(value) >= 2**63)
        raise at(name, large // size, f"the number is too large for {NAMES[tensor.dtype]}")
    return fitted(name, values, rows, tensor)


def column_of_bytes(name: str, data: memoryview, datatype: str, rows: int, tensor: Tensor) -> np.ndarray:
    """Return a column of an input.

    Args:
        name: of the input.
        data: its values, little-endian, row after row.
        datatype: of the data.
        rows: how many.
        tensor: the input.

    Raises:
        Refusal: another length than that of the rows, or a value that the input's type does not hold.
    """
    given = DATATYPES[datatype]
    size = rows * prod(tensor.shape) * given.itemsize
    if len(data) != size:
        raise bad(f"input {shortened(repr(name))} has {len(data)} bytes; its shape and {datatype} need {size}.")
    return fitted(name, np.frombuffer(data, given.newbyteorder("<")), rows, tensor)


def fitted(name: str, values: np.ndarray, rows: int, tensor: Tensor) -> np.ndarray:
    """Return values as a column [rows, ...] of the input's type; raises Refusal for one that does not fit."""
    wanted, size = tensor.dtype, max(1, prod(tensor.shape))
    if (values.dtype.kind == "b") != (wanted.kind == "b") and values.size:
        raise bad(f"input {shortened(repr(name))}: {NAMES[wanted]} is needed, not {NAMES[values.dtype]}.")
    if values.dtype.kind == "f":
        refuse_where(name, ~np.isfinite(values), size, "the value is NaN or infinite")
    if wanted.kind in "iu" and values.dtype != wanted:
        least, most = np.iinfo(wanted).min, np.iinfo(wanted).max
        told = f"the value is no whole number from {least} to {most}, as {NAMES[wanted]} needs"
        if values.dtype.kind == "f":
            # A float next to the end of 64 bits may lie beyond it, so the upper bound is excluded.
            refuse_where(name, (values % 1 != 0) | (values < least) | (values >= float(most) + 1), size, told)
        else:
            refuse_where(name, (values < least) | (values > most), size, told)
    with np.errstate(over="ignore"):
        made = values.astype(wanted)
    if wanted.kind == "f" and values.dtype != wanted:
        refuse_where(name, ~np.isfinite(made), size, f"the value is too large for {NAMES[wanted]}")
    return made.reshape(rows, *tensor.shape)


def refuse_where(name: str, wrong: np.ndarray, size: int, told: str) -> None:
    if wrong.any():
        raise at(name, int(wrong.argmax()) // size, told)


def check_names(model: LoadedModel, given: list[str]) -> None:
    """Raise Refusal unless each input of the model is given once, and nothing else."""
    unknown = [name for name in given if name not in model.inputs]
    missing = [name for name in model.inputs if name not in given]
    twice = [name for name in model.inputs if given.count(name) > 1]
    for names, told in ((unknown, "has no input"), (missing, "also needs the input"), (twice, "is given twice")):
        if names:
            which = listed(names)
            known = f" Its inputs: {', '.join(sorted(model.inputs))}." if names is unknown else ""
            raise bad(f"{which} {told}." if names is twice else f"{model.name} {told} {which}.{known}")


def listed(names: list[str]) -> str:
    return ", ".join(shortened(repr(name)) for name in names[:SHOWN])


def check_rows(columns: Mapping[str, int], most: int) -> int:
    """Return how many rows a request has; raises Refusal for different numbers, none or too many.

    columns: rows by input. most: how many there may be.
    """
    (first, rows), *others = columns.items()
    for name, number in others:
        if number != rows:
            raise bad(f"input {shortened(repr(name))} has {number} rows, but {shortened(repr(first))} has {rows}.")
    if not rows:
        raise bad(f"input {shortened(repr(first))} has no row; at least one is needed.")
    if rows > most:
        raise bad(f"{rows} rows are given; one request may have {most}.")
    return rows


def finite_answer(model: LoadedModel, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the model answers; raises Refusal if that is NaN or infinite, which JSON cannot say."""
    answers = in_calls(model, model.answer, columns, call_rows(model))
    for name, values in answers.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).argmax())
            told = f"{model.name} {model.version} has no finite answer for row {row}: {name!r} is NaN or infinite."
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, told)
    return answers
