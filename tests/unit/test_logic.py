"""Logic gates: what one layer of threshold units learns by the perceptron rule, and what it cannot."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.params import load_params
from datasets import get_dataset
from models.common.features import get_target
from models.common.losses import get_loss
from models.common.registry import build_model

A, B = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
TRUTH = {"and": A & B, "or": A | B, "nand": 1 - (A & B), "xor": A ^ B}
# Hyperplanes (w_a, w_b, bias) that separate a gate's ones from its zeros, with the widest margin.
SEPARATORS = {"and": (1, 1, -1.5), "or": (1, 1, -0.5), "nand": (-1, -1, 1.5)}
LOSSES = {"heaviside": "half_squared_error", "sign": "signed_half_squared_error"}


class Updates(keras.callbacks.Callback):
    """Counts the instances that changed each unit, and those of the last epoch alone."""

    def on_train_begin(self, logs=None):
        self.before = [weights.copy() for weights in self.model.get_weights()]
        self.total = np.zeros(len(self.before) // 2, int)

    def on_epoch_begin(self, epoch, logs=None):
        self.last = np.zeros_like(self.total)

    def on_train_batch_end(self, batch, logs=None):
        now = [weights.copy() for weights in self.model.get_weights()]
        changed = [not np.array_equal(one, two) for one, two in zip(self.before, now, strict=True)]
        self.total += np.array(changed).reshape(-1, 2).any(axis=1)
        self.last += np.array(changed).reshape(-1, 2).any(axis=1)
        self.before = now

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = not self.last.any()  # the rule rests


def train(threshold: str, x: np.ndarray, targets: dict[str, np.ndarray], epochs: int) -> tuple[keras.Model, Updates]:
    """Train a layer with a unit for each target by the perceptron rule, one instance at a time."""
    first, *further = targets
    arguments = {"further": further, "threshold": threshold}
    model = build_model("perceptron", {"x": x.shape[1:]}, "m", arguments)
    model.compile(keras.optimizers.SGD(1.0), get_loss(LOSSES[threshold]))
    updates = Updates()
    y = {"output": targets[first], **{name: targets[name] for name in further}}
    y = {name: values.astype(np.float32)[:, None] for name, values in y.items()}
    model.fit(
        x, y if further else y["output"], batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=[updates]
    )
    return model, updates


def most_updates(x: np.ndarray, y: np.ndarray, separator: np.ndarray) -> float:
    """Return (R / gamma)^2 of the perceptron convergence theorem: A. B. J. Novikoff, 1962.

    x: with a last column of 1 for the bias. separator: any hyperplane through the origin that separates the classes.
    """
    radius = np.linalg.norm(x, axis=1).max()
    margin = ((2 * y - 1) * (x @ separator)).min() / np.linalg.norm(separator)
    assert margin > 0
    return (radius / margin) ** 2


@pytest.mark.parametrize("threshold", LOSSES)
def test_one_layer_learns_and_or_nand_within_the_bound_and_never_xor(threshold):
    x = np.stack([A, B], axis=1).astype(np.float32)
    model, updates = train(threshold, x, TRUTH, epochs=40)
    said = model.predict(x, verbose=0)
    with_bias = np.column_stack([x, np.ones(4)])
    for number, (gate, output) in enumerate(zip(TRUTH, ("output", "or", "nand", "xor"), strict=True)):
        right = (said[output][:, 0] > 0.5) == TRUTH[gate]
        if gate == "xor":
            assert not right.all()
            assert updates.last[number] > 0  # the rule never rests
        else:
            assert right.all()
            assert updates.last[number] == 0
            assert updates.total[number] <= most_updates(with_bias, TRUTH[gate], np.array(SEPARATORS[gate]))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(LOSSES)))
def test_separable_rows_are_learned_within_the_bound_of_the_convergence_theorem(seed, threshold):
    rng = np.random.default_rng(seed)
    separator = rng.normal(size=4)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    with_bias = np.column_stack([x, np.ones(60)])
    distance = with_bias @ separator / np.linalg.norm(separator)
    x, with_bias, y = (kept[np.abs(distance) > 0.4] for kept in (x, with_bias, (distance > 0).astype(int)))
    if not len(x):
        return
    bound = most_updates(with_bias, y, separator)
    model, updates = train(threshold, x, {"y": y}, epochs=int(bound) + 2)
    assert updates.total[0] <= bound
    assert updates.last[0] == 0
    assert ((model.predict(x, verbose=0)[:, 0] > 0.5) == y).all()


def test_the_targets_of_the_data_set_are_the_gates_of_its_columns():
    table = get_dataset("logic").generate()
    a, b = (table[name].to_numpy() == 1 for name in ("a", "b"))
    expected = {"and": a & b, "or": a | b, "nand": ~(a & b), "xor": a != b}
    for gate, values in expected.items():
        np.testing.assert_array_equal(get_target(gate).compute(table["row"].to_numpy(), None)[:, 0] == 1, values)
    recipe = load_params().model("logic_perceptron")
    assert {recipe.target, *recipe.targets.values()} == set(expected)
