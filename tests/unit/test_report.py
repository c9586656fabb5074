"""The report's numbers, verdicts and drawings."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.metrics import ClassMetrics, SliceMetrics
from tasks.evaluation.metrics_files import LectureRun
from tasks.publishing.records import Graph, Layer
from tasks.report.charts import chart_pool, search_history
from tasks.report.classification import calibration, confusion, most_confident_errors
from tasks.report.diagnosis import diagnose, weak_classes, weak_slices
from tasks.report.drift import compare_splits, far_out
from tasks.report.formatting import duration, number, sourced
from tasks.report.model_page import describe_lecture_recipe
from tasks.report.network_diagram import draw
from tasks.report.read import LectureRecipe
from tasks.report.search_page import coordinates


def curves(train: list[float], valid: list[float]) -> list[str]:
    history = pd.DataFrame({"epoch": range(1, len(train) + 1), "loss": train, "val_loss": valid})
    return [finding.title for finding in diagnose(history, 0.9)]


def test_the_diagnosis_tells_the_textbook_cases_apart():
    steady = [1.0, 0.6, 0.5, 0.45, 0.44, 0.44, 0.44, 0.44, 0.44, 0.44]
    assert curves(steady, steady) == ["converged"]
    assert curves(steady, [1.0, 0.6, 0.5, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5, 0.5]) == ["unstable"]
    falling = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3]
    assert curves(falling, [1.0, 0.9, 0.8, 0.7, 0.71, 0.73, 0.76, 0.8, 0.85, 0.9]) == ["overfitting"]
    assert curves(falling, falling) == ["still improving"]
    assert curves([1.0] * 3, [1.0] * 3) == ["too short to judge"]
    assert curves([1.0, float("nan")], [1.0, float("nan")]) == ["diverged"]
    assert curves([0.0] * 9, [0.0] * 9) == ["converged"]
    late = [1.0, 0.6, 0.5, 0.44, 0.46, 0.48, 0.5, 0.52, 0.55, 0.6]
    assert curves(late, [1.0, 0.6, 0.5, 0.45, 0.47, 0.5, 0.53, 0.56, 0.6, 0.64]) == ["past its best"]
    exact = [4.0, 0.1, 1e-3, 2e-5, 2e-5, 2e-5]
    assert curves(exact, [9.0, 0.2, 2e-3, 4e-5, 4e-5, 4e-5]) == ["converged"]
    waited = pd.DataFrame(
        {"epoch": range(1, 8), "loss": [5, 4, 3, 2.9, 2.8, 2.7, 2.6], "val_loss": [5, 4, 3, 3, 3, 3.5, 4]}
    )
    assert [finding.title for finding in diagnose(waited, 0.9, restored=True)] == ["still improving"]
    history = pd.DataFrame({"epoch": range(1, 11), "loss": steady, "val_loss": steady})
    assert [finding.title for finding in diagnose(history, 0.1)] == ["underfitting"]


losses = st.floats(0, 1e6) | st.just(float("nan")) | st.just(float("inf"))


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=30))
def test_whatever_the_losses_are_the_diagnosis_says_something_and_converged_only_near_the_best(pairs):
    train, valid = zip(*pairs, strict=True)
    told = curves(list(train), list(valid))
    assert told
    if "converged" in told:
        assert told == ["converged"]
        assert valid[-1] <= 1.05 * min(valid)


def test_a_class_and_a_slice_far_behind_the_rest_are_pointed_out():
    good, bad = (ClassMetrics(precision=share, recall=share, f1=share, rows=50) for share in (0.9, 0.5))
    assert [finding.title for finding in weak_classes({"a": good, "b": bad, "c": good})] == ["weak on b"]
    assert weak_classes({"a": good, "b": bad.model_copy(update={"rows": 3})}) == []
    slices = {
        "x 0 to 1": SliceMetrics(rmse=0.5, mae=0.4, bias=0.0, rows=99),
        "x 1 to 2": SliceMetrics(rmse=0.9, mae=0.8, bias=-0.2, rows=99),
    }
    [finding] = weak_slices(slices, 0.55)
    assert finding.title == "weak where x 1 to 2"
    assert "too low" in finding.text


def test_the_confusion_matrix_counts_every_row():
    frame = pd.DataFrame({"true": [0, 0, 1, 2, 2, 2], "predicted": [0, 1, 1, 2, 2, 0]})
    rows = confusion(frame, ["a", "b", "c"])
    assert [[cell["count"] for cell in row["cells"]] for row in rows] == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert rows[2]["cells"][2]["share"] == pytest.approx(2 / 3)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_calibration_counts_every_row_once_and_is_0_for_an_oracle(rows):
    true, share = zip(*rows, strict=True)
    second = np.array(share)
    frame = pd.DataFrame(
        {"true": true, "predicted": (second >= 0.5).astype(int), "probability a": 1 - second, "probability b": second}
    )
    found = calibration(frame, ["a", "b"])
    assert sum(row["rows"] for row in found["bins"]) == len(rows)
    assert 0 <= found["error"] <= 1
    oracle = frame.assign(
        predicted=frame["true"], **{"probability a": 1.0 - frame["true"], "probability b": 1.0 * frame["true"]}
    )
    assert calibration(oracle, ["a", "b"])["error"] == 0
    wrong = most_confident_errors(frame, ["a", "b"])
    sure = np.where(wrong["predicted"] == 1, wrong["probability b"], wrong["probability a"])
    assert (wrong["true"] != wrong["predicted"]).all()
    assert (np.diff(sure) <= 0).all()


def test_drift_is_told_where_a_split_was_moved_and_not_where_it_was_not():
    rng = np.random.default_rng(0)
    rows = {"train": np.arange(600), "valid": np.arange(600, 800), "test": np.arange(800, 1000)}
    same, moved = rng.normal(size=1000), rng.normal(size=1000)
    moved[rows["test"]] += 1
    labels = rng.integers(0, 3, 1000)
    found = compare_splits({"same": same, "moved": moved, "label": labels}, rows, classes=True)
    assert [(row["column"], row["split"]) for row in found if row["drift"]] == [("moved", "test")]
    labels[rows["valid"]] = 0
    found = compare_splits({"same": same, "label": labels}, rows, classes=True)
    assert [(row["column"], row["split"]) for row in found if row["drift"]] == [("label", "valid")]


def test_far_out_values_are_counted():
    values = np.concatenate([np.arange(100.0), [1000.0, -1000.0]])
    found = far_out(values)
    assert found["rows"] == 2
    assert (found["lowest"], found["highest"]) == (-1000, 1000)


@st.composite
def graphs(draw_from):
    count = draw_from(st.integers(2, 9))
    names = [f"layer_{number}" for number in range(count)]
    links = [[names[draw_from(st.integers(0, number - 1))], names[number]] for number in range(1, count)]
    further = draw_from(st.lists(st.tuples(st.integers(0, count - 2), st.integers(1, count - 1)), max_size=4))
    links += [[names[a], names[b]] for a, b in further if a < b and [names[a], names[b]] not in links]
    layers = [Layer(name=name, type="Dense", shape=[3], activation=None, parameters=9, trainable=9) for name in names]
    return Graph(layers=layers, links=links, index=0)


@given(graphs())
def test_no_two_boxes_of_a_network_overlap_and_every_layer_is_below_what_it_reads(graph):
    drawing = draw(graph)
    places = [(box.x, box.y) for box in drawing.boxes]
    assert len(drawing.boxes) == len(graph.layers)
    assert len(drawing.lines) == len(graph.links)
    for place, (x, y) in enumerate(places):
        assert 0 <= x <= drawing.width - 168
        assert 0 <= y <= drawing.height - 44
        assert all(abs(x - u) >= 168 or abs(y - v) >= 44 for u, v in places[place + 1 :])
    level = {box.title: box.y for box in drawing.boxes}
    assert all(level[source] < level[reader] for source, reader in graph.links)


def test_the_highest_figure_counts_from_the_fourth_epoch_on():
    epochs = {"normalization": "standard", "seed": 1, "epoch": [1, 2, 3, 4, 5], "val_rmse": [9.0, 8.0, 7.0, 0.6, 0.5]}
    metrics = {"valid": {"rmse": 0.5}, "test": {"rmse": 0.4}}
    run = LectureRun(normalization="standard", seed=1, epochs=5, metrics=metrics)
    with chart_pool():
        shown = describe_lecture_recipe(LectureRecipe([run], pd.DataFrame(epochs)), "rmse", {})
    assert shown["rows"][0]["highest"] == 0.6
    assert shown["means"] == [{"normalization": "standard", "valid": 0.5, "test": {"rmse": 0.4}}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.52349, "0.5235"), (2.6e-5, "2.6e-05"), (0.0, "0.0000"), (266610, "266,610"), (1234.5, "1,234")],
)
def test_numbers_are_shown_with_four_digits(value, shown):
    assert number(value) == shown


def test_a_figure_keeps_its_source():
    assert sourced(0.5, "a.json", "T-shirt/top", "f1") == (
        '<data value="0.5" data-source="a.json#/T-shirt~1top/f1">0.5000</data>'
    )


@pytest.mark.parametrize(("seconds", "shown"), [(3.21, "3.2 s"), (59.97, "1 min 0 s"), (119.7, "2 min 0 s")])
def test_durations_are_rounded_before_they_are_divided(seconds, shown):
    assert duration(seconds) == shown


def searched(values: list[float | None], states: list[str] | None = None) -> pd.DataFrame:
    """Return the table of a search with one parameter of each kind."""
    table = pd.DataFrame(
        {
            "trial": range(len(values)),
            "state": states or ["complete"] * len(values),
            "value": values,
            "compile.learning_rate": np.linspace(0.1, 0.2, len(values)),
            "compile.optimizer": ["sgd", "adam"] * (len(values) // 2) + ["sgd"] * (len(values) % 2),
        }
    )
    return table.assign(best=table["value"].cummin())


def test_in_parallel_coordinates_the_best_trial_is_highest_and_each_axis_spans_its_values():
    lines = coordinates(searched([0.5, 0.1, 0.9, 0.3]), ["compile.learning_rate", "compile.optimizer"], "rmse")
    assert lines is not None
    places = {axis: part.sort_values("trial")["position"].tolist() for axis, part in lines.groupby("axis")}
    assert places["rmse"] == pytest.approx([1 / 3, 1, 0, 2 / 3])
    assert places["compile.learning_rate"] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert places["compile.optimizer"] == [1, 0, 1, 0]
    assert set(lines[lines["quarter"] == "best quarter"]["trial"]) == {1}
    accurate = coordinates(searched([0.5, 0.1, 0.9, 0.3]), [], "accuracy")
    assert accurate is not None
    assert accurate.sort_values("position")["trial"].tolist() == [1, 3, 0, 2]
    assert coordinates(searched([0.5]), [], "rmse") is None


def test_the_history_of_a_search_draws_one_trial_failed_ones_and_the_notes():
    with chart_pool():
        assert "best 0.5000" in search_history(searched([0.5]), "rmse", 0.6).description
        drawn = search_history(searched([None, 0.4, 9.0], ["failed", "complete", "pruned"]), "rmse", None)
    assert drawn.description == "rmse on valid of 2 trials, best 0.4000"
