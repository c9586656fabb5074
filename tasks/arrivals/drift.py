"""Drift: how far a batch of new rows is from the train rows, and whether that is more than chance.

Each measure has an effect size that does not grow with the rows: for numbers the first Wasserstein distance in
standard deviations of train, for classes and regions the Hellinger distance of their shares.

The limits are quantiles of what batches of as many rows, drawn at random from train, reach. They belong together: each
is the same multiple of the measure's own quantile, so that the share of batches without drift that exceed any of them
is the stated rate (the single-step maxT procedure of P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing,
1993, 2.3), whatever the measures and the dependences between them are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from datasets.dataset import Dataset, checksum, to_values
from tasks.arrivals.distances import class_shares, hellinger
from tasks.arrivals.drift_record import ColumnDrift, Drift
from tasks.arrivals.pictures import summarise

RATE = 0.01  # of batches without drift that raise an alarm, over all measures together
RESAMPLES = 3000  # of train: the rate is then known to 0.2 points
MOST_DRAWN = (
    5000  # rows of a resample; the limits of larger batches follow, since effects shrink by the root of the rows
)
NOTABLE = 0.05  # a smaller effect is no drift, however many rows show it
KNOTS = 200  # quantiles of train, to which numbers are rounded
TAIL = 0.02  # of train at either end: numbers beyond are moved there, so that a few extremes do not drown the rest
BEYOND = 2.0  # standard deviations by which numbers beyond all of train are moved away from it
ROUNDING = 0.01  # standard deviations beyond the extremes of train that are no difference
STRIPS = 8  # of longitude, and regions of each by latitude, with as many train rows each
TENTHS = 10  # of the train rows by one coordinate: a part that is missing shows in few cells more clearly than in many
COMPONENTS = 5  # principal components of the train pictures
FITTED = 10_000  # pictures that they are computed from
CHUNK = 4096  # pictures at a time
BLOCK = 100  # resamples at a time
NORMAL_IQR = 1.349  # interquartile range of a normal distribution, in standard deviations
Kind = Literal["numbers", "classes", "place", "tenths"]
DISTANCES: dict[Kind, str] = {
    "numbers": "Wasserstein",
    "classes": "Hellinger",
    "place": "Hellinger",
    "tenths": "Hellinger",
}

Predictions = dict[str, np.ndarray]


class Values(NamedTuple):
    """What is measured of rows. values: float64 [rows], int64 [rows] of classes, or float64 [rows, 2] of places."""

    kind: Kind
    values: np.ndarray
    classes: int = 0


@dataclass(frozen=True)
class Measure:
    """How the values of one name are distributed over cells in train.

    encode: returns the cell of each row, int64 [rows]. shares: of the train rows in each cell. steps: from each cell to
    the next, in standard deviations of train; None where the cells have no order.
    """

    name: str
    kind: Kind
    encode: Callable[[np.ndarray], np.ndarray]
    shares: np.ndarray
    steps: np.ndarray | None

    def effects(self, shares: np.ndarray) -> np.ndarray:
        """Return how far other shares are from train's: [..., cells] -> [...]."""
        if self.steps is None:
            return hellinger(shares, self.shares)
        return np.abs(np.cumsum(shares - self.shares, axis=-1)[..., :-1]) @ self.steps


@dataclass(frozen=True)
class Reference:
    """The train rows, as batches are compared with them.

    cells: of each train row in each measure, int64 [rows, measures]; the cells of a measure are numbered after those of
    the one before. components: mean and principal components of the pictures, by column.
    """

    dataset: Dataset
    sha256: str
    measures: list[Measure]
    cells: np.ndarray
    components: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def starts(self) -> np.ndarray:
        """The number of the first cell of each measure, and that after the last cell: int64 [measures + 1]."""
        return np.cumsum([0, *(len(measure.shares) for measure in self.measures)])


@dataclass(frozen=True)
class Limits:
    """The effects beyond which batches of `rows` rows are drifted, [measures]. rate: of false alarms."""

    rows: int
    rate: float
    effects: np.ndarray


