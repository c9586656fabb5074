"""What a mistake is answered with: one message that names the place and the remedy, before anything is started."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.workspaces import DVC, PIPELINE, edit_params


@pytest.fixture
def run(small, environment) -> Callable[..., subprocess.CompletedProcess]:
    """Run a command there without a Prefect server; a server of its own would leave its log in .prefect."""

    def run(*words: str, folder: Path = small) -> subprocess.CompletedProcess:
        shutil.rmtree(folder / ".prefect", ignore_errors=True)
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


ONE = "train@linear_neuron"


def test_dry_shows_the_plan_with_the_settings_and_changes_nothing(run, small):
    kept = {file: file.read_bytes() for file in small.rglob("*.*") if file.is_file() and ".dvc/" not in str(file)}
    assert run(*PIPELINE, "--dry", ONE).stdout == ""
    assert run(*PIPELINE, "--dry", ONE, "--set", "models.linear_neuron.fit.epochs=7").stdout == f"{ONE}: changed\n"
    assert run(*PIPELINE, "--dry", ONE, "--set", "models.iris_mlp.fit.epochs=7").stdout == ""
    planned = run(*PIPELINE, "--dry", ONE, "--set", "datasets.line.split.seed=7").stdout.splitlines()
    assert planned == ["prepare@line: changed", f"{ONE}: if prepare@line ends with other outputs"]
    assert run("git", "status", "--porcelain").stdout == ""
    now = {file: file.read_bytes() for file in small.rglob("*.*") if file.is_file() and ".dvc/" not in str(file)}
    assert {str(file) for file, data in now.items() if kept.get(file) != data and file.suffix != ".pyc"} == set()


@pytest.mark.parametrize(
    ("dry", "setting", "told"),
    [
        ((), "models.linear_neuron.fit.epoch=3", "Did you mean 'epochs'?"),
        (("--dry",), "models.linear_neuron.fit.epoch=3", "Did you mean 'epochs'?"),
        ((), "models.linear_neuron.fit.epochs=1,2", "one value each"),
        ((), "models.linear_neuron.family=${oc.env:HOME}", "is not replaced"),
        (("--dry",), "models.linear_neuron.family=mpl", "unknown family 'mpl'. Did you mean 'mlp'?"),
    ],
)
def test_a_wrong_setting_is_one_line_before_a_server_is_started(run, small, dry, setting, told):
    done = run(*PIPELINE, *dry, ONE, "--set", setting)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --set {setting}: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not [*(small / ".prefect").glob("*")]
    assert run("git", "status", "--porcelain").stdout == ""


@pytest.mark.rotates
def test_a_folder_without_git_or_dvc_says_what_to_run(run, small, tmp_path):
    folder = tmp_path / "a copy"
    shutil.copytree(small, folder, ignore=shutil.ignore_patterns(".git", "data", "cache"))
    for words in (["--dry"], ["--set", "seed=7"]):
        done = run(*PIPELINE, *words, folder=folder)
        assert done.returncode == 1
        assert "is not in a git repository: run `git init`, or `dvc config core.no_scm true`" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert subprocess.run([*DVC, "config", "core.no_scm", "true"], cwd=folder, check=False).returncode == 0
    assert run(*PIPELINE, "--dry", folder=folder).returncode == 0
    assert "an experiment needs git" in run(*PIPELINE, "--set", "seed=7", folder=folder).stderr
    shutil.rmtree(folder / ".dvc")
    done = run(*PIPELINE, "--dry", folder=folder)
    assert done.returncode == 1
    assert "is not a DVC repository: run `git init` and `dvc init`, or `dvc init --no-scm`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_family_is_told_by_every_command_that_runs_our_code(workspace, run_flow):
    edit_params(workspace, models__iris_mlp__family="mpl")
    for words in (["ingest", "line"], ["pipeline", "--dry"], ["ui", "--port", "1"], ["demo"]):
        done = run_flow(*words)
        assert done.returncode == 1
        assert "models.iris_mlp.family: unknown family 'mpl'. Did you mean 'mlp'?" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.rotates
def test_figures_and_experiments_fit_a_screen(run, small, settings):
    experiment = [*PIPELINE, ONE, "--set", "models.linear_neuron.fit.epochs=3", "--set", "seed=7"]
    made = subprocess.run(experiment, cwd=small, env=settings, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    shown = run(sys.executable, "-m", "flows.metrics")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 100
    text = " ".join(shown.stdout.replace("│", " ").split())
    measured = json.loads((small / "artifacts/linear_neuron/metrics.json").read_text())["metrics"]["test"]
    assert f"linear_neuron sample 1 loss {measured['loss']:.4f}" in text
    [name] = run(*DVC, "exp", "list", "--name-only").stdout.split()
    assert name in text
    assert "models.linear_neuron.fit.epochs=3" in text
    assert "seed=7" in text
    assert f"linear_neuron loss {measured['loss']:.4f} →" in text
    assert "hardware" not in text


def test_figures_of_a_workspace_without_models_say_what_to_run(run_flow):
    done = run_flow("metrics")
    assert done.returncode == 1
    assert done.stderr == "error: artifacts: there is no model yet. Run `make pipeline` or `dvc repro` first.\n"
