"""Verdicts: a difference within rounding and noise is neither better nor worse."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.metrics_files import LectureRun
from tasks.report.comparison import metric_rows
from tasks.report.verdict import Evidence, accuracy_error, compare_with_reference, half_unit, judge, rmse_error

numbers = st.floats(0.01, 10)


@pytest.mark.parametrize(
    ("printed", "expected"), [(0.5235, 5e-5), (0.50533, 5e-6), (0.563, 5e-5), (1.0, 5e-5), (2.6e-5, 5e-7)]
)
def test_rounding_is_half_a_unit_of_the_last_printed_digit_and_of_four_decimals_at_most(printed, expected):
    assert half_unit(printed) == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "less"), [("rmse", "better"), ("aux_rmse", "better"), ("accuracy", "worse")])
def test_a_difference_above_the_tolerance_is_better_or_worse(metric, less):
    more = {"better": "worse", "worse": "better"}[less]
    assert judge(-0.02, 0.01, metric) == less
    assert judge(0.02, 0.01, metric) == more
    for difference in (-0.01, 0.0, 0.01):
        assert judge(difference, 0.01, metric) == "same"


@given(numbers, numbers, st.floats(0, 1))
def test_swapping_old_and_new_swaps_better_and_worse(old, new, tolerance):
    swapped = {"better": "worse", "worse": "better", "same": "same"}
    assert judge(old - new, tolerance, "rmse") == swapped[judge(new - old, tolerance, "rmse")]


def test_a_difference_within_the_rounding_of_the_notes_is_the_same():
    ours = {"valid": {"rmse": 0.5053326657967906}}  # shown with four digits as the notes' number
    found = compare_with_reference(ours, {"valid": {"rmse": 0.50533}}, "rmse", Evidence())
    assert found.outcome == "same"
    assert found.split == "valid"
    assert found.tolerance == pytest.approx(5e-6)
    worse = compare_with_reference({"valid": {"rmse": 0.5054}}, {"valid": {"rmse": 0.50533}}, "rmse", Evidence())
    assert worse.outcome == "worse"


def test_the_noise_of_a_model_with_a_lecture_recipe_is_that_over_its_seeds():
    values = {"standard": [0.50, 0.52, 0.54], "clipped": [0.50, 0.51, 0.52]}
    runs = [
        LectureRun(normalization=name, seed=1, epochs=1, metrics={"test": {"rmse": value}})
        for name, each in values.items()
        for value in each
    ]
    notes = {"test": {"rmse": 0.5235}}
    found = compare_with_reference({"test": {"rmse": 0.49}}, notes, "rmse", Evidence(runs))
    assert found.noise.amount == pytest.approx(2 * np.std(values["standard"], ddof=1))
    assert "3 seeds" in found.noise.basis
    assert found.outcome == "same"
    assert compare_with_reference({"test": {"rmse": 0.48}}, notes, "rmse", Evidence(runs)).outcome == "better"
    assert compare_with_reference({"test": {"rmse": 0.57}}, notes, "rmse", Evidence(runs)).outcome == "worse"


def test_the_noise_of_an_accuracy_comes_from_the_number_of_rows():
    notes = {"valid": {"accuracy": 0.8926}}
    ours = {"valid": {"accuracy": 0.8904}}
    assert compare_with_reference(ours, notes, "accuracy", Evidence(rows={"valid": 5000})).outcome == "same"
    assert compare_with_reference(ours, notes, "accuracy", Evidence(rows={"valid": 5_000_000})).outcome == "worse"
    assert compare_with_reference(ours, notes, "accuracy", Evidence(rows={"test": 5000})).outcome == "worse"


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_standard_error_of_an_accuracy_is_never_zero_and_falls_with_the_rows(rows, accuracy):
    assert 0 < accuracy_error(accuracy, rows) <= 0.5 / np.sqrt(rows + 4) + 1e-12


def test_the_standard_error_of_an_rmse_is_its_spread_over_samples():
    rng = np.random.default_rng(0)
    frames = [pd.DataFrame({"true": np.zeros(1000), "predicted": rng.normal(size=1000)}) for _ in range(400)]
    spread = np.std([np.sqrt((frame["predicted"] ** 2).mean()) for frame in frames])
    assert rmse_error(frames[0]) == pytest.approx(spread, rel=0.15)
    exact = pd.DataFrame({"true": [1.0, 2.0], "predicted": [1.0, 2.0]})
    assert rmse_error(exact) == 0


def test_a_metric_that_the_notes_do_not_print_has_no_verdict():
    assert compare_with_reference({"test": {"accuracy": 0.9}}, {}, "accuracy", Evidence()) is None


def test_a_change_that_is_shown_as_the_same_number_is_neither_better_nor_worse():
    change = {"old": 0.123412, "new": 0.123414, "diff": 2e-6}
    rows = metric_rows({"artifacts/a/metrics.json": {"metrics.test.rmse": change}})
    assert [row["outcome"] for row in rows] == ["same"]
