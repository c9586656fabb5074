"""Prepared tables: normalized by the train split alone, typed, and nothing bad gets through."""

import numpy as np
import pyarrow as pa
import pytest

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_column, to_values
from tasks.data.files import read_table
from tasks.data.normalization import Clipped, fit_normalization
from tasks.data.raw import read_provenance, read_raw
from tasks.data.schema import prepared_schema
from tasks.preparation.prepare import count_duplicates, prepare
from tests.support.workspaces import edit_params


def read(name: str) -> pa.Table:
    dataset = get_dataset(name)
    return read_raw(dataset, read_provenance(dataset).sha256)


def prepare_again(name: str, table: pa.Table | None = None):
    dataset = get_dataset(name)
    raw = read(name) if table is None else table
    return prepare(dataset, load_params().dataset(name), raw, read_provenance(dataset))


@pytest.mark.parametrize("name", ["line", "iris", "california_housing", "fashion_mnist"])
def test_prepared_files_have_the_promised_columns_and_each_raw_row_once(prepared, name):
    tables = {split: read_table(paths.prepared_folder(name) / f"{split}.parquet", "") for split in paths.SPLITS}
    indices = np.concatenate([to_values(table["index"]) for table in tables.values()])
    raw = read(name)
    assert sorted(indices) == list(range(raw.num_rows))
    for table in tables.values():
        assert table.schema.equals(prepared_schema(get_dataset(name)))
        target = get_dataset(name).target
        np.testing.assert_allclose(to_values(table[target]), to_values(raw[target].take(table["index"])), rtol=1e-6)


def test_standardized_columns_have_mean_0_and_deviation_1_on_train_alone(prepared):
    tables = prepare_again("california_housing").tables  # clipped first
    for name in get_dataset("california_housing").features:
        values = to_values(tables["train"][name])
        assert abs(values.mean()) < 1e-4
        assert abs(values.std() - 1) < 1e-4
        assert values.dtype == np.float32


def test_valid_and_test_rows_have_no_say_in_the_statistics(prepared):
    before = prepare_again("iris")
    raw = read("iris")
    outside = np.concatenate([to_values(before.tables[split]["index"]) for split in ("valid", "test")])
    altered = to_values(raw["petal_length"]).copy()
    altered[outside] = 1e6
    position = raw.schema.get_field_index("petal_length")
    after = prepare_again("iris", raw.set_column(position, "petal_length", to_column(altered)))
    assert after.normalization == before.normalization


def test_clipped_columns_lie_within_the_bounds_of_the_train_split():
    rng = np.random.default_rng(0)
    train = {"x": np.append(rng.normal(size=999), 1e6)}
    clipped = fit_normalization("clipped", train, 0.01)
    assert isinstance(clipped, Clipped)
    assert -3 < clipped.low["x"] < -2 < 2 < clipped.high["x"] < 3
    scaled = clipped.apply("x", train["x"].astype(np.float32))
    assert abs(scaled.mean()) < 1e-5
    assert abs(scaled.std() - 1) < 1e-5
    assert np.abs(scaled).max() < 3
    inside = np.abs(train["x"]) < 2  # in between nothing but the scale changes
    np.testing.assert_allclose(np.corrcoef(scaled[inside], train["x"][inside])[0, 1], 1)
    far = clipped.apply("x", np.array([1e9, -1e9], np.float32))
    np.testing.assert_array_equal(far, [scaled.max(), scaled.min()])


def test_the_notes_preparation_stays_available(prepared):
    edit_params(prepared, datasets__california_housing__normalization="standard")
    made = prepare_again("california_housing")
    columns = [to_values(made.tables["train"][name]) for name in made.schema.features]
    np.testing.assert_allclose(np.std(columns, axis=1), 1, atol=1e-4)
    raw = read("california_housing").take(made.tables["train"]["index"])
    occupancy = to_values(raw["AveOccup"])
    expected = (occupancy - occupancy.mean()) / occupancy.std()
    np.testing.assert_allclose(to_values(made.tables["train"]["AveOccup"]), expected, rtol=1e-4, atol=1e-5)


def test_ratios_are_those_of_raw_units(prepared):
    edit_params(prepared, datasets__california_housing__normalization="none")
    table = prepare_again("california_housing").tables["valid"]
    raw = read("california_housing").take(table["index"])
    for name, above, below in (("BedrmsPerRoom", "AveBedrms", "AveRooms"), ("PeoplePerRoom", "AveOccup", "AveRooms")):
        np.testing.assert_allclose(to_values(table[name]), to_values(raw[above]) / to_values(raw[below]), rtol=1e-6)


def test_the_median_is_that_of_the_train_split(prepared):
    made = prepare_again("california_housing")
    assert made.schema.train_median == np.median(to_values(made.tables["train"]["MedHouseVal"]))
    assert prepare_again("iris").schema.train_median is None


def test_pixels_become_the_255th_part(prepared):
    train = read_table(paths.prepared_folder("fashion_mnist") / "train.parquet", "")
    raw = read("fashion_mnist").take(train["index"])
    np.testing.assert_array_equal(to_values(train["image"]), to_values(raw["image"]) / np.float32(255))


def test_a_constant_column_becomes_zero_and_not_nan():
    values = {"x": np.full(5, 3.0)}
    assert not fit_normalization("standard", values).apply("x", values["x"].astype(np.float32)).any()


def test_duplicates_are_counted_within_and_across_splits():
    rows = {"train": np.array([0, 1]), "valid": np.array([2]), "test": np.array([3, 4])}
    features = [np.array([1.0, 2.0, 1.0, 5.0, 2.0]), np.array([0.0, 0.0, 0.0, 0.0, 0.0])]
    assert count_duplicates(features, rows).model_dump() == {
        "rows_equal_to_an_earlier_row": 2,
        "valid_rows_also_in_train": 1,
        "test_rows_also_in_train": 1,
    }
