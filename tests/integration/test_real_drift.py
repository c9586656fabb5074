"""Drift of the real rows: batches without any raise alarms at the stated rate, and small changes are caught.

Each share is of `--batches` batches of 1,000 rows that the models are not trained on. `-s` shows it.
"""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import betabinom

from config.params import load_params
from datasets import get_dataset
from datasets.dataset import SPLIT_COLUMN, to_column, to_values
from tasks.arrivals.drift import (
    NORMAL_IQR,
    RATE,
    RESAMPLES,
    Limits,
    Reference,
    calibrate,
    cells_of,
    describe_train,
    effects_by_cells,
)
from tasks.arrivals.expectation_file import read_file
from tasks.arrivals.expectations import check_batch
from tasks.preparation.split import split_rows
from tests.support.workspaces import ROOT

pytestmark = [pytest.mark.real_data, pytest.mark.timeout(1800)]  # seconds, for 1,000 batches

HOUSING, FASHION = get_dataset("california_housing"), get_dataset("fashion_mnist")
ROWS = 1000  # of a batch
# What is not caught in every batch, and the least share in which it is.
MISSED = {
    "MedInc × 1.1": 0.95,
    "AveBedrms + 0.25 SD of quartiles": 0.8,
    "Population × 1.1 in 500 rows": 0.25,
    "Population × 1.1 in 1000 rows": 0.75,
    "without Longitude -117.66 to -117.08": 0.95,
}


