"""LiteRT and ONNX: what is made of a SavedModel, and what is not published."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tasks.publishing.formats import convert, run_format, verify

NAMES = ["litert", "onnx"]
COLUMNS = {"x": np.float32([1, 2, 3]), "y": np.float32([10, 20, 30])}


def save(folder: Path, compute) -> Path:
    """Write a SavedModel that computes `output` of the numbers x and y; return the folder with it."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=name) for name in COLUMNS])
    def serve(x, y):
        return {"output": compute(module, x, y)[:, None]}

    tf.saved_model.save(module, folder / "saved_model", signatures=serve)
    return folder


@pytest.fixture
def odd(tmp_path) -> Path:
    """A folder whose name is a pattern for TensorFlow."""
    folder = tmp_path / "a [model]"
    folder.mkdir()
    return folder


def test_each_format_takes_columns_by_name_and_any_number_of_rows(odd):
    found = convert(NAMES, save(odd, lambda module, x, y: module.weight * x - y))
    for rows in (1, 3):
        columns = {name: values[:rows] for name, values in COLUMNS.items()}
        expected = {"output": (2 * columns["x"] - columns["y"])[:, None]}
        passed = verify(found, columns, expected, 1e-5, odd)
        assert {name: entry.difference for name, entry in passed.items()} == dict.fromkeys(NAMES, 0.0)


def test_constants_that_are_no_variables_are_no_inputs_of_onnx(odd):
    mean = tf.constant([5.0, 6.0])  # captured by the graph, as Keras' Normalization does
    convert(["onnx"], save(odd, lambda module, x, y: x - mean[0] + y - mean[1]))
    session = onnxruntime.InferenceSession(str(odd / "export/model.onnx"))
    assert {entry.name for entry in session.get_inputs()} == {"x", "y"}
    answer = run_format("onnx", odd / "export/model.onnx", COLUMNS)
    np.testing.assert_allclose(answer["output"][:, 0], COLUMNS["x"] + COLUMNS["y"] - 11)


def test_a_format_that_answers_otherwise_is_not_published(odd):
    found = convert(NAMES, save(odd, lambda module, x, y: module.weight * x))
    expected = {"output": (2 * COLUMNS["x"])[:, None] + np.float32([[0], [1e-3], [0]])}
    refused = verify(found, COLUMNS, expected, 1e-5, odd)
    for name in NAMES:
        assert refused[name].file is None
        assert refused[name].reason == "its answers differ by 0.00017, more than 1e-05"
    assert not [*(odd / "export").iterdir()]


def test_what_cannot_be_converted_is_not_published_and_says_why(odd):
    def unknown(module, x, y):
        return tf.math.betainc(x, y, 0.5 * tf.ones_like(x))

    found = convert(["onnx"], save(odd, unknown))
    refused = verify(found, COLUMNS, {"output": COLUMNS["x"][:, None]}, 1e-5, odd)
    assert refused["onnx"].file is None
    assert refused["onnx"].reason
    assert "\n" not in refused["onnx"].reason
    assert not [*(odd / "export").iterdir()]
