"""A run that fails, and an experiment, leave the bytes that were there, whoever made them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.params import load_params
from orchestration.experiment import restored_workspace
from runtime.errors import UserError
from tasks.publishing.checksums import checksums
from tasks.report.build import report
from tests.support.workspaces import DVC, PIPELINE, build_once, clone, contents, edit_params

MODEL, UNCACHED = Path("artifacts/iris_mlp"), Path("artifacts/linear_neuron")
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def by_hand(shared, settings, two_models) -> Path:
    """A trained repository, which no test changes, with two models that DVC could not bring back.

    Somebody has trained iris_mlp by hand, with other parameters than there are now. DVC knows the training of
    linear_neuron, but neither its cache nor git has the outputs.
    """

    def build(folder: Path) -> None:
        clone(two_models, folder)
        edit_params(folder, models__linear_neuron__fit__epochs=7, models__iris_mlp__fit__epochs=7)
        train = [sys.executable, "-m", "flows.train", "iris_mlp"]
        for words in ([*DVC, "repro", "--no-commit", "train@linear_neuron"], train):
            subprocess.run(words, cwd=folder, env=settings, check=True)
        edit_params(folder, models__iris_mlp__fit__epochs=1)
        subprocess.run([*DVC, "gc", "--workspace", "--force"], cwd=folder, env=settings, check=True)
        assert [
            json.loads((folder / f"{model}/metrics.json").read_text())["epochs"] for model in (MODEL, UNCACHED)
        ] == [
            7,
            7,
        ]

    return build_once(shared / "by hand", build)


def runner(folder: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Make `folder` the current directory, and return what runs a command there."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def run(by_hand, tmp_path, settings, monkeypatch) -> Run:
    """Run a command in a copy of that repository, which is the current directory."""
    return runner(clone(by_hand, tmp_path / "by hand"), settings, monkeypatch)


@pytest.fixture
def run_committed(small, settings, monkeypatch) -> Run:
    """Run a command in a repository as its last run has left it, which is the current directory."""
    return runner(small, settings, monkeypatch)


def kept() -> dict[str, bytes]:
    return contents(MODEL) | contents(UNCACHED)


def check_of_one_training(model: Path) -> None:
    recorded = json.loads((model / "run.json").read_text())["files"]
    assert checksums(model).items() >= recorded.items()


@pytest.mark.rotates
def test_an_experiment_of_which_a_part_fails_puts_back_what_dvc_could_not(run):
    before = kept() | {name: Path(name).read_bytes() for name in ("params.yaml", "dvc.lock")}
    settings = ("models.iris_mlp.fit.epochs=3", "models.linear_neuron.compile.learning_rate=1e30")
    done = run(*PIPELINE, *(word for setting in settings for word in ("--set", setting)), "train")
    assert done.returncode == 1
    assert "train@iris_mlp ran in" in done.stderr
    assert "training diverged" in done.stderr
    assert kept() | {name: Path(name).read_bytes() for name in ("params.yaml", "dvc.lock")} == before


@pytest.mark.parametrize("notes", ["", "{}", '{"files": [1], "changed": "a"}'])
def test_a_backup_with_damaged_notes_is_named_and_left_alone(workspace, notes):
    backup = Path(".staging/before-experiment")
    backup.mkdir(parents=True)
    (backup / "notes.json").write_text(notes)
    with pytest.raises(UserError, match=f"{backup}/notes.json, the notes of an experiment"), restored_workspace():
        pass
    assert backup.exists()


@pytest.mark.rotates
def test_a_failing_run_keeps_what_dvc_could_not_bring_back(run):
    before = kept()
    for model in ("iris_mlp", "linear_neuron"):
        edit_params(Path(), **{f"models__{model}__compile__learning_rate": 1e30, f"models__{model}__fit__epochs": 50})
    assert run(*PIPELINE, "train").returncode == 1
    assert kept() == before
    check_of_one_training(MODEL)
    check_of_one_training(UNCACHED)
    shutil.rmtree(".dvc/cache")
    done = run(*DVC, "repro", "-s", "train@linear_neuron")
    assert done.returncode != 0
    assert "error: linear_neuron: " in done.stderr
    assert "training diverged" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert kept() == before


@pytest.mark.rotates
def test_a_run_names_what_it_replaces_and_makes_anew_what_cannot_be_had_exactly(run):
    metrics = (UNCACHED / "metrics.json").read_bytes()  # which no commit has
    shutil.rmtree(UNCACHED)
    done = run(*PIPELINE, "train")
    assert done.returncode == 0, done.stderr
    assert "train@iris_mlp replaces artifacts/iris_mlp/" in done.stderr
    assert "DVC's cache has no copy" in done.stderr
    assert json.loads((MODEL / "metrics.json").read_text())["epochs"] == 1
    assert "train@linear_neuron ran in" in done.stderr
    assert (UNCACHED / "metrics.json").read_bytes() == metrics


def test_the_report_names_files_of_two_trainings(run, two_models, tmp_path):
    shutil.copy(two_models / MODEL / "metrics.json", MODEL)
    made = tmp_path / "made"
    made.mkdir()
    report(load_params(), made, {})
    page = (made / "models/iris_mlp.html").read_text()
    assert "Files of two trainings" in page
    assert "<code>metrics.json</code>" in page
    assert ">mixed<" in (made / "index.html").read_text()
    assert "Files of two trainings" not in (made / "models/linear_neuron.html").read_text()


@pytest.mark.rotates
def test_a_stage_that_cannot_start_keeps_its_outputs(run):
    before = kept()
    flow = Path("flows/train.py")
    flow.write_text(flow.read_text() + "\nthis is no Python\n")
    for command in ([*DVC, "repro", "-s", "train@iris_mlp"], [*PIPELINE, "train@iris_mlp"]):
        done = run(*command)
        assert done.returncode != 0
        assert "SyntaxError" in done.stderr
        assert kept() == before


@pytest.mark.parametrize("command", [[*DVC, "repro"], PIPELINE])
def test_missing_outputs_come_back_from_the_cache_and_metrics_from_git(run_committed, command):
    before = contents(MODEL)
    shutil.rmtree(MODEL)
    done = run_committed(*command)
    assert done.returncode == 0, done.stderr
    assert "restored" in done.stderr
    assert "epoch" not in done.stderr  # no training
    assert contents(MODEL) == before
