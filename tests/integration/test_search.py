"""A search as its user runs it: killed, interrupted, with several workers, as a stage of DVC; and applied."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.clusters import dask_cluster
from tests.support.processes import wait_for
from tests.support.searches import put_search
from tests.support.workspaces import DVC, build_once, clone, edit_params, make_workspace

COMMAND = [sys.executable, "-m", "flows.search", "iris_mlp"]
RESULTS = ("best.yaml", "metrics.json", "trials.csv")


def start(folder: Path, settings: dict[str, str], *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def search(folder: Path, settings: dict[str, str], *arguments: str, code: int = 0) -> str:
    process = start(folder, settings, *arguments)
    told, _ = process.communicate(timeout=240)
    assert process.returncode == code, told[-3000:]
    assert "Traceback" not in told
    return told


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "artifacts/search/iris_mlp" / name).read_bytes() for name in RESULTS}


def records(folder: Path) -> dict[str, int]:
    """Return when the record of each training was written, in nanoseconds."""
    found = (folder / "checkpoints/search/iris_mlp/records").glob("*.json")
    return {file.stem: file.stat().st_mtime_ns for file in found}


def make(folder: Path, prepared_data: Path) -> Path:
    clone(prepared_data, make_workspace(folder) / "data")
    put_search(folder)
    return folder


@pytest.fixture
def fresh(tmp_path, prepared_data) -> Path:
    return make(tmp_path / "a workspace", prepared_data)


@pytest.fixture(scope="module")
def undisturbed(shared, prepared_data, settings) -> Path:
    """A workspace after a search with one trial at a time; no test changes it."""

    def build(folder: Path) -> None:
        make(folder, prepared_data)
        (folder / "told.txt").write_text(search(folder, settings, "--jobs", "1"))

    return build_once(shared / "searched", build)


def test_it_says_how_far_it_is_and_what_it_has_found(undisturbed):
    told = (undisturbed / "told.txt").read_text()
    assert "trial 6/6  best" in told
    assert "6 trials, " in told
    assert "the mean of 2 seeds" in told
    metrics = json.loads(results(undisturbed)["metrics.json"])
    winner, names = metrics["winner"], [*records(undisturbed)]
    assert metrics["trials"] == 6 == sum(name.startswith("trial") for name in names)
    assert [finalist["mean"] for finalist in metrics["finalists"]] == sorted(
        finalist["mean"] for finalist in metrics["finalists"]
    )
    assert winner["trial"] == metrics["finalists"][0]["trial"]
    assert winner["valid"]["loss"] == metrics["finalists"][0]["mean"]
    assert len(winner["tests"]) == 2
    assert "test" in names


@pytest.mark.rotates
def test_of_the_trials_of_a_round_the_longest_is_trained_first(fresh, settings):
    put_search(fresh, trials=2, finalists=1, seeds=[1], seed=0)
    search(fresh, settings, "--jobs", "1")
    table = csv.DictReader(io.StringIO(results(fresh)["trials.csv"].decode()))
    # Both have the same epochs and batches, and at most two hidden layers.
    first, second = (int(row["build.hidden.units"]) ** 2 * (int(row["build.hidden.layers"]) == 2) for row in table)
    assert first < second
    written = records(fresh)
    assert written["trial-0001"] < written["trial-0000"]


@pytest.mark.rotates
def test_killed_twice_it_trains_no_trial_again_and_finds_the_same(undisturbed, fresh, settings):
    for done in ("trial-0001", "final-"):
        process = start(fresh, settings, "--jobs", "1")
        wait_for(lambda done=done: any(name.startswith(done) for name in records(fresh)), "no trial has ended")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        known = records(fresh)
        wait_for(lambda: not trainings_of(fresh), "a training has outlived its search")
        known = {**records(fresh), **known}
    search(fresh, settings, "--jobs", "1")
    assert {name: records(fresh)[name] for name in known} == known
    assert results(fresh) == results(undisturbed)
    with closing(sqlite3.connect(fresh / "checkpoints/search/iris_mlp/study.db")) as database:
        states = [state for (state,) in database.execute("SELECT state FROM trials ORDER BY number")]
    assert len(states) == 6
    assert "RUNNING" not in states


def trainings_of(folder: Path) -> list[str]:
    """Return the processes that train trials of this workspace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                here = (entry / "cwd").readlink() == folder.resolve()
            except OSError:
                continue
            if here:
                found.append(entry.name)
    return found


@pytest.mark.rotates
def test_interrupted_it_ends_with_one_message_and_two_workers_find_the_same(undisturbed, fresh, settings):
    process = start(fresh, settings, "--jobs", "2")
    wait_for(lambda: records(fresh), "no trial has ended")
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith("error: interrupted. The trials that have ended are kept")
    assert "Traceback" not in told
    assert not (fresh / "artifacts/search").exists()
    told = search(fresh, settings, "--jobs", "2")
    assert "of 6 trials are known from" in told
    assert results(fresh) == results(undisturbed)


