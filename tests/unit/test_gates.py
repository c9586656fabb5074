"""The rules of the gates, what they decide together, and the verdict that tells it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config.gates import Gates, LatencyLimit, LoadLimit, ModelGates, SizeLimit
from runtime.errors import UserError
from tasks.promotion.gates import absolute_rules, decide, limit_rule, load_rules, slices
from tasks.promotion.score import Scored, Unscored
from tasks.promotion.verdict import FILE, Rule, read_verdict, to_markdown, write_verdict
from tests.support.verdicts import make_verdict

KEPT = Rule(name="size", value=1.0, limit=2.0, passed=True, text="small")
FAILED = Rule(name="class Shirt", value=-0.2, limit=-0.05, passed=False, text="worse")


@pytest.mark.parametrize(
    ("value", "champion", "limit", "passed"),
    [
        (9e6, 1e5, 10e6, True),  # ninety times the champion, but small
        (11e6, 1e5, 10e6, False),
        (39e6, 20e6, 40e6, True),
        (41e6, 20e6, 40e6, False),
        (1.5e9, 1e9, 1.6e9, True),
        (1.7e9, 1e9, 1.6e9, False),
        (1.5e9, None, 1.6e9, True),  # the first candidate
        (1.7e9, None, 1.6e9, False),
    ],
)
def test_a_size_is_limited_by_the_champion_and_absolutely(value, champion, limit, passed):
    rule = limit_rule("size", value, champion, SizeLimit(most=1_600_000_000, growth=2, small=10_000_000))
    assert (rule.limit, rule.passed) == (limit, passed)


def test_a_latency_below_the_floor_is_never_too_slow():
    limit = LatencyLimit(growth=2, small=50)
    assert limit_rule("latency", 49, 0.3, limit).passed
    assert not limit_rule("latency", 51, 0.3, limit).passed
    assert not limit_rule("latency", 1001, None, limit).passed


def test_what_does_not_load_and_what_answers_wrong_fail_different_rules():
    limit = LoadLimit(seconds=60)
    scored = Scored({"output": np.zeros((1, 1))}, 3.0, 0.3, 1e4, 100)
    assert [(rule.name, rule.passed) for rule in load_rules(scored, limit)] == [("loads", True), ("answers", True)]
    [rule] = load_rules(Unscored("loading took more than 60 s", None, 100), limit)
    assert (rule.name, rule.passed, rule.text) == ("loads", False, "loading took more than 60 s")
    rules = load_rules(Unscored("7 of 100 answers are not finite", 3.0, 100), limit)
    assert [(rule.name, rule.passed) for rule in rules] == [("loads", True), ("answers", False)]
    assert "not finite" in rules[1].text


def test_a_threshold_limits_an_error_from_above_and_a_score_from_below():
    own = ModelGates(absolute={"rmse": 0.7, "r2": 0.5})
    assert [rule.passed for rule in absolute_rules({"rmse": 0.6, "r2": 0.6}, own)] == [True, True]
    assert [rule.passed for rule in absolute_rules({"rmse": 0.8, "r2": 0.4}, own)] == [False, False]
    assert [rule.passed for rule in absolute_rules({"rmse": 0.7, "r2": 0.5}, own)] == [True, True]


@pytest.mark.parametrize(
    ("outcome", "rules", "same", "reason", "promote", "told"),
    [
        ("first", [KEPT], False, None, True, "first version"),
        ("first", [KEPT, FAILED], False, None, False, "class Shirt"),
        ("better", [KEPT], False, None, True, "better"),
        ("better", [KEPT, FAILED], False, "new rows arrived", False, "class Shirt"),
        ("no measurable change", [KEPT], False, None, False, "no other reason"),
        ("no measurable change", [KEPT], False, "new rows arrived", True, "new rows arrived"),
        ("no measurable change", [KEPT], True, "new rows arrived", False, "is the champion"),
        ("worse within noise", [KEPT], False, None, False, "worse within noise"),
        ("worse within noise", [KEPT], False, "the recipe changed", True, "the recipe changed"),
        ("regression", [KEPT, FAILED], False, "new rows arrived", False, "class Shirt"),
    ],
)
def test_a_candidate_is_promoted_that_keeps_every_rule_and_has_a_reason(outcome, rules, same, reason, promote, told):
    decided, text = decide(outcome, rules, same, reason)
    assert decided == promote
    assert told in text


def test_classes_new_rows_and_quarters_with_enough_rows_are_compared_by_themselves():
    truth = np.repeat([0, 1, 2], [150, 120, 30])
    features = pd.DataFrame({"width": np.arange(300.0), "same": 1.0})
    parts = slices(truth, ["a", "b", "c"], features, np.arange(300) < 75, 75)
    assert [*parts] == [
        "new rows",
        "class a",
        "class b",
        *(name for name in parts if name.startswith("width ")),
    ]
    assert sum(parts[name] for name in parts if name.startswith("width ")).tolist() == [1] * 300
    quantities = slices(np.arange(300.0), [], pd.DataFrame(), np.zeros(300, bool), 75)
    assert quantities == {}


def test_too_few_rows_are_not_sliced():
    truth = np.zeros(28, int)
    assert slices(truth, ["a", "b"], pd.DataFrame({"width": truth}), truth == 0, Gates().slice_rows) == {}


def test_a_verdict_is_read_as_it_was_written(workspace):
    verdict = make_verdict("iris_mlp", worse=0.1)
    folder = Path("artifacts/iris_mlp")
    folder.mkdir(parents=True)
    write_verdict(verdict, folder)
    assert read_verdict("iris_mlp") == verdict
    assert read_verdict("iris_mlp", workspace) == verdict
    assert json.loads((folder / FILE).read_text())["outcome"] == "regression"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("outcome", "fine", "outcome"), ("model", "iris_perceptron", "model: is"), ("promote", None, "promote")],
)
def test_a_damaged_verdict_is_told(workspace, key, value, told):
    folder = Path("artifacts/iris_mlp")
    folder.mkdir(parents=True)
    write_verdict(make_verdict("iris_mlp", worse=0.0), folder)
    values = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(values | {key: value}))
    with pytest.raises(UserError, match=told):
        read_verdict("iris_mlp")


def test_the_artifact_names_what_failed_first_and_counts_the_parts_that_passed():
    verdict = make_verdict("iris_mlp", worse=0.1)
    text = to_markdown(verdict)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "# iris_mlp: regression, not promoted" in text
    assert "✗ failed" in rows[1]
    passed = sum(rule.passed for rule in verdict.rules) - 1  # the size
    assert f"{passed} keep their rule" in text or passed == 0
    assert {rule.name for rule in verdict.failed} <= {row.split("|")[1].strip() for row in rows}


def test_the_reason_names_a_few_rules_and_counts_the_others():
    rules = [FAILED.model_copy(update={"name": f"class {number}"}) for number in range(40)]
    assert decide("regression", rules, False, None)[1].endswith("class 3, class 4 and 35 more")


@pytest.mark.parametrize(
    ("value", "limit", "passed", "result"),
    [
        (-0.3, -0.1, False, "failed"),
        (-0.3, -0.1, True, "within noise"),
        (-0.05, -0.1, True, "kept"),
        (1.0, 2.0, True, "kept"),
        (None, None, True, "kept"),
        (None, 60.0, False, "failed"),
    ],
)
def test_a_rule_that_passes_below_its_limit_is_within_noise(value, limit, passed, result):
    assert Rule(name="any", value=value, limit=limit, passed=passed, text="").result == result


def test_a_verdict_on_equal_models_promotes_for_new_rows():
    verdict = make_verdict("iris_mlp", worse=0.0)
    assert (verdict.outcome, verdict.promote, verdict.failed) == ("no measurable change", True, [])
    assert "new rows arrived" in verdict.reason
