"""Drift of a batch: false alarms are as rare as stated; a small change of one column, region or class is seen."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import datasets.california_housing
from config import paths
from datasets import get_dataset
from datasets.dataset import to_column, to_values
from runtime.errors import UserError
from tasks.arrivals.drift import (
    Limits,
    Reference,
    calibrate,
    compare,
    describe_train,
    effects_of,
    measure_drift,
)
from tasks.arrivals.drift_record import Drift, read_drift, to_markdown, write_drift
from tasks.report.build import open_templates
from tasks.report.charts import chart_pool
from tasks.report.dataset_page import SHOWN_BATCHES, describe_data
from tasks.report.read import read_data

HOUSING, FASHION = get_dataset("california_housing"), get_dataset("fashion_mnist")
ROWS = 1000  # of a batch


@cache
def houses() -> tuple[pa.Table, pa.Table]:
    """Return 11,000 train rows and a batch of ROWS others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.california_housing, "SAMPLE_ROWS", 11_000 + ROWS)
        rows = HOUSING.generate()
    return rows.slice(0, 11_000), rows.slice(11_000)


@cache
def described() -> tuple[Reference, Limits]:
    reference = describe_train(HOUSING, houses()[0])
    return reference, calibrate(reference, ROWS)


def drift_of(batch: pa.Table) -> Drift:
    reference, limits = described()
    return compare(reference, limits, batch, "a batch")


def alarms(drift: Drift) -> set[str]:
    return {column.column for column in drift.columns if column.alarm}


def changed(column: str, change) -> pa.Table:
    batch = houses()[1]
    return batch.set_column(batch.column_names.index(column), column, to_column(change(batch[column].to_numpy())))


@pytest.mark.parametrize("rate", [0.01, 0.05])
@pytest.mark.parametrize("rows", [50, 200])
def test_of_1000_batches_without_drift_the_stated_share_raises_an_alarm(rate, rows):
    reference, _ = described()
    limits = calibrate(reference, rows, rate)
    rng = np.random.default_rng(1)
    batches = [rng.integers(len(reference.cells), size=rows) for _ in range(1000)]
    found = int((effects_of(reference, batches) > limits.effects).any(axis=1).sum())
    least, most = binom.interval(0.999, 1000, rate)
    assert least <= found <= most


def test_the_stated_share_holds_for_new_batches_that_are_as_large_as_train():
    rows = pa.concat_tables(houses())
    rng, limits, found = np.random.default_rng(2), None, 0
    for _ in range(60):
        mixed = rows.take(pa.array(rng.permutation(rows.num_rows)[: 2 * ROWS]))
        reference = describe_train(HOUSING, mixed.slice(0, ROWS))
        limits = limits or calibrate(reference, ROWS, rate=0.05)
        found += compare(reference, limits, mixed.slice(ROWS), "another").alarm
    assert found <= binom.ppf(0.999, 60, 0.05)


def test_a_batch_of_new_rows_of_the_same_kind_has_no_drift():
    drift = drift_of(houses()[1])
    assert not drift.alarm
    assert alarms(drift) == set()
    assert (drift.rows, drift.train_rows) == (ROWS, 11_000)


@pytest.mark.parametrize("column", HOUSING.schema.names)
def test_a_factor_of_1_1_in_one_column_is_seen(column):
    assert column in alarms(drift_of(changed(column, lambda values: values * 1.1)))


@pytest.mark.parametrize("column", HOUSING.schema.names)
def test_a_shift_of_a_quarter_of_a_standard_deviation_is_seen(column):
    sigma = houses()[0][column].to_numpy().std()
    assert column in alarms(drift_of(changed(column, lambda values: values + sigma / 4)))


def test_a_cap_that_is_exceeded_is_seen_and_rounding_is_not():
    train, batch = houses()
    cap = np.quantile(train["MedInc"].to_numpy(), 0.95)

    def capped(rows: pa.Table, raised: float = 0.0) -> pa.Table:
        values = rows["MedInc"].to_numpy()
        return rows.set_column(0, "MedInc", to_column(np.where(values > cap, cap + raised, values)))

    def found(new: pa.Table) -> set[str]:
        return alarms(measure_drift(HOUSING, capped(train), new, "capped"))

    assert found(capped(batch)) == set()
    assert found(capped(batch, raised=1e-6)) == set()
    assert found(capped(batch, raised=0.5)) == {"MedInc"}


def test_a_missing_region_is_seen():
    train, _ = houses()
    latitude = train["Latitude"].to_numpy()
    kept = train.filter(pa.array((latitude < 35) | (latitude > 36)))  # a tenth is missing
    drift = drift_of(kept.take(pa.array(np.random.default_rng(0).choice(kept.num_rows, ROWS))))
    assert "region by Longitude and Latitude" in alarms(drift)


def test_a_region_that_is_moved_is_seen_where_no_coordinate_alone_shows_it():
    _, batch = houses()
    mixed = np.random.default_rng(0).permutation(batch["Longitude"].to_numpy())
    assert alarms(drift_of(changed("Longitude", lambda _: mixed))) == {"region by Longitude and Latitude"}


