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
def run(small, settings, monkeypatch):
    monkeypatch.chdir(small)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=small, env=settings, capture_output=True, text=True, check=False)

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
    said = run(*DVC, "repro").stdout
    assert "up to date" in said
    assert stages_run(said) == []


def test_the_users_home_is_not_touched(two_models, settings):
    found = {entry.name for entry in Path(settings["HOME"]).iterdir()}
    assert found <= {".config", ".cache"}  # DVC's own
    assert not (Path(settings["HOME"]) / ".config/prefect").exists()


def test_summary_marks_the_sample_and_has_what_was_promised(trained):
    summary = json.loads((trained / "reports/summary.json").read_text())
    params = load_params(trained / "params.yaml")
    assert [model["name"] for model in summary] == [*params.models, *params.baselines]
    for model in summary:
        assert model["source"] == "sample"
        assert model["notes"] is None
        assert set(model["metrics"]) == {"train", "valid", "test"}
        assert model["seconds"]["total"] >= model["seconds"]["fit"] >= 0
        if model["kind"] == "baseline":
            continue
        assert model["seconds"]["fit"] > 0
        measured = json.loads((trained / f"artifacts/{model['name']}/metrics.json").read_text())
        assert (model["params"], model["metrics"]) == (measured["parameters"]["total"], measured["metrics"])
    assert "Sample data" in (trained / "reports/index.html").read_text()


@pytest.mark.rotates
def test_an_experiment_retrains_its_model_alone(run):
    done = run(*DVC, "exp", "run", "-S", "models.iris_mlp.fit.epochs=2")
    assert done.returncode == 0, done.stderr
    assert stages_run(done.stdout) == ["train@iris_mlp", "report"]
    assert json.loads(Path("artifacts/iris_mlp/metrics.json").read_text())["epochs"] == 2


def test_dvc_shows_metrics(run):
    shown = json.loads(run(*DVC, "metrics", "show", "--json").stdout)[""]["data"]
    assert shown["artifacts/iris_mlp/metrics.json"]["data"]["metrics"]["test"]["accuracy"] > 0


def test_a_defect_keeps_its_traceback_and_the_previous_outputs(run):
    before = contents(Path("data/prepared/line"))
    code = Path("flows/prepare.py")
    code.write_text(code.read_text().replace("(prepared, folder)\n", "(prepared, folder)\n        1 / 0\n"))
    done = run(*DVC, "repro", "-s", "prepare@line")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert contents(Path("data/prepared/line")) == before


def test_a_clone_without_a_cache_or_a_network_says_what_is_missing_and_keeps_what_git_has(trained, settings, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(trained), str(clone)], env=settings, check=True)
    edit_params(clone, data__source="real")
    empty = {**settings, "SCIKIT_LEARN_DATA": str(tmp_path / "none"), "https_proxy": "http://127.0.0.1:9"}
    command = [*DVC, "repro", "ingest@california_housing"]
    done = subprocess.run(command, cwd=clone, env=empty, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("error: california_housing: could not fetch https://") == 1
    assert "Traceback" not in done.stderr
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert changed.stdout.split() == ["M", "params.yaml"]


def test_a_full_disk_is_told_and_loses_nothing(repo, settings):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    before = contents(repo / "data/raw")
    script = f"mount -t tmpfs -o size=64k none .staging && exec '{sys.executable}' -m flows.ingest fashion_mnist"
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=repo, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(repo / "data/raw") == before


LONG = "a key of some length with spaces in it that is longer than a line of dvc.lock"


def test_dvc_repro_by_itself_records_nothing_of_such_a_label(prepared, settings, dvc_folder):
    shutil.copytree(dvc_folder, prepared / ".dvc")
    put_in(prepared, "petals 2 x 0.5 cm:", f"{LONG}:")
    command = [*DVC, "repro", "-s", "train@iris_perceptron"]
    done = subprocess.run(command, cwd=prepared, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"probes: the key '{LONG[:40]}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (prepared / "dvc.lock").exists()
