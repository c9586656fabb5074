"""Check a batch of new rows against the expectations of its data set, before it is accepted.

Each value is checked by itself (pandera), then the batch as a whole: how many rows, how many repeat another, whether a
column is in other units, whether the classes are others. By how much a batch may differ from train has two parts: what
the file tolerates, and what chance explains in so few rows. So an honest small batch passes.
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from config import paths
from config.params import load_params
from datasets.dataset import SPLIT_COLUMN, Dataset, to_values
from runtime.errors import UserError
from tasks.arrivals.distances import class_shares, total_variation
from tasks.arrivals.expectation_file import Classes, Expectations, Numbers, Pictures, Spread, Tolerance, read_file
from tasks.arrivals.failures import Failure
from tasks.arrivals.inference import infer
from tasks.arrivals.pictures import summarise
from tasks.preparation.split import split_rows

if TYPE_CHECKING:
    import pandas as pd

FIRST = 10  # failures that are listed for each column and reason
CHUNK = 65_536  # rows that are checked at a time
# Chance explains a difference of this many standard errors, or one of this probability: once in a million batches.
ERRORS = 5.0
CHANCE = 1e-6
FRACTION = 1e-6  # that a whole number may have, as what rounding leaves
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations
# Standard errors for n rows of a normal distribution, times the root of n: of the median in standard deviations, and of
# the interquartile range as a share of it (H. Cramér, Mathematical Methods of Statistics, 1946, 28.5).
MEDIAN_ERROR = 1.2533
IQR_ERROR = 1.1664


def read_expectations(dataset: Dataset) -> Expectations | None:
    """Return what new rows of a data set must be like, from data/expectations/D.yaml; None where there is no such file.

    The file says whether it was inferred from the real rows or from the sample, which are distributed differently. In a
    workspace on the sample, without a file of the sample, expectations are inferred from the sample's own train rows.

    Raises UserError where the file is faulty, or of the sample in a workspace on real data.
    """
    source = load_params().data.source
    expectations = read_file(dataset)
    if expectations is not None and expectations.source == source:
        return expectations
    if source == "sample":
        return infer_from_sample(dataset)
    if expectations is None:
        return None
    raise UserError(
        f"{paths.expectations_file(dataset.name)}: source is 'sample', but data.source in {paths.PARAMS} is 'real'. "
        f"Run `python -m flows.expectations {dataset.name} --force`."
    )


def infer_from_sample(dataset: Dataset) -> Expectations:
    """Return expectations inferred from the train rows of the sample, which is the same in every call."""
    sample = dataset.generate()
    given = to_values(sample[SPLIT_COLUMN]).astype("U") if SPLIT_COLUMN in sample.column_names else None
    rows = split_rows(given, None, sample.num_rows, load_params().dataset(dataset.name).split)
    return infer(dataset, sample.take(pa.array(np.sort(rows["train"]))), "sample")


def check_batch(
    dataset: Dataset, table: pa.Table, expectations: Expectations, earlier: pa.Table | None = None
) -> list[Failure]:
    """Return what is wrong with a batch; an empty list: it is sound.

    For each column and reason the first FIRST failures are listed, then one that counts them all.

    Args:
        dataset: whose rows they should be.
        table: the batch.
        expectations: of the data set.
        earlier: rows that the data set has already, to count those of the batch that repeat one.
    """
    rows, allowed = table.num_rows, expectations.rows
    if not allowed.least <= rows <= allowed.most:
        return [Failure(None, None, f"{rows:,} rows", f"{allowed.least:,} to {allowed.most:,} rows are expected")]
    failures = list(check_columns(dataset, table, expectations))
    sound = [name for name in expectations.columns if name not in {failure.column for failure in failures}]
    frames = [measure(table.slice(start, CHUNK), sound, start) for start in range(0, rows, CHUNK)]
    failures += listed(found for frame in frames for found in check_values(frame, sound, expectations))
    for label, (name, spread) in spreads(sound, expectations).items():
        values = np.concatenate([frame[label].to_numpy(np.float64) for frame in frames])
        failures += check_units(name, label, values[np.isfinite(values)], spread, expectations)
    for name in sound:
        expected = expectations.columns[name]
        if isinstance(expected, Classes):
            labels = np.concatenate([frame[name].to_numpy(np.float64) for frame in frames])
            failures += check_shares(name, labels, expected, expectations.tolerance)
    if len(sound) == len(expectations.columns) and not any(table[name].null_count for name in sound):
        failures += check_repeats(table, expectations, earlier)
    return failures


def check_columns(dataset: Dataset, table: pa.Table, expectations: Expectations) -> Iterator[Failure]:
    """Yield the columns that are missing, not expected, or of another type.

    Args:
        dataset: whose rows they should be.
        table: the batch.
        expectations: of the data set.
    """
    for name, expected in expectations.columns.items():
        shape = expected.shape if isinstance(expected, Pictures) else []
        if (count := table.column_names.count(name)) != 1:
            reason = "the column is there more than once" if count else "the column is missing"
            yield Failure(None, name, f"columns {', '.join(table.column_names)}", reason)
        elif (found := type_name(table.schema.field(name).type)) != (
            wanted := " ".join([expected.type, *shaped(shape)])
        ):
            yield Failure(None, name, found, f"{wanted} is expected")
    for name in table.column_names:
        if name not in dataset.schema.names:
            yield Failure(None, name, name, "no such column is expected")


def type_name(kind: pa.DataType) -> str:
    return (
        " ".join([str(kind.value_type), *shaped(kind.shape)])
        if isinstance(kind, pa.FixedShapeTensorType)
        else str(kind)
    )


def shaped(shape: Iterable[int]) -> list[str]:
    text = " × ".join(map(str, shape))
    return [text] if text else []


def measure(table: pa.Table, columns: list[str], start: int) -> "pd.DataFrame":
    """Return the numbers that are checked: columns of the batch, and what is measured of each picture.

    Args:
        table: rows of the batch.
        columns: which to take.
        start: the number of the first row in the batch; the index of the frame begins there.
    """
    import pandas as pd

    measured = {}
    for name in columns:
        column = table[name]
        if not isinstance(column.type, pa.FixedShapeTensorType):
            measured[name] = column.to_pandas().to_numpy()
            continue
        there = column.is_valid().to_numpy()
        for what, values in summarise(to_values(column.drop_null())).items() if there.any() else ():
            measured[f"{what} of {name}"] = np.full(len(column), np.nan)
            measured[f"{what} of {name}"][there] = values
    return pd.DataFrame(measured, index=pd.RangeIndex(start, start + table.num_rows))


def spreads(columns: list[str], expectations: Expectations) -> dict[str, tuple[str, Spread]]:
    """Return for each number of `measure` its column and how it should be spread; without classes and text."""
    found: dict[str, tuple[str, Spread]] = {}
    for name in columns:
        expected = expectations.columns[name]
        if isinstance(expected, Spread):
            found[name] = (name, expected)
        if isinstance(expected, Pictures):
            found |= {f"{what} of {name}": (name, getattr(expected, what)) for what in ("mean", "brightest", "dark")}
    return found


def check_values(
    frame: "pd.DataFrame", columns: list[str], expectations: Expectations
) -> Iterator[tuple[list[Failure], int]]:
    """Yield for each column and reason how many values are wrong, and the first FIRST.

    Args:
        frame: of `measure`.
        columns: those that it was made of.
        expectations: of the data set.
    """
    import pandera.pandas as pandera  # late: it takes seconds

    column_of: dict[str, str] = {}
    schema = {}
    for label, (name, spread) in spreads(columns, expectations).items():
        low, high = spread.range
        text = f"{'' if label == name else label + ' '}outside of {low:g} to {high:g}"
        missing = name in column_of.values()  # told by another number of the same picture
        checks = [pandera.Check.in_range(low, high, error=text)]
        if isinstance(spread, Numbers) and spread.whole:
            checks.append(pandera.Check(are_whole, error="no whole number, as all of train are: other units?"))
        schema[label] = pandera.Column(checks=checks, nullable=missing)
        column_of[label] = name
    for name in columns:
        expected = expectations.columns[name]
        if isinstance(expected, Classes):
            text = f"no class: 0 to {len(expected.classes) - 1} are expected"
            schema[name] = pandera.Column(checks=pandera.Check.isin(range(len(expected.classes)), error=text))
        elif name not in column_of.values():
            schema[name] = pandera.Column()
    try:
        pandera.DataFrameSchema(schema).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for (label, check), group in errors.failure_cases.groupby(["column", "check"], sort=False):
            name, reason = column_of.get(label, label), "the value is missing" if check == "not_nullable" else check
            first = group.sort_values("index").head(FIRST)
            values = zip(first["index"], first["failure_case"], strict=True)
            yield [Failure(int(row), name, f"{value}", reason) for row, value in values], len(group)


def are_whole(values: "pd.Series") -> "pd.Series":
    """Return for each value whether it has no fraction beyond rounding; infinity, which is out of range, has none."""
    return ((values - values.round()).abs() <= FRACTION) | np.isinf(values)


def listed(found: Iterable[tuple[list[Failure], int]]) -> list[Failure]:
    """Return the first FIRST failures of each column and reason, and how many there are where there are more.

    found: of `check_values`, for one part of the batch after another.
    """
    first: dict[tuple[str | None, str], list[Failure]] = {}
    counts: dict[tuple[str | None, str], int] = {}
    for failures, count in found:
        key = failures[0].column, failures[0].reason
        first[key] = (first.get(key, []) + failures)[:FIRST]
        counts[key] = counts.get(key, 0) + count
    shown = []
    for (column, reason), failures in first.items():
        shown += failures
        if (count := counts[column, reason]) > FIRST:
            shown.append(Failure(None, column, f"{count:,} rows", f"{reason}; the first {FIRST} are listed"))
    return shown


def check_units(name: str, label: str, values: np.ndarray, spread: Spread, expectations: Expectations) -> list[Failure]:
    """Return whether numbers seem to be in other units: their median or interquartile range is not that of train.

    Numbers that have one sign are compared by factors (on the logarithmic scale), others by differences.

    Args:
        name: of the column.
        label: of the number.
        values: finite, float64 [rows].
        spread: how they should be spread.
        expectations: of the data set.
    """
    sign = np.sign(spread.range[0]) if spread.range[0] * spread.range[1] > 0 else 0.0
    values = values[sign * values > 0] if sign else values
    if not len(values):
        return []
    tolerance, chance = expectations.tolerance, ERRORS * math.sqrt(1 / len(values) + 1 / expectations.train_rows)
    found = np.quantile(values, (0.25, 0.5, 0.75))
    (low, middle, high), wanted = (
        np.log(sign * part) if sign else part for part in (found, np.array(spread.quartiles))
    )
    width = abs(wanted[2] - wanted[0])
    sigma, least = width / NORMAL_IQR, math.log(tolerance.factor) if sign else 0.0
    if not sigma and not sign:
        return []
    failures = []
    if abs(middle - wanted[1]) > max(least, tolerance.spreads * sigma) + chance * MEDIAN_ERROR * sigma:
        factor = f", {found[1] / spread.quartiles[1]:.3g} times it" if sign else ""
        reason = f"the median is far from {spread.quartiles[1]:g}, that of train{factor}: other units?"
        failures.append(Failure(None, name, f"{label}: {found[1]:.4g}", reason))
    ratio, allowed = abs(high - low) / max(width, least), tolerance.width * math.exp(chance * IQR_ERROR)
    if ratio > allowed or (not sign and ratio < 1 / allowed):
        text = f"quartiles {found[0]:.4g} and {found[2]:.4g}"
        reason = (
            f"they are {'too far apart' if ratio > 1 else 'too close'}: those of train are {spread.quartiles[0]:g} and "
            f"{spread.quartiles[2]:g}; other units, or two units?"
        )
        failures.append(Failure(None, name, f"{label}: {text}", reason))
    return failures


def check_shares(name: str, labels: np.ndarray, expected: Classes, tolerance: Tolerance) -> list[Failure]:
    """Return whether the classes of a batch are far from those of train: by the total variation of their shares.

    Its expectation by chance is at most the sum of the shares' standard errors over two, and it exceeds that by t with
    a probability of at most exp(-2 n t^2) (C. McDiarmid, "On the method of bounded differences", 1989).

    Args:
        name: of the column.
        labels: of the batch, float64 [rows]; others than classes are left out.
        expected: shares of train.
        tolerance: what is allowed beyond chance.
    """
    shares = np.array(list(expected.classes.values()))
    known = labels[np.isin(labels, np.arange(len(shares)))].astype(int)
    if not len(known):
        return []
    found = class_shares(known, len(shares))
    apart = total_variation(found, shares)
    chance = np.sqrt(shares * (1 - shares) / len(known)).sum() / 2 + math.sqrt(-math.log(CHANCE) / (2 * len(known)))
    if apart <= tolerance.shares + chance:
        return []
    most = int(np.argmax(np.abs(found - shares)))
    label = list(expected.classes)[most]
    value = f"{apart:.0%} of the rows; {label}: {found[most]:.0%}, {shares[most]:.0%} of train"
    return [Failure(None, name, value, "the classes have other shares than in train: another coding?")]


def check_repeats(table: pa.Table, expectations: Expectations, earlier: pa.Table | None) -> list[Failure]:
    """Return whether too many rows repeat another one.

    Args:
        table: the batch.
        expectations: of the data set.
        earlier: rows that the data set has already, or None.
    """
    import pandas as pd

    columns, rows, failures = list(expectations.columns), table.num_rows, []
    keys = pd.Series(row_keys(table, columns))
    within = int(keys.duplicated().sum())
    if within > expectations.repeats.within * rows:
        reason = f"at most {expectations.repeats.within:.0%} may repeat another row of the batch"
        failures.append(Failure(None, None, f"{within:,} of {rows:,} rows", reason))
    if earlier is not None:
        known = int(keys.isin(row_keys(earlier, columns)).sum())
        if known > expectations.repeats.earlier * rows:
            reason = f"at most {expectations.repeats.earlier:.0%} may repeat a row that the data set has already"
            failures.append(Failure(None, None, f"{known:,} of {rows:,} rows", reason))
    return failures


def row_keys(table: pa.Table, columns: list[str]) -> list[bytes]:
    """Return the content of each row, which equals that of another row only where all values are equal.

    Args:
        table: rows without missing values.
        columns: those that count.
    """
    import pandas as pd

    parts = []
    for name in columns:
        values = to_values(table[name])
        if values.dtype == object:  # text
            values = pd.util.hash_array(values)
        parts.append(np.ascontiguousarray(values.reshape(len(values), -1)).view(np.uint8))
    return [row.tobytes() for row in np.concatenate(parts, axis=1)]
