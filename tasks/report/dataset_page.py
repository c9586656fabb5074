"""Data set page: the content of the page of one data set."""

from typing import Any

import numpy as np
import pyarrow as pa

from config import paths
from datasets.dataset import to_values
from tasks.report import charts, drift
from tasks.report.images import to_png
from tasks.report.read import Data

# What `prepare` does to the features, by the name of the method in params.yaml.
NORMALIZATIONS = {
    "none": "None: the values are unchanged.",
    "standard": "Each feature has mean 0 and standard deviation 1 on train.",
    "clipped": "Each feature is clipped to the middle of train, then has mean 0 and standard deviation 1 there.",
    "pixels": "Pixels are divided by 255.",
}
EXAMPLES = 10
OUTLIERS = 10
SHOWN_ROWS = 5
SHOWN_BATCHES = 12


def describe_data(read: Data, models: list[str]) -> dict[str, Any]:
    """Return what the page of a data set shows. models: those that are trained on it."""
    page: dict[str, Any] = {
        "name": read.dataset.name,
        "title": read.dataset.title,
        "missing": read.missing,
        "provenance": read.provenance,
        "schema": read.schema,
        "normalization": NORMALIZATIONS[read.normalization.method] if read.normalization else None,
        "models": models,
        "columns": describe_columns(read),
        "classes": None,
        "batches": read.drifts[-SHOWN_BATCHES:],
        "all_batches": len(read.drifts),
        "drift": [],
        "distributions": [],
        "images": [],
        "outliers": [],
        "first_rows": None,
    }
    whole = read.table is not None and set(read.rows) == set(paths.SPLITS)
    return page | (describe_rows(read) if whole else {})


def describe_rows(read: Data) -> dict[str, Any]:
    """Return what the page shows of the rows, if all splits are there."""
    assert read.table is not None
    dataset, names = read.dataset, read.dataset.class_names
    values = {name: to_values(read.table[name]) for name in (*dataset.features, dataset.target)}
    labels = values[dataset.target]
    numbers = {name: column for name, column in values.items() if column.ndim == 1}
    images = {name: column for name, column in values.items() if column.ndim == 3}
    tested = {f"mean of {name}": column.mean(axis=(1, 2)) for name, column in images.items()} | numbers
    drawn = {name: column for name, column in tested.items() if not (names and name == dataset.target)}
    shown: dict[str, Any] = {
        "drift": drift.compare_splits(tested, read.rows, bool(names)),
        "distributions": [charts.distribution(drift.histogram(drawn[name], read.rows), name) for name in drawn],
    }
    if names:
        counts = {
            split: {name: int((labels[rows] == k).sum()) for k, name in enumerate(names)}
            for split, rows in read.rows.items()
        }
        shown["classes"] = {"counts": counts, "chart": charts.class_balance(counts)}
    if not images:
        shown["first_rows"] = read.table.slice(0, SHOWN_ROWS).to_pylist()
    for column in images.values():
        first = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)]
        shown["images"] = tiles(column, first[:EXAMPLES], labels, names)
        shown["outliers"] = tiles(column, drift.far_from_class(column, labels, OUTLIERS).tolist(), labels, names)
    return shown


def tiles(images: np.ndarray, rows: list[int], labels: np.ndarray, names: Any) -> list[dict[str, Any]]:
    """Return images with their class.

    Args:
        images: uint8 [all rows, height, width].
        rows: those to show.
        labels: the class of each row.
        names: of the classes, if they have any.
    """
    return [
        {"index": row, "class": names[labels[row]] if names else labels[row], "png": to_png(images[row])}
        for row in rows
    ]


def describe_columns(read: Data) -> list[dict[str, Any]]:
    """Return name, type and use of each raw column, and the quantiles of those that hold floats."""
    dataset = read.dataset
    described = []
    for field in dataset.schema:
        use = "target" if field.name == dataset.target else "feature" if field.name in dataset.features else "split"
        spread = None
        if read.table is not None and pa.types.is_floating(field.type):
            spread = drift.far_out(to_values(read.table[field.name]))
        described.append({"name": field.name, "type": type_name(field.type), "use": use, "spread": spread})
    return described


def type_name(kind: pa.DataType) -> str:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"{kind.value_type} {' × '.join(map(str, kind.shape))}"
    return str(kind)
