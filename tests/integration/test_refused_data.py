"""Faulty data is refused by the flow that reads it, with the file and the remedy."""

import re

import numpy as np
import pyarrow as pa
import pytest

from config import paths
from datasets import get_dataset
from datasets.dataset import to_column, to_values
from runtime.errors import UserError
from tasks.data.files import read_table, write_table
from tasks.data.raw import read_provenance, read_raw
from tests.support.workspaces import contents, edit_params


def test_a_data_set_of_ones_own_is_told_at_its_ingest(workspace, run_flow):
    iris = (workspace / "datasets/iris.py").read_text()
    (workspace / "datasets/mine.py").write_text(iris.replace('name="iris"', 'name="mine"') + "\nDATASET.schema.names\n")
    edit_params(workspace, datasets__mine={"normalization": "none", "split": {"seed": 1}})
    assert run_flow("ingest", "mine").returncode == 0
    (workspace / "datasets/mine.py").write_text(
        iris.replace('name="iris"', 'name="mine"')
        + "\nfrom dataclasses import replace\nROWS = DATASET.generate().slice(0, 1)\n"
        + "DATASET = replace(DATASET, generate=lambda: ROWS)\n"
    )
    done = run_flow("ingest", "mine")
    assert done.returncode == 1
    assert done.stderr.count("datasets/mine.py: generate() returns rows of one class alone") == 1
    assert "Traceback" not in done.stderr
    (workspace / "datasets/mine.py").write_text("DATA = 1\n")
    assert "datasets/mine.py: it defines no DATASET" in run_flow("ingest", "mine").stderr


def drop_column(table):
    return table.drop_columns("petal_width")


def text_column(table):
    return table.set_column(3, "petal_width", table["petal_width"].cast("string"))


def with_nan(table):
    values = to_values(table["petal_width"]).copy()
    values[[3, 7]] = np.nan
    return table.set_column(3, "petal_width", to_column(values))


def with_null(table):
    return table.set_column(3, "petal_width", pa.array([None] * 150, pa.float64()))


def no_rows(table):
    return table.slice(0, 0)


def altered(table):
    return table.set_column(3, "petal_width", to_column(np.zeros(150)))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_column, "column 'petal_width' is missing"),
        (text_column, "column 'petal_width' is string, expected double"),
        (with_nan, "column 'petal_width' has 2 missing or non-finite values"),
        (with_null, "column 'petal_width' has 150 missing"),
        (no_rows, "no rows"),
        (altered, "its rows have SHA-256"),
    ],
)
def test_a_damaged_raw_table_is_refused_with_file_column_and_remedy(prepared, damage, told):
    dataset, path = get_dataset("iris"), paths.raw_table("iris")
    write_table(path, damage(read_table(path, "")))
    with pytest.raises(UserError, match=re.escape(f"{path}: {told}")) as refused:
        read_raw(dataset, read_provenance(dataset).sha256)
    assert "dvc repro --force ingest@iris" in str(refused.value)


def test_a_stage_that_refuses_its_data_keeps_what_it_has_made_before(prepared, run_flow):
    path = paths.raw_table("iris")
    before = contents(paths.prepared_folder("iris"))
    write_table(path, with_nan(read_table(path, "")))
    done = run_flow("prepare", "iris")
    assert done.returncode == 1
    assert f"error: {path}: column 'petal_width' has 2 missing or non-finite values" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert contents(paths.prepared_folder("iris")) == before
