"""A network that cannot be trained here is refused before it takes any memory."""

import time

import psutil
import pytest

from config.params import load_params
from runtime.errors import UserError
from tasks.training import recipe_checks as recipe
from tasks.training.recipe_checks import check_size, network_size
from tests.support.networks import EXPECTED, TRAIN_ROWS
from tests.support.workspaces import ROOT

HUGE = [
    ("iris_mlp", {"features": (4,)}, {"hidden": [10**9], "outputs": 3}),
    ("iris_mlp", {"features": (4,)}, {"hidden": [2**31 - 1] * 3, "outputs": 3}),
    ("fashion_mlp", {"image": (28, 28)}, {"hidden": [10**8], "outputs": 10}),
    ("housing_wide_deep_subclassed", {"wide": (5,), "deep": (6,)}, {"hidden": [10**9, 30], "outputs": 1}),
    (
        "fashion_cnn",
        {"image": (28, 28, 1)},
        {"blocks": [{"filters": 10**6, "kernel": 1000}], "hidden": [9], "outputs": 10},
    ),
    # few weights, and a picture of so many channels that one batch of them is more than there is
    (
        "fashion_cnn",
        {"image": (28, 28, 1)},
        {"blocks": [{"filters": 10**8, "kernel": 1}], "hidden": [], "outputs": 10, "global_pool": True},
    ),
]


@pytest.mark.parametrize(("name", "inputs", "build"), HUGE)
def test_a_network_that_does_not_fit_into_memory_is_refused_before_it_is_built(name, inputs, build):
    params = load_params(ROOT / "params.yaml").model(name).model_copy(update={"build": build})
    before = psutil.Process().memory_info().rss
    with pytest.raises(UserError, match=rf"models\.{name}\.build: a network of [\d,]+ parameters, .* GB are free"):
        check_size(name, params, inputs, 1000)
    assert psutil.Process().memory_info().rss - before < 2**30


@pytest.mark.parametrize("name", [*load_params(ROOT / "params.yaml").models])
def test_the_size_of_a_network_is_known_without_its_weights(name):
    params = load_params(ROOT / "params.yaml").model(name)
    inputs, parameters, _ = EXPECTED[name]
    assert network_size(name, params, inputs, TRAIN_ROWS).parameters == parameters
    check_size(name, params, inputs, TRAIN_ROWS)


def test_a_network_of_too_many_layers_is_refused(monkeypatch):
    many = {"blocks": [{"filters": 1, "kernel": 1, "convolutions": 10**9}], "hidden": [], "outputs": 10}
    params = load_params(ROOT / "params.yaml").model("fashion_cnn").model_copy(update={"build": many})
    with pytest.raises(UserError, match=r"blocks\.0\.convolutions: Input should be less than or equal to 100"):
        check_size("fashion_cnn", params, {"image": (28, 28, 1)}, 1000)
    monkeypatch.setattr(recipe, "MAX_BUILD_SECONDS", 1)
    monkeypatch.setattr(recipe, "build_model", lambda *_, **__: time.sleep(30))
    with pytest.raises(UserError, match="is not built within 1 s: it has too many layers"):
        check_size("fashion_cnn", params, {"image": (28, 28, 1)}, 1000)
