"""The report's overview: charts by task, verdicts, the timeline of the last run, and tables that no window cuts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import paths
from orchestration.timeline import Timeline
from tasks.evaluation.metrics_files import LectureRun
from tasks.report.charts import Result, chart_pool, results
from tasks.report.comparison import metric_rows
from tasks.report.formatting import number
from tasks.report.verdict import (
    Evidence,
    Noise,
    Verdict,
    accuracy_error,
    compare_with_reference,
    half_unit,
    judge,
    rmse_error,
)

numbers = st.floats(0.01, 10)


# Verdicts


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


# Charts by task


def test_the_chart_of_a_task_has_every_model_baseline_and_reference():
    verdict = Verdict("valid", 0.5235, -0.01, 5e-5, Noise(0.0, ""), "better")
    rows = [Result("a", "network", 0.5, verdict), Result("b", "baseline", 1.15, None)]
    with chart_pool():
        chart = results(rows, "Housing: value", "rmse on test, lower is better")
        svg = chart.svg.result()
    [values] = chart.specification["datasets"].values()
    drawn = {(point["name"], point["kind"], point["split"], point["value"]) for point in values}
    assert drawn == {
        ("a", "network", "test", 0.5),
        ("a", "lecture notes", "valid", 0.5235),
        ("b", "baseline", "test", 1.15),
    }
    assert "a 0.5000, b 1.1500" in chart.description
    assert "a 0.5235 (valid)" in chart.description
    for text in ("a  0.5000", "b  1.1500", "network", "baseline", "lecture notes"):
        assert text in svg.replace("\xa0", " ")


# The timeline of a run


NEEDS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def record(monkeypatch, events: list[tuple[float, str, str, str]], needs: dict[str, list[str]] = NEEDS) -> Timeline:
    """Return the timeline of events: second, started or ended, stage, status."""
    clock = [0.0]
    monkeypatch.setattr("orchestration.timeline.time.monotonic", lambda: clock[0])
    timeline = Timeline(needs)
    for second, event, stage, status in events:
        clock[0] = second
        if event == "started":
            timeline.started(stage)
        else:
            timeline.ended(stage, status)
    return timeline


def test_a_stage_is_ready_when_all_that_it_needs_has_ended(monkeypatch):
    events = [
        (0, "started", "a", ""),
        (2, "ended", "a", "ran"),
        (2, "started", "b", ""),
        (5, "ended", "b", "failed"),
        (5, "started", "c", ""),  # for which there was no room before
        (7, "ended", "c", "interrupted"),
    ]
    described = record(monkeypatch, events).describe()
    assert described["seconds"] == 7
    assert described["stages"] == [
        {"name": "a", "status": "ran", "ready": 0, "started": 0, "ended": 2},
        {"name": "b", "status": "failed", "ready": 2, "started": 2, "ended": 5},
        {"name": "c", "status": "interrupted", "ready": 2, "started": 5, "ended": 7},
        {"name": "d", "status": "not run", "ready": 7, "started": None, "ended": None},
    ]
    cut = record(monkeypatch, events[:1]).describe()
    assert [stage["ready"] for stage in cut["stages"]] == [0, None, None, None]


def read_run(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("window.lastRun = ")
    return json.loads(text.removeprefix("window.lastRun = ").removesuffix(";\n"))


def test_it_is_written_for_the_report_and_replaces_that_of_the_run_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Timeline({"a": []}).write() is None
    assert Timeline({"b": []}).write() is None
    assert [stage["name"] for stage in read_run(paths.LAST_RUN)["stages"]] == ["b"]
    assert list(paths.REPORTS.iterdir()) == [paths.LAST_RUN]


def test_a_run_does_not_fail_because_its_timeline_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.REPORTS.write_text("")
    fault = Timeline({"a": []}).write()
    assert str(paths.LAST_RUN) in fault
    assert "reports is a file" in fault


# The pages in a browser


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_network_conditions(offline=True, latency=0, throughput=0)
    yield opened
    opened.quit()


def show(browser, page: Path, width: int = 1280) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


CUT = """return [...document.querySelectorAll(".scroll")].filter((frame) => frame.scrollWidth > frame.clientWidth
  || [...frame.querySelectorAll("th, td")].some((cell) => cell.getBoundingClientRect().right > innerWidth))
  .map((frame) => `${frame.ariaLabel}: ${frame.scrollWidth} > ${frame.clientWidth}`)"""


@pytest.fixture
def last_run(repo):
    """Write a run into the repository's report, and yield what writes another one."""
    path = repo / paths.LAST_RUN
    before = path.read_text() if path.exists() else None

    def write(stages: list[dict], seconds: float = 90.0) -> None:
        run = {"began": "2026-01-31T12:00:00+00:00", "seconds": seconds, "stages": stages}
        path.write_text(f"window.lastRun = {json.dumps(run)};\n")

    yield write
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(before)


