"""Splits: no row in two of them, none lost, and the notes' own."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from config.params import Split
from runtime.errors import UserError
from tasks.preparation.split import default_share, split_rows

shares = st.one_of(st.none(), st.fractions(Fraction(1, 10), Fraction(4, 10)))


def split(**values) -> Split:
    return Split.model_construct(**{"seed": 42, "test": None, "valid": None, "stratify": True, **values})


@given(st.integers(20, 400), shares, shares, st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_every_row_is_in_exactly_one_split(rows, test, valid, seed, classes):
    labels = np.arange(rows) % classes if classes else None
    try:
        parts = split_rows(None, labels, rows, split(test=test, valid=valid, seed=seed))
    except UserError as error:
        if "cannot stratify" not in str(error):  # too few rows for the classes; nothing else is refused here
            raise
        return
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
    assert all(len(part) for part in parts.values())


@given(st.integers(50, 300), st.integers(5, 50), st.integers(0, 1000))
def test_rows_that_the_source_sets_aside_stay_there(train, test, seed):
    given_splits = np.repeat(["train", "test"], [train, test])
    parts = split_rows(given_splits, None, train + test, split(valid=Fraction(1, 5), seed=seed))
    assert sorted(parts["test"]) == list(range(train, train + test))
    assert max(*parts["train"], *parts["valid"]) < train


@pytest.mark.parametrize(("rows", "sizes"), [(150, (84, 28, 38)), (20_640, (11_610, 3_870, 5_160))])
def test_a_quarter_each_with_seed_42_is_the_notes_split_row_by_row(rows, sizes):
    quarter = Fraction(1, 4)
    parts = split_rows(None, None, rows, split(test=quarter, valid=quarter))
    rest, test = train_test_split(np.arange(rows), random_state=42)
    train, valid = train_test_split(rest, random_state=42)
    assert (len(train), len(valid), len(test)) == sizes
    for name, expected in {"train": train, "valid": valid, "test": test}.items():
        np.testing.assert_array_equal(parts[name], expected)


def test_a_twelfth_of_fashion_mnist_is_5000_rows_of_equal_classes():
    labels = np.arange(70_000) % 10
    given_splits = np.repeat(["train", "test"], [60_000, 10_000])
    parts = split_rows(given_splits, labels, 70_000, split(valid=Fraction(1, 12)))
    assert {name: len(part) for name, part in parts.items()} == {"test": 10_000, "valid": 5_000, "train": 55_000}
    assert set(np.bincount(labels[parts["valid"]])) == {500}


@pytest.mark.parametrize(("rows", "percent"), [(100, 20), (50_000, 20), (100_000, 10), (1_000_000, 1), (50_000_000, 1)])
def test_the_default_share_follows_the_size(rows, percent):
    assert default_share(rows) == Fraction(percent, 100)


def test_the_default_split_of_a_small_set_is_60_20_20():
    parts = split_rows(None, None, 1000, split())
    assert {name: len(part) for name, part in parts.items()} == {"test": 200, "valid": 200, "train": 600}


def test_a_class_too_rare_to_stratify_is_refused_with_the_remedy():
    labels = np.array([0] * 99 + [1])
    with pytest.raises(UserError, match=r"split\.stratify: false"):
        split_rows(None, labels, 100, split(test=Fraction(1, 4)))
