"""Infer from train rows what a batch of new rows must be like."""

import math

import numpy as np
import pyarrow as pa

from datasets.dataset import Dataset, to_values
from tasks.arrivals.expectation_file import (
    LEAST_WHOLE,
    Classes,
    Column,
    Expectations,
    Numbers,
    Pictures,
    Repeats,
    Rows,
    Spread,
    Text,
    Tolerance,
    checked_columns,
)
from tasks.arrivals.pictures import DARK, summarise, white_of
from tasks.data.contracts import Source

SLACK = 0.5  # of a range beyond train's extremes, as a share of their distance from the median
SLACK_OF_FEW = 20  # added to it, divided by the number of train rows, whose extremes say less the fewer they are
DIGITS = 3  # of a range
LEAST_ROWS = 10  # fewer show neither other units nor other classes
MOST_TIMES = 10  # a batch of more rows than this many times train is a mistake, or should be the source
MOST_ROWS = 1000  # that any data set accepts
TOLERANCE = Tolerance(factor=1.5, spreads=1.5, width=3.0, shares=0.5)
REPEATS = Repeats(within=0.1, earlier=0.5)
DEGREES = (180.0, 90.0)  # of longitude and latitude, to either side


def slack_of(rows: int) -> float:
    return SLACK + SLACK_OF_FEW / rows


def infer(dataset: Dataset, train: pa.Table, source: Source) -> Expectations:
    """Return the expectations that train rows suggest.

    Args:
        dataset: whose rows they are.
        train: raw rows of the train split.
        source: of these rows.
    """
    rows = train.num_rows
    return Expectations(
        dataset=dataset.name,
        source=source,
        train_rows=rows,
        rows=Rows(least=max(1, min(LEAST_ROWS, rows // LEAST_ROWS)), most=max(MOST_ROWS, MOST_TIMES * rows)),
        repeats=REPEATS,
        tolerance=TOLERANCE,
        columns={name: infer_column(dataset, name, train[name]) for name in checked_columns(dataset)},
    )


def infer_column(dataset: Dataset, name: str, column: pa.ChunkedArray) -> Column:
    """Return what train suggests of a column.

    Args:
        dataset: whose rows they are.
        name: of the column.
        column: the train rows.
    """
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return infer_pictures(to_values(column), kind)
    if name == dataset.target and dataset.class_names:
        counts = np.bincount(to_values(column), minlength=len(dataset.class_names))
        shares = [round(float(count), DIGITS) for count in counts / counts.sum()]
        return Classes(type=str(kind), classes=dict(zip(dataset.class_names, shares, strict=True)))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return Text(type=str(kind))
    bound = dict(zip(dataset.place or (), DEGREES, strict=False)).get(name, math.inf)
    values = to_values(column).astype(np.float64)
    spread = infer_spread(values, -bound, bound)
    whole = pa.types.is_floating(kind) and len(values) >= LEAST_WHOLE and bool((values == np.round(values)).all())
    return Numbers(type=str(kind), range=spread.range, quartiles=spread.quartiles, whole=whole)


def infer_pictures(pictures: np.ndarray, kind: pa.FixedShapeTensorType) -> Pictures:
    """Return what train suggests of pictures. What they show is free, but each must show something that is not dark."""
    white, found = white_of(pictures.dtype), summarise(pictures)
    spread = {
        name: infer_spread(found[name], 0, 1 if name == "dark" else white) for name in ("mean", "brightest", "dark")
    }
    return Pictures(
        type=str(kind.value_type),
        shape=list(kind.shape),
        mean=spread["mean"],
        brightest=Spread(range=[DARK * white, white], quartiles=spread["brightest"].quartiles),
        dark=Spread(range=[0, 1], quartiles=spread["dark"].quartiles),
    )


def infer_spread(values: np.ndarray, lowest: float, highest: float) -> Spread:
    """Return the range and the quartiles that train values suggest.

    Args:
        values: float64 [rows].
        lowest: the least that a value can be at all.
        highest: the greatest.
    """
    low, *quartiles, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    reach = 1 + slack_of(len(values))
    middle = quartiles[1]
    if low * high > 0:  # one sign: by factors
        ends = sorted(middle * (end / middle) ** reach for end in (low, high))
    else:
        ends = [middle + (end - middle) * reach for end in (low, high)]
    bounds = [max(lowest, outward(ends[0], math.floor)), min(highest, outward(ends[1], math.ceil))]
    return Spread(range=bounds, quartiles=[float(f"{value:.{DIGITS + 1}g}") for value in quartiles])


def outward(value: float, rounded) -> float:
    """Round to DIGITS significant digits by math.floor or math.ceil."""
    if value == 0:
        return 0.0
    unit = DIGITS - 1 - math.floor(math.log10(abs(value)))
    return float(f"{rounded(value * 10.0**unit) / 10.0**unit:.{DIGITS + 1}g}")