STAGES = [
    {"name": "ingest@iris", "status": "unchanged", "ready": 0, "started": 0, "ended": 0.1},
    {"name": "lecture_recipe@housing_wide_deep_subclassed", "status": "ran", "ready": 0, "started": 30, "ended": 90},
    {"name": "train@<b>x</b>", "status": "failed", "ready": 0, "started": 0.5, "ended": 30},
    {"name": "report", "status": "not run", "ready": None, "started": None, "ended": None},
]


@pytest.mark.xdist_group("repo")
@pytest.mark.parametrize("width", [1280, 1440])
def test_no_column_of_any_table_is_cut(browser, repo, last_run, width):
    last_run(STAGES)
    for page in sorted((repo / "reports").rglob("*.html")):
        show(browser, page, width)
        assert browser.execute_script(CUT) == [], page


@pytest.mark.xdist_group("repo")
def test_the_last_run_is_shown_stage_by_stage_with_texts(browser, repo, last_run):
    last_run(STAGES)
    show(browser, repo / "reports/index.html")
    section = browser.find_element("css selector", "#last-run")
    assert "4 stages in 1 min 30 s: 1 unchanged, 1 ran, 1 failed, 1 not run." in section.text
    cells = [
        [cell.get_attribute("textContent") for cell in row.find_elements("css selector", "th, td")]
        for row in section.find_elements("css selector", "tbody tr")
    ]
    assert cells == [
        ["train@<b>x</b>", "failed", "0.5 s", "29.5 s", "ready at 0.0 s, started at 0.5 s, ended at 30.0 s"],
        [
            "lecture_recipe@housing_wide_deep_subclassed",
            "ran",
            "30.0 s",
            "1 min 0 s",
            "ready at 0.0 s, started at 30.0 s, ended at 1 min 30 s",
        ],
        ["report", "not run", "–", "–", "–"],
    ]
    track = section.find_element("css selector", "tbody tr:nth-child(2) .track").rect
    row = section.find_element("css selector", "tbody tr:nth-child(2)")
    bars = [row.find_element("css selector", f".{kind}").rect for kind in ("waiting", "running")]
    assert bars[0]["width"] == pytest.approx(track["width"] / 3, abs=2)
    assert bars[1]["width"] == pytest.approx(track["width"] * 2 / 3, abs=2)
    assert browser.get_log("browser") == []


@pytest.mark.xdist_group("repo")
@pytest.mark.parametrize("text", ["window.lastRun = null;\n", "window.lastRun = {};\n", ""])
def test_without_a_run_there_is_no_timeline(browser, repo, last_run, text):
    last_run([])
    (repo / paths.LAST_RUN).write_text(text)
    show(browser, repo / "reports/index.html")
    assert not browser.find_element("css selector", "#last-run").is_displayed()
    assert browser.get_log("browser") == []


@pytest.mark.xdist_group("repo")
def test_the_overview_begins_with_a_chart_for_each_task(browser, repo):
    summary = json.loads((repo / "reports/summary.json").read_text())
    show(browser, repo / "reports/index.html")
    assert [heading.text for heading in browser.find_elements("css selector", "h2")][:2] == [
        "Results by task",
        "Models and baselines",
    ]
    labels = [
        frame.get_attribute("aria-label") for frame in browser.find_elements("css selector", ".results [role=img]")
    ]
    for row in summary:
        metric = "rmse" if row["task"] == "regression" else "accuracy"
        shown = f"{row['name']} {number(row['metrics']['test'][metric])}"
        assert sum(shown in label for label in labels) == 1, shown
