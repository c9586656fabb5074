"""A run that fails, and an experiment, leave the bytes that were there, whoever made them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.publishing.checksums import checksums
from tests.support.workspaces import DVC, PIPELINE, contents, edit_params

MODEL = Path("artifacts/iris_mlp")


@pytest.fixture
def run(small, settings, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    monkeypatch.chdir(small)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=small, env=settings, capture_output=True, text=True, check=False)

    return run


def train_by_hand(run: Callable[..., subprocess.CompletedProcess], epochs: int) -> dict[str, bytes]:
    """Train iris_mlp by hand, leave params.yaml as it was, and return what then lies in artifacts/iris_mlp."""
    edit_params(Path(), models__iris_mlp__fit__epochs=epochs)
    assert run(sys.executable, "-m", "flows.train", "iris_mlp").returncode == 0
    run("git", "checkout", "--quiet", "params.yaml")
    assert json.loads((MODEL / "metrics.json").read_text())["epochs"] == epochs
    return contents(MODEL)


def make_it_diverge() -> None:
    edit_params(Path(), models__iris_mlp__compile__learning_rate=1e30, models__iris_mlp__fit__epochs=3)


def test_an_experiment_puts_a_model_that_was_trained_by_hand_back(run):
    by_hand = train_by_hand(run, epochs=7)
    done = run(*PIPELINE, "--set", "models.iris_mlp.fit.epochs=3", "train@iris_mlp")
    assert done.returncode == 0, done.stderr
    assert contents(MODEL) == by_hand


def test_an_experiment_that_fails_puts_a_model_that_was_trained_by_hand_back(run):
    by_hand = train_by_hand(run, epochs=7)
    done = run(*PIPELINE, "--set", "models.iris_mlp.compile.learning_rate=1e30", "train@iris_mlp")
    assert done.returncode == 1
    assert contents(MODEL) == by_hand
    assert run("git", "status", "--porcelain", "params.yaml", "dvc.lock").stdout == ""


@pytest.mark.parametrize("notes", ["", "{}", '{"files": [1], "changed": "a"}'])
def test_a_backup_with_damaged_notes_is_named_and_left_alone(run, notes):
    backup = Path(".staging/before-experiment")
    backup.mkdir(parents=True)
    (backup / "notes.json").write_text(notes)
    done = run(*PIPELINE, "--dry")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {backup}/notes.json, the notes of an experiment")
    assert "Traceback" not in done.stderr
    assert backup.exists()


@pytest.mark.parametrize("command", [[*DVC, "repro", "train@iris_mlp"], [*PIPELINE, "train@iris_mlp"]])
def test_a_failing_run_keeps_a_model_that_was_trained_by_hand(run, command):
    by_hand = train_by_hand(run, epochs=7)
    make_it_diverge()
    assert run(*command).returncode != 0
    assert contents(MODEL) == by_hand


@pytest.mark.parametrize("command", [[*DVC, "repro", "train@iris_mlp"], [*PIPELINE, "train@iris_mlp"]])
def test_a_failing_run_keeps_a_model_that_is_not_in_dvcs_cache(run, command):
    edit_params(Path(), models__iris_mlp__fit__epochs=7)
    assert run(*DVC, "repro", "--no-commit", "train@iris_mlp").returncode == 0
    before = contents(MODEL)
    make_it_diverge()
    assert run(*command).returncode != 0
    assert contents(MODEL) == before
    assert json.loads(before[f"{MODEL}/metrics.json"])["epochs"] == 7


def test_a_failing_run_after_garbage_collection_keeps_metrics_and_model_of_one_training(run):
    edit_params(Path(), models__iris_mlp__fit__epochs=7)
    assert run(*PIPELINE, "train@iris_mlp").returncode == 0
    assert run(*DVC, "gc", "--workspace", "--force").returncode == 0
    before = contents(MODEL)
    make_it_diverge()
    assert run(*PIPELINE, "train@iris_mlp").returncode == 1
    assert contents(MODEL) == before
    recorded = json.loads((MODEL / "run.json").read_text())["files"]
    assert checksums(MODEL).items() >= recorded.items()


def test_a_run_names_the_outputs_that_it_replaces_and_dvc_has_no_copy_of(run):
    train_by_hand(run, epochs=7)
    done = run(*PIPELINE, "train@iris_mlp")
    assert done.returncode == 0, done.stderr
    assert "train@iris_mlp replaces artifacts/iris_mlp/" in done.stderr
    assert "DVC's cache has no copy" in done.stderr
    assert json.loads((MODEL / "metrics.json").read_text())["epochs"] == 1


def test_the_report_names_files_of_two_trainings(run):
    earlier = contents(MODEL)
    train_by_hand(run, epochs=7)
    (MODEL / "metrics.json").write_bytes(earlier[f"{MODEL}/metrics.json"])
    assert run(sys.executable, "-m", "flows.report").returncode == 0
    page = Path("reports/models/iris_mlp.html").read_text()
    assert "Files of two trainings" in page
    assert "<code>metrics.json</code>" in page
    assert ">mixed<" in Path("reports/index.html").read_text()
    assert "Files of two trainings" not in Path("reports/models/linear_neuron.html").read_text()


def test_a_stage_that_cannot_start_keeps_its_outputs(run, small):
    before = contents(MODEL)
    flow = small / "flows/train.py"
    flow.write_text(flow.read_text() + "\nthis is no Python\n")
    for command in ([*DVC, "repro", "-s", "train@iris_mlp"], [*PIPELINE, "train@iris_mlp"]):
        done = run(*command)
        assert done.returncode != 0
        assert "SyntaxError" in done.stderr
        assert contents(MODEL) == before


@pytest.mark.parametrize("command", [[*DVC, "repro"], PIPELINE])
def test_missing_outputs_come_back_from_the_cache_and_metrics_from_git(run, command):
    before = contents(MODEL)
    shutil.rmtree(MODEL)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert contents(MODEL) == before


def test_missing_outputs_that_cannot_be_had_exactly_are_made_anew(run):
    edit_params(Path(), models__iris_mlp__fit__epochs=2)
    assert run(*PIPELINE, "train@iris_mlp").returncode == 0
    metrics = (MODEL / "metrics.json").read_bytes()  # which no commit has
    shutil.rmtree(MODEL)
    done = run(*PIPELINE, "train@iris_mlp")
    assert "train@iris_mlp ran in" in done.stderr
    assert (MODEL / "metrics.json").read_bytes() == metrics
