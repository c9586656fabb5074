"""Split rows into train, valid and test."""

import math
from fractions import Fraction

import numpy as np

from config import paths
from config.params import Split
from runtime.errors import UserError


def default_share(rows: int) -> Fraction:
    """Return the share of valid, and of test, for a data set whose params state none.

    A fifth each, but at most 10,000 rows and at least a hundredth: 60/20/20 up to 50,000 rows, 98/1/1 from a million
    rows on, as the lecture notes recommend.
    """
    return max(min(Fraction(1, 5), Fraction(10_000, rows)), Fraction(1, 100))


def split_rows(given: np.ndarray | None, labels: np.ndarray | None, rows: int, split: Split) -> dict[str, np.ndarray]:
    """Return the shuffled row numbers of each split: three disjoint int64 arrays that cover every row.

    scikit-learn's `train_test_split` takes test first, then valid from the remaining rows. So seed 42 and a quarter
    each give the lecture notes' splits of iris and California housing.

    Args:
        given: [rows] of "train", "valid" and "test", where the source has splits; only its train rows are divided
            further. None: every row is divided.
        labels: [rows] class of each row for a stratified split; None: not stratified.
        rows: how many there are.
        split: shares and seed.

    Raises:
        UserError: a split is empty, or a class is too rare to be stratified.
    """
    rng = np.random.default_rng(split.seed)
    given = np.full(rows, "train") if given is None else given
    share = default_share(rows)
    shares = {"test": split.test or share, "valid": split.valid or share / (1 - share)}
    left = np.flatnonzero(given == "train")
    if all(np.any(given == name) for name in shares):
        left = rng.permutation(left)
    parts = {}
    for name in shares:
        parts[name] = rng.permutation(np.flatnonzero(given == name))
        if not len(parts[name]):
            left, parts[name] = divide(left, labels, shares[name], split.seed, name)
    parts["train"] = left
    return {name: parts[name].astype(np.int64) for name in paths.SPLITS}


def divide(
    rows: np.ndarray, labels: np.ndarray | None, share: Fraction, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the remaining rows and the rows of a split.

    Args:
        rows: numbers of the rows to divide.
        labels: class of each row for a stratified split; None: not stratified.
        share: of the split.
        seed: of the split.
        name: of the split, for messages.

    Raises:
        UserError: one of the parts is empty, or a class is too rare to be stratified.
    """
    from sklearn.model_selection import train_test_split

    taken = math.ceil(len(rows) * share)
    if not 0 < taken < len(rows):
        raise UserError(f"split: {len(rows)} rows with {name} = {share} leave a split empty. Give other shares.")
    strata = None if labels is None else labels[rows]
    try:
        left, part = train_test_split(rows, test_size=taken, random_state=seed, stratify=strata)
    except ValueError as error:
        raise UserError(f"split: cannot stratify {name}: {error} Set split.stratify: false.") from None
    return left, part


def place_new_rows(rows: dict[str, np.ndarray], digests: list[bytes]) -> dict[str, np.ndarray]:
    """Return the splits with the rows that batches have brought, behind the others of each split.

    The split of a new row depends on its features and the splits of the source alone, so it keeps it for ever, in
    whatever order batches come. A row with the features of a source row goes to the split of the first such row. Of the
    rest each split gets about the share that it has of the source rows.

    Args:
        rows: int64 numbers of the source rows in each split.
        digests: SHA-256 of each row's features: first the source rows, then the new ones.
    """
    source = sum(map(len, rows.values()))
    homes: dict[bytes, str] = {}
    split_of = {number: split for split, numbers in rows.items() for number in numbers.tolist()}
    for number in range(source):
        homes.setdefault(digests[number], split_of[number])
    bounds = np.cumsum([len(numbers) for numbers in rows.values()]).tolist()
    new: dict[str, list[int]] = {split: [] for split in rows}
    for number in range(source, len(digests)):
        digest = digests[number]
        new[homes.get(digest) or split_by_content(digest, dict(zip(rows, bounds, strict=True)))].append(number)
    return {split: np.concatenate([numbers, np.array(new[split], np.int64)]) for split, numbers in rows.items()}


def split_by_content(digest: bytes, bounds: dict[str, int]) -> str:
    """Return the split of a new row, by integers alone, which every machine computes alike.

    Args:
        digest: of the row; its first eight bytes are as good as a uniform number.
        bounds: the running sum of the splits' rows; the last one is their total.
    """
    total = max(bounds.values())
    place = int.from_bytes(digest[:8], "little") * total >> 64  # uniform in 0 ... total - 1
    return next(split for split, bound in bounds.items() if place < bound)
