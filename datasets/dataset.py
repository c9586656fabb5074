"""The facts that the file of a data set states, and functions that all data sets share."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from runtime.errors import SourceUnreachableError

# The column of raw tables whose source has splits: "train", "valid" or "test".
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Derived:
    """A prepared column computed from raw ones, by arithmetic alone: on NumPy arrays and in an exported graph.

    compute: takes the float32 values of `columns`, in their order.
    """

    columns: tuple[str, ...]
    compute: Callable[..., Any]


@dataclass(frozen=True)
class Dataset:
    """The facts of one data set.

    `fetch` returns the real rows with exactly `schema`, in the order of the source. It raises `SourceUnreachableError`
    without a network, and `UserError` where the cache is damaged. `generate` returns artificial rows with the same
    schema, the same in every call.
    """

    name: str
    title: str
    origin: str  # who made the data, and the loader
    version: str
    licence: str
    citation: str
    schema: pa.Schema  # of the raw table
    features: tuple[str, ...]  # columns that describe a row, in the order of the lecture notes
    target: str  # the column that models learn
    class_names: tuple[str, ...] | None  # of the integer target; None: the target is a quantity
    target_unit: str | None
    sha256: str  # of the real rows, by `checksum`
    cache: str | None  # environment variable with the folder of the loader's cache
    fetch: Callable[[], pa.Table]
    generate: Callable[[], pa.Table]
    derived: dict[str, Derived] = field(default_factory=dict)  # columns that `prepare` adds; not in "all"
    limits: str = ""  # of its rows: what they do not show, and uses to avoid
    address: Callable[[], str] | None = None  # of a file that the loader downloads; None: no network needed
    cached: Callable[[], Path] | None = None  # a path in the loader's cache that exists after the download
    place: tuple[str, str] | None = None  # the columns of a row's longitude and latitude, in degrees

    @property
    def prepared_columns(self) -> tuple[str, ...]:
        return (*self.features, *self.derived)

    @property
    def has_pictures(self) -> bool:
        return any(isinstance(self.schema.field(name).type, pa.FixedShapeTensorType) for name in self.features)

    def raw_columns(self, prepared: Iterable[str]) -> list[str]:
        """Return the raw columns that the prepared ones need, in the data set's order."""
        used = {raw for name in prepared for raw in (self.derived[name].columns if name in self.derived else (name,))}
        return [name for name in self.features if name in used]

    def derive(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the floating-point columns `raw`, and the derived columns that can be computed from them."""
        made = {
            name: derived.compute(*(raw[column] for column in derived.columns))
            for name, derived in self.derived.items()
            if set(derived.columns) <= set(raw)
        }
        return {**raw, **made}


def unreachable(name: str, address: str, cache: str, folder: Path | str, error: Exception) -> SourceUnreachableError:
    """Return the error for a data set that can neither be downloaded nor found in its loader's cache.

    Args:
        name: of the data set.
        address: of the download.
        cache: the environment variable with the folder of the cache.
        folder: of the cache.
        error: of the download.
    """
    return SourceUnreachableError(
        f"{name}: could not fetch {address} ({error}). Connect to the network, or point {cache} to a folder that holds "
        f"its loader's cache of it (now {folder}), or use the built-in sample: data.source: sample in params.yaml."
    )


def image_type(dtype: np.dtype | type, shape: tuple[int, ...]) -> pa.FixedShapeTensorType:
    """Return the Arrow type of a column with an array of `shape` in each row."""
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
    """Return the SHA-256 of column names, dtypes and values, which does not depend on the file format."""
    digest = hashlib.sha256()
    for name in table.column_names:
        values = to_values(table[name])
        if values.dtype == object:
            values = values.astype("U")
        digest.update(f"{name}:{values.dtype.str}:{values.shape};".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
