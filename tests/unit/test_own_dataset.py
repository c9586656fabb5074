"""A fault in the file of one's own data set is reported as one of that file, not of what was made from it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from datasets import get_dataset, what_is_wrong
from datasets.dataset import Derived, checksum
from runtime.errors import UserError
from tasks.preparation.ingest import fetch

IRIS = get_dataset("iris")
ROWS = IRIS.generate()
FILE = r"^datasets/iris\.py: "


def with_column(name: str, values: pa.Array) -> pa.Table:
    return ROWS.set_column(ROWS.column_names.index(name), name, values)


def missing(values: np.ndarray) -> pa.Array:
    return pa.array([None, *values[1:]], pa.float64() if values.dtype == np.float64 else None)


LENGTHS = ROWS["sepal_length"].to_numpy()
TARGET = ROWS[IRIS.target]
WRONG = [
    (ROWS.drop_columns(["sepal_width"]), "column 'sepal_width' not at all"),
    (ROWS.append_column("colour", pa.array(LENGTHS)), "column 'colour' as double, where `schema` has it not at all"),
    (with_column("sepal_length", pa.array(LENGTHS.astype(np.int32))), "column 'sepal_length' as int32"),
    (ROWS.slice(0, 0), "no rows"),
    (with_column("sepal_length", missing(LENGTHS)), "1 missing or non-finite values in column 'sepal_length'"),
    (with_column("sepal_length", pa.array(np.full(len(LENGTHS), np.nan))), "non-finite values in column"),
    (with_column("sepal_length", pa.array(np.full(len(LENGTHS), np.inf))), "non-finite values in column"),
    (with_column(IRIS.target, pa.array(np.zeros(len(LENGTHS)), TARGET.type)), "rows of one class alone, 'setosa'"),
    (with_column(IRIS.target, pa.array(np.full(len(LENGTHS), 7), TARGET.type)), "where `class_names` has 3 classes"),
    (with_column(IRIS.target, pa.array(np.arange(len(LENGTHS)) - 1, TARGET.type)), "-1 to"),
    (None, "a NoneType, not a pyarrow.Table"),
    ([1, 2], "a list, not a pyarrow.Table"),
]


@pytest.mark.parametrize(("table", "told"), WRONG)
@pytest.mark.parametrize("source", ["sample", "real"])
def test_rows_that_its_file_does_not_state_are_told_with_that_file(source, table, told):
    sha256 = checksum(table) if isinstance(table, pa.Table) else ""
    mine = replace(IRIS, generate=lambda: table, fetch=lambda: table, sha256=sha256, cache=None)
    with pytest.raises(UserError, match=FILE) as caught:
        fetch(mine, source)
    assert told in str(caught.value)
    assert ("generate()" if source == "sample" else "fetch()") in str(caught.value)
    assert "--force" not in str(caught.value)


def test_rows_of_an_odd_split_are_told_with_its_file():
    line = get_dataset("line")
    rows = line.generate()
    odd = rows.set_column(rows.column_names.index("split"), "split", pa.array(["dev"] * rows.num_rows))
    with pytest.raises(UserError, match=r"^datasets/line\.py: generate\(\) returns 'dev' in column 'split'"):
        fetch(replace(line, generate=lambda: odd), "sample")


def test_other_rows_than_the_stated_ones_say_where_the_checksum_stands():
    mine = replace(IRIS, fetch=lambda: ROWS, sha256="0" * 64, cache=None)
    with pytest.raises(UserError, match=rf"SHA-256 {checksum(ROWS)}.* as `sha256` in datasets/iris\.py"):
        fetch(mine, "real")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "flowers"}, "DATASET has the name 'flowers', the file 'iris'"),
        ({"features": ("petal_size",)}, "features names 'petal_size'"),
        ({"features": ()}, "features is empty"),
        ({"target": "kind"}, "target names 'kind'"),
        ({"place": ("longitude", "latitude")}, "place names 'longitude'"),
        ({"class_names": ("setosa",)}, "class_names has 1 class"),
        ({"derived": {"area": Derived(("petal_size",), abs)}}, "derived['area'] names 'petal_size'"),
    ],
)
def test_a_file_that_contradicts_itself_is_told(changes, told):
    assert told in what_is_wrong("iris", replace(IRIS, **changes))
    assert what_is_wrong("iris", IRIS) == ""
    assert "no DATASET" in what_is_wrong("iris", None)
