"""Which rows a model can take. What cannot be used becomes a record with file, row, column, value and reason."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runtime.errors import shortened
from tasks.arrivals.parse import FLOAT
from tasks.prediction.saved_model import Tensor

# A record of a row that cannot be used. row: from 0; null for a file. column: null for all of them.
REJECTED = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
    ]
)
MISSING = "is missing"
NOT_FINITE = "is not a finite number"
NO_NUMBER = "is no number"
Faults = list[tuple[np.ndarray, str]]  # which rows, as bools, and why


def fault_of(
    schema: pa.Schema, inputs: Mapping[str, Tensor], keep: Mapping[str, pa.DataType | None]
) -> tuple[str, str] | None:
    """Return the column and the reason for which no row of a file can be used; None where there is none.

    Args:
        schema: of the file.
        inputs: of the model.
        keep: types of the columns to keep, by name; None: no file has it.
    """
    names = schema.names
    for name in names:
        if names.count(name) > 1:
            return name, "is there twice"
    for name in (*sorted(inputs), *keep):
        if name not in names:
            return name, MISSING if name in inputs else f"{MISSING}, and --keep names it"
    for name in names:
        if name not in inputs and name not in keep:
            return name, f"is unknown to the model: name it with --keep {name}, or remove it"
        kind = plain(schema.field(name).type)
        if name in inputs and not fits(kind, inputs[name]):
            return name, f"is {words(kind)}, expected {words_of(inputs[name])}"
        if name in keep and keep[name] != kind:
            return name, f"is {words(kind)}, and {words(keep[name])} in an earlier file"
    return None


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, and every other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def fits(kind: pa.DataType, tensor: Tensor) -> bool:
    """Tell whether values of an Arrow type can be those of an input: numbers or text for a number, else a tensor."""
    if not tensor.shape:
        return is_number(kind) or is_text(kind) or pa.types.is_null(kind)
    if isinstance(kind, pa.FixedShapeTensorType):
        straight = kind.permutation is None or list(kind.permutation) == sorted(kind.permutation)
        if not straight or tuple(kind.shape) != tensor.shape:
            return False
    elif not pa.types.is_fixed_size_list(kind) or kind.list_size != np.prod(tensor.shape):
        return False
    if not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        return False
    casting: Literal["same_kind", "safe"] = "same_kind" if tensor.dtype.kind == "f" else "safe"
    return np.can_cast(kind.value_type.to_pandas_dtype(), tensor.dtype, casting)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def words(kind: pa.DataType | None) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"{' x '.join(map(str, kind.shape))} of {kind.value_type}"
    return shortened(str(kind))


def words_of(tensor: Tensor) -> str:
    return f"{' x '.join(map(str, tensor.shape))} of {tensor.dtype}" if tensor.shape else "a number"


def to_input(column: pa.Array, tensor: Tensor) -> tuple[np.ndarray, Faults]:
    """Turn a column into values for the model.

    Args:
        column: of a type that `fits`.
        tensor: the input.

    Returns:
        The values, of the input's dtype, and what is wrong with some of them. A row may have several faults, of which
        the first counts.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    faults: Faults = [] if missing is None else [(missing, MISSING)]
    if tensor.shape:
        given, gaps = elements(column, tensor)
        if gaps is not None:
            faults.append((gaps, "holds a missing value"))
    elif is_text(column.type):
        given, bad = parsed(column)
        faults += bad
    elif pa.types.is_null(column.type):
        given = np.zeros(len(column))
    else:
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        given = (column.fill_null(0) if missing is not None else column).to_numpy(zero_copy_only=False)
    values, unfit = cast(given, tensor.dtype)
    return values, faults + unfit


def elements(column: pa.Array, tensor: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values of a column of tensors or of lists, [rows, ...], and the rows with a missing element."""
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    width = int(np.prod(tensor.shape))
    flat = lists.values.slice(lists.offset * width, len(lists) * width)
    shape = (len(lists), *tensor.shape)
    if not flat.null_count:
        return flat.to_numpy().reshape(shape), None
    gaps = flat.is_null().to_numpy(zero_copy_only=False).reshape(len(lists), width).any(axis=1)
    return flat.fill_null(0).to_numpy(zero_copy_only=False).reshape(shape), gaps


def parsed(column: pa.Array) -> tuple[np.ndarray, Faults]:
    """Return the numbers that texts stand for, as float64; 0 where one stands for none."""
    texts = pc.utf8_trim_whitespace(column.cast(pa.string()).fill_null(""))
    good = pc.match_substring_regex(texts, FLOAT)
    number = good.to_numpy(zero_copy_only=False)
    if number.all():
        return texts.cast(pa.float64()).to_numpy(), []
    empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    values = pc.if_else(good, texts, "0").cast(pa.float64()).to_numpy()
    return values, [(empty, MISSING), (~number, NO_NUMBER)]


def cast(given: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, Faults]:
    """Return values as `dtype`, and which rows do not fit it."""
    if given.dtype == dtype and dtype.kind in "iu":
        return given, []
    with np.errstate(over="ignore", invalid="ignore"):
        values = given.astype(dtype, copy=False)
    if dtype.kind == "f":
        finite = np.isfinite(values)
        if finite.all():
            return values, []
        beyond = ~finite
    else:
        beyond = (given != np.trunc(given)) | (given < np.iinfo(dtype).min) | (given > np.iinfo(dtype).max)
    strange = ~np.isfinite(given) if given.dtype.kind == "f" else np.zeros(given.shape, bool)
    rows = tuple(range(1, given.ndim))
    return values, [(strange.any(axis=rows), NOT_FINITE), (beyond.any(axis=rows), f"does not fit {dtype}")]


def rejected(
    file: str | Sequence[str], rows: np.ndarray, column: str | None, values: Sequence[str], reason: str | Sequence[str]
) -> pa.RecordBatch:
    """Return records of rows that cannot be used.

    Args:
        file: the name of their file, or one for each row.
        rows: their positions there.
        column: where the fault is.
        values: what stands there, or "" for all.
        reason: of all rows, or one for each.
    """
    count = len(rows)

    def text(given: str | Sequence[str] | None) -> pa.Array:
        if given is None or isinstance(given, str):
            return pa.repeat(pa.scalar(given, pa.string()), count)
        return pa.array(given, pa.string())

    return pa.RecordBatch.from_arrays(
        [text(file), pa.array(rows, pa.int64()), text(column), text(values), text(reason)], schema=REJECTED
    )


def shown(column: pa.Array, rows: np.ndarray) -> list[str]:
    """Return the values of some rows as text; "" for a missing one and for a picture."""
    chosen = column.take(pa.array(rows))
    if pa.types.is_nested(chosen.type) or isinstance(chosen, pa.ExtensionArray):
        return [""] * len(rows)
    if pa.types.is_dictionary(chosen.type):
        chosen = chosen.dictionary_decode()
    return [shortened("" if value is None else str(value)) for value in chosen.to_pylist()]
