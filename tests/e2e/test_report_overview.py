"""The report's overview in a real browser: charts by task, the timeline of the last run, tables that are not cut."""

import json
import shutil
import signal
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from config import paths
from tasks.report.formatting import number
from tests.e2e.test_report_pages import CUT
from tests.support.workspaces import PIPELINE

pytestmark = pytest.mark.xdist_group("report")

ONE_AT_A_TIME = [*PIPELINE, "--jobs", "1"]
SERIOUS = ("serious", "critical")


def show(browser, page: Path, width: int = 1280) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


@pytest.fixture
def reports(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained / "reports", tmp_path / "reports"))


@pytest.fixture
def last_run(reports):
    """Write a run into the report, and return what writes one."""

    def write(stages: list[dict], seconds: float = 90.0) -> None:
        run = {"began": "2026-01-31T12:00:00+00:00", "seconds": seconds, "stages": stages}
        (reports / paths.LAST_RUN.name).write_text(f"window.lastRun = {json.dumps(run)};\n")

    return write


STAGES = [
    {"name": "ingest@iris", "status": "unchanged", "ready": 0, "started": 0, "ended": 0.1},
    {"name": "lecture_recipe@housing_wide_deep_subclassed", "status": "ran", "ready": 0, "started": 30, "ended": 90},
    {"name": "train@<b>x</b>", "status": "failed", "ready": 0, "started": 0.5, "ended": 30},
    {"name": "report", "status": "not run", "ready": None, "started": None, "ended": None},
]


def test_the_last_run_is_shown_stage_by_stage_with_texts(browser, reports, last_run):
    last_run(STAGES)
    show(browser, reports / "index.html")
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
    for width in (1280, 1440):
        show(browser, reports / "index.html", width)
        assert browser.execute_script(CUT) == []


@pytest.mark.parametrize("text", ["window.lastRun = null;\n", "window.lastRun = {};\n", ""])
def test_without_a_run_there_is_no_timeline(browser, reports, text):
    (reports / paths.LAST_RUN.name).write_text(text)
    show(browser, reports / "index.html")
    assert not browser.find_element("css selector", "#last-run").is_displayed()
    assert browser.get_log("browser") == []


def test_the_overview_begins_with_a_chart_for_each_task(browser, trained):
    summary = json.loads((trained / "reports/summary.json").read_text())
    show(browser, trained / "reports/index.html")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation_with_a_timeline(browser, reports, last_run, scheme):
    last_run(STAGES)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    show(browser, reports / "index.html")
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in SERIOUS] == []


# The file that the flow writes


@pytest.fixture
def pipeline(dvc_workspace, settings):
    """Return what starts the pipeline flow in a workspace without git; what it prints goes to one pipe."""

    def start(*targets: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            [*ONE_AT_A_TIME, *targets], cwd=dvc_workspace, env=settings, start_new_session=True, **pipes
        )

    return start


def statuses() -> dict[str, str]:
    text = paths.LAST_RUN.read_text(encoding="utf-8")
    run = json.loads(text.removeprefix("window.lastRun = ").removesuffix(";\n"))
    return {stage["name"]: stage["status"] for stage in run["stages"]}


def begin_with(statement: str) -> None:
    """Have the stage ingest@iris begin with a statement."""
    stage = Path("flows/ingest.py")
    stage.write_text(f"import sys, time\nif 'iris' in sys.argv: {statement}\n{stage.read_text()}")


def test_the_flow_writes_its_timeline_when_stages_failed(pipeline):
    begin_with("sys.exit('broken')")
    with pipeline("prepare@iris", "ingest@line") as process:
        output = process.communicate(timeout=110)[0]
    assert process.returncode == 1, output
    assert statuses() == {
        "receive@iris": "ran",
        "ingest@iris": "failed",
        "prepare@iris": "not run",
        "receive@line": "ran",
        "ingest@line": "ran",
    }


def test_the_flow_writes_its_timeline_after_ctrl_c(pipeline):
    begin_with("time.sleep(100)")
    with pipeline("prepare@iris") as process:
        assert any("ingest@iris started" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=110)[0]
    assert process.returncode == 130, output
    assert statuses() == {"receive@iris": "ran", "ingest@iris": "interrupted", "prepare@iris": "not run"}