@pytest.mark.rotates
def test_on_a_dask_cluster_that_shares_the_workspace_the_results_are_the_same(undisturbed, fresh, settings, tmp_path):
    with dask_cluster(settings, tmp_path) as address:
        search(fresh, settings, "--runner", "dask", "--address", address)
    assert results(fresh) == results(undisturbed)


@pytest.mark.rotates
def test_a_longer_search_goes_on_and_another_space_starts_anew(undisturbed, tmp_path, settings):
    folder = clone(undisturbed, tmp_path / "longer")
    known = records(folder)
    put_search(folder, trials=8)
    assert "6 of 8 trials are known" in search(folder, settings)
    after = records(folder)
    assert {name: after[name] for name in known if name.startswith("trial")}.items() <= known.items()
    assert sum(name.startswith("trial") for name in after) == 8
    rows = results(folder)["trials.csv"].splitlines()
    assert rows[:7] == results(undisturbed)["trials.csv"].splitlines()
    put_search(folder, trials=2, seed=7, finalists=1)
    search(folder, settings)
    assert sum(name.startswith("trial") for name in records(folder)) == 2
    assert (folder / "checkpoints/search/iris_mlp.before/study.db").exists()


@pytest.mark.rotates
def test_no_trial_starts_when_the_minutes_are_over(fresh, settings):
    put_search(fresh, minutes=0.001, finalists=1, trials=4)
    told = search(fresh, settings, code=1)
    assert "no trial was trained to its end" in told
    assert "give it more minutes" in told
    put_search(fresh, finalists=1, trials=4)
    search(fresh, settings)


@pytest.mark.rotates
def test_what_is_wrong_is_one_message(fresh, settings):
    assert "unknown search 'housing_mlp'" in run(fresh, settings, "flows.search", "housing_mlp")
    assert "Run `dvc repro search@iris_mlp`" in run(fresh, settings, "flows.search", "iris_mlp", "--apply")
    (fresh / "data/prepared/iris/train.parquet").write_bytes(b"PAR1")
    told = run(fresh, settings, "flows.search", "iris_mlp")
    assert "could not be trained: data/prepared/iris/train.parquet" in told
    assert "Run `dvc repro --force prepare@iris`" in told
    assert not (fresh / "artifacts/search").exists()


def run(folder: Path, settings: dict[str, str], module: str, *arguments: str, code: int = 1, answer: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=settings,
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.rotates
def test_the_winner_is_shown_and_put_into_the_recipe_on_confirmation(undisturbed, tmp_path, settings):
    folder = clone(undisturbed, tmp_path / "applied")
    file = folder / "params.yaml"
    before = file.read_text()
    for answer in ("n\n", ""):
        told = run(folder, settings, "flows.search", "iris_mlp", "--apply", code=0, answer=answer)
        assert "Nothing was changed." in told
        assert file.read_text() == before
    told = run(folder, settings, "flows.search", "iris_mlp", "--apply", code=0, answer="y\n")
    best = YAML(typ="safe").load(folder / "artifacts/search/iris_mlp/best.yaml")
    after = YAML(typ="safe").load(file)
    assert {key: after["models"]["iris_mlp"][key] for key in ("build", "compile", "fit")} == best
    removed = [line[1:] for line in told.splitlines() if line.startswith("-") and not line.startswith("---")]
    kept = [line for line in before.splitlines() if line not in removed]
    assert [line for line in kept if line not in file.read_text().splitlines()] == []  # comments and order stay
    assert "already" in run(folder, settings, "flows.search", "iris_mlp", "--apply", "--yes", code=0)


@pytest.mark.rotates
def test_as_a_stage_it_does_nothing_where_nothing_has_changed(small, settings):
    put_search(small, trials=2, finalists=1, seeds=[1])
    told = dvc(small, settings, "repro", "search")
    assert "Running stage 'search@iris_mlp'" in told
    assert "didn't change, skipping" in dvc(small, settings, "repro", "search")
    edit_params(small, models__iris_mlp__fit__epochs=3)  # such as by --apply
    assert "Stage 'search@iris_mlp' didn't change, skipping" in dvc(small, settings, "repro", "search")
    for name in ("artifacts/search/iris_mlp/trials.csv", "artifacts/search/iris_mlp/run.json"):
        ignored = subprocess.run(["git", "check-ignore", name], cwd=small, check=False, capture_output=True)
        assert ignored.returncode == 1  # git keeps it, so that a fresh clone need not search again
    put_search(small, trials=3, finalists=1, seeds=[1])
    assert "Running stage 'search@iris_mlp'" in dvc(small, settings, "repro", "search")


def dvc(folder: Path, settings: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([*DVC, *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
