"""The report in a real browser, from a file, with every figure equal to its source."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from config.errors import UserError
from config.params import load_params
from tasks.report import confusion, describe_parity, duration, number, read_artifacts, verdict

pytestmark = pytest.mark.xdist_group("repo")  # one worker runs all that share the repository

MARKS = "g.mark-rect path, g.mark-line path, g.mark-symbol path"


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
    yield opened
    opened.quit()


@pytest.fixture
def page(browser, repo):
    browser.set_network_conditions(offline=True, latency=0, throughput=0)
    browser.get((repo / "reports/index.html").as_uri())
    return browser


def texts(page, selector: str) -> list[str]:
    return [element.text for element in page.find_elements("css selector", selector)]


def test_the_page_opens_without_an_error_and_shows_every_model(page, repo):
    assert page.get_log("browser") == []
    assert set(load_params(repo / "params.yaml").models) <= set(texts(page, "h2"))
    assert "Sample data" in texts(page, ".sample")[0]


@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_overflows(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_every_chart_is_drawn_and_everything_seen_has_a_text(page, repo):
    charts = page.find_elements("css selector", "figure svg")
    params = load_params(repo / "params.yaml")
    models = params.models.values()
    regressions = sum(model.task == "regression" for model in models)
    with_aux = sum("loss_weights" in (model.compile.model_dump(exclude_none=True)) for model in models)
    # The curves of each model, one more for a second output; scatter and residuals; the notes' recipe.
    assert len(charts) == 2 * len(models) + with_aux + 2 * regressions + len(params.parity)
    for chart in charts:
        assert chart.size["width"] > 100
        assert page.execute_script("return arguments[0].querySelectorAll(arguments[1]).length", chart, MARKS) > 1
        assert page.execute_script("return arguments[0].querySelector('[aria-label]') !== null", chart)
    assert all(image.get_attribute("alt") for image in page.find_elements("css selector", "img"))
    assert page.find_elements("css selector", "img")


def test_figures_on_the_page_equal_their_source(page, repo):
    summary = {model["name"]: model for model in json.loads((repo / "reports/summary.json").read_text())}
    rows = page.find_elements("css selector", "#overview ~ div tbody tr")
    assert len(rows) == len(summary)  # of the networks, then of the baselines
    for row in rows:
        title, figure, *shown = texts(row, "th, td")
        name = title.split("\n")[0]
        measured = [summary[name]["metrics"][split][figure] for split in ("train", "valid", "test")]
        assert shown[:3] == [number(value) for value in measured]
        assert shown[5] == f"{summary[name]['params']:,}"


def test_the_runs_by_the_notes_recipe_are_shown_as_they_were_measured(page, repo):
    for name in load_params(repo / "params.yaml").parity:
        runs = json.loads((repo / f"artifacts/parity/{name}/metrics.json").read_text())["runs"]
        history = pd.read_csv(repo / f"artifacts/parity/{name}/history.csv")
        rows = page.find_elements("css selector", f'[aria-label="The notes\' recipe for {name}"] tr.run')
        assert len(rows) == len(runs)
        for row, run in zip(rows, runs, strict=True):
            normalization, seed, epochs, valid, highest, *test = texts(row, "th, td")
            assert (normalization, int(seed), int(epochs)) == (run["normalization"], run["seed"], run["epochs"])
            assert valid == number(run["metrics"]["valid"]["rmse"])
            assert test == [number(value) for key, value in run["metrics"]["test"].items() if key.endswith("rmse")]
            assert highest == "\N{EN DASH}"  # one epoch
        assert len(history) == sum(run["epochs"] for run in runs)


def test_the_highest_figure_counts_from_the_fourth_epoch_on():
    epochs = {"normalization": "standard", "seed": 1, "epoch": [1, 2, 3, 4, 5], "val_rmse": [9.0, 8.0, 7.0, 0.6, 0.5]}
    run = {
        "normalization": "standard",
        "seed": 1,
        "epochs": 5,
        "metrics": {"valid": {"rmse": 0.5}, "test": {"rmse": 0.4}},
    }
    shown = describe_parity({"history": pd.DataFrame(epochs), "runs": [run]}, "rmse", {})
    assert shown["rows"][0]["highest"] == 0.6
    assert shown["means"] == [{"normalization": "standard", "valid": 0.5, "test": {"rmse": 0.4}}]


def test_it_follows_the_dark_scheme(page):
    def ink():
        return page.execute_script("return getComputedStyle(document.body).color")

    colours = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours[scheme] = sum(map(int, re.findall(r"\d+", ink())[:3]))
    assert colours["dark"] > 500 > colours["light"]


def test_the_confusion_matrix_counts_every_row():
    frame = pd.DataFrame({"true": [0, 0, 1, 2, 2, 2], "predicted": [0, 1, 1, 2, 2, 0]})
    rows = confusion(frame, ["a", "b", "c"])
    assert [[cell["count"] for cell in row["cells"]] for row in rows] == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert rows[2]["cells"][2]["share"] == pytest.approx(2 / 3)


def test_the_verdict_knows_which_way_is_better():
    assert verdict({"test": {"rmse": 0.5}}, {"test": {"rmse": 0.6}}, "rmse", False)["reached"]
    assert not verdict({"test": {"rmse": 0.7}}, {"test": {"rmse": 0.6}}, "rmse", False)["reached"]
    assert verdict({"valid": {"accuracy": 0.9}}, {"valid": {"accuracy": 0.9}}, "accuracy", True)["reached"]
    assert verdict({"test": {"accuracy": 0.9}}, {}, "accuracy", True) is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.52349, "0.5235"), (2.6e-5, "2.6e-05"), (0.0, "0.0000"), (266610, "266,610"), (1234.5, "1,234")],
)
def test_numbers_are_shown_with_four_digits(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(3.21, "3.2 s"), (59.97, "1 min 0 s"), (119.7, "2 min 0 s")])
def test_durations_are_rounded_before_they_are_divided(seconds, shown):
    assert duration(seconds) == shown


def test_a_missing_model_is_told_with_the_stage_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"artifacts/housing_mlp/history\.csv not found\. Run `dvc repro train@housing_mlp`"
    ):
        read_artifacts("housing_mlp")
    folder = Path("artifacts/housing_mlp")
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("epoch,loss\n1,2\n")
    (folder / "predictions.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"dvc repro --force train@housing_mlp"):
        read_artifacts("housing_mlp")
