"""A compiled model answers as the model does, for calls of any number of rows."""

import numpy as np
import pytest

from tasks.prediction.compiled import compiled, make_answer
from tasks.prediction.saved_model import LoadedModel, load_model
from tests.support.serving import save, save_pair

ROWS = 64


def pictures(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {"x": rng.normal(size=rows).astype(np.float32), "image": rng.integers(0, 256, (rows, 2, 3), np.uint8)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> LoadedModel:
    return load_model(save_pair(tmp_path_factory.mktemp("pair") / "saved_model"), "pair", "v0.0.1")


@pytest.mark.parametrize("rows", [1, ROWS // 2, ROWS // 2 + 1, ROWS - 1, ROWS])
@pytest.mark.parametrize("block_rows", [ROWS // 4, 2 * ROWS])
def test_it_answers_as_the_model_does(pair, rows, block_rows, monkeypatch):
    monkeypatch.setattr("tasks.prediction.compiled.BLOCK_ROWS", block_rows)
    given = pictures(rows)
    expected, found = pair.answer(given), compiled(pair, ROWS)(given)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_a_short_call_is_not_compiled_and_a_long_one_is(pair, monkeypatch):
    calls = []
    monkeypatch.setattr(LoadedModel, "answer", lambda _, columns: calls.append(len(columns["x"])))
    answer = compiled(pair, ROWS)
    for rows in (1, ROWS, ROWS // 2, ROWS - 1):
        answer(pictures(rows))
    assert calls == [1, ROWS // 2]


def test_a_model_with_an_operation_that_xla_lacks_answers_all_the_same(tmp_path):
    import tensorflow as tf

    def compute(x):
        return {"output": tf.strings.to_number(tf.strings.as_string(x))[:, None]}

    model = load_model(save(tf.Module(), tmp_path / "a", compute, [tf.TensorSpec([None], name="x")]), "a", "v0.0.1")
    answer, given = compiled(model, ROWS), {"x": np.arange(ROWS, dtype=np.float32)}
    for _ in range(2):
        assert answer(given)["output"][:, 0].tolist() == given["x"].tolist()


def test_a_first_call_that_fails_for_zeros_stops_nothing(tmp_path):
    import tensorflow as tf

    def compute(x):
        with tf.control_dependencies([tf.debugging.assert_positive(x)]):
            return {"output": tf.identity(x)[:, None]}

    model = load_model(save(tf.Module(), tmp_path / "a", compute, [tf.TensorSpec([None], name="x")]), "a", "v0.0.1")
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.answer({"x": np.zeros(1, np.float32)})
    given = {"x": np.arange(1, ROWS + 1, dtype=np.float32)}
    answer = make_answer(model, ROWS, at_once=True)
    assert answer(given)["output"][:, 0].tolist() == given["x"].tolist()
