"""Networks: exact parameter counts, shapes, seeds, saving; and the perceptron against its formula."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import Perceptron
from sklearn.model_selection import train_test_split

from config.errors import UserError
from config.params import load_params
from models import adapt_normalization, build_model, family_names, network_input
from models.losses import half_squared_error
from models.perceptron import ThresholdUnit, heaviside
from models.views import columns_needed, compute_inputs, get_input_view, get_target_view

# Inputs, parameters in all, trainable parameters: the table of the notes' architectures.
EXPECTED = {
    "linear_neuron": ({"x": (1,)}, 2, 2),
    "iris_perceptron": ({"petals": (2,)}, 3, 3),
    "iris_mlp": ({"features": (4,)}, 83, 83),
    "housing_mlp": ({"features": (8,)}, 5_618, 5_601),
    "housing_wide_deep": ({"features": (8,)}, 1_256, 1_239),
    "housing_wide_deep_two_inputs": ({"wide": (5,), "deep": (6,)}, 1_200, 1_176),
    "fashion_mlp": ({"image": (28, 28)}, 266_610, 266_610),
    "fashion_mlp_300": ({"image": (28, 28)}, 328_810, 328_810),
}


def build(name: str) -> keras.Model:
    model = load_params().model(name)
    return build_model(model.family, EXPECTED[name][0], name, model.build)


def rows_for(name: str, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=(count, *shape)).astype(np.float32) for key, shape in EXPECTED[name][0].items()}


def test_every_model_of_params_is_expected_here():
    assert sorted(load_params().models) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_parameter_count_is_exactly_that_of_the_notes(name):
    model = build(name)
    trainable = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
    assert (model.count_params(), trainable) == EXPECTED[name][1:]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_of_any_size_gives_a_row_of_outputs_each(name, count):
    outputs = load_params().model(name).build.get("outputs", 1)
    assert build(name).predict(network_input(rows_for(name, count)), verbose=0).shape == (count, outputs)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_seed_gives_the_same_weights(name):
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        weights.append(build(name).get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_saved_model_comes_back_the_same(name, tmp_path):
    model = build(name)
    adapt_normalization(model, rows_for(name, 50))
    model.save(tmp_path / "model.keras")
    rows = network_input(rows_for(name, 9))
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored.predict(rows, verbose=0), model.predict(rows, verbose=0))


@pytest.mark.parametrize("name", ["housing_mlp", "housing_wide_deep", "housing_wide_deep_two_inputs"])
def test_an_adapted_normalization_standardises_its_input(name):
    model = build(name)
    inputs = {key: rows * 3 + 5 for key, rows in rows_for(name, 500).items()}
    adapt_normalization(model, inputs)
    for key, rows in inputs.items():
        scaled = keras.ops.convert_to_numpy(model.get_layer(f"normalize_{key}")(rows))
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-3)


def test_the_wide_path_reaches_the_output_past_the_hidden_layers():
    model = build("housing_wide_deep_two_inputs")
    rows = rows_for("housing_wide_deep_two_inputs", 4)
    kernel, bias = model.get_layer("output").get_weights()
    kernel[5:] = 0  # behind the five wide columns come the 30 hidden units
    model.get_layer("output").set_weights([kernel, bias])
    expected = rows["wide"] @ kernel[:5] + bias  # a Normalization that is not adapted changes nothing
    np.testing.assert_allclose(model.predict(rows, verbose=0), expected, rtol=1e-3, atol=1e-4)


def test_wide_and_deep_must_be_the_inputs():
    arguments = {"wide": "wide", "deep": "dep", "hidden": [3], "outputs": 1}
    with pytest.raises(UserError, match=r"'dep'.*wide, deep"):
        build_model("wide_deep", {"wide": (5,), "deep": (6,)}, "m", arguments)


def test_an_unknown_family_or_argument_lists_the_valid_ones():
    with pytest.raises(UserError, match="mlp, perceptron, wide_deep"):
        build_model("mpl", {"x": (1,)}, "m", {})
    with pytest.raises(UserError, match=r"models\.m\.build 'layers'.*hidden.*outputs"):
        build_model("mlp", {"x": (1,)}, "m", {"layers": [3], "outputs": 1})
    with pytest.raises(UserError, match="does not fit family 'mlp'"):
        build_model("mlp", {"x": (1,)}, "m", {"hidden": [-3], "outputs": 1})
    for hidden in (3, "50", ["a"], [1.5], [True], {3: 4}):
        with pytest.raises(UserError, match=r"models\.m\.build: hidden"):
            build_model("mlp", {"x": (1,)}, "m", {"hidden": hidden, "outputs": 1})
    with pytest.raises(UserError, match=r"models\.m\.build: normalization"):
        build_model("mlp", {"x": (1,)}, "m", {"hidden": [], "outputs": 1, "normalization": "no"})
    with pytest.raises(UserError, match="one input"):
        build_model("mlp", {"a": (1,), "b": (1,)}, "m", {"hidden": [], "outputs": 1})
    assert family_names() == ["mlp", "perceptron", "wide_deep"]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
@settings(deadline=None)
def test_heaviside_is_0_below_zero_and_1_from_zero_on(values):
    z = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(heaviside(z)), np.where(z < 0, 0, 1))


@pytest.fixture(scope="module")
def petals():
    """Petal length and width in cm and whether the flower is a setosa, split as the notes do."""
    iris = load_iris()
    x, y = iris.data[:, 2:].astype(np.float32), (iris.target == 0).astype(np.float32)
    return x, y, train_test_split(np.arange(150), random_state=42)[0]


class WeightsAfterEachUpdate(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(np.concatenate([value.reshape(-1) for value in self.model.get_weights()]))


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_fit_applies_the_perceptron_rule_update_by_update(petals, eta):
    x, _, train = petals
    y = (load_iris().target == 2).astype(np.float32)  # virginica: not separable, so the rule never rests
    order = np.random.default_rng(1).permutation(train)
    model = build("iris_perceptron")
    model.compile(keras.optimizers.SGD(eta), half_squared_error)
    recorder = WeightsAfterEachUpdate()
    model.fit(x[order], y[order], batch_size=1, epochs=3, shuffle=False, verbose=0, callbacks=[recorder])

    w, b, expected, eta32 = np.zeros(2, np.float32), np.float32(0), [], np.float32(eta)
    for i in np.tile(order, 3):
        step = np.float32(1 if w @ x[i] + b >= 0 else 0)
        w = w + eta32 * (y[i] - step) * x[i]
        b = b + eta32 * (y[i] - step)
        expected.append([*w, b])
    assert len(np.unique(np.array(expected), axis=0)) > 20
    np.testing.assert_array_equal(recorder.weights, np.array(expected, np.float32))


def test_the_perceptron_answers_as_scikit_learns_on_every_row_and_on_the_notes_points(petals):
    x, y, train = petals
    keras.utils.set_random_seed(42)
    model = build("iris_perceptron")
    model.compile(keras.optimizers.SGD(1.0), half_squared_error)
    model.fit(x[train], y[train], batch_size=1, epochs=20, verbose=0)
    theirs = Perceptron(random_state=42).fit(x, y)  # as the notes do, on all rows
    asked = np.concatenate([x, [[2, 0.5], [3, 1]]]).astype(np.float32)
    ours = model.predict(asked, verbose=0)[:, 0] == 1
    np.testing.assert_array_equal(ours, theirs.predict(asked) == 1)
    np.testing.assert_array_equal(ours[:150], y == 1)
    assert ours[150:].tolist() == [True, False]


def test_a_threshold_unit_survives_its_config():
    layer = ThresholdUnit.from_config(ThresholdUnit(name="t").get_config())
    assert layer.compute_output_shape((None, 4)) == (None, 1)


def test_views_pick_columns_in_the_notes_order():
    columns = {name: np.full(3, k, np.float32) for k, name in enumerate(["a", "petal_length", "petal_width"])}
    views = {"left": "all", "right": "petals"}
    features = tuple(columns)
    assert columns_needed(views, features) == list(features)
    computed = {name: np.asarray(values) for name, values in compute_inputs(views, columns, features).items()}
    np.testing.assert_array_equal(computed["left"], np.tile([0, 1, 2], (3, 1)))
    np.testing.assert_array_equal(computed["right"], np.tile([1, 2], (3, 1)))


def test_a_view_that_does_not_fit_is_told_with_the_columns_there_are():
    with pytest.raises(UserError, match=r"'petal_length'.*petals.*MedInc"):
        columns_needed({"x": "petals"}, ("MedInc",))
    with pytest.raises(UserError, match="all, housing_deep, housing_wide, image, petals"):
        get_input_view("picture")
    with pytest.raises(UserError, match="class, is_setosa, value"):
        get_target_view("setosa")
