"""The page of a model shows the verdict on its last candidate, and is as before where there is none."""

import json
import re
import shutil
from pathlib import Path

import pytest

from config.params import load_params
from tasks.promotion.verdict import FILE, Verdict, write_verdict
from tasks.publishing.checksums import tree_sha256
from tasks.report.build import report
from tests.support.verdicts import make_verdict
from tests.support.workspaces import ROOT, keep_only


@pytest.fixture
def model(prepared) -> Path:
    """The folder of iris_mlp, the only model of the workspace: metrics and an export, nothing else."""
    keep_only(prepared, ["iris_mlp"])
    folder = prepared / "artifacts/iris_mlp"
    (folder / "saved_model").mkdir(parents=True)
    (folder / "saved_model/saved_model.pb").write_bytes(b"a graph")
    shutil.copy(ROOT / "artifacts/iris_mlp/metrics.json", folder)
    return folder


def page(model: Path, verdict: Verdict | None) -> str:
    if verdict:
        write_verdict(verdict, model)
    folder = Path("reports")
    folder.mkdir()
    report(load_params(), folder, {})
    return (folder / "models/iris_mlp.html").read_text()


def test_a_page_without_a_verdict_says_nothing_of_one(model):
    text = page(model, None)
    assert "Candidate and champion" not in text
    assert FILE not in text


@pytest.mark.parametrize("worse", [0.0, 0.1])
def test_every_rule_stands_on_the_page_with_value_limit_and_result(model, worse):
    verdict = make_verdict("iris_mlp", worse, sha256=tree_sha256(model / "saved_model"))
    text = page(model, verdict)
    decision = "Regression: not promoted" if worse else "No measurable change: promoted"
    assert decision in text
    assert text.count("✗ failed") == len(verdict.failed)
    assert text.count("✓ kept") + text.count("✓ within noise") == len(verdict.rules) - len(verdict.failed)
    assert "another model than that of this page" not in text
    assert "95 % interval" in text
    values = json.loads((model / FILE).read_text())
    shown = re.findall(r'<data value="([^"]*)" data-source="artifacts/iris_mlp/verdict\.json#/([^"]*)"', text)
    assert len(shown) > 2 * len(verdict.rules)
    for value, pointer in shown:
        found = values
        for key in pointer.split("/"):
            found = found[int(key)] if isinstance(found, list) else found[key]
        assert json.loads(value) == found


def test_the_chart_says_in_words_what_it_draws(model):
    verdict = make_verdict("iris_mlp", 0.1)
    text = page(model, verdict)
    [described] = re.findall(r'aria-label="Gain of the candidate of iris_mlp, positive is better: ([^"]*)"', text)
    whole = verdict.comparison("valid")
    assert f"valid {whole.gain:+.2%}" in described
    assert "test" in described


def test_a_candidate_that_is_not_the_model_of_the_page_is_told(model):
    assert "another model than that of this page" in page(model, make_verdict("iris_mlp", 0.1))


def test_a_damaged_verdict_is_a_missing_file_of_the_page(model):
    (model / FILE).write_text("{}")
    text = page(model, None)
    assert "Candidate and champion" not in text
    assert "verdict.json: model: is missing" in text