def measure_drift(
    dataset: Dataset,
    train: pa.Table,
    batch: pa.Table,
    name: str,
    predictions: dict[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Drift:
    """Return how far a batch is from train.

    Args:
        dataset: whose rows they are.
        train: raw rows of the train split.
        batch: new rows that meet the expectations of the data set.
        name: of the batch.
        predictions: of models by name, for the train rows and for the batch: numbers [rows] or [rows, 1], or the
            probability of each class [rows, classes].
    """
    pairs = predictions or {}
    reference = describe_train(dataset, train, {model: pair[0] for model, pair in pairs.items()})
    limits = calibrate(reference, batch.num_rows)
    return compare(reference, limits, batch, name, {model: pair[1] for model, pair in pairs.items()})


def describe_train(dataset: Dataset, train: pa.Table, predictions: Predictions | None = None) -> Reference:
    """Return the train rows, as batches are compared with them.

    Args:
        dataset: whose rows they are.
        train: raw rows of the train split.
        predictions: of models by name, for these rows; as for `measure_drift`.
    """
    pictures = [name for name in dataset.features if isinstance(train.schema.field(name).type, pa.FixedShapeTensorType)]
    components = {name: fit_components(to_values(train[name])) for name in pictures}
    values = values_of(dataset, train, components, predictions or {})
    measures = [make_measure(name, found) for name, found in values.items()]
    starts = np.cumsum([0, *(len(measure.shares) for measure in measures)])
    pairs = zip(measures, values.values(), starts, strict=False)
    cells = np.stack([measure.encode(found.values) + start for measure, found, start in pairs], axis=1)
    return Reference(dataset, checksum(train), measures, cells, components)


def values_of(
    dataset: Dataset,
    table: pa.Table,
    components: dict[str, tuple[np.ndarray, np.ndarray]],
    predictions: Predictions,
) -> dict[str, Values]:
    """Return what is measured of rows, by name.

    Args:
        dataset: whose rows they are.
        table: raw rows.
        components: of the pictures, by column.
        predictions: of models by name, for these rows.
    """
    found: dict[str, Values] = {}
    for name in (*dataset.features, dataset.target):
        values = to_values(table[name])
        if name in components:
            numbers = summarise(values) | project(values, *components[name])
            found |= {f"{what} of {name}": Values("numbers", number) for what, number in numbers.items()}
        elif name == dataset.target and dataset.class_names:
            found[name] = Values("classes", values, len(dataset.class_names))
        elif values.dtype.kind in "iuf":
            found[name] = Values("numbers", values.astype(np.float64))
    if dataset.place:
        places = np.stack([to_values(table[name]) for name in dataset.place], axis=1)
        found[f"region by {' and '.join(dataset.place)}"] = Values("place", places)
        found |= {f"tenths of {name}": Values("tenths", to_values(table[name])) for name in dataset.place}
    for model, given in predictions.items():
        if given.ndim == 2 and given.shape[1] > 1:
            # Not how sure it is: it is surer of the rows that it was trained on than of any new ones.
            found[f"class predicted by {model}"] = Values("classes", given.argmax(axis=1), given.shape[1])
        else:
            found[f"prediction of {model}"] = Values("numbers", given.reshape(-1).astype(np.float64))
    return found


def fit_components(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and principal components of up to FITTED pictures: float32 [pixels] and [pixels, components]."""
    from sklearn.decomposition import PCA  # late: `--help` must not wait for it

    chosen = np.random.default_rng(0).permutation(len(pictures))[:FITTED]
    flat = pictures[np.sort(chosen)].reshape(len(chosen), -1).astype(np.float32)
    count = min(COMPONENTS, *flat.shape)
    fitted = PCA(count, svd_solver="randomized", random_state=0).fit(flat)
    return fitted.mean_, fitted.components_.T


def project(pictures: np.ndarray, mean: np.ndarray, components: np.ndarray) -> dict[str, np.ndarray]:
    """Return the coordinates of pictures on principal components, float64 [rows] each.

    Args:
        pictures: [rows, height, width].
        mean: float32 [pixels].
        components: float32 [pixels, components].
    """
    parts = [np.empty((0, components.shape[1]))]
    for start in range(0, len(pictures), CHUNK):
        flat = pictures[start : start + CHUNK].reshape(-1, len(mean)).astype(np.float32)
        parts.append(((flat - mean) @ components).astype(np.float64))
    return {f"component {number}": axis for number, axis in enumerate(np.concatenate(parts).T, start=1)}


def make_measure(name: str, train: Values) -> Measure:
    """Return how the values of the train rows are distributed over cells."""
    steps = None
    if train.kind == "numbers":
        encode, steps = number_cells(train.values)
        cells = len(steps) + 1
    elif train.kind == "classes":
        cells = train.classes + 1  # the last one for what is no class
        encode = class_cells(train.classes)
    elif train.kind == "tenths":
        cells = TENTHS
        encode = tenth_cells(train.values)
    else:
        cells = STRIPS * STRIPS
        encode = region_cells(train.values)
    return Measure(name, train.kind, encode, class_shares(encode(train.values), cells), steps)


def number_cells(train: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Return the function that rounds numbers to the nearest of KNOTS quantiles of train, and the steps between these.

    The steps are in standard deviations, taken from the interquartile range where that is not 0. So the sum of the
    steps, each times the difference of the two distribution functions there, is the first Wasserstein distance of the
    rounded numbers. Numbers beyond all of train are a step of BEYOND further, which a capped column would hide else.
    """
    knots = np.unique(np.quantile(train, np.linspace(TAIL, 1 - TAIL, KNOTS), method="inverted_cdf"))
    low, high = np.quantile(train, (0.25, 0.75))
    sigma = (high - low) / NORMAL_IQR or train.std() or 1.0
    ends = train.min() - ROUNDING * sigma, train.max() + ROUNDING * sigma
    between = np.array([ends[0], *(knots[1:] + knots[:-1]) / 2, ends[1]])
    steps = np.array([BEYOND, *np.diff(knots) / sigma, BEYOND])
    return lambda values: np.searchsorted(between, values, side="right"), steps


def class_cells(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.where((values >= 0) & (values < classes), values, classes).astype(np.int64)


def tenth_cells(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that tells the tenth of the train rows, by their size, in which each number lies."""
    edges = np.quantile(train, np.linspace(0, 1, TENTHS + 1)[1:-1])
    return lambda values: np.searchsorted(edges, values, side="right")


def region_cells(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that tells the region of each place.

    The train rows are divided into STRIPS strips of the first coordinate, and each of them into STRIPS regions by the
    second one; all have about as many rows.

    train: float64 [rows, 2].
    """
    inner = np.linspace(0, 1, STRIPS + 1)[1:-1]
    edges = np.quantile(train[:, 0], inner)
    strip_of = np.searchsorted(edges, train[:, 0], side="right")
    within = np.zeros((STRIPS, STRIPS - 1))
    for strip in np.unique(strip_of):
        within[strip] = np.quantile(train[strip_of == strip, 1], inner)

    def encode(places: np.ndarray) -> np.ndarray:
        strips = np.searchsorted(edges, places[:, 0], side="right")
        return strips * STRIPS + (places[:, 1:] >= within[strips]).sum(axis=1)

    return encode


def calibrate(reference: Reference, rows: int, rate: float = RATE, resamples: int = RESAMPLES, seed: int = 0) -> Limits:
    """Return the limits for batches of a size, such that a share of `rate` of those without drift exceeds any.

    A batch is drawn from train with replacement, so its distance from train has the variance of 1 / rows. A new batch
    and train are two samples: their distance has that of 1 / rows + 1 / train rows, by which the limits are scaled.

    Args:
        reference: the train rows.
        rows: of a batch.
        rate: of false alarms.
        resamples: how many batches are drawn.
        seed: of the drawing.
    """
    drawn = min(rows, MOST_DRAWN)
    rng = np.random.default_rng(seed)
    effects = []
    for done in range(0, resamples, BLOCK):
        batches = [rng.integers(len(reference.cells), size=drawn) for _ in range(min(BLOCK, resamples - done))]
        effects.append(effects_of(reference, batches))
    reached = np.concatenate(effects)
    own = np.quantile(reached, 1 - rate, axis=0, method="higher")
    own[own == 0] = NOTABLE
    together = np.quantile((reached / own).max(axis=1), 1 - rate, method="higher")
    scale = math.sqrt(drawn * (1 / rows + 1 / len(reference.cells)))
    return Limits(rows, rate, np.maximum(together * own * scale, NOTABLE))


def cells_of(reference: Reference, rows: pa.Table, predictions: Predictions | None = None) -> np.ndarray:
    """Return the cells of rows in each measure, int64 [rows, measures], numbered as those of the train rows.

    Args:
        reference: the train rows.
        rows: raw rows.
        predictions: for these rows, of the models that `reference` has predictions of.
    """
    values = values_of(reference.dataset, rows, reference.components, predictions or {})
    encoded = [measure.encode(values[measure.name].values) for measure in reference.measures]
    return np.stack(encoded, axis=1) + reference.starts[:-1]


def effects_of(reference: Reference, batches: list[np.ndarray]) -> np.ndarray:
    """Return the effects, float64 [batches, measures], of batches of train rows, each given by the rows' numbers."""
    return effects_by_cells(reference, [reference.cells[rows] for rows in batches])


def effects_by_cells(reference: Reference, batches: list[np.ndarray]) -> np.ndarray:
    """Return the effects, float64 [batches, measures], of batches given by their cells, int64 [rows, measures] each."""
    starts = reference.starts
    shares = np.stack([np.bincount(cells.ravel(), minlength=starts[-1]) / len(cells) for cells in batches])
    parts = zip(reference.measures, starts[:-1], starts[1:], strict=True)
    return np.stack([measure.effects(shares[:, start:end]) for measure, start, end in parts], axis=1)


def compare(
    reference: Reference, limits: Limits, batch: pa.Table, name: str, predictions: Predictions | None = None
) -> Drift:
    """Return how far a batch is from train.

    Args:
        reference: the train rows.
        limits: for batches of as many rows.
        batch: new rows that meet the expectations of the data set.
        name: of the batch.
        predictions: for the batch, of the models that `reference` has predictions of.
    """
    [effects] = effects_by_cells(reference, [cells_of(reference, batch, predictions)])
    columns = [
        ColumnDrift(
            column=measure.name,
            distance=DISTANCES[measure.kind],
            effect=float(effect),
            limit=float(limit),
            alarm=bool(effect > limit),
        )
        for measure, effect, limit in zip(reference.measures, effects, limits.effects, strict=True)
    ]
    return Drift(
        dataset=reference.dataset.name,
        batch=name,
        rows=batch.num_rows,
        train_rows=len(reference.cells),
        sha256=reference.sha256,
        rate=limits.rate,
        columns=columns,
        alarm=any(column.alarm for column in columns),
    )
