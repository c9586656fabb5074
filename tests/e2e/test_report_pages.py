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

from config.params import Params, load_params
from datasets import get_dataset
from runtime.errors import UserError
from tasks.report.build import report
from tasks.report.formatting import duration, number
from tests.support.processes import words_of
from tests.support.workspaces import edit_params

pytestmark = pytest.mark.xdist_group("report")  # one browser for all

MARKS = "g.mark-rect path, g.mark-line path, g.mark-symbol path"
SERIOUS = ("serious", "critical")
CUT = """return [...document.querySelectorAll(".scroll")].filter((frame) => frame.scrollWidth > frame.clientWidth
  || [...frame.querySelectorAll("th, td")].some((cell) => cell.getBoundingClientRect().right > innerWidth))
  .map((frame) => `${frame.ariaLabel}: ${frame.scrollWidth} > ${frame.clientWidth}`)"""


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def show(browser, page: Path, width: int = 1440, scheme: str = "light") -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    resize(browser, width)
    browser.get(page.as_uri())


def resize(browser, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def names_shown(browser) -> list[str]:
    return [text.split("\n")[0].split(" ")[0] for text in texts(browser, "#all tbody tr:not([hidden]) th")]


def test_there_is_a_page_for_every_model_and_data_set_and_all_are_small(trained):
    params, folder = load_params(trained / "params.yaml"), trained / "reports"
    assert {page.stem for page in pages(folder)} == {"index", "convolution", *params.models, *params.datasets}
    assert [page.stem for page in (folder / "search").iterdir()] == [*params.search] == ["iris_mlp"]
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 6_000_000


# A page is slow to open, so each is opened once on a screen, and once on a phone with the dark scheme.


def test_every_page_on_a_screen(browser, trained):
    for page in pages(trained / "reports"):
        show(browser, page)
        check_opened(browser, page, 1440)
        if page.stem != "convolution":  # which has pictures, and nothing of a data set or model
            assert "Sample data" in texts(browser, ".sample")[0]
            check_charts(browser, page, load_params(trained / "params.yaml"))
            check_figures(browser, page, trained)
            check_run(browser, page, trained)
        check_violations(browser, page)
        for width in (1440, 1280):
            resize(browser, width)
            assert browser.execute_script(CUT) == [], (page, width)


def test_every_page_on_a_phone_and_in_the_dark(browser, trained):
    for page in pages(trained / "reports"):
        show(browser, page, 375, "dark")
        check_opened(browser, page, 375)
        resize(browser, 1440)
        check_violations(browser, page, "color-contrast")


def check_opened(browser, page: Path, width: int) -> None:
    """There is no error, and nothing overflows."""
    assert browser.get_log("browser") == [], page
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page


def check_violations(browser, page: Path, *rules: str) -> None:
    """axe finds no serious violation; rules: of axe, without them all."""
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    options = {"runOnly": rules} if rules else {}
    found = browser.execute_async_script("axe.run(arguments[0]).then(arguments[1])", options)["violations"]
    told = [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS]
    assert told == [], page


def check_charts(browser, page: Path, params: Params) -> None:
    """Every chart is drawn, and all that is seen has a text."""
    charts = browser.find_elements("css selector", "figure.chart svg")
    for chart in charts:
        assert chart.size["width"] > 100
        assert browser.execute_script("return arguments[0].querySelectorAll(arguments[1]).length", chart, MARKS) > 0
        label = browser.execute_script("return arguments[0].closest('[role=img]').getAttribute('aria-label')", chart)
        assert len(label) > 20
    assert all(image.get_attribute("alt") for image in browser.find_elements("css selector", "img"))
    assert all(image.size["width"] > 20 for image in browser.find_elements("css selector", "img"))
    if model := params.models.get(page.stem) if page.parent.name == "models" else None:
        aux = "loss_weights" in model.compile.model_dump(exclude_none=True)
        of_task = 2 if model.task == "regression" else 1  # scatter and residuals; calibration
        on_map = model.task == "regression" and model.dataset == "california_housing"
        assert len(charts) == 2 + aux + of_task + on_map + (page.stem in params.lecture_recipes)
    elif page.stem != "index":
        assert charts


def check_figures(browser, page: Path, root: Path) -> None:
    """Every figure equals its source, and of a model every one of its figures is there."""
    script = "return [...document.querySelectorAll('data')].map(d => [d.value, d.dataset.source, d.textContent])"
    figures = browser.execute_script(script)
    assert figures
    for value, source, text in figures:
        assert text == number(json.loads(value))
        if source:
            assert json.loads(value) == lookup(root, source), source
    measured = root / f"artifacts/{page.stem}/metrics.json"
    if page.parent.name == "models":
        sources = {source for _, source, _ in figures}
        for split, by_name in json.loads(measured.read_text())["metrics"].items():
            for figure in by_name:
                assert f"artifacts/{page.stem}/metrics.json#/metrics/{split}/{figure}" in sources


def check_run(browser, page: Path, root: Path) -> None:
    """What the page of a model tells of its training is what that wrote."""
    record = root / f"artifacts/{page.stem}/run.json"
    if page.parent.name != "models":
        return
    run = json.loads(record.read_text())
    told = browser.find_element("css selector", "[aria-labelledby=recipe] dl").text
    assert f"{duration(run['seconds']['fit'])} of {duration(run['seconds']['total'])} in all" in told
    for fact in (run["began"], run["device"], run["platform"], f"keras {run['versions']['keras']}"):
        assert fact in told


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
    assert "housing_mlp, loss on valid" in (repo / "dvc_plots/index.html").read_text()
    show(browser, repo / "dvc_plots/index.html")
    params = load_params(repo / "params.yaml")
    drawn = len(params.models) + len(params.search)
    script = "return document.querySelectorAll('main canvas, main svg.marks').length"
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script(script) == drawn)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not any(alert.is_displayed() for alert in browser.find_elements("css selector", "[role=alert]"))


