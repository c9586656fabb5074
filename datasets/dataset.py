"""What a data set's file states, and what is common to all of them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

# Column of raw tables whose source sets rows aside itself: "train", "valid" or "test".
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Dataset:
    """The facts about one data set.

    `fetch` returns the real rows with exactly `schema`, in the source's own order; it raises
    `SourceUnreachableError` without a network and `UserError` where the cache is damaged.
    `generate` returns made-up rows with the same schema, the same at every call.
    """

    name: str
    title: str
    origin: str  # who made the data and which loader brings it
    version: str
    licence: str
    citation: str
    schema: pa.Schema  # of the raw table
    features: tuple[str, ...]  # columns that describe a row, in the order the notes use
    target: str  # column that is learnt
    class_names: tuple[str, ...] | None  # of the integer target; None: the target is a quantity
    target_unit: str | None
    sha256: str  # of the real rows, by `checksum`
    cache: str | None  # environment variable that says where the loader keeps its cache
    fetch: Callable[[], pa.Table]
    generate: Callable[[], pa.Table]


def image_type(dtype: np.dtype | type, shape: tuple[int, ...]) -> pa.FixedShapeTensorType:
    """Return the Arrow type of a column that holds an array of `shape` in each row."""
    return pa.fixed_shape_tensor(pa.from_numpy_dtype(dtype), shape)


def to_column(values: np.ndarray) -> pa.Array:
    """Turn values of shape [rows] or [rows, ...] into an Arrow array, without a copy where it can."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def to_values(column: pa.ChunkedArray) -> np.ndarray:
    """Turn an Arrow column without nulls into an array of shape [rows] or [rows, ...]."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    if isinstance(whole.type, pa.FixedShapeTensorType):
        return whole.to_numpy_ndarray()
    return whole.to_numpy(zero_copy_only=False)


def checksum(table: pa.Table) -> str:
    """Return the SHA-256 of the table's column names, dtypes and values, independent of the file format."""
    digest = hashlib.sha256()
    for name in table.column_names:
        values = to_values(table[name])
        if values.dtype == object:
            values = values.astype("U")
        digest.update(f"{name}:{values.dtype.str}:{values.shape};".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
