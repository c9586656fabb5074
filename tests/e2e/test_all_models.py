"""Every model: trained the same twice, exported, and loaded by a stranger."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.params import load_params
from tests.support.training import Rows, check_training_and_export
from tests.support.workspaces import ROOT
from tests.training.test_families import SMALL

# The fast tier has some as they are in params.yaml.
MODELS = sorted({*load_params(ROOT / "params.yaml").models} - {name for name, edits in SMALL.values() if not edits})

# Runs in a directory without our code, with nothing but TensorFlow.
STRANGER = """
import json, sys
import tensorflow as tf
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
dtypes = {"image": tf.uint8}
for rows in json.load(sys.stdin):
    row = {name: tf.constant(values, dtypes.get(name, tf.float32)) for name, values in rows.items()}
    print(json.dumps({name: value.numpy().tolist() for name, value in answer(**row).items()}))
"""


def answers_of_a_stranger(saved_model: Path, asked: list[Rows]) -> list[dict[str, list]]:
    command = [sys.executable, "-I", "-c", STRANGER, str(saved_model)]
    folder, rows = saved_model.parent, json.dumps(asked)
    done = subprocess.run(command, input=rows, cwd=folder, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_the_same_twice_and_its_export_answers_raw_rows_likewise(prepared, tmp_path, name):
    check_training_and_export(name, tmp_path, answers_of_a_stranger)
    assert json.loads((tmp_path / "saved_model/assets.extra/origin.json").read_text())["source"] == "sample"
