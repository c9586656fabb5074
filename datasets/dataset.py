"""What a data set's file states, and what is common to all of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from runtime.errors import SourceUnreachableError

# Column of raw tables whose source sets rows aside itself: "train", "valid" or "test".
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Derived:
    """A prepared column that is made of raw ones, by arithmetic alone: on NumPy arrays and in an exported graph."""

    columns: tuple[str, ...]
    compute: Callable[..., Any]  # gets the float32 values of `columns`, in their order


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
    derived: dict[str, Derived] = field(default_factory=dict)  # columns that `prepare` adds, which "all" leaves out
    limits: str = ""  # what its rows say nothing of, and what they should not be used for
    address: Callable[[], str] | None = None  # of a file that the loader downloads; None: it needs no network
    cached: Callable[[], Path] | None = None  # what the loader's cache holds once it was downloaded
    place: tuple[str, str] | None = None  # the columns of a row's longitude and latitude, in degrees

    @property
    def prepared_columns(self) -> tuple[str, ...]:
        return (*self.features, *self.derived)

    @property
    def has_pictures(self) -> bool:
        return any(isinstance(self.schema.field(name).type, pa.FixedShapeTensorType) for name in self.features)

    def raw_columns(self, prepared: Iterable[str]) -> list[str]:
        """Return the raw columns that the `prepared` ones are made of, in the data set's order."""
        used = {raw for name in prepared for raw in (self.derived[name].columns if name in self.derived else (name,))}
        return [name for name in self.features if name in used]

    def derive(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the float32 columns `raw`, and those derived columns that can be made of them."""
        made = {
            name: derived.compute(*(raw[column] for column in derived.columns))
            for name, derived in self.derived.items()
            if set(derived.columns) <= set(raw)
        }
        return {**raw, **made}


def unreachable(name: str, address: str, cache: str, folder: Path | str, error: Exception) -> SourceUnreachableError:
    """Return the error for a data set that is neither at `address` nor in `folder`, its loader's cache.

    cache: the environment variable that says where that folder is.
    """
    return SourceUnreachableError(
        f"{name}: could not fetch {address} ({error}). Connect to the network, or point {cache} to a folder that holds "
        f"its loader's cache of it (now {folder}), or use the built-in sample: data.source: sample in params.yaml."
    )


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
