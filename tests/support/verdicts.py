"""Verdicts for tests, without a model."""

import numpy as np
import pandas as pd

from config.gates import Gates
from tasks.promotion.gates import (
    Answers,
    compare,
    compare_on_test,
    comparison_rule,
    decide,
    limit_rule,
    outcome_of,
    slices,
)
from tasks.promotion.verdict import Contender, JudgedRows, Verdict

GATES = Gates(draws=1000)


def contender(version: str | None, metrics: dict, sha256: str = "0" * 64, size: int = 100_000) -> Contender:
    return Contender(
        version=version,
        commit=None,
        sha256=sha256,
        size=size,
        ready_seconds=3.5,
        latency_ms=0.4,
        rows_per_second=1e5,
        failure=None,
        metrics=metrics,
    )


def make_verdict(model: str, worse: float, rows: int = 600, sha256: str = "0" * 64) -> Verdict:
    """Return a verdict on a classifier.

    Args:
        model: its name.
        worse: the share of the rows that the champion gets right and the candidate does not.
        rows: of valid and of test, each.
        sha256: of the candidate.
    """
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, rows)
    champion = np.where(rng.random(rows) < 0.1, (truth + 1) % 3, truth)
    candidate = np.where(rng.random(rows) < worse, (truth + 2) % 3, champion)
    answers, own = Answers(truth, candidate, champion), GATES.of(model)
    names = ["setosa", "versicolor", "virginica"]
    features = pd.DataFrame({"petal_length": rng.random(rows), "petal_width": rng.random(rows)})
    parts = slices(truth, names, features, np.arange(rows) < 150, GATES.slice_rows)
    comparisons = compare(answers, parts, True, GATES, own, 42)
    rules = [comparison_rule(found, "accuracy", GATES) for found in comparisons]
    outcome = outcome_of(comparisons, rules, GATES)
    rules = [limit_rule("size", 100_000, 90_000, GATES.size), *rules]
    promote, reason = decide(outcome, rules, False, "new rows arrived")
    metrics = [
        {
            split: {"accuracy": float((given == truth).mean()), "f1_macro": 0.9}
            for split in ("valid", "new rows", "test")
        }
        for given in (candidate, champion)
    ]
    return Verdict(
        model=model,
        dataset="iris",
        task="multiclass",
        metric="accuracy",
        source="sample",
        raw_sha256="1" * 64,
        outcome=outcome,
        promote=promote,
        reason=reason,
        reason_to_retrain="new rows arrived",
        candidate=contender(None, metrics[0], sha256),
        champion=contender("v3", metrics[1], "2" * 64, 90_000),
        rows=JudgedRows(valid=rows, new=150, test=rows, sha256="3" * 64),
        confidence=GATES.confidence,
        seed=42,
        rules=rules,
        comparisons=[*comparisons, compare_on_test(answers, True, GATES, 42)],
    )
