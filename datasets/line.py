"""The toy line y = 2 x - 1.

The first example of the lecture notes: a single neuron must find slope 2 and intercept -1 from six points.

| column | type | meaning |
|---|---|---|
| x | float64 | -1, 0, 1, 2, 3, 4 (train); 5, 6, 7 (valid); 8, 9, 10 (test) |
| y | float64 | 2 x - 1 |
| split | string | the split of the row; the lecture notes predict x = 10 |
"""

import numpy as np
import pyarrow as pa

from datasets.dataset import SPLIT_COLUMN, Dataset

SCHEMA = pa.schema([("x", pa.float64()), ("y", pa.float64()), (SPLIT_COLUMN, pa.string())])
POINTS = {"train": range(-1, 5), "valid": range(5, 8), "test": range(10, 7, -1)}


def generate() -> pa.Table:
    x = np.array([point for points in POINTS.values() for point in points], dtype=np.float64)
    split = [name for name, points in POINTS.items() for _ in points]
    return pa.table({"x": x, "y": 2 * x - 1, SPLIT_COLUMN: split}, schema=SCHEMA)


DATASET = Dataset(
    name="line",
    title="Line",
    origin="the formula y = 2 x - 1, computed here",
    version="1",
    licence="none needed (a formula)",
    citation="the lecture notes' first example",
    schema=SCHEMA,
    features=("x",),
    target="y",
    class_names=None,
    target_unit=None,
    sha256="3cbc93e211e78554db6b62a310d5b8c6d8780a0366f028a6718f6337b4abef82",
    cache=None,
    fetch=generate,
    generate=generate,
    limits="A toy: twelve points without noise, on which a network of any size shows nothing but that it learns.",
)
