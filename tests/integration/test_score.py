"""A SavedModel that is broken, wrong or too slow is told, in the words of a rule, and stops nothing."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from config.gates import LoadLimit
from datasets.dataset import to_column
from tasks.promotion import score as scoring
from tasks.promotion.score import Scored, Unscored, score, write_rows

pytestmark = [pytest.mark.xdist_group("warm"), pytest.mark.usefixtures("warm_scores")]

ROWS = 3000
PATIENT = LoadLimit(seconds=240, scoring=240, tries=1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows [1].parquet"
    pictures = np.zeros((ROWS, 4, 4), np.uint8)
    pictures[:, 0, 0] = np.arange(ROWS) % 200
    write_rows(pa.table({"x": np.arange(ROWS, dtype=np.float64), "image": to_column(pictures)}), path)
    return path


def export(folder: Path, answer: Callable, columns: tuple[str, ...] = ("x",)) -> Path:
    """Write a SavedModel that answers `answer` of a weight, 2, and of the columns."""
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(2.0)
    types = {"x": tf.TensorSpec([None], name="x"), "image": tf.TensorSpec([None, 4, 4], tf.uint8, name="image")}
    given = [types.get(name, tf.TensorSpec([None], name=name)) for name in columns]
    module.serve = tf.function(lambda *values: answer(module.weight, *values), given)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def doubled(weight, x):
    return {"output": weight * x[:, None], "aux": x[:, None]}


def forever(x):
    """Return x after a loop without an end."""
    import tensorflow as tf

    return tf.while_loop(lambda value: tf.reduce_all(value < 1e9), lambda value: (value * 1.0,), (x * 0.0,))[0]


def test_every_row_is_answered_in_its_order_and_the_cost_is_measured(tmp_path, rows):
    found = score(export(tmp_path / "a [model]", doubled), rows, PATIENT)
    assert isinstance(found, Scored)
    np.testing.assert_array_equal(found.outputs["output"], 2 * np.arange(ROWS, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(found.outputs["aux"][:, 0], np.arange(ROWS))
    assert found.size == sum(file.stat().st_size for file in (tmp_path / "a [model]").rglob("*") if file.is_file())
    assert found.ready_seconds > 0
    assert found.latency_ms > 0
    assert found.rows_per_second > 0


def test_pictures_are_given_as_they_are(tmp_path, rows):
    import tensorflow as tf

    def corner(weight, image):
        return {"output": weight * tf.cast(image[:, 0, 0, None], tf.float32)}

    found = score(export(tmp_path / "model", corner, ("image",)), rows, PATIENT)
    np.testing.assert_array_equal(found.outputs["output"][:, 0], 2 * (np.arange(ROWS) % 200))


def only_the_first(weight, x):
    return {"output": weight * x[:1, None]}


def unnamed(weight, x):
    return {"answer": weight * x[:, None]}


def not_a_number(weight, x):
    import tensorflow as tf

    return {"output": tf.where(x > 2000, np.nan, weight * x)[:, None]}


def asleep(weight, x):
    return {"output": weight * forever(x)[:, None]}


def asleep_with_many_rows(weight, x):
    import tensorflow as tf

    return {"output": weight * tf.cond(tf.shape(x)[0] > 1, lambda: forever(x), lambda: x)[:, None]}


@pytest.mark.parametrize(
    ("answer", "columns", "limit", "ready", "told"),
    [
        (only_the_first, ("x",), PATIENT, True, "output output is float32 [1, 1] for 1024 rows"),
        (unnamed, ("x",), PATIENT, True, "it has no output 'output', but answer"),
        (not_a_number, ("x",), PATIENT, True, "999 of 3,000 answers are not finite"),
        (doubled, ("y",), PATIENT, False, "it needs y, which the rows lack"),
        (asleep, ("x",), LoadLimit(seconds=5, tries=1), False, "loading took more than 5 s"),
        (asleep_with_many_rows, ("x",), LoadLimit(seconds=240, scoring=1, tries=1), True, "scoring took more than 1 s"),
    ],
    ids=["too few answers", "no main output", "not finite", "other columns", "sleeps", "sleeps later"],
)
def test_wrong_and_late_answers_are_told_and_no_process_is_left(tmp_path, rows, answer, columns, limit, ready, told):
    before = {*psutil.Process().children(recursive=True)}
    found = score(export(tmp_path / "model", answer, columns), rows, limit)
    assert isinstance(found, Unscored)
    assert told in found.reason
    assert (found.ready_seconds is not None) == ready
    assert {*psutil.Process().children(recursive=True)} <= before


def remove_variables(model: Path) -> None:
    for file in (model / "variables").iterdir():
        file.unlink()


def cut_variables(model: Path) -> None:
    [file] = model.glob("variables/*.data-*")
    file.write_bytes(file.read_bytes()[:2])


def fill_graph_with_garbage(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(b"garbage" * 1000)


def remove_graph(model: Path) -> None:
    (model / "saved_model.pb").unlink()


@pytest.mark.parametrize("damage", [remove_variables, cut_variables, fill_graph_with_garbage, remove_graph])
def test_a_damaged_model_does_not_load(tmp_path, rows, damage):
    model = export(tmp_path / "model", doubled)
    damage(model)
    found = score(model, rows, PATIENT)
    assert isinstance(found, Unscored)
    assert found.ready_seconds is None
    assert found.reason
    assert str(tmp_path) not in found.reason


def test_a_missing_folder_is_told(tmp_path, rows):
    assert score(tmp_path / "nothing", rows, PATIENT) == Unscored("saved_model.pb is missing", None, 0)


def test_a_killed_process_is_started_again_and_a_wrong_answer_is_not(tmp_path, rows, monkeypatch):
    (tmp_path / "saved_model.pb").touch()
    started = []

    def run(program, arguments, folder):
        started.append(folder)
        return codes[len(started) - 1], "ValueError: no"

    monkeypatch.setattr(scoring, "run_isolated", run)
    codes = [-signal.SIGKILL, -signal.SIGALRM, 1]
    found = score(tmp_path, rows, LoadLimit(tries=3))
    assert (len(started), found.reason) == (3, "ValueError: no")
    started.clear()
    codes = [1, 0, 0]
    score(tmp_path, rows, LoadLimit(tries=3))
    assert len(started) == 1
    started.clear()
    codes = [-signal.SIGKILL] * 3
    assert score(tmp_path, rows, LoadLimit(tries=2)).reason == "its process was killed by SIGKILL"
    assert len(started) == 2
