"""Statistics of two models on the same rows. A gain is positive where the candidate is better.

An accuracy's gain is its difference; an RMSE's is the share by which it is lower than the champion's. `better` and
`worse` are one-sided p-values of "the models are equal":

- accuracy: the exact test of McNemar (1947) on the rows that only one of the two gets right;
- RMSE: the sign-flip test on the differences of the squared errors, whose signs are random if the models are equal. It
  holds for three rows, too, of which a bootstrap would be sure too soon.

The interval is Tango's (1998) score interval for an accuracy and the percentiles of a paired bootstrap for an RMSE.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

# A gain of an RMSE is at least this: that of a champion without any error has no least value.
LEAST_GAIN = -1000.0
CHUNK = 4_000_000  # random numbers at once
TIE = 1e-9  # sums of the same numbers in another order differ by less, relative to the sum of their sizes


@dataclass(frozen=True)
class Paired:
    """A gain, its interval, and the p-values of its being chance."""

    gain: float
    low: float
    high: float
    better: float
    worse: float


def compare_accuracy(candidate: np.ndarray, champion: np.ndarray, confidence: float) -> Paired:
    """Compare two accuracies.

    Args:
        candidate: bool [rows], whether it is right.
        champion: likewise.
        confidence: of the two-sided interval.
    """
    gained, lost = int((candidate & ~champion).sum()), int((champion & ~candidate).sum())
    rows, differ = len(candidate), gained + lost
    return Paired(
        gain=(gained - lost) / rows,
        low=tango_bound(gained, lost, rows, confidence),
        high=-tango_bound(lost, gained, rows, confidence),
        better=float(stats.binomtest(gained, differ, alternative="greater").pvalue) if differ else 1.0,
        worse=float(stats.binomtest(lost, differ, alternative="greater").pvalue) if differ else 1.0,
    )


def tango_bound(gained: int, lost: int, rows: int, confidence: float) -> float:
    """Return the lower end of the interval of an accuracy's gain, by Tango, Statistics in Medicine 17 (1998), 891.

    Args:
        gained: rows that only the candidate gets right.
        lost: rows that only the champion gets right.
        rows: all rows.
        confidence: of the two-sided interval.
    """
    if lost == rows:
        return -1.0
    gain, wanted = (gained - lost) / rows, stats.norm.ppf((1 + confidence) / 2)

    def excess(bound: float) -> float:
        linear = -gained - lost + (2 * rows - gained + lost) * bound
        share = (np.sqrt(linear**2 + 8 * rows * lost * bound * (1 - bound)) - linear) / (4 * rows)
        deviation = np.sqrt(max(rows * (2 * share + bound * (1 - bound)), 1e-300))
        return float((gained - lost - rows * bound) / deviation - wanted)

    return float(optimize.brentq(excess, -1 + 1e-12, gain - 1e-12))


def compare_rmse(
    candidate: np.ndarray, champion: np.ndarray, parts: Sequence[np.ndarray], confidence: float, draws: int, seed: int
) -> list[Paired]:
    """Compare two RMSEs on parts of the rows.

    Args:
        candidate: its errors, float64 [rows].
        champion: likewise, of the same rows.
        parts: bool [rows] each, the rows of a part.
        confidence: of the two-sided interval.
        draws: of both random tests.
        seed: of both.
    """
    squares = candidate**2, champion**2
    masks = np.stack([part.astype(np.float64) for part in parts], axis=1)  # [rows, parts]
    gains = relative_gain(squares[0] @ masks, squares[1] @ masks)
    better, worse = sign_flip_test(squares[1] - squares[0], masks, draws, seed)
    sums = [square[:, None] * masks for square in squares]
    drawn = np.concatenate(
        [relative_gain(counts @ sums[0], counts @ sums[1]) for counts in resamples(len(candidate), draws, seed)]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    columns = (gains, low, high, better, worse)
    return [Paired(*(float(value) for value in values)) for values in zip(*columns, strict=True)]


def relative_gain(candidate: np.ndarray, champion: np.ndarray) -> np.ndarray:
    """Return by which share the root of `candidate` is lower than that of `champion`; arrays of one shape."""
    equal = candidate == champion  # also where both are 0
    ratio = np.sqrt(candidate / np.where(champion > 0, champion, np.finfo(float).tiny))
    return np.where(equal, 0.0, np.maximum(1 - ratio, LEAST_GAIN))


def sign_flip_test(differences: np.ndarray, masks: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of a sum being positive and negative by chance, [parts] each.

    They are the shares of the draws, or, where it is less, Hoeffding's bound (Journal of the American Statistical
    Association 58 (1963), 13): `draws` draws show no p-value below 1 / draws, which many parts ask for.

    Args:
        differences: [rows], the champion's squared error minus the candidate's.
        masks: 0 or 1, [rows, parts].
        draws: the number of random signs for each row.
        seed: of the signs.
    """
    values = differences[:, None] * masks
    sums, tie = values.sum(axis=0), TIE * np.abs(values).sum(axis=0)
    above, below = np.ones(masks.shape[1]), np.ones(masks.shape[1])  # the observed sum is one of the draws
    generator = np.random.default_rng(seed)
    for size in chunks(len(differences), draws):
        signs = generator.integers(0, 2, (size, len(differences)), dtype=np.int8) * 2.0 - 1
        drawn = signs @ values
        above += (drawn >= sums - tie).sum(axis=0)
        below += (drawn <= sums + tie).sum(axis=0)
    squares = (values**2).sum(axis=0)
    bound = np.exp(-(sums**2) / (2 * np.where(squares > 0, squares, 1)))
    p_values = np.minimum(above / (draws + 1), np.where(sums > 0, bound, 1))
    return p_values, np.minimum(below / (draws + 1), np.where(sums < 0, bound, 1))


def resamples(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, in chunks [draws, rows], how often each row is in a sample of all rows with replacement."""
    generator = np.random.default_rng(seed)
    for size in chunks(rows, draws):
        drawn = generator.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def chunks(rows: int, draws: int) -> Iterator[int]:
    """Yield numbers of draws that add up to `draws`, each of which take no more than CHUNK random numbers."""
    most = max(1, CHUNK // rows)
    for start in range(0, draws, most):
        yield min(most, draws - start)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for there being several, by Holm, Scandinavian Journal of Statistics 6 (1979), 65."""
    corrected, most = [1.0] * len(values), 0.0
    for rank, number in enumerate(np.argsort(values, kind="stable")):
        most = max(most, min(1.0, (len(values) - rank) * values[number]))
        corrected[number] = most
    return corrected
