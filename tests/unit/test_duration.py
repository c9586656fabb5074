"""About how long a run will take, by what its stages took the last time."""

import json
from pathlib import Path

import pytest

from config import paths
from orchestration.duration import estimate, in_words
from orchestration.dvc.graph import Plan
from orchestration.resources import Machine, Resources

MACHINE = Machine(threads=4, gpus=(), jobs=4)
STAGES = ["prepare@iris", "train@a", "train@b", "lecture_recipe@a", "search@a", "report"]
RESOURCES = {stage: Resources(threads=4 if stage == "train@b" else 1) for stage in STAGES}


def record(folder: Path, seconds: object) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"seconds": seconds}))


def test_each_stage_counts_with_its_share_of_the_threads(workspace):
    record(paths.artifacts_folder("a"), {"fit": 70, "total": 80})
    record(paths.artifacts_folder("b"), {"fit": 290, "total": 300})
    record(paths.lecture_recipe_folder("a"), 40)
    record(paths.search_folder("a"), 120)
    expected = estimate(STAGES, RESOURCES, MACHINE)
    assert expected.seconds == 300 + (80 + 40 + 120) / 4
    assert str(expected) == "about 6 min, by the last time"
    assert estimate(["train@a"], RESOURCES, MACHINE).seconds == 80  # no shorter than its longest stage
    one_at_a_time = Machine(threads=4, gpus=(), jobs=1)
    assert estimate(STAGES, RESOURCES, one_at_a_time).seconds == 300 + 80 + 40 + 120


def test_stages_without_a_readable_record_are_counted_apart(workspace):
    record(paths.artifacts_folder("b"), "soon")
    expected = estimate(STAGES, RESOURCES, MACHINE)
    assert expected.unknown == ["train@a", "train@b", "lecture_recipe@a", "search@a"]
    assert str(expected) == "4 trainings of which no time is known"


def test_a_clone_without_artifacts_knows_the_times_of_the_summary_in_git(workspace):
    row = {"source": "real", "metrics": {}, "seconds": {"fit": 50, "total": 60}}
    paths.REPORTS.mkdir(exist_ok=True)
    rows = [{"name": "a", "kind": "network", **row}, {"name": "b", "kind": "baseline", **row}]
    (paths.REPORTS / "summary.json").write_text(json.dumps(rows))
    expected = estimate(["train@a", "train@b"], RESOURCES, MACHINE)
    assert (expected.seconds, expected.unknown) == (60, ["train@b"])


def test_a_plan_without_a_model_has_none_of_its_stages():
    needs = {"ingest@iris": [], "train@a": ["ingest@iris"], "search@a": [], "train@b": ["ingest@iris"]}
    needs["report"] = ["train@a", "train@b"]
    plan = Plan([*needs], needs, {"train@a", "report"}).without(["a"])
    assert plan.order == ["ingest@iris", "train@b", "report"]
    assert plan.needs["report"] == ["train@b"]
    assert plan.changed == {"report"}


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_a_time_is_said_as_a_person_says_it(seconds, words):
    assert in_words(seconds) == words