@pytest.fixture
def batches(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--batches")


@cache
def divided(name: str) -> tuple[pa.Table, pa.Table]:
    """Return the real rows that the pipeline trains on, and the others."""
    rows = get_dataset(name).fetch()
    given = to_values(rows[SPLIT_COLUMN]).astype("U") if SPLIT_COLUMN in rows.column_names else None
    split = load_params(ROOT / "params.yaml").dataset(name).split
    train = np.zeros(rows.num_rows, bool)
    train[split_rows(given, None, rows.num_rows, split)["train"]] = True
    return rows.filter(pa.array(train)), rows.filter(pa.array(~train))


@cache
def described(name: str) -> tuple[Reference, Limits]:
    reference = describe_train(get_dataset(name), divided(name)[0])
    return reference, calibrate(reference, ROWS)


def draw(batches: int, *parts: tuple[np.ndarray, int]) -> list[np.ndarray]:
    """Return the row numbers of batches. parts: numbers to draw from without replacement, and how many."""
    rng = np.random.default_rng(0)
    return [np.concatenate([rng.choice(rows, count, replace=False) for rows, count in parts]) for _ in range(batches)]


def alarms(reference: Reference, limits: Limits, cells: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    """Return for each batch whether it raises any alarm: bool [batches]."""
    return (effects_by_cells(reference, [cells[rows] for rows in drawn]) > limits.effects).any(axis=1)


def scaled(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    return values * 1.1


def shifted(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    return values + train.std() / 4


def shifted_by_quartiles(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Shift by less where a few far values make the standard deviation large: of AveOccup 16 times as large."""
    low, high = np.quantile(train, (0.25, 0.75))
    return values + (high - low) / NORMAL_IQR / 4


def with_column(rows: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, to_column(values))


def expect_caught(shares: dict[str, float]) -> None:
    """Show the share of batches in which each change is caught, and expect that it is every one, or as in MISSED."""
    print()
    for name, share in shares.items():
        print(f"{name:<40}{share:>8.1%}")
    assert {name: share for name, share in shares.items() if share < MISSED.get(name, 1.0)} == {}


def test_batches_without_drift_raise_alarms_at_the_stated_rate(batches):
    # Each batch and its train rows are a new random split, as two samples of one population. So the alarms are
    # independent. Batches of one split share its train rows, and would be false alarms together.
    train, others = divided("california_housing")
    (reference, limits), rows = described("california_housing"), pa.concat_tables([train, others])
    effects = {RATE: limits.effects, 0.05: calibrate(reference, ROWS, 0.05).effects}
    rng, found = np.random.default_rng(0), dict.fromkeys(effects, 0)
    for _ in range(batches):
        mixed = pa.array(rng.permutation(rows.num_rows)[: train.num_rows + ROWS])
        split = describe_train(HOUSING, rows.take(mixed[: train.num_rows]))
        [reached] = effects_by_cells(split, [cells_of(split, rows.take(mixed[train.num_rows :]))])
        for rate, limit in effects.items():
            found[rate] += bool((reached > limit).any())
    print()
    for rate, alarmed in found.items():
        print(f"{f'no drift, stated: {rate:.0%}':<40}{alarmed / batches:>8.1%}")
        # A limit is an order statistic of RESAMPLES batches, so the share beyond it has a beta distribution.
        beyond = round(rate * RESAMPLES)
        least, most = betabinom.interval(0.999, batches, beyond, RESAMPLES + 1 - beyond)
        assert least <= alarmed <= most


@pytest.mark.parametrize(
    ("what", "change"),
    [("× 1.1", scaled), ("+ 0.25 SD", shifted), ("+ 0.25 SD of quartiles", shifted_by_quartiles)],
    ids=["factor", "shift", "shift by quartiles"],
)
def test_a_change_of_one_column_is_caught(what, change, batches, monkeypatch):
    monkeypatch.chdir(ROOT)
    (train, others), (reference, limits) = divided("california_housing"), described("california_housing")
    expectations, drawn = read_file(HOUSING), draw(batches, (np.arange(others.num_rows), ROWS))
    caught = {}
    for name in HOUSING.schema.names:
        changed = with_column(others, name, change(others[name].to_numpy(), train[name].to_numpy()))
        found = alarms(reference, limits, cells_of(reference, changed), drawn)
        for number in np.flatnonzero(~found):
            failures = check_batch(HOUSING, changed.take(pa.array(drawn[number])), expectations)
            found[number] = name in {failure.column for failure in failures}
        caught[f"{name} {what}"] = found.mean()
    expect_caught(caught)


def test_in_larger_batches_drift_alone_finds_what_is_told_by_fractions(batches):
    _, others = divided("california_housing")
    reference, limits = described("california_housing")
    cells = cells_of(reference, with_column(others, "Population", others["Population"].to_numpy() * 1.1))
    caught = {}
    for rows in (500, 1000, 2000):
        at_size = limits if rows == ROWS else calibrate(reference, rows)
        found = alarms(reference, at_size, cells, draw(batches, (np.arange(len(cells)), rows)))
        caught[f"Population × 1.1 in {rows} rows"] = found.mean()
    expect_caught(caught)


def test_a_missing_tenth_of_the_rows_by_place_is_caught(batches):
    (train, others), (reference, limits) = divided("california_housing"), described("california_housing")
    cells, caught = cells_of(reference, others), {}
    for name in HOUSING.place:
        edges = np.quantile(train[name].to_numpy(), np.linspace(0, 1, 21))
        place = others[name].to_numpy()
        for low, high in zip(edges, edges[2:], strict=False):
            drawn = draw(batches, (np.flatnonzero((place < low) | (place > high)), ROWS))
            caught[f"without {name} {low:.2f} to {high:.2f}"] = alarms(reference, limits, cells, drawn).mean()
    expect_caught(caught)


def test_10_points_of_a_class_and_brighter_pictures_are_caught(batches):
    (_, others), (reference, limits) = divided("fashion_mnist"), described("fashion_mnist")
    labels, cells, caught = to_values(others["label"]), cells_of(reference, others), {}
    for label, kind in enumerate(FASHION.class_names):
        for points, count in ((10, 200), (-10, 0)):  # of 100 of ROWS rows
            parts = (np.flatnonzero(labels == label), count), (np.flatnonzero(labels != label), ROWS - count)
            caught[f"{kind} {points:+} points"] = alarms(reference, limits, cells, draw(batches, *parts)).mean()
    brighter = (to_values(others["image"]) * np.float32(1.1)).clip(0, 255).astype(np.uint8)
    changed = cells_of(reference, with_column(others, "image", brighter))
    drawn = draw(batches, (np.arange(len(labels)), ROWS))
    caught["image × 1.1"] = alarms(reference, limits, changed, drawn).mean()
    expect_caught(caught)
