"""The report in a real browser, from a file without a network, with every figure equal to its source."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

from config.params import load_params
from datasets import get_dataset
from runtime.errors import UserError
from tasks.report.build import report
from tasks.report.formatting import duration, number

MARKS = "g.mark-rect path, g.mark-line path, g.mark-symbol path"
SERIOUS = ("serious", "critical")


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def show(browser, page: Path, width: int = 1440, scheme: str = "light") -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def names_shown(browser) -> list[str]:
    return [text.split("\n")[0].split(" ")[0] for text in texts(browser, "#all tbody tr:not([hidden]) th")]


def test_there_is_a_page_for_every_model_and_data_set_and_all_are_small(trained):
    params, folder = load_params(trained / "params.yaml"), trained / "reports"
    assert {page.stem for page in pages(folder)} == {"index", *params.models, *params.datasets}
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 6_000_000


@pytest.mark.parametrize("width", [375, 1440])
def test_every_page_opens_without_an_error_and_nothing_overflows(browser, trained, width):
    for page in pages(trained / "reports"):
        show(browser, page, width)
        assert browser.get_log("browser") == [], page
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
        assert "Sample data" in texts(browser, ".sample")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser, trained, scheme):
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    for page in pages(trained / "reports"):
        show(browser, page, scheme=scheme)
        browser.execute_script(axe)
        found = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        told = [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS]
        assert told == [], page


def test_every_chart_is_drawn_and_all_that_is_seen_has_a_text(browser, trained):
    params = load_params(trained / "params.yaml")
    for page in pages(trained / "reports"):
        show(browser, page)
        charts = browser.find_elements("css selector", "figure.chart svg")
        for chart in charts:
            assert chart.size["width"] > 100
            assert browser.execute_script("return arguments[0].querySelectorAll(arguments[1]).length", chart, MARKS) > 0
            label = browser.execute_script(
                "return arguments[0].closest('[role=img]').getAttribute('aria-label')", chart
            )
            assert len(label) > 20
        assert all(image.get_attribute("alt") for image in browser.find_elements("css selector", "img"))
        assert all(image.size["width"] > 20 for image in browser.find_elements("css selector", "img"))
        if model := params.models.get(page.stem):
            aux = "loss_weights" in model.compile.model_dump(exclude_none=True)
            of_task = 2 if model.task == "regression" else 1  # scatter and residuals; calibration
            on_map = model.task == "regression" and model.dataset == "california_housing"
            assert len(charts) == 2 + aux + of_task + on_map + (page.stem in params.lecture_recipes)
        elif page.stem != "index":
            assert charts


def test_a_chart_that_is_pointed_at_tells_its_values(browser, trained):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, trained / "reports/datasets/california_housing.html")
    figure = browser.find_element("css selector", "figure.chart")
    before = figure.find_element("css selector", "svg").size
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    ActionChains(browser).move_to_element(figure).perform()
    WebDriverWait(browser, 20).until(lambda _: figure.get_attribute("data-alive") is not None)
    after = figure.find_element("css selector", "svg").size
    assert after["width"] == pytest.approx(before["width"], abs=4)
    assert after["height"] == pytest.approx(before["height"], abs=4)
    ActionChains(browser).move_to_element(figure.find_element("css selector", ".mark-symbol path")).perform()
    WebDriverWait(browser, 10).until(lambda _: "share" in "".join(texts(browser, "#vg-tooltip-element")))
    assert browser.get_log("browser") == []


def test_a_chart_zooms_with_ctrl_and_the_wheel_and_leaves_the_wheel_to_the_page(browser, trained):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.support.ui import WebDriverWait

    def labels() -> list[str]:
        return sorted(text for axis in texts(browser, f"{chart} .role-axis-label") for text in axis.split("\n"))

    show(browser, trained / "reports/models/housing_mlp.html")
    for chart in ("[aria-labelledby=diagnosis] figure.chart", "[aria-labelledby=regression] figure.chart"):
        figure = browser.find_element("css selector", chart)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
        ActionChains(browser).move_to_element(figure).perform()
        WebDriverWait(browser, 20).until(lambda _, at=figure: at.get_attribute("data-alive") is not None)
        whole = labels()
        middle = ScrollOrigin.from_element(figure.find_element("css selector", "svg"))
        ActionChains(browser).scroll_from_origin(middle, 0, -1).perform()
        assert labels() == whole
        wheel = ActionChains(browser).key_down(Keys.CONTROL).scroll_from_origin(middle, 0, -200).key_up(Keys.CONTROL)
        wheel.perform()
        WebDriverWait(browser, 10).until(lambda _, before=whole: labels() != before)
        ActionChains(browser).double_click(figure.find_element("css selector", "svg")).perform()
        WebDriverWait(browser, 10).until(lambda _, before=whole: labels() == before)
    assert browser.get_log("browser") == []


def test_the_plots_of_dvc_are_drawn_without_a_network(browser, repo, settings):
    from selenium.webdriver.support.ui import WebDriverWait

    command = [sys.executable, "-m", "dvc", "plots", "show"]
    done = subprocess.run(command, cwd=repo, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    show(browser, repo / "dvc_plots/index.html")
    models = load_params(repo / "params.yaml").models
    script = "return document.querySelectorAll('main canvas, main svg.marks').length"
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script(script) == len(models))
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not any(alert.is_displayed() for alert in browser.find_elements("css selector", "[role=alert]"))


def test_the_table_of_all_models_sorts(browser, trained):
    summary = {row["name"]: row for row in json.loads((trained / "reports/summary.json").read_text())}
    show(browser, trained / "reports/index.html")
    button = browser.find_element("xpath", "//table[@id='all']//th[contains(., 'parameters')]//button")
    for sign in (1, -1):
        button.click()
        counts = [sign * summary[name]["params"] for name in names_shown(browser)]
        assert counts == sorted(counts)
        assert len(counts) == len(summary)


def test_the_table_of_all_models_filters(browser, trained):
    summary = json.loads((trained / "reports/summary.json").read_text())
    show(browser, trained / "reports/index.html")
    browser.find_element("css selector", "select[name=task] option[value=''] ~ option:nth-of-type(2)").click()
    task = browser.find_element("css selector", "select[name=task]").get_attribute("value")
    browser.find_element("xpath", "//select[@name='kind']/option[.='network']").click()
    wanted = [row["name"] for row in summary if row["task"] == task and row["kind"] == "network"]
    assert wanted
    assert names_shown(browser) == wanted
    browser.find_element("css selector", "input[name=name]").send_keys(" NO such ")
    assert names_shown(browser) == []
    assert texts(browser, "form.filters output") == [f"0 of {len(summary)}"]


def lookup(root: Path, source: str) -> float:
    """Return what a JSON pointer of the page finds in its file."""
    path, _, pointer = source.partition("#")
    found = json.loads((root / path).read_text())
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            found = found[int(key)] if key.isdigit() else next(row for row in found if row["name"] == key)
        else:
            found = found[key]
    return found


def test_every_figure_on_a_page_equals_its_source(browser, trained):
    for page in pages(trained / "reports"):
        show(browser, page)
        script = "return [...document.querySelectorAll('data')].map(d => [d.value, d.dataset.source, d.textContent])"
        figures = browser.execute_script(script)
        assert figures
        for value, source, text in figures:
            assert text == number(json.loads(value))
            if source:
                assert json.loads(value) == lookup(trained, source), source
        measured = trained / f"artifacts/{page.stem}/metrics.json"
        if measured.exists():  # of a model every one of its figures is there
            sources = {source for _, source, _ in figures}
            for split, by_name in json.loads(measured.read_text())["metrics"].items():
                for figure in by_name:
                    assert f"artifacts/{page.stem}/metrics.json#/metrics/{split}/{figure}" in sources


def test_the_figures_worked_out_for_the_page_are_those_of_the_rows(browser, trained):
    rows = pd.read_parquet(trained / "artifacts/housing_mlp/predictions.parquet")
    raw = pq.read_table(trained / "data/raw/california_housing.parquet").to_pandas().iloc[rows["index"]]
    show(browser, trained / "reports/models/housing_mlp.html")
    shown = [
        [cell.text for cell in row.find_elements("css selector", "th, td")]
        for row in browser.find_elements("css selector", "[aria-label^='Metrics by quarter'] tbody tr")
    ]
    errors = (rows["predicted"].astype(float) - rows["true"].astype(float)).to_numpy()
    for column in ("MedInc", "Latitude"):
        quarters = pd.qcut(raw[column].to_numpy(), 4)
        mine = [row for row in shown if row[0].startswith(f"{column} ")]
        assert len(mine) == 4
        for row, quarter in zip(mine, quarters.categories, strict=True):
            part = errors[quarters == quarter]
            assert row[1] == number(float(np.sqrt((part**2).mean())))
            assert row[4] == str(len(part))


def test_the_confusion_matrix_and_the_first_predictions_are_those_of_the_rows(browser, trained):
    rows = pd.read_parquet(trained / "artifacts/iris_mlp/predictions.parquet")
    probabilities = rows[[column for column in rows if column.startswith("probability ")]]
    names = [column.removeprefix("probability ") for column in probabilities]
    show(browser, trained / "reports/models/iris_mlp.html")
    assert texts(browser, "table.confusion thead th") == names
    counts = [int(count) for count in texts(browser, "table.confusion tbody td")]
    expected = pd.crosstab(rows["true"], rows["predicted"]).reindex(index=range(3), columns=range(3), fill_value=0)
    assert counts == expected.to_numpy().ravel().tolist()
    examples = browser.find_elements("css selector", "[aria-labelledby=examples] .example")
    assert examples
    for example, (_, row) in zip(examples, rows.iterrows(), strict=False):
        told = example.text.split("\n")
        mark = "✓" if row["true"] == row["predicted"] else "✗"
        assert told[:2] == [f"{mark} {names[int(row['predicted'])]}", f"true: {names[int(row['true'])]}"]
        for name in names:
            assert f"{100 * row[f'probability {name}']:.1f} %" in example.text


def test_what_a_page_tells_of_the_run_is_what_the_run_wrote(browser, trained):
    for name in load_params(trained / "params.yaml").models:
        run = json.loads((trained / f"artifacts/{name}/run.json").read_text())
        show(browser, trained / f"reports/models/{name}.html")
        told = browser.find_element("css selector", "[aria-labelledby=recipe] dl").text
        assert f"{duration(run['seconds']['fit'])} of {duration(run['seconds']['total'])} in all" in told
        for fact in (run["began"], run["device"], run["platform"], f"keras {run['versions']['keras']}"):
            assert fact in told


def test_the_lines_that_load_a_model_work(browser, repo, settings):
    show(browser, repo / "reports/models/iris_mlp.html")
    [lines] = texts(browser, "[aria-label='How to load iris_mlp']")
    assert len(lines.splitlines()) == 3
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=repo, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "petal_length" in done.stdout


def test_it_is_built_without_tensorflow(repo, settings):
    script = (
        "import sys, tempfile; from pathlib import Path; from config.params import load_params\n"
        "from tasks.report.build import report\n"
        "report(load_params(), Path(tempfile.mkdtemp()), {})\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repo, env=settings, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_ctrl_c_gets_one_message_and_leaves_the_report_and_no_process(repo, settings):
    before = (repo / "reports/index.html").read_bytes()
    command = [sys.executable, "-m", "flows.report"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=repo, env=settings, start_new_session=True, **pipes) as process:
        family = psutil.Process(process.pid)
        deadline = time.monotonic() + 120
        while not (drawing := [child for child in family.children() if "spawn_main" in str(child.cmdline())]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert told.endswith("error: interrupted; nothing was published.\n")
    assert "Traceback" not in told
    assert not psutil.wait_procs(drawing, timeout=20)[1]
    assert (repo / "reports/index.html").read_bytes() == before


@pytest.fixture
def broken(trained, tmp_path, monkeypatch) -> Path:
    """A copy of the workspace, which is the current directory, for reports on what is not as it should be."""
    for name in ("params.yaml", "artifacts", "data"):
        source = trained / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_report(workspace: Path, **endings: str) -> Path:
    folder = workspace / "made"
    folder.mkdir()
    report(load_params(), folder, {f"train@{name}": ending for name, ending in endings.items()})
    return folder


def test_a_model_whose_files_are_missing_gets_a_page_that_says_which(broken, browser):
    shutil.rmtree(broken / "artifacts/iris_mlp")
    (broken / "artifacts/housing_mlp/predictions.parquet").unlink()
    (broken / "artifacts/fashion_mlp/network/graph.json").write_text("{")
    folder = make_report(broken)
    show(browser, folder / "models/iris_mlp.html")
    assert (
        "artifacts/iris_mlp/metrics.json not found. Run `dvc repro train@iris_mlp` first." in texts(browser, "main")[0]
    )
    show(browser, folder / "models/housing_mlp.html")
    assert "predictions.parquet not found" in texts(browser, "main")[0]
    assert "Learning curves" in texts(browser, "h3")
    show(browser, folder / "models/fashion_mlp.html")
    assert "graph.json is not valid JSON" in texts(browser, "main")[0]
    show(browser, folder / "index.html")
    [row] = [row for row in texts(browser, "#all tbody tr") if row.startswith("iris_mlp")]
    assert "missing" in row
    assert not (folder / "summary.json").exists()  # of which it would be missing
    assert browser.get_log("browser") == []


def test_a_model_trained_by_another_recipe_than_the_one_there_is_says_so(broken, browser):
    text = (broken / "params.yaml").read_text()
    (broken / "params.yaml").write_text(text.replace("learning_rate: 0.001", "learning_rate: 0.002"))
    folder = make_report(broken)
    show(browser, folder / "models/housing_mlp.html")
    assert "out of date" in texts(browser, "main")[0]
    show(browser, folder / "index.html")
    assert "out of date" in next(row for row in texts(browser, "#all tbody tr") if row.startswith("housing_mlp"))


def test_a_model_that_failed_in_the_last_run_says_so(broken, browser):
    folder = make_report(broken, iris_mlp="failed")
    show(browser, folder / "models/iris_mlp.html")
    assert "failed in the last run; this page shows an earlier one" in texts(browser, "main")[0]
    show(browser, folder / "index.html")
    assert "failed" in next(row for row in texts(browser, "#all tbody tr") if row.startswith("iris_mlp"))
    assert not (folder / "summary.json").exists()


def test_losses_that_are_not_numbers_and_data_that_is_gone_still_give_pages(broken, browser):
    history = broken / "artifacts/iris_mlp/history.csv"
    frame = pd.read_csv(history)
    frame.loc[0, ["loss", "val_loss"]] = float("nan")
    frame.to_csv(history, index=False)
    shutil.rmtree(broken / "data/prepared/iris")
    (broken / "data/raw/fashion_mnist.parquet").unlink()
    folder = make_report(broken)
    for name in ("models/iris_mlp", "models/fashion_mlp", "datasets/iris", "datasets/fashion_mnist"):
        show(browser, folder / f"{name}.html")
        assert browser.get_log("browser") == [], name
    show(browser, folder / "models/iris_mlp.html")
    assert "Diverged. The loss is not a finite number after epoch 1 of 1." in texts(browser, ".findings li")


def test_files_that_are_not_what_they_should_be_give_a_page_that_says_so(broken, browser):
    (broken / "artifacts/iris_mlp/history.csv").write_text("epoch,loss,val_loss\n")
    (broken / "artifacts/housing_mlp/metrics.json").write_text("{}")
    (broken / "artifacts/fashion_mlp/run.json").unlink()
    folder = make_report(broken)
    for name, told in (
        ("iris_mlp", "history.csv: no rows."),
        ("housing_mlp", "metrics.json: name: is missing."),
        ("fashion_mlp", "run.json not found."),
    ):
        show(browser, folder / f"models/{name}.html")
        assert told in texts(browser, "main")[0]
    show(browser, folder / "index.html")
    assert "0." in next(row for row in texts(browser, "#all tbody tr") if row.startswith("fashion_mlp"))
    assert not (folder / "summary.json").exists()  # housing_mlp would be missing in it


def test_sample_and_real_figures_side_by_side_are_told_apart(broken, browser):
    path = broken / "artifacts/iris_mlp/metrics.json"
    measured = json.loads(path.read_text()) | {"source": "real", "raw_sha256": get_dataset("iris").sha256}
    path.write_text(json.dumps(measured))
    folder = make_report(broken)
    show(browser, folder / "index.html")
    assert "What is marked as sample says nothing about the real data sets." in texts(browser, ".sample")[0]
    rows = {row.split("\n")[0].split(" ")[0]: row for row in texts(browser, "#all tbody tr")}
    assert ", sample" in rows["housing_mlp"]
    assert ", sample" not in rows["iris_mlp"]
    show(browser, folder / "models/iris_mlp.html")
    assert not texts(browser, ".sample")


def test_without_any_model_there_is_one_message(broken):
    shutil.rmtree(broken / "artifacts")
    with pytest.raises(UserError, match="there is no model to report on"):
        make_report(broken)


def test_it_follows_the_dark_scheme(browser, trained):
    colours = {}
    for scheme in ("light", "dark"):
        show(browser, trained / "reports/index.html", scheme=scheme)
        ink = browser.execute_script("return getComputedStyle(document.body).color")
        colours[scheme] = sum(map(int, re.findall(r"\d+", ink)[:3]))
    assert colours["dark"] > 500 > colours["light"]