def test_the_table_of_all_models_sorts_and_filters(browser, trained):
    summary = {row["name"]: row for row in json.loads((trained / "reports/summary.json").read_text())}
    show(browser, trained / "reports/index.html")
    browser.find_element("css selector", "select[name=task] option[value=''] ~ option:nth-of-type(2)").click()
    task = browser.find_element("css selector", "select[name=task]").get_attribute("value")
    browser.find_element("xpath", "//select[@name='kind']/option[.='network']").click()
    wanted = [name for name, row in summary.items() if row["task"] == task and row["kind"] == "network"]
    assert wanted
    assert names_shown(browser) == wanted
    browser.find_element("css selector", "input[name=name]").send_keys(" NO such ")
    assert names_shown(browser) == []
    assert texts(browser, "form.filters output") == [f"0 of {len(summary)}"]
    browser.refresh()
    button = browser.find_element("xpath", "//table[@id='all']//th[contains(., 'parameters')]//button")
    for sign in (1, -1):
        button.click()
        counts = [sign * summary[name]["params"] for name in names_shown(browser)]
        assert counts == sorted(counts)
        assert len(counts) == len(summary)


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


def test_the_lines_of_the_page_work_as_the_browser_shows_them(browser, repo, settings):
    show(browser, repo / "reports/models/iris_mlp.html")
    [lines] = texts(browser, "[aria-label='ONNX: how to use iris_mlp']")
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=repo, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "{'output': array(" in done.stdout


