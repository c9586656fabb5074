"""Nights of `retrain` in a small repository: what is promoted, what is not and why, and what stays as it was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets import get_dataset
from orchestration import registry
from tests.support.workspaces import ROOT, edit_params

pytestmark = pytest.mark.timeout(1200)

GOOD, BAD = 0.1, 1e-7  # learning rates
WORKTREE = Path(".retrain/workspace")


@pytest.fixture
def run(small, settings, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    """Run a command in a trained repository, which is the current directory."""
    monkeypatch.chdir(small)
    shutil.copytree(ROOT / "data/expectations", "data/expectations", dirs_exist_ok=True)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=small, env=settings, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def night(run) -> Callable[..., str]:
    """Run `retrain` once, after a change of the committed parameters, and return what it says."""

    def night(*models: str, **params: object) -> str:
        if params:
            edit_params(Path(), **params)
        run("git", "add", ".")
        run("git", "commit", "--quiet", "--message", "a day")
        done = run(sys.executable, "-m", "flows.retrain", *models)
        assert done.returncode == 0, done.stdout + done.stderr
        assert run("git", "status", "--porcelain").stdout == ""
        return done.stdout + done.stderr

    return night


def champion(model: str) -> str | None:
    found = registry.champion(model)
    return found.version if found else None


def verdict(model: str) -> dict:
    return json.loads((WORKTREE / f"artifacts/{model}/verdict.json").read_text())


def deliver(name: str, seed: int, **columns: object) -> None:
    """Put a file of flowers like those of the sample into data/incoming/iris."""
    table = get_dataset("iris").generate().to_pandas().sample(40, random_state=seed)
    numbers = table.select_dtypes("float").columns
    table[numbers] += 0.01  # no row equals an earlier one
    folder = Path("data/incoming/iris")
    folder.mkdir(parents=True, exist_ok=True)
    table.assign(**columns).to_csv(folder / name, index=False)


def test_a_week_of_nights(run, night, settings, monkeypatch):
    for name in settings.keys() - os.environ.keys():  # of git; not the shared home, which stays untouched
        monkeypatch.setenv(name, settings[name])
    for model in ("linear_neuron", "iris_mlp"):  # after one epoch each
        registry.promote(model, registry.register(model, "HEAD", "by hand").version, "by hand")

    deliver("monday.csv", 1)
    night(models__iris_mlp__fit__epochs=60, models__iris_mlp__compile__learning_rate=GOOD)
    assert champion("iris_mlp") == "v0.0.2"
    assert champion("linear_neuron") == "v0.0.1"
    assert verdict("iris_mlp")["outcome"] == "better"
    [batch] = Path("data/batches/iris").iterdir()
    assert batch.name == "0001-monday.csv"

    registry.rollback("iris_mlp", None, "it is odd")
    said = night()
    assert "nothing to judge or to promote" in said
    assert "ran," not in said  # no stage
    assert champion("iris_mlp") == "v0.0.1"  # what was rolled back stays so
    registry.promote("iris_mlp", "v0.0.2", "it was not odd")

    deliver("sunday.csv", 3)
    schema = WORKTREE / "data/prepared/iris/schema.json"
    facts = json.loads(schema.read_text())  # as a run that was killed between `ingest` and `prepare` leaves them
    schema.write_text(json.dumps({**facts, "raw_sha256": "0" * 64}))
    said = night("iris_mlp", models__iris_mlp__compile__learning_rate=BAD)
    assert champion("iris_mlp") == "v0.0.2"
    found = verdict("iris_mlp")
    assert (found["outcome"], found["promote"]) == ("regression", False)
    failed = [rule["name"] for rule in found["rules"] if not rule["passed"]]
    assert failed
    assert all(name in said for name in failed)
    assert "train@iris_mlp ran" in said
    assert "was made of other rows" in said
    assert (WORKTREE / "data/drift/iris/0002-sunday.csv.json").exists()

    monday = batch.read_bytes()
    batch.unlink()  # as `dvc checkout` does, since the user's dvc.lock does not know it
    deliver("tuesday.csv", 2, sepal_length=1e6)
    said = night()
    assert batch.read_bytes() == monday
    assert "rejected tuesday.csv" in said
    assert "nothing to judge or to promote" in said
    assert "train@iris_mlp ran" not in said
    assert sorted(path.name for path in Path("data/rejected/iris").iterdir()) == [
        "0001-tuesday.csv",
        "0001-tuesday.csv.reasons.csv",
    ]
    assert champion("iris_mlp") == "v0.0.2"

    back = run(sys.executable, "-m", "flows.registry", "rollback", "iris_mlp", "--message", "it is odd")
    assert back.returncode == 0, back.stderr
    assert champion("iris_mlp") == "v0.0.1"
    assert run("git", "status", "--porcelain").stdout == ""


def test_it_needs_git_and_a_known_model(run, small):
    done = run(sys.executable, "-m", "flows.retrain", "iris_mpl")
    assert done.returncode == 1
    assert "Did you mean 'iris_mlp'?" in done.stderr
    shutil.rmtree(small / ".git")
    run("git", "init", "--quiet")
    done = run(sys.executable, "-m", "flows.retrain")
    assert done.returncode == 1
    assert "there is no commit yet" in done.stderr
    assert "Traceback" not in done.stderr
