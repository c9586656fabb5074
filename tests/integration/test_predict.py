"""Predict with real models and in real processes: killed, interrupted, and two at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from prefect.logging import disable_run_logger

from config import paths
from flows.predict import find_model, predict
from orchestration import registry
from runtime.errors import UserError
from tasks.prediction import chunks
from tasks.prediction import predict as prediction
from tests.support.processes import wait_for
from tests.support.workspaces import ROOT

OUT = Path("out [1]/answers.parquet")
MODELS = ("iris_mlp", "linear_neuron")


@pytest.fixture
def champions(small, settings, monkeypatch) -> Path:
    """A repository with champions, which is the current directory."""
    monkeypatch.chdir(small)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for model in MODELS:
        registry.promote(model, registry.register(model, "HEAD", "the first one").version, "the first one")
    return small


def raw_rows(model: str, file: Path) -> dict[str, np.ndarray]:
    """Write the raw rows of a model's test split, with their index; return its predictions of them."""
    expected = pq.read_table(paths.artifacts_folder(model) / "predictions.parquet")
    dataset = {"iris_mlp": "iris", "linear_neuron": "line"}[model]
    taken = {"iris_mlp": ["sepal_length", "sepal_width", "petal_length", "petal_width"], "linear_neuron": ["x"]}[model]
    rows = pq.read_table(paths.raw_table(dataset)).select(taken).take(expected["index"])
    pq.write_table(rows.append_column("index", expected["index"]), file)
    return {name: expected[name].to_numpy() for name in expected.column_names if name != "true"}


def test_the_champions_predict_raw_rows_as_their_training_has_recorded(champions):
    Path("rows [1]").mkdir()
    with disable_run_logger():
        for model in MODELS:
            expected = raw_rows(model, Path("rows [1]/raw.parquet"))
            predict.fn(model, "rows [1]/raw.parquet", str(OUT), keep=["index"])
            rows = pq.read_table(OUT)
            assert rows["model"].to_pylist() == [model] * len(rows)
            assert {*rows["version"].to_pylist()} == {"v0.0.1"}
            for name, values in expected.items():
                np.testing.assert_allclose(rows[name].to_numpy(), values, atol=1e-5)
        assert not [*OUT.parent.glob(".*")]
        with pytest.raises(UserError, match=r"unknown model 'iris_mpl'\. Did you mean 'iris_mlp'"):
            predict.fn("iris_mpl", "rows [1]/raw.parquet", str(OUT))
        with pytest.raises(UserError, match=r"v0\.0\.9"):
            predict.fn("iris_mlp", "rows [1]/raw.parquet", str(OUT), version="v0.0.9")
    folder = paths.artifacts_folder("iris_mlp") / "saved_model"
    loaded = find_model(str(folder), None)
    assert (loaded.name, loaded.version) == ("iris_mlp", f"sha256:{loaded.sha256[:12]}")
    with pytest.raises(UserError, match=r"--version v0\.0\.1 is one of the registry"):
        find_model(str(folder), "v0.0.1")


def test_killed_runs_go_on_and_end_with_the_bytes_of_an_undisturbed_one(tmp_path):
    command = [sys.executable, "-m", "tests.support.killed_predict", str(tmp_path), "8", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    finished = [int(rows) for rows in done.stdout.split()]
    assert len({*finished}) > 2  # the moments were different ones


# `python -m flows.predict` that takes its time for each chunk of 64 rows.
SLOW = """
import os, sys, time
sys.path.insert(0, os.environ["ROOT"])
from flows import predict
from tasks.prediction import chunks
from tasks.prediction import predict as prediction

def slow(*part, write=prediction.write_part):
    time.sleep(0.5)
    write(*part)

prediction.write_part, chunks.MAX_ROWS = slow, 64
sys.exit(predict.main())
"""


def test_a_second_run_is_refused_and_ctrl_c_leaves_the_first_one_to_go_on(two_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "MAX_ROWS", 64)
    model = str(two_models / paths.artifacts_folder("linear_neuron") / "saved_model")
    Path("x.csv").write_text("x\n" + "".join(f"{'many' if row == 100 else row}\n" for row in range(100 * 64)))
    prediction.predict(lambda: find_model(model, None), "x.csv", OUT)
    made = [OUT, OUT.with_name("answers.rejected.parquet")]
    expected = [file.read_bytes() for file in made]
    OUT.unlink()

    words, partial = [model, "x.csv", str(OUT)], OUT.with_name(".answers.partial")
    environment = {**os.environ, "ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}
    slow = subprocess.Popen([sys.executable, "-c", SLOW, *words], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (partial / "00000002.arrow").exists() or slow.poll() is not None)
        command = [sys.executable, "-m", "flows.predict", *words]
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        slow.send_signal(signal.SIGINT)
        _, errors = slow.communicate(timeout=60)
    finally:
        slow.kill()
    assert second.returncode == 1
    assert second.stderr == f"error: {OUT} is being written by another run. Wait until it has finished, or stop it.\n"
    assert slow.returncode == 130
    # On a busy machine lines of progress come before.
    assert errors.splitlines()[-1] == "error: interrupted; nothing was published. The same command goes on from here."
    assert "Traceback" not in errors
    assert not OUT.exists()

    told: list[str] = []
    prediction.predict(lambda: find_model(model, None), "x.csv", OUT, tell=told.append)
    assert told[0].startswith("resuming: ")
    assert [file.read_bytes() for file in made] == expected
