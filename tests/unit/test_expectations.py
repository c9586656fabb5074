"""Expectations: honest batches pass, whatever their size; each kind of damage is told by column and reason."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.arrivals.expectations as expectations_module
from config import paths
from datasets import dataset_names, get_dataset
from datasets.dataset import image_type, to_column, to_values
from flows.expectations import infer_file
from runtime.errors import UserError
from tasks.arrivals.expectation_file import Expectations, Numbers, read_file, to_text
from tasks.arrivals.expectations import FIRST, Failure, check_batch, read_expectations
from tasks.arrivals.inference import infer, slack_of
from tests.support.workspaces import ROOT, edit_params

HOUSING, IRIS, FASHION = (get_dataset(name) for name in ("california_housing", "iris", "fashion_mnist"))
seeds = st.integers(0, 2**32 - 1)


@cache
def sample(name: str) -> tuple[pa.Table, Expectations]:
    """Return rows of the sample, and what they suggest."""
    dataset = get_dataset(name)
    rows = dataset.generate()
    return rows, infer(dataset, rows, "sample")


def drawn(name: str, count: int, seed: int = 0) -> pa.Table:
    rows, _ = sample(name)
    return rows.take(pa.array(np.random.default_rng(seed).choice(rows.num_rows, count, replace=False)))


def failures(name: str, batch: pa.Table, earlier: pa.Table | None = None) -> list[Failure]:
    return check_batch(get_dataset(name), batch, sample(name)[1], earlier)


def told(found: list[Failure]) -> set[tuple[str | None, str]]:
    return {(failure.column, failure.reason) for failure in found}


def with_column(batch: pa.Table, name: str, values: pa.Array | np.ndarray) -> pa.Table:
    column = values if isinstance(values, pa.Array) else to_column(values)
    return batch.set_column(batch.column_names.index(name), name, column)


def with_value(batch: pa.Table, name: str, row: int, value: object) -> pa.Table:
    values = batch[name].to_pylist()
    values[row] = value
    return with_column(batch, name, pa.array(values, batch.schema.field(name).type))


@given(st.sampled_from(["iris", "california_housing"]), st.integers(10, 150), seeds)
def test_an_honest_batch_passes_whatever_its_size(name, count, seed):
    assert failures(name, drawn(name, count, seed)) == []


@pytest.mark.parametrize("count", [10, 50, 500])
def test_an_honest_batch_of_pictures_passes(count):
    assert failures("fashion_mnist", drawn("fashion_mnist", count)) == []


@given(st.sampled_from([10, 100, 1000, 0.1, 0.01, 0.001]), st.sampled_from(HOUSING.schema.names), seeds)
def test_a_column_in_other_units_is_told_by_name(factor, column, seed):
    batch = drawn("california_housing", 200, seed)
    found = failures("california_housing", with_column(batch, column, batch[column].to_numpy() * factor))
    assert {failure.column for failure in found} == {column}
    assert any("other units?" in failure.reason for failure in found)


@pytest.mark.parametrize("column", ["HouseAge", "Population"])
def test_fractions_in_a_column_of_whole_numbers_are_told_and_rounding_is_not(column):
    batch = drawn("california_housing", 200)
    values = batch[column].to_numpy()
    assert failures("california_housing", with_column(batch, column, values + 9e-7)) == []
    found = failures("california_housing", with_column(batch, column, values * 1.1))
    assert told(found[:FIRST]) == {(column, "no whole number, as all of train are: other units?")}
    first = int(np.flatnonzero(values % 10)[0])
    assert (found[0].row, float(found[0].value)) == (first, values[first] * 1.1)
    assert found[-1].value == f"{np.count_nonzero(values % 10)} rows"


def test_whole_numbers_are_inferred_from_many_rows_of_a_type_that_has_fractions():
    def whole(name: str, rows: pa.Table) -> set[str]:
        columns = infer(get_dataset(name), rows, "sample").columns
        return {column for column, expected in columns.items() if isinstance(expected, Numbers) and expected.whole}

    rows, _ = sample("california_housing")
    assert whole("california_housing", rows) == {"HouseAge", "Population"}
    assert whole("california_housing", with_value(rows, "HouseAge", 5, 20.5)) == {"Population"}
    assert whole("california_housing", rows.slice(0, 999)) == set()
    assert whole("line", sample("line")[0]) == set()
    integers = with_column(rows, "Population", rows["Population"].cast(pa.int64()).combine_chunks())
    assert whole("california_housing", integers) == {"HouseAge"}


def test_a_file_may_leave_out_that_numbers_are_whole(workspace):
    rows, expectations = sample("california_housing")
    text = to_text(expectations, slack_of(rows.num_rows))
    assert text.count(", whole: true}") == 2
    paths.EXPECTATIONS.mkdir(parents=True)
    paths.expectations_file("california_housing").write_text(text.replace(", whole: true}", "}"))
    older = read_file(HOUSING)
    assert older is not None
    batch = drawn("california_housing", 200)
    assert check_batch(HOUSING, with_column(batch, "Population", batch["Population"].to_numpy() * 1.1), older) == []


def test_rows_of_which_half_are_in_other_units_are_told():
    batch = drawn("california_housing", 400)
    values = batch["MedInc"].to_numpy().copy()
    values[::2] *= 10_000  # income in dollars
    reasons = {reason for column, reason in told(failures("california_housing", with_column(batch, "MedInc", values)))}
    assert any("two units?" in reason for reason in reasons)


def test_a_column_with_both_signs_is_told_by_its_width():
    rows = get_dataset("line").generate()
    many = pa.concat_tables([rows.slice(0, 6)] * 50)
    expectations = infer(get_dataset("line"), many, "sample").model_copy(
        update={"repeats": sample("line")[1].repeats.model_copy(update={"within": 1.0})}
    )
    assert check_batch(get_dataset("line"), many, expectations) == []
    shrunk = with_column(many, "x", many["x"].to_numpy() / 100)
    [failure] = check_batch(get_dataset("line"), shrunk, expectations)
    assert failure.column == "x"
    assert "too close" in failure.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "the value is missing"), (np.nan, "the value is missing"), (np.inf, "outside of"), (-1.0, "outside of")],
)
def test_a_wrong_value_is_told_with_its_row(value, reason):
    found = failures("california_housing", with_value(drawn("california_housing", 60), "HouseAge", 41, value))
    assert [(failure.row, failure.column) for failure in found] == [(41, "HouseAge")]
    assert found[0].reason.startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"), [(3, "no class: 0 to 2"), (-1, "no class"), (None, "the value is missing")]
)
def test_a_label_that_is_no_class_is_told_with_its_row(value, reason):
    [failure] = failures("iris", with_value(drawn("iris", 40), "species", 7, value))
    assert (failure.row, failure.column) == (7, "species")
    assert failure.reason.startswith(reason)


def test_columns_that_are_missing_unknown_or_of_another_type_are_told():
    batch = drawn("california_housing", 40)
    missing = batch.drop_columns(["AveRooms"])
    assert told(failures("california_housing", missing)) == {("AveRooms", "the column is missing")}
    more = batch.append_column("colour", pa.array(["red"] * 40))
    assert told(failures("california_housing", more)) == {("colour", "no such column is expected")}
    twice = batch.append_column("AveRooms", batch["AveRooms"])
    assert told(failures("california_housing", twice)) == {("AveRooms", "the column is there more than once")}
    other = with_column(batch, "AveRooms", batch["AveRooms"].cast(pa.float32()).combine_chunks())
    assert told(failures("california_housing", other)) == {("AveRooms", "double is expected")}


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_rows_are_told(count):
    [failure] = failures("california_housing", drawn("california_housing", count))
    assert failure == Failure(None, None, f"{count} rows", "10 to 20,000 rows are expected")


def test_far_too_many_rows_are_told_before_they_are_read():
    rows, _ = sample("california_housing")
    [failure] = failures("california_housing", pa.concat_tables([rows] * 500))
    assert failure.value == "1,000,000 rows"


def test_rows_that_repeat_one_another_are_told():
    batch = drawn("california_housing", 100)
    [failure] = failures("california_housing", pa.concat_tables([batch, batch.slice(0, 20)]))
    assert failure.value == "20 of 120 rows"
    assert "another row of the batch" in failure.reason


def test_a_batch_that_comes_twice_is_told_where_the_earlier_rows_are_given():
    rows, _ = sample("california_housing")
    batch, fresh = rows.slice(0, 100), rows.slice(100, 100)
    [failure] = failures("california_housing", batch, earlier=rows)
    assert failure.value == "100 of 100 rows"
    assert failures("california_housing", fresh, earlier=batch) == []


def test_labels_that_are_coded_otherwise_are_told():
    batch = drawn("fashion_mnist", 600)
    labels = np.zeros(600, np.int64)
    [failure] = failures("fashion_mnist", with_column(batch, "label", labels))
    assert failure.column == "label"
    assert "another coding?" in failure.reason


@pytest.mark.parametrize(
    "damage",
    [
        lambda pictures: (pictures / 255).round().astype(np.uint8),
        lambda pictures: pictures // 4,
        lambda pictures: 255 - pictures,
    ],
    ids=["0 to 1", "a quarter as bright", "inverted"],
)
def test_pictures_on_another_scale_are_told(damage):
    batch = drawn("fashion_mnist", 200)
    found = failures("fashion_mnist", with_column(batch, "image", damage(to_values(batch["image"]))))
    assert {failure.column for failure in found} == {"image"}
    assert any("units?" in failure.reason for failure in found)


def test_pictures_of_another_shape_or_type_are_told():
    batch = drawn("fashion_mnist", 40)
    pictures = to_values(batch["image"])
    larger = with_column(batch, "image", np.pad(pictures, ((0, 0), (2, 2), (2, 2))))
    assert told(failures("fashion_mnist", larger)) == {("image", "uint8 28 × 28 is expected")}
    floats = with_column(batch, "image", (pictures / 255).astype(np.float32))
    assert told(failures("fashion_mnist", floats)) == {("image", "uint8 28 × 28 is expected")}


def test_a_blank_or_missing_picture_is_told_with_its_row():
    batch = drawn("fashion_mnist", 40)
    pictures = to_values(batch["image"]).copy()
    pictures[3] = 0
    assert {failure.row for failure in failures("fashion_mnist", with_column(batch, "image", pictures))} == {3}
    lists = [None, *(picture.ravel().tolist() for picture in pictures[1:])]
    storage = pa.array(lists, pa.list_(pa.uint8(), 784))
    holed = pa.ExtensionArray.from_storage(image_type(np.uint8, (28, 28)), storage)
    found = failures("fashion_mnist", with_column(batch, "image", holed))
    assert [failure.row for failure in found if failure.reason == "the value is missing"] == [0]


@given(seeds)
def test_the_order_of_the_rows_does_not_matter(seed):
    batch = drawn("california_housing", 80, seed)
    damaged = with_value(with_column(batch, "Population", batch["Population"].to_numpy() * 1000), "MedInc", 5, -2.0)
    mixed = damaged.take(pa.array(np.random.default_rng(seed).permutation(80)))
    assert told(failures("california_housing", damaged)) == told(failures("california_housing", mixed)) != set()


def test_many_failures_of_one_kind_are_counted_and_the_first_are_listed():
    batch = drawn("california_housing", 500)
    found = failures("california_housing", with_column(batch, "Latitude", -batch["Latitude"].to_numpy()))
    rows = [failure.row for failure in found if failure.row is not None]
    assert rows == list(range(FIRST))
    assert any(failure.value == "500 rows" and f"the first {FIRST} are listed" in failure.reason for failure in found)


def test_rows_that_are_checked_in_parts_have_their_numbers_in_the_batch(monkeypatch):
    monkeypatch.setattr(expectations_module, "CHUNK", 30)
    batch = drawn("california_housing", 100)
    values = batch["HouseAge"].to_numpy().copy()
    values[20:95] = -1
    found = failures("california_housing", with_column(batch, "HouseAge", values))
    assert [failure.row for failure in found if failure.row is not None] == list(range(20, 20 + FIRST))
    assert "75 rows" in {failure.value for failure in found}


@pytest.mark.parametrize("name", dataset_names())
def test_the_file_says_what_was_inferred(name, workspace):
    rows, expectations = sample(name)
    paths.EXPECTATIONS.mkdir(parents=True)
    paths.expectations_file(name).write_text(to_text(expectations, slack_of(rows.num_rows)), encoding="utf-8")
    assert read_file(get_dataset(name)) == expectations
    assert all(len(line) <= 120 for line in paths.expectations_file(name).read_text().splitlines())


@pytest.mark.parametrize("name", dataset_names())
def test_the_expectations_of_the_repository_are_of_the_real_rows_of_its_data_sets(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    expectations = read_file(get_dataset(name))
    assert expectations is not None
    assert expectations.source == "real"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("holds: numbers", "holds: nombres", r"columns\.sepal_length: .*'nombres'"),
        ("least: 10", "least: 0", r"rows\.least: .*greater than 0"),
        ("  sepal_width:", "  width:", r"columns are sepal_length, width.*flows\.expectations iris --force"),
        ("setosa:", "rosa:", r"columns\.species\.classes are rosa"),
        ("dataset: iris", "dataset: irises", r"dataset is 'irises', expected 'iris'"),
        ("tolerance:", "tolerances:", "unknown parameter 'tolerances'"),
        ("range: [", "range: [99, ", r"columns\.sepal_length\.numbers\.range: "),
        ("columns:", "columns: {", "not valid YAML"),
    ],
)
def test_a_faulty_file_is_told_with_the_key(old, new, message, workspace):
    rows, expectations = sample("iris")
    text = to_text(expectations, slack_of(rows.num_rows))
    assert old in text
    paths.EXPECTATIONS.mkdir(parents=True)
    paths.expectations_file("iris").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"^data/expectations/iris\.yaml.*{message}"):
        read_file(IRIS)


def test_a_workspace_on_the_sample_needs_no_file_and_heeds_none_of_the_real_rows(workspace):
    inferred = read_expectations(IRIS)
    assert inferred is not None
    assert (inferred.source, inferred.train_rows) == ("sample", 84)
    paths.EXPECTATIONS.mkdir(parents=True)
    paths.expectations_file("iris").write_text((ROOT / paths.expectations_file("iris")).read_text())
    assert read_expectations(IRIS) == inferred
    edited = inferred.model_copy(update={"train_rows": 85})
    paths.expectations_file("iris").write_text(to_text(edited, 0.5))
    assert read_expectations(IRIS) == edited


def test_a_workspace_on_real_rows_takes_only_a_file_of_real_rows(workspace):
    edit_params(workspace, data__source="real")
    assert read_expectations(IRIS) is None
    rows, expectations = sample("iris")
    paths.EXPECTATIONS.mkdir(parents=True)
    paths.expectations_file("iris").write_text(to_text(expectations, slack_of(rows.num_rows)))
    with pytest.raises(UserError, match=r"source is 'sample'.*flows\.expectations iris --force"):
        read_expectations(IRIS)


def test_an_edited_file_is_replaced_only_by_force(prepared, capsys):
    path = paths.expectations_file("iris")
    infer_file("iris", force=False)
    inferred = path.read_text()
    assert "Review it" in capsys.readouterr().out
    infer_file("iris", force=False)
    assert "nothing to do" in capsys.readouterr().out
    path.write_text(inferred.replace("least: 8", "least: 3"))
    with pytest.raises(UserError, match="--force replaces it"):
        infer_file("iris", force=False)
    assert "-rows: {least: 3" in (shown := capsys.readouterr().out)
    assert "+rows: {least: 8" in shown
    assert "least: 3" in path.read_text()
    infer_file("iris", force=True)
    assert path.read_text() == inferred


def test_without_prepared_rows_the_stage_to_run_is_named(workspace):
    with pytest.raises(UserError, match="dvc repro ingest@iris"):
        infer_file("iris", force=False)
    assert not paths.expectations_file("iris").exists()
