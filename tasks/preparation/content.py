"""The content of rows as checksums: equal rows have equal ones, on every machine and by every version."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from datasets.dataset import to_values

ROWS_AT_ONCE = 16_384  # whose values are in memory one by one


def row_digests(table: pa.Table, columns: Sequence[str]) -> list[bytes]:
    """Return the SHA-256 of each row, [rows], over the bytes of its values in these columns, little-endian."""
    digests: list[bytes] = []
    for first in range(0, table.num_rows, ROWS_AT_ONCE):
        part = table.slice(first, ROWS_AT_ONCE)
        values = [value_bytes(to_values(part[name])) for name in columns]
        digests += [hashlib.sha256(b"".join(row)).digest() for row in zip(*values, strict=True)]
    return digests


def value_bytes(values: np.ndarray) -> list[bytes]:
    """Return the bytes of each value, or array, of a column."""
    if values.dtype.kind not in "biuf":
        texts = [str(value).encode() for value in values]
        return [len(text).to_bytes(8, "little") + text for text in texts]
    rows = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return [row.tobytes() for row in rows]
