"""Two revisions side by side, as DVC tells them apart."""

import json
import re
import subprocess
import sys

import pytest

from tests.support.workspaces import edit_params


@pytest.fixture
def compare(repo, settings, monkeypatch):
    monkeypatch.chdir(repo)

    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flows.compare", *words]
        return subprocess.run(command, cwd=repo, env=settings, capture_output=True, text=True, check=False)

    return run


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
