"""Networks: exact parameter counts, shapes, seeds, saving; and the perceptron against its formula."""

import random
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import Perceptron
from sklearn.model_selection import train_test_split

from config.params import load_params
from models.common.features import columns_needed, compute_inputs, get_feature, get_target
from models.common.layers import DepthPool
from models.common.losses import half_squared_error
from models.common.outputs import named_outputs, network_input
from models.common.registry import build_model, family_names, output_shapes
from models.common.weights import adapt_normalization, draw_weights
from models.perceptron import ThresholdUnit, heaviside
from runtime.errors import UserError
from tests.support.networks import EXPECTED, TRAIN_ROWS, each_model


def build(name: str) -> keras.Model:
    model = load_params().model(name)
    return build_model(model.family, EXPECTED[name][0], name, model.build, train_rows=TRAIN_ROWS)


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


@pytest.mark.parametrize("name", each_model())
@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_of_any_size_gives_a_row_of_outputs_each(name, count):
    build_arguments = load_params().model(name).build
    heads = {output: head["outputs"] for output, head in build_arguments.get("heads", {}).items()}
    units = build_arguments.get("outputs", 1)
    returned = named_outputs(build(name).predict(network_input(rows_for(name, count)), verbose=0))
    assert {output: values.shape for output, values in returned.items()} == {
        output: (count, heads.get(output, units)) for output in returned
    }
    assert list(returned) == list(output_shapes(build(name), EXPECTED[name][0]))


@pytest.mark.parametrize("name", each_model())
def test_the_seed_alone_decides_the_weights(name, monkeypatch):
    # As when other threads draw from it too.
    monkeypatch.setattr(random, "randint", random.SystemRandom().randint)
    weights = {}
    for run, seed in enumerate((7, 7, 8)):
        model = build(name)
        draw_weights(model, seed)
        weights[run] = np.concatenate([values.ravel() for values in model.get_weights()])
    np.testing.assert_array_equal(weights[0], weights[1])
    drawn = load_params().model(name).family != "perceptron"  # which begins with zeros
    assert (weights[0] != weights[2]).any() == drawn


@pytest.mark.parametrize("name", each_model())
def test_a_saved_model_comes_back_the_same(name, tmp_path):
    model = build(name)
    adapt_normalization(model, rows_for(name, 50))
    model.save(tmp_path / "model.keras")
    rows = network_input(rows_for(name, 9))
    restored = keras.saving.load_model(tmp_path / "model.keras")
    before, after = (named_outputs(one.predict(rows, verbose=0)) for one in (model, restored))
    assert list(after) == list(before)
    for output, values in before.items():
        np.testing.assert_array_equal(after[output], values)


@pytest.mark.parametrize(
    "name",
    [
        "housing_wide_deep_subclassed",
        "housing_wide_deep_aux",
        "housing_mlp",
        "housing_wide_deep",
        "housing_wide_deep_two_inputs",
    ],
)
def test_an_adapted_normalization_standardizes_its_input(name):
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
    with pytest.raises(
        UserError, match="cnn, feature_extractors, mlp, neighbours, perceptron, resnet, wide_deep, wide_deep_subclassed"
    ):
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
    with pytest.raises(UserError, match="train_rows"):
        build_model("mlp", {"x": (1,)}, "m", {"hidden": [], "outputs": 1, "train_rows": 3})
    assert set(family_names()) == {model.family for model in load_params().models.values()}


def test_functional_and_subclassed_wide_and_deep_are_the_same_function():
    functional, subclassed = build("housing_wide_deep_aux"), build("housing_wide_deep_subclassed")
    rows = rows_for("housing_wide_deep_aux", 40)
    adapt_normalization(functional, {key: values * 2 + 1 for key, values in rows.items()})
    subclassed_layers = {layer.name: layer for layer in subclassed._flatten_layers()}
    for layer in functional.layers:
        if layer.weights:
            subclassed_layers[layer.name].set_weights(layer.get_weights())
    for name in ("normalize_wide", "normalize_deep"):
        subclassed_layers[name].finalize_state()
    expected = functional.predict(rows, verbose=0)
    for output, values in subclassed.predict(rows, verbose=0).items():
        np.testing.assert_allclose(values, expected[output], rtol=1e-5, atol=1e-6)


def test_the_auxiliary_output_sees_the_deep_path_alone():
    model = build("housing_wide_deep_aux")
    rows = rows_for("housing_wide_deep_aux", 5)
    before = model.predict(rows, verbose=0)
    after = model.predict({**rows, "wide": rows["wide"] + 1}, verbose=0)
    np.testing.assert_array_equal(after["aux"], before["aux"])
    assert np.all(after["output"] != before["output"])


@pytest.mark.parametrize(
    ("family", "inputs", "arguments", "told"),
    [
        ("cnn", {"image": (28, 28)}, {"blocks": [], "hidden": [], "outputs": 1}, "one input"),
        ("cnn", {"image": (28, 28, 1)}, {"blocks": [{"filter": 3}], "hidden": [], "outputs": 1}, "filter"),
        (
            "feature_extractors",
            {"grey": (64, 64, 1)},
            {"extractors": {"a": {"input": "gray", "kernel": 4}}, "filters": [3], "hidden": [], "outputs": 1},
            "read gray, the inputs are grey",
        ),
        ("wide_deep_subclassed", {"x": (3,)}, {"hidden": [3], "outputs": 1}, "wide and deep, got x"),
    ],
)
def test_a_convolutional_or_subclassed_family_says_what_it_takes(family, inputs, arguments, told):
    with pytest.raises(UserError, match=told):
        build_model(family, inputs, "m", arguments)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99)
)
def test_depth_pool_reduces_neighbouring_channels(batch, height, width, groups, pool_size, seed):
    maps = np.random.default_rng(seed).normal(size=(batch, height, width, groups * pool_size)).astype(np.float32)
    for reduce, function in (("max", np.max), ("mean", np.mean)):
        layer = DepthPool(pool_size, reduce)
        pooled = keras.ops.convert_to_numpy(layer(maps))
        assert pooled.shape == layer.compute_output_shape(maps.shape)
        for k in range(groups):  # the formula, channel by channel
            expected = function(maps[..., k * pool_size : (k + 1) * pool_size], axis=-1)
            np.testing.assert_allclose(pooled[..., k], expected, rtol=1e-5, atol=1e-6)


