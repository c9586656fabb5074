"""The batches of simulated nights: sound ones, one in other units, one that drifts, an empty one, a repeated one."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datasets.dataset import SPLIT_COLUMN, to_column, to_values

HONEST = 8  # batches of rows like train's
SHARE = 20  # one in so many of the arriving rows is in the batch in other units, and as many in the one that drifts
SEED = 42
DOLLARS = 10_000  # of the unit of MedInc
BRIGHTER = 1.3


class Delivery(NamedTuple):
    """What arrives in a night. rows: None for an empty file. what: in words."""

    file: str
    rows: pa.Table | None
    what: str


class Simulation(NamedTuple):
    """What the nights of a data set are made of.

    model, baseline: those that are trained. ending: of the batches' files.
    unit: what is wrong with the batch in other units, in words. in_unit: makes it of sound rows.
    drift: what is odd about the batch that drifts, in words. drifts: which rows it is of. drifted: makes it of them.
    """

    model: str
    baseline: str
    ending: str
    unit: str
    in_unit: Callable[[pa.Table], pa.Table]
    drift: str
    drifts: Callable[[pa.Table], np.ndarray]
    drifted: Callable[[pa.Table], pa.Table]


def in_dollars(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "MedInc", pa.array(rows["MedInc"].to_numpy() * DOLLARS))


def northern(rows: pa.Table) -> np.ndarray:
    latitude = rows["Latitude"].to_numpy()
    return latitude > np.median(latitude)


def of_zeros_and_ones(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "image", to_column(np.round(to_values(rows["image"]) / 255).astype(np.uint8)))


def brighter(rows: pa.Table) -> pa.Table:
    pixels = np.minimum(to_values(rows["image"]) * BRIGHTER, 255)
    return rows.set_column(0, "image", to_column(np.round(pixels).astype(np.uint8)))


def every_row(rows: pa.Table) -> np.ndarray:
    return np.ones(rows.num_rows, bool)


def as_they_are(rows: pa.Table) -> pa.Table:
    return rows


SIMULATIONS = {
    "california_housing": Simulation(
        model="housing_mlp",
        baseline="dummy_housing",
        ending="csv",
        unit="MedInc in dollars",
        in_unit=in_dollars,
        drift="northern rows alone",
        drifts=northern,
        drifted=as_they_are,
    ),
    "fashion_mnist": Simulation(
        model="fashion_mlp",
        baseline="dummy_fashion",
        ending="parquet",
        unit="pixels of 0 and 1",
        in_unit=of_zeros_and_ones,
        drift=f"pictures that are {BRIGHTER:g} times as bright",
        drifts=every_row,
        drifted=brighter,
    ),
}


def divide(rows: pa.Table, simulation: Simulation) -> tuple[pa.Table, list[pa.Table]]:
    """Return half of the rows, the source, and the rest: for the batch in other units, honest ones, one that drifts.

    Args:
        rows: of the data set, with its own split if it has one; the parts are without it.
        simulation: of the data set.
    """
    shuffled = np.random.default_rng(SEED).permutation(rows.num_rows)
    source, rest = np.split(shuffled, [rows.num_rows // 2])
    small = len(rest) // SHARE
    odd = rest[simulation.drifts(rows.take(rest))][:small]
    wrong, others = np.split(rest[~np.isin(rest, odd)], [small])
    parts = (wrong, *np.array_split(others, HONEST), odd)
    arriving = rows.drop_columns(SPLIT_COLUMN) if SPLIT_COLUMN in rows.column_names else rows
    return rows.take(source), [arriving.take(part) for part in parts]


def plan(parts: list[pa.Table], simulation: Simulation) -> list[Delivery]:
    """Return what arrives in each of the twelve nights.

    Args:
        parts: of `divide`.
        simulation: of the data set.
    """
    wrong, *honest, odd = parts
    ending = simulation.ending
    nights = [Delivery(f"batch-{number}.{ending}", rows, "rows like train's") for number, rows in enumerate(honest, 1)]
    nights.insert(3, Delivery(f"unit.{ending}", simulation.in_unit(wrong), simulation.unit))
    nights.insert(5, Delivery(f"drift.{ending}", simulation.drifted(odd), simulation.drift))
    nights.insert(7, Delivery(f"empty.{ending}", None, "an empty file"))
    nights.insert(9, Delivery(f"again.{ending}", nights[8].rows, "the file of the night before"))
    return nights
