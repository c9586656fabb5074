"""The benchmark: it works on the sample, and its figures hold together."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from benchmarks import graph
from benchmarks.__main__ import QUICK_MODELS, main
from flows import demo
from flows.demo import MARK
from tests.support.workspaces import MIGRATED, ROOT, clone

pytestmark = [pytest.mark.xdist_group("benchmarks"), pytest.mark.timeout(1800)]  # one worker measures for all


@pytest.fixture(scope="module")
def prepared_workspace(prepared_data, tmp_path_factory) -> Path:
    return clone(prepared_data.parent, tmp_path_factory.mktemp("benchmarks") / "a workspace")


@pytest.fixture(scope="module")
def results(prepared_workspace, tmp_path_factory, environment) -> dict:
    out, printed = tmp_path_factory.mktemp("bench") / "results.json", io.StringIO()

    def make_workspace(folder: Path, epochs: int) -> None:
        """Make it with the database of its server, which takes longer to make than all that is measured."""
        (folder / ".prefect").mkdir(parents=True, mode=0o700)
        shutil.copy(MIGRATED[0], folder / ".prefect")
        (folder / MARK).touch()
        demo.make_workspace(folder, epochs)

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(prepared_workspace)
        patch.setattr(sys, "argv", ["benchmarks", "--quick", "--out", str(out)])
        patch.setattr(graph, "make_workspace", make_workspace)
        assert main() == 0
    assert all(name in printed.getvalue() for name in QUICK_MODELS)
    return json.loads(out.read_text())


@pytest.mark.rotates
def test_every_model_was_timed_against_its_peer(results):
    assert set(results["fit"]) == set(QUICK_MODELS)
    for row in results["fit"].values():
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["ours_seconds"])
        assert 0 < row["share_of_peak"] < 1
        assert row["ours_peak_memory_bytes"] > 100_000_000


def test_the_same_batches_give_the_same_figures(results):
    for name, row in results["fit"].items():
        for figure, values in row["same_batches"].items():
            assert values["ours"] == pytest.approx(values["loop"], abs=1e-3), (name, figure)


def test_what_was_streamed_was_more_than_memory_may_hold(results):
    assert results["stream"]["streamed"]
    assert results["stream"]["rows_per_second"] > 0


def test_the_machine_is_named(results):
    assert results["machine"]["processor"]
    assert results["machine"]["gpu"] is None
    assert results["machine"]["float32_flops"] > 1e8


def test_an_unknown_model_is_refused_with_the_names(prepared_workspace):
    command = [sys.executable, "-m", "benchmarks", "--models", "no_such"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=prepared_workspace, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    assert "no_such" in done.stderr
    assert "housing_mlp" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pipeline_was_timed_against_dvc_repro(results):
    graph = results["graph"]
    assert graph["stages"] == 2  # receive and ingest
    assert graph["share_of_repro"] == pytest.approx(graph["pipeline_seconds"] / graph["repro_seconds"])
    assert 0 < graph["status_seconds"] < graph["repro_seconds"]