def test_depth_pool_survives_saving_and_refuses_what_it_cannot_divide(tmp_path):
    blocks = [{"filters": 6, "kernel": 3, "depth_pool": 3}]
    arguments = {"blocks": blocks, "hidden": [4], "outputs": 2, "global_pool": True}
    model = build_model("cnn", {"image": (8, 8, 1)}, "m", arguments)
    assert model.get_layer("depth_pool_1").output.shape == (None, 4, 4, 2)
    model.save(tmp_path / "m.keras")
    rows = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    restored = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(restored.predict(rows, verbose=0), model.predict(rows, verbose=0))
    with pytest.raises(UserError, match="does not divide the 4 channels"):
        build_model("cnn", {"image": (8, 8, 1)}, "m", {**arguments, "blocks": [{**blocks[0], "filters": 4}]})
    with pytest.raises(ValueError, match="expected max or mean"):
        DepthPool(2, "median")


def test_global_pooling_is_the_mean_of_each_feature_map():
    arguments = {"blocks": [{"filters": 5, "kernel": 3}], "hidden": [], "outputs": 1, "global_pool": True}
    model = build_model("cnn", {"image": (8, 8, 1)}, "m", arguments)
    rows = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    maps = keras.Model(model.inputs, [model.get_layer("pool_1").output, model.get_layer("average").output])
    pooled, means = maps.predict(rows, verbose=0)
    np.testing.assert_allclose(means, pooled.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, "valid"), (2, "valid"), (1, "same"), (2, "same")])
def test_a_convolution_is_the_formula(stride, padding):
    """z[i, j, k] = b[k] + sum over u, v, c of x[i s + u, j s + v, c] w[u, v, c, k], zeros around x."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 6, 2)).astype(np.float32)
    layer = keras.layers.Conv2D(3, 3, strides=stride, padding=padding)
    layer.build((1, *x.shape))
    layer.set_weights([layer.get_weights()[0], rng.normal(size=3)])
    w, b = layer.get_weights()
    found = keras.ops.convert_to_numpy(layer(x[None]))[0]
    if padding == "same":
        around = [max((-(-size // stride) - 1) * stride + 3 - size, 0) for size in x.shape[:2]]
        x = np.pad(x, [(n // 2, n - n // 2) for n in around] + [(0, 0)])
    expected = np.empty_like(found)
    for i, j, k in np.ndindex(*found.shape):
        field = x[i * stride : i * stride + 3, j * stride : j * stride + 3]
        expected[i, j, k] = b[k] + (field * w[..., k]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
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
    inputs = {"left": "all", "right": "petals"}
    features = tuple(columns)
    assert columns_needed(inputs, features) == list(features)
    computed = {name: np.asarray(values) for name, values in compute_inputs(inputs, columns, features).items()}
    np.testing.assert_array_equal(computed["left"], np.tile([0, 1, 2], (3, 1)))
    np.testing.assert_array_equal(computed["right"], np.tile([1, 2], (3, 1)))


def test_a_view_that_does_not_fit_is_told_with_the_columns_there_are():
    with pytest.raises(UserError, match=r"'petal_length'.*petals.*MedInc"):
        columns_needed({"x": "petals"}, ("MedInc",))
    with pytest.raises(
        UserError, match="all, housing_deep, housing_place, housing_wide, housing_with_ratios, image, image_28_grey"
    ):
        get_feature("picture")
    with pytest.raises(
        UserError,
        match=r"and, class, has_long_sleeves, is_above_median, .*is_footwear, .*is_setosa, nand, one_hot, or, value",
    ):
        get_target("setosa")


def test_picture_views_resize_and_colour():
    pictures = np.zeros((2, 28, 28), np.float32)
    pictures[:, :14] = 1  # light above, dark below
    inputs = {"small": "image_28_grey", "grey": "image_64_grey", "colour": "image_32_colour"}
    made = {name: np.asarray(value) for name, value in compute_inputs(inputs, {"image": pictures}, ("image",)).items()}
    assert {name: value.shape for name, value in made.items()} == {
        "small": (2, 28, 28, 1),
        "grey": (2, 64, 64, 1),
        "colour": (2, 32, 32, 3),
    }
    for value in made.values():
        half = value.shape[1] // 2
        assert np.all(value[:, : half - 2] == 1)
        assert np.all(value[:, half + 2 :] == 0)
        assert np.all(value == value[..., :1])


def test_targets_say_what_their_names_say():
    assert get_target("is_footwear").compute(np.arange(10), None)[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 1]
    values = np.array([1.0, 2.0, 3.0], np.float32)
    schema = SimpleNamespace(train_median=2.0, class_names=["a", "b", "c"])
    assert get_target("is_above_median").compute(values, schema)[:, 0].tolist() == [0, 0, 1]
    one_hot = get_target("one_hot").compute(np.array([2, 0]), schema)
    assert one_hot.tolist() == [[0, 0, 1], [1, 0, 0]]
