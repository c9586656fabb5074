"""The layer that looks up the nearest train rows."""

from functools import cache

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.common.neighbours import Neighbours
from models.common.registry import build_model
from runtime.errors import UserError

ROWS = 40
ARGUMENTS = {"neighbours": 5, "width": 8, "hidden": [6], "outputs": 1}


def table(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features [ROWS, 3], places [ROWS, 2] on a coarse grid, so that many distances are equal, and targets."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 6, size=(ROWS, 2)).astype(np.float32) / 4
    return rng.normal(size=(ROWS, 3)).astype(np.float32), places, rng.normal(size=(ROWS, 1)).astype(np.float32)


def layer_of(features: np.ndarray, places: np.ndarray, targets: np.ndarray, neighbours: int = 5) -> Neighbours:
    layer = Neighbours(neighbours, len(features))
    layer.build((None, 3), (None, 2))
    layer.adapt(features, places, targets)
    return layer


@cache
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_model("neighbours", {"features": (3,), "place": (2,)}, "m", ARGUMENTS, train_rows=ROWS)


def answers(
    features: np.ndarray, places: np.ndarray, targets: np.ndarray, asked: np.ndarray, asked_places: np.ndarray
) -> np.ndarray:
    """Return what a network answers to the rows that are asked, with the table of all others."""
    network().get_layer("neighbours").adapt(features, places, targets)
    return keras.ops.convert_to_numpy(network()({"features": asked, "place": asked_places}))


def found(layer: Neighbours, features: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the relations, and the kernel of each candidate."""
    relations, closeness = (keras.ops.convert_to_numpy(value) for value in layer(features, places))
    return relations, np.exp(closeness[..., 0])


@given(st.integers(0, 2**32 - 1))
def test_the_answer_for_a_train_row_does_not_depend_on_its_own_target(seed):
    features, places, targets = table(seed)
    number = seed % ROWS
    far = np.linalg.norm(places - places[number], axis=1).argmax()  # the mean of all targets stays as it was
    other = targets.copy()
    other[[number, far]] += np.float32([[100], [-100]])
    one, two = (answers(features, places, own, features[[number]], places[[number]]) for own in (targets, other))
    assert one == pytest.approx(two, abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_the_neighbours_are_the_nearest_other_rows(seed):
    features, places, targets = table(seed)
    relations, kernel = found(layer_of(features, places, targets), features, places)
    for number in range(ROWS):
        distances = np.sort(np.linalg.norm(places - places[number], axis=1)[np.arange(ROWS) != number])
        width = distances[5]  # of the nearest that is left out
        expected = np.clip(1 - (distances[:5] / max(width, 1e-5)) ** 2, 0, 1)
        assert np.sort(kernel[number])[::-1][:5] == pytest.approx(expected, abs=1e-4)
        assert not ((np.abs(relations[number, :, :3]).sum(axis=1) < 1e-6) & (kernel[number] > 1e-6)).any()


@given(st.integers(0, 2**32 - 1))
def test_a_place_moved_by_a_rounding_error_changes_the_answer_by_no_more(seed):
    features, places, targets = table(seed)
    rng = np.random.default_rng(seed)
    asked = rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 6, size=(8, 2)).astype(np.float32) / 4
    moved = (asked[1] + rng.uniform(-1e-6, 1e-6, size=(8, 2))).astype(np.float32)
    one, two = (answers(features, places, targets, asked[0], place) for place in (asked[1], moved))
    assert one == pytest.approx(two, abs=2e-3)


def test_a_row_that_is_there_more_often_than_is_looked_up_sees_no_target():
    features, places = np.ones((ROWS, 3), np.float32), np.ones((ROWS, 2), np.float32)
    one, two = np.zeros((ROWS, 1), np.float32), np.linspace(-9, 9, ROWS, dtype=np.float32)[:, None]
    said = [answers(features, places, targets, features[:1], places[:1]) for targets in (one, two)]
    np.testing.assert_array_equal(*said)


def test_fewer_train_rows_than_neighbours_are_refused_by_name():
    with pytest.raises(UserError, match=r"models\.m\.build does not fit family 'neighbours': neighbours is 5"):
        build_model("neighbours", {"features": (3,), "place": (2,)}, "m", ARGUMENTS, train_rows=6)
    with pytest.raises(UserError, match="train_rows"):
        build_model("neighbours", {"features": (3,), "place": (2,)}, "m", {**ARGUMENTS, "train_rows": 9})
