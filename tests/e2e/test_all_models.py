"""Every model: trained the same twice, exported, and loaded by a stranger."""

import json
import random
import subprocess
import sys

import keras
import numpy as np
import pytest

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_values
from models.common.outputs import named_outputs, network_input
from tasks.data.examples import Examples, read_examples
from tasks.data.normalization import read_statistics
from tasks.data.raw import read_raw
from tasks.data.schema import read_schema
from tasks.publishing.export import describe_origin, export, raw_columns_needed
from tasks.training.fit import Fitted, fit
from tests.support.workspaces import ROOT, edit_params

MODELS = list(load_params(ROOT / "params.yaml").models)


def raw_rows(name: str, rows: np.ndarray):
    """Return the given raw rows of the data set of model `name`."""
    params = load_params().model(name)
    return read_raw(get_dataset(params.dataset), read_schema(params.dataset)["raw_sha256"]).take(rows)


def train(name: str) -> tuple[Fitted, dict]:
    """Fit model `name` in the current workspace; also return its train and valid examples."""
    params = load_params().model(name)
    examples = {split: read_examples(params, split) for split in ("train", "valid")}
    source = read_schema(params.dataset)["source"]
    folders = {"logs": paths.logs_folder(name) / "run", "checkpoints": paths.checkpoints_folder(name)}
    return fit(name, params, 42, load_params().hardware, **examples, source=source, **folders), examples


# Runs in a directory without our code, with nothing but TensorFlow.
STRANGER = """
import json, sys
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
dtypes = {"image": tf.uint8}
row = {name: tf.constant(values, dtypes.get(name, tf.float32)) for name, values in json.load(sys.stdin).items()}
print(json.dumps({name: value.numpy().tolist() for name, value in model.signatures["serving_default"](**row).items()}))
"""


def first(examples: Examples, rows: int):
    """Return what the network takes of the first rows."""
    return network_input({key: values[:rows] for key, values in examples.inputs.items()})


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_the_same_twice_and_its_export_answers_raw_rows_likewise(
    prepared, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(random, "randint", random.SystemRandom().randint)  # as when other threads draw from it too
    edit_params(prepared, **{f"models__{name}__fit__resume": False})
    (once, _), (fitted, _) = train(name), train(name)
    for one, other in zip(once.model.get_weights(), fitted.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert once.history == fitted.history

    params = load_params().model(name)
    schema = read_schema(params.dataset)
    export(fitted.model, params, read_statistics(params.dataset), describe_origin(schema, 42), tmp_path)

    features = raw_columns_needed(params)
    test = read_examples(params, "test")
    for rows in (1, 3):
        raw = raw_rows(name, test.index[:rows])
        asked = json.dumps({column: to_values(raw[column]).tolist() for column in features})
        command = [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "saved_model")]
        done = subprocess.run(command, input=asked, cwd=tmp_path, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        expected = named_outputs(fitted.model.predict(first(test, rows), verbose=0))
        assert set(answer) == set(expected)
        for output, values in expected.items():
            np.testing.assert_allclose(answer[output], values, rtol=1e-5, atol=1e-5)

    assert json.loads((tmp_path / "saved_model/assets.extra/origin.json").read_text())["source"] == "sample"
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.name.endswith("_sample")
    blank = keras.saving.load_model(tmp_path / "model.keras")
    blank.set_weights([np.zeros_like(weight) for weight in blank.get_weights()])
    blank.load_weights(tmp_path / "model.weights.h5")
    expected = named_outputs(fitted.model.predict(first(test, 50), verbose=0))
    for copy in (restored, blank):
        for output, values in named_outputs(copy.predict(first(test, 50), verbose=0)).items():
            np.testing.assert_array_equal(values, expected[output])
