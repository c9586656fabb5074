"""Every model: trained the same twice, exported, and loaded by a stranger."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from config.params import load_params
from tests.support.training import Rows, check_training_and_export
from tests.support.workspaces import ROOT
from tests.training.test_families import SMALL

pytestmark = pytest.mark.xdist_group("warm")  # one worker imports TensorFlow for all

# The fast tier has some as they are in params.yaml.
MODELS = sorted({*load_params(ROOT / "params.yaml").models} - {name for name, edits in SMALL.values() if not edits})

# Runs in a directory without our code, with nothing but TensorFlow.
STRANGER = """
import json, sys
import tensorflow as tf
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
dtypes = {"image": tf.uint8}
for rows in json.loads(sys.argv[2]):
    row = {name: tf.constant(values, dtypes.get(name, tf.float32)) for name, values in rows.items()}
    print(json.dumps({name: value.numpy().tolist() for name, value in answer(**row).items()}))
"""


@pytest.fixture
def stranger(clean_tensorflow) -> Callable[[Path, list[Rows]], list[dict[str, list]]]:
    def answers(saved_model: Path, asked: list[Rows]) -> list[dict[str, list]]:
        done = clean_tensorflow(STRANGER, [str(saved_model), json.dumps(asked)], saved_model.parent, {**os.environ})
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return answers


@pytest.mark.rotates
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_the_same_twice_and_its_export_answers_raw_rows_likewise(prepared, tmp_path, stranger, name):
    check_training_and_export(name, tmp_path, stranger, rows=300)
    assert json.loads((tmp_path / "saved_model/assets.extra/origin.json").read_text())["source"] == "sample"
