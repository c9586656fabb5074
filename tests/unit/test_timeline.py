"""The timeline of a pipeline run: what it records, and its file."""

import json
from pathlib import Path

from config import paths
from orchestration.timeline import Timeline

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
