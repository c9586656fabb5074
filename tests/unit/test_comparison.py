"""The comparison of two revisions: which metric is better."""

from tasks.report.comparison import metric_rows


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