@pytest.mark.parametrize("kind", [0, 9])
def test_a_class_with_10_points_more_is_seen(kind):
    rng = np.random.default_rng(0)
    pictures = FASHION.generate()
    train = pictures.take(pa.array(rng.integers(pictures.num_rows, size=6000)))
    labels = to_values(train["label"])
    chance = np.where(labels == kind, 0.2 / (labels == kind).sum(), 0.8 / (labels != kind).sum())
    batch = train.take(pa.array(rng.choice(len(labels), ROWS, p=chance / chance.sum())))
    drift = measure_drift(FASHION, train, batch, "more of one")
    assert "label" in alarms(drift)


def test_brighter_pictures_are_seen_and_others_are_not():
    pictures = FASHION.generate()
    train, batch = pictures.slice(0, 2000), pictures.slice(2000)
    assert not measure_drift(FASHION, train, batch, "as before").alarm
    brighter = (to_values(batch["image"]) * 1.15).clip(0, 255).astype(np.uint8)
    drift = measure_drift(FASHION, train, batch.set_column(0, "image", to_column(brighter)), "brighter")
    assert "mean of image" in alarms(drift)


def test_predictions_that_moved_are_seen_though_no_column_did():
    train, batch = houses()
    rng = np.random.default_rng(0)
    values, chances = (rng.normal(size=(12_000, 1)), rng.dirichlet(np.ones(3), 12_000))
    given = {"mlp": (values[:11_000], values[11_000:] + 0.5), "classes": (chances[:11_000], chances[11_000:] ** 2)}
    assert alarms(measure_drift(HOUSING, train, batch, "batch", given)) == {"prediction of mlp"}
    swapped = {"classes": (chances[:11_000], np.where([True, False, False], 1, chances[11_000:]))}
    assert "class predicted by classes" in alarms(measure_drift(HOUSING, train, batch, "batch", swapped))


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_matter(seed):
    batch = houses()[1]
    mixed = batch.take(pa.array(np.random.default_rng(seed).permutation(ROWS)))
    assert drift_of(mixed) == drift_of(batch)


@given(st.sampled_from(HOUSING.features), st.floats(0.05, 3), st.floats(0.05, 3))
def test_a_larger_shift_is_a_larger_effect(column, one, more):
    sigma = houses()[0][column].to_numpy().std()

    def effect(shift: float) -> float:
        moved = changed(column, lambda values: values + shift * sigma)
        return next(found.effect for found in drift_of(moved).columns if found.column == column)

    assert effect(one + more) >= effect(one)


def test_more_rows_than_are_drawn_have_the_limits_that_follow():
    reference, _ = described()
    drawn, all_rows = calibrate(reference, 2000), calibrate(reference, 1_000_000)
    assert (all_rows.effects <= drawn.effects).all()
    assert (all_rows.effects >= 0.05).all()  # an effect that matters to nobody is no drift


def test_a_column_of_one_value_and_few_train_rows_do_no_harm():
    line = get_dataset("line")
    rows = line.generate()
    constant = rows.set_column(0, "x", pa.array(np.ones(rows.num_rows)))
    assert not measure_drift(line, constant, constant, "the same").alarm
    other = rows.set_column(0, "x", pa.array(np.full(rows.num_rows, 9.0)))
    many, others = (pa.concat_tables([table] * 50) for table in (constant, other))
    assert "x" in alarms(measure_drift(line, many, others, "another value"))


def test_a_record_is_read_as_it_was_written(workspace):
    drift = drift_of(changed("MedInc", lambda values: values * 1.1))
    write_drift(drift)
    assert read_drift(paths.drift_folder("california_housing") / "a batch.json") == drift
    text = to_markdown(drift)
    assert "| MedInc | Wasserstein |" in text
    assert text.count("**yes**") == 1
    assert text.index("MedInc") < text.index("HouseAge")
    assert "**No drift.**" in to_markdown(drift_of(houses()[1]))


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", ""])
def test_a_record_stays_in_its_folder(name):
    with pytest.raises(ValueError, match="batch"):
        Drift(**{**drift_of(houses()[1]).model_dump(), "batch": name})


def page(name: str) -> str:
    with chart_pool():
        described = describe_data(read_data(name), [])
        template = open_templates().get_template("dataset.html.jinja")
        return template.render(models=[], datasets=[], root="", here="", sample="", page=described)


def test_the_page_of_a_data_set_shows_its_batches_and_names_a_damaged_record(prepared):
    assert "Accepted batches" not in page("iris")
    iris = get_dataset("iris").generate()
    drift = measure_drift(get_dataset("iris"), iris, iris.slice(0, 50), "setosa <1>.csv")
    write_drift(drift)
    shown = page("iris")
    assert "Accepted batches" in shown
    assert "setosa &lt;1&gt;.csv" in shown
    assert 'data-source="data/drift/iris/setosa &lt;1&gt;.csv.json#/columns/4/effect"' in shown
    assert f"of {len(drift.columns)} effects are over their limit" in shown
    for number in range(SHOWN_BATCHES + 1):
        write_drift(drift.model_copy(update={"batch": f"{number:02}"}))
    shown = page("iris")
    assert f"the last {SHOWN_BATCHES} of {SHOWN_BATCHES + 2} batches" in shown
    assert "<h3>00</h3>" not in shown
    (paths.drift_folder("iris") / "01.json").write_text("{")
    assert "data/drift/iris/01.json" in page("iris")
    with pytest.raises(UserError, match=r"01\.json: .*may be removed"):
        read_drift(paths.drift_folder("iris") / "01.json")
