"""A small network of each family: trained the same twice, exported, and loaded."""

from pathlib import Path

import pytest
import tensorflow as tf

from models.common.registry import family_names
from tests.support.training import Rows, check_training_and_export
from tests.support.workspaces import edit_params

# Of each family a model of params.yaml, and what makes it small.
SMALL: dict[str, tuple[str, dict[str, object]]] = {
    "perceptron": ("iris_perceptron", {}),
    "mlp": ("iris_mlp", {}),
    "wide_deep": ("housing_wide_deep_aux", {}),
    "wide_deep_subclassed": ("housing_wide_deep_subclassed", {}),
    "cnn": ("fashion_cnn", {"build__blocks": [{"filters": 4, "kernel": 3}], "build__hidden": [8]}),
    "resnet": (
        "fashion_resnet",
        {
            "build": {
                "stem": 4,
                "stages": [4, 8],
                "outputs": 10,
                "output_activation": "softmax",
                "dropout": 0.2,
                "mirror": True,
                "augment": {"shift": 1, "flip": True, "erase": 4},
            },
        },
    ),
    "neighbours": ("housing_neighbours", {"build__width": 8, "build__hidden": [8], "fit__epochs": 2}),
    "feature_extractors": ("multi_input_cnn", {"build__filters": [4, 2]}),
}


def answers_here(saved_model: Path, asked: list[Rows]) -> list[dict[str, list]]:
    answer = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    found = []
    for rows in asked:
        row = {name: tf.constant(values, tf.uint8 if name == "image" else tf.float32) for name, values in rows.items()}
        found.append({name: value.numpy().tolist() for name, value in answer(**row).items()})
    return found


def test_every_family_is_here():
    assert set(SMALL) == set(family_names())


@pytest.mark.parametrize("family", SMALL)
def test_a_small_network_trains_the_same_twice_and_its_export_answers_raw_rows_likewise(prepared, tmp_path, family):
    name, edits = SMALL[family]
    edit_params(prepared, **{f"models__{name}__{key}": value for key, value in edits.items()})
    check_training_and_export(name, tmp_path, answers_here)
