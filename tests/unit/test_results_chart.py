"""The chart of a task: all models, baselines and references on one axis."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.report.charts import Result, axis_range, chart_pool, results
from tasks.report.verdict import Noise, Verdict

numbers = st.floats(0.01, 10)


def reference(value: float, split: str = "test") -> Verdict:
    return Verdict(split, value, 0.0, 5e-5, Noise(0.0, ""), "same")


def test_the_chart_of_a_task_has_every_model_baseline_and_reference():
    rows = [
        Result("a", "network", 0.5, reference(0.5235, "valid")),
        Result("b", "network", 0.51, reference(0.52)),
        Result("c", "baseline", 1.15, None),
    ]
    with chart_pool():
        chart = results(rows, "Housing: value", "rmse on test, lower is better")
        svg = chart.svg.result()
    points = [point for values in chart.specification["datasets"].values() for point in values]
    assert {(point["name"], point["kind"], point["value"]) for point in points} == {
        ("a", "network", 0.5),
        ("a", "lecture notes, valid", 0.5235),
        ("b", "network", 0.51),
        ("b", "lecture notes, test", 0.52),
        ("c", "baseline", 1.15),
    }
    assert "a 0.5000, b 0.5100, c 1.1500" in chart.description
    assert "a 0.5235 (valid), b 0.5200 (test)" in chart.description
    for text in ("a\u20030.5000", "b\u20030.5100", "c\u20031.1500", "▶", "rmse on test, lower is better"):
        assert text in svg


def test_a_baseline_far_from_all_models_and_references_lies_beyond_the_axis_and_nothing_else_does():
    far, near = Result("far", "baseline", 1.15, None), Result("near", "baseline", 0.6, None)
    networks = [Result("a", "network", 0.5, reference(0.55)), Result("b", "network", 0.52, None)]
    low, high = axis_range([*networks, near, far])
    assert low < 0.5
    assert 0.6 < high < 1.15
    low, high = axis_range([networks[1], far])  # nothing to tell what is far
    assert low < 0.52
    assert high > 1.15


@given(st.lists(st.tuples(st.sampled_from(["network", "baseline"]), numbers, st.none() | numbers), min_size=1))
def test_every_model_and_every_reference_lies_within_the_axis(rows):
    made = [Result("", kind, value, reference(noted) if noted else None) for kind, value, noted in rows]
    low, high = axis_range(made)
    assert low < high
    for row in made:
        assert row.kind == "baseline" or low <= row.value <= high
        assert not row.verdict or low <= row.verdict.reference <= high
