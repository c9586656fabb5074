"""The real DVC over the real flows, on the sample: each stage runs once, failures lose nothing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.params import load_params
from tests.support.workspaces import DVC, contents, edit_params, put_in


@pytest.fixture
def run(repo, settings, monkeypatch):
    monkeypatch.chdir(repo)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=repo, env=settings, capture_output=True, text=True, check=False)

    return run


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+?)'", output)


def test_every_stage_ran_exactly_once(two_models_by_dvc):
    ran = stages_run((two_models_by_dvc / "run.log").read_text())
    params = load_params(two_models_by_dvc / "params.yaml")
    stages = 3 * len(params.datasets) + len(params.models) + len(params.lecture_recipes) + 2  # and baselines, report
    assert len(ran) == len(set(ran)) == stages
    assert ran[-1] == "report"


def test_nothing_is_left_to_do_and_a_second_repro_runs_nothing(run):
    assert "up to date" in run(*DVC, "status").stdout
    assert stages_run(run(*DVC, "repro").stdout) == []


def test_the_users_home_is_not_touched(repo, settings):
    found = {entry.name for entry in Path(settings["HOME"]).iterdir()}
    assert found <= {".config", ".cache"}  # DVC's own
    assert not (Path(settings["HOME"]) / ".config/prefect").exists()


def test_summary_marks_the_sample_and_has_what_was_promised(repo):
    summary = json.loads((repo / "reports/summary.json").read_text())
    params = load_params(repo / "params.yaml")
    assert [model["name"] for model in summary] == [*params.models, *params.baselines]
    for model in summary:
        assert model["source"] == "sample"
        assert model["notes"] is None
        assert set(model["metrics"]) == {"train", "valid", "test"}
        assert model["seconds"]["total"] >= model["seconds"]["fit"] >= 0
        if model["kind"] == "baseline":
            continue
        assert model["seconds"]["fit"] > 0
        measured = json.loads((repo / f"artifacts/{model['name']}/metrics.json").read_text())
        assert (model["params"], model["metrics"]) == (measured["parameters"]["total"], measured["metrics"])
    assert "Sample data" in (repo / "reports/index.html").read_text()


def test_an_experiment_retrains_its_model_alone(run):
    done = run(*DVC, "exp", "run", "-S", "models.housing_mlp.fit.epochs=2")
    assert done.returncode == 0, done.stderr
    assert stages_run(done.stdout) == ["train@housing_mlp", "report"]
    assert json.loads(Path("artifacts/housing_mlp/metrics.json").read_text())["epochs"] == 2


def test_dvc_shows_metrics_and_plots(run):
    shown = json.loads(run(*DVC, "metrics", "show", "--json").stdout)[""]["data"]
    assert shown["artifacts/housing_mlp/metrics.json"]["data"]["metrics"]["test"]["rmse"] > 0
    done = run(*DVC, "plots", "show", "--out", "plots")
    assert done.returncode == 0, done.stderr
    assert "housing_mlp, loss on valid" in Path("plots/index.html").read_text()


def test_deleted_outputs_come_back_from_the_cache_without_training(run):
    before = contents(Path("artifacts/iris_perceptron"))
    shutil.rmtree("artifacts/iris_perceptron")
    done = run(*DVC, "repro")
    assert "restored artifacts/iris_perceptron/" in done.stderr
    assert "epoch" not in done.stderr
    assert contents(Path("artifacts/iris_perceptron")) == before


def test_a_failing_stage_keeps_its_previous_outputs(run):
    before = contents(Path("artifacts/linear_neuron"))
    edit_params(Path(), models__linear_neuron__compile__learning_rate=1e30, models__linear_neuron__fit__epochs=50)
    done = run(*DVC, "repro", "-s", "train@linear_neuron")
    assert done.returncode != 0
    assert "training diverged" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert contents(Path("artifacts/linear_neuron")) == before


def test_without_a_cache_a_failing_stage_keeps_its_outputs(run, repo):
    before = contents(Path("artifacts/linear_neuron"))
    edit_params(repo, models__linear_neuron__compile__learning_rate=1e30, models__linear_neuron__fit__epochs=50)
    shutil.rmtree(".dvc/cache")
    done = run(*DVC, "repro", "-s", "train@linear_neuron")
    assert "error: linear_neuron: " in done.stderr
    assert contents(Path("artifacts/linear_neuron")) == before


def test_a_defect_keeps_its_traceback_and_the_previous_outputs(run, repo):
    before = contents(Path("artifacts/linear_neuron"))
    code = repo / "tasks/evaluation/evaluate.py"
    code.write_text(code.read_text().replace("names = class_names(params, schema)", "names = 1 / 0"))
    done = run(*DVC, "repro", "-s", "train@linear_neuron")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert contents(Path("artifacts/linear_neuron")) == before


def test_a_clone_without_a_cache_or_a_network_says_what_is_missing_and_keeps_what_git_has(repo, settings, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(repo), str(clone)], env=settings, check=True)
    edit_params(clone, data__source="real")
    empty = {**settings, "SCIKIT_LEARN_DATA": str(tmp_path / "none"), "https_proxy": "http://127.0.0.1:9"}
    command = [*DVC, "repro", "ingest@california_housing"]
    done = subprocess.run(command, cwd=clone, env=empty, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("error: california_housing: could not fetch https://") == 1
    assert "Traceback" not in done.stderr
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert changed.stdout.split() == ["M", "params.yaml"]


def test_a_full_disk_is_told_and_loses_nothing(run, repo, settings):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    before = contents(Path("data/raw"))
    script = f"mount -t tmpfs -o size=64k none .staging && exec '{sys.executable}' -m flows.ingest fashion_mnist"
    done = run("unshare", "--mount", "sh", "-c", script)
    assert done.returncode == 1
    assert "error: no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(Path("data/raw")) == before


LONG = "a key of some length with spaces in it that is longer than a line of dvc.lock"


def test_dvc_repro_by_itself_records_nothing_of_such_a_label(prepared, settings):
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=prepared, check=True)
    put_in(prepared, "petals 2 x 0.5 cm:", f"{LONG}:")
    command = [*DVC, "repro", "-s", "train@iris_perceptron"]
    done = subprocess.run(command, cwd=prepared, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"probes: the key '{LONG[:40]}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (prepared / "dvc.lock").exists()
