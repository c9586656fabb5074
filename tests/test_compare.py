"""Two revisions side by side, as DVC tells them apart."""

import json
import re
import subprocess
import sys

import pytest
from conftest import DVC, edit_params

from tasks.report.comparison import metric_rows

pytestmark = pytest.mark.xdist_group("repo")  # one worker runs all that share the repository


@pytest.fixture
def compare(repo, settings, monkeypatch):
    monkeypatch.chdir(repo)

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flows.compare", *words]
        return subprocess.run(command, cwd=repo, env=settings, capture_output=True, text=True, check=False)

    yield run
    (repo / "reports/compare.html").unlink(missing_ok=True)
    restore = (["git", "checkout", "--quiet", "--force", "."], [*DVC, "checkout", "--force", "--quiet"])
    for words in restore:
        subprocess.run(words, cwd=repo, env=settings, check=True)


def test_what_differs_from_the_last_commit_is_shown(compare, repo):
    path = repo / "artifacts/housing_mlp/metrics.json"
    metrics = json.loads(path.read_text())
    before = metrics["metrics"]["test"]["rmse"]
    metrics["metrics"]["test"]["rmse"] = before + 0.25
    path.write_text(json.dumps(metrics))
    edit_params(repo, models__housing_mlp__fit__batch_size=64)
    done = compare()
    assert done.returncode == 0, done.stderr
    page = (repo / "reports/compare.html").read_text()
    assert re.search(r'housing_mlp</th><td class="text">test</td><td class="text">rmse</td>', page)
    assert "✗ +0.2500" in page
    assert f'<data value="{before!r}">' in page
    assert "models.housing_mlp.fit.batch_size</th><td>32</td><td>64</td>" in page


def test_a_workspace_that_is_as_committed_differs_in_nothing(compare, repo):
    assert compare("HEAD", "workspace").returncode == 0
    page = (repo / "reports/compare.html").read_text()
    assert "No metric differs." in page
    assert "No parameter differs." in page


def test_an_unknown_revision_is_one_message(compare):
    done = compare("no-such-revision")
    assert done.returncode == 1
    assert "no-such-revision" in done.stderr
    assert "A revision is a commit, a branch, a tag, an experiment" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_less_is_better_for_errors_and_more_for_accuracy():
    diff = {
        "artifacts/a/metrics.json": {
            "metrics.test.aux_rmse": {"old": 0.5, "new": 0.4, "diff": -0.1},
            "metrics.test.accuracy": {"old": 0.5, "new": 0.4, "diff": -0.1},
            "metrics.test.loss": {"old": None, "new": 0.4},
            "epochs": {"old": 1, "new": 2, "diff": 1},
        }
    }
    assert [(row["metric"], row["outcome"]) for row in metric_rows(diff)] == [
        ("accuracy", "worse"),
        ("aux_rmse", "better"),
        ("loss", None),
    ]
    baselines = {"artifacts/baselines/metrics.json": {"dummy.metrics.test.rmse": {"old": 1, "new": 2, "diff": 1}}}
    assert metric_rows(baselines) == [
        {"model": "dummy", "split": "test", "metric": "rmse", "old": 1, "new": 2, "change": 1, "outcome": "worse"}
    ]