def test_it_is_built_without_tensorflow(two_models, settings):
    script = (
        "import sys, tempfile; from pathlib import Path; from config.params import Params, load_params\n"
        "from tasks.report.build import report\n"
        "report(load_params(), Path(tempfile.mkdtemp()), {})\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=two_models, env=settings, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_ctrl_c_gets_one_message_and_leaves_the_report_and_no_process(small, settings):
    before = (small / "reports/index.html").read_bytes()
    command = [sys.executable, "-m", "flows.report"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=small, env=settings, start_new_session=True, **pipes) as process:
        family = psutil.Process(process.pid)
        deadline = time.monotonic() + 120
        while not (drawing := [child for child in family.children() if "spawn_main" in str(words_of(child))]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    # On a busy machine Prefect's worker of events may still say at exit that it sends the last ones.
    ours = [line for line in told.splitlines() if "EventsWorker" not in line]
    assert ours[-1] == "error: interrupted; nothing was published."
    assert "Traceback" not in told
    assert not psutil.wait_procs(drawing, timeout=20)[1]
    assert (small / "reports/index.html").read_bytes() == before


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


def row_of(browser, model: str) -> str:
    return next(row for row in texts(browser, "#all tbody tr") if row.startswith(model))


def test_files_that_are_missing_or_damaged_give_a_page_that_says_which(broken, browser):
    shutil.rmtree(broken / "artifacts/iris_mlp")
    (broken / "artifacts/housing_mlp/predictions.parquet").unlink()
    (broken / "artifacts/fashion_mlp/network/graph.json").write_text("{")
    (broken / "artifacts/iris_perceptron/history.csv").write_text("epoch,loss,val_loss\n")
    (broken / "artifacts/linear_neuron/metrics.json").write_text("{}")
    (broken / "artifacts/multi_input_cnn/run.json").unlink()
    folder = make_report(broken)
    for name, told in (
        ("iris_mlp", "artifacts/iris_mlp/metrics.json not found. Run `dvc repro train@iris_mlp` first."),
        ("housing_mlp", "predictions.parquet not found"),
        ("fashion_mlp", "graph.json is not valid JSON"),
        ("iris_perceptron", "history.csv: no rows."),
        ("linear_neuron", "metrics.json: name: is missing."),
        ("multi_input_cnn", "run.json not found."),
    ):
        show(browser, folder / f"models/{name}.html")
        assert told in texts(browser, "main")[0]
        if name == "housing_mlp":
            assert "Learning curves" in texts(browser, "h3")
    show(browser, folder / "index.html")
    assert "missing" in row_of(browser, "iris_mlp")
    assert "0." in row_of(browser, "multi_input_cnn")
    assert not (folder / "summary.json").exists()  # in which iris_mlp would be missing
    assert browser.get_log("browser") == []


def test_what_is_out_of_date_not_a_number_gone_or_real_is_told(broken, browser):
    edit_params(broken, models__housing_mlp__compile__learning_rate=0.002)
    history = broken / "artifacts/housing_wide_deep_aux/history.csv"
    frame = pd.read_csv(history)
    frame.loc[0, ["loss", "val_loss"]] = float("nan")
    frame.to_csv(history, index=False)
    shutil.rmtree(broken / "data/prepared/iris")
    (broken / "data/raw/fashion_mnist.parquet").unlink()
    real = broken / "artifacts/linear_neuron/metrics.json"
    measured = json.loads(real.read_text()) | {"source": "real", "raw_sha256": get_dataset("line").sha256}
    real.write_text(json.dumps(measured))
    folder = make_report(broken)
    for name in ("models/iris_mlp", "models/fashion_mlp", "datasets/iris", "datasets/fashion_mnist"):
        show(browser, folder / f"{name}.html")
        assert browser.get_log("browser") == [], name
    show(browser, folder / "models/housing_mlp.html")
    assert "out of date" in texts(browser, "main")[0]
    show(browser, folder / "models/housing_wide_deep_aux.html")
    assert "Diverged. The loss is not a finite number after epoch 1 of 1." in texts(browser, ".findings li")
    show(browser, folder / "models/linear_neuron.html")
    assert not texts(browser, ".sample")
    show(browser, folder / "index.html")
    assert "out of date" in row_of(browser, "housing_mlp")
    assert "What is marked as sample says nothing about the real data sets." in texts(browser, ".sample")[0]
    assert ", sample" in row_of(browser, "housing_mlp")
    assert ", sample" not in row_of(browser, "linear_neuron")


def test_a_model_that_failed_in_the_last_run_says_so(two_models, browser, tmp_path, monkeypatch):
    monkeypatch.chdir(two_models)
    folder = make_report(tmp_path, iris_mlp="failed")
    show(browser, folder / "models/iris_mlp.html")
    assert "failed in the last run; this page shows an earlier one" in texts(browser, "main")[0]
    show(browser, folder / "index.html")
    assert "failed" in row_of(browser, "iris_mlp")
    assert not (folder / "summary.json").exists()


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
