"""Arrivals and DVC: a batch makes its data set anew and nothing else, and none is lost, whatever is killed when."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import get_dataset
from tests.support.workspaces import DVC, PIPELINE, ROOT, contents

pytestmark = pytest.mark.timeout(900)  # many commands of DVC, or a kill at each of a hundred steps


@pytest.fixture
def run(small, settings):
    """Run a command in a trained repository."""

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=small, env=settings, capture_output=True, text=True, check=False)

    return run


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def put(folder: Path, name: str, content: str, dataset: str = "iris") -> Path:
    path = folder / "data/incoming" / dataset / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (0, 0))  # so that nobody waits
    return path


def new_rows(seed: int, rows: int = 30) -> str:
    """Return rows like those of the sample of iris, as CSV: rows of it that are moved a little."""
    rng = np.random.default_rng(seed)
    sample = get_dataset("iris").generate().to_pandas()
    taken = sample.iloc[rng.integers(0, len(sample), rows)].copy()
    for name in sample.columns[:4]:
        moved = taken[name] + rng.uniform(-0.05, 0.05, rows)
        taken[name] = moved.clip(sample[name].min(), sample[name].max())
    return taken.to_csv(index=False)


@pytest.mark.rotates
def test_a_batch_makes_its_data_set_anew_and_no_other(small, run):
    assert [*(small / "data/batches/iris").iterdir()] == []
    put(small, "tonight's rows.csv", new_rows(1))
    put(small, "damaged.csv", new_rows(2)[:-3])
    received = run(sys.executable, "-m", "flows.receive", "iris")
    assert received.returncode == 0, received.stderr
    assert "iris: accepted tonight's rows.csv, 30 rows" in received.stderr
    assert "iris: rejected damaged.csv, 1 reason in data/rejected/iris/0001-damaged.csv.reasons.csv" in received.stderr

    again = run(*DVC, "repro", "prepare")
    assert stages_run(again.stdout) == ["receive@iris", "ingest@iris", "prepare@iris"], again.stderr
    facts = json.loads((small / "data/raw/iris.json").read_text())
    assert facts["rows"] == facts["source_rows"] + 30
    assert [batch["name"] for batch in facts["batches"]] == ["0001-tonight_s rows.csv"]
    stages = [f"{stage}@{name}" for stage in ("receive", "ingest", "prepare") for name in ("line", "iris")]
    assert "Data and pipelines are up to date." in run(*DVC, "status", *stages).stdout

    kept = contents(small / "data/batches")
    shutil.rmtree(small / "data/batches")
    assert run(*DVC, "checkout", "data/batches/iris").returncode == 0
    assert contents(small / "data/batches") == kept


@pytest.mark.rotates
def test_the_pipeline_takes_what_has_been_received_and_a_clone_without_it_is_refused(small, run):
    put(small, "a.csv", new_rows(1))
    assert run(sys.executable, "-m", "flows.receive", "iris").returncode == 0
    dry = run(*PIPELINE, "prepare", "--dry")
    assert dry.stdout.splitlines()[0] == "receive@iris: changed"
    done = run(*PIPELINE, "prepare")
    assert done.returncode == 0, done.stderr
    assert "3 ran" in done.stderr
    assert "DVC's cache has no copy" not in done.stderr
    assert run(*PIPELINE, "prepare").stdout == "6 stages: 6 unchanged.\n"

    assert json.loads((small / "data/raw/iris.json").read_text())["batches"]
    shutil.rmtree(small / "data/batches")
    shutil.rmtree(small / ".dvc/cache")
    lock = (small / "dvc.lock").read_text()
    for words in (
        [*DVC, "repro", "ingest@iris"],
        [*PIPELINE, "ingest@iris"],
        [sys.executable, "-m", "flows.ingest", "iris"],
    ):
        done = run(*words)
        assert done.returncode != 0
        lacking = "data/batches/iris lacks batches: it holds 0 of the 1 files that dvc.lock records. Run `dvc pull"
        assert lacking in done.stdout + done.stderr
        assert not (small / "data/batches").exists()
        assert (small / "dvc.lock").read_text() == lock


@pytest.mark.rotates
@pytest.mark.parametrize("place", ["same disk", "other disk"])
@pytest.mark.parametrize("dataset", ["iris", "fashion_mnist"])
def test_a_kill_at_any_step_loses_nothing_and_the_next_run_completes(dataset, place, tmp_path, request):
    other = [str(request.getfixturevalue("other_disk"))] if place == "other disk" else []
    command = [sys.executable, "-m", "tests.support.killed_receive", dataset, str(tmp_path), *other]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert int(done.stdout.split()[-2]) > 10  # "N steps"


def test_of_two_that_receive_at_once_one_takes_each_arrival(workspace, environment):
    for number in range(1, 30):
        put(workspace, f"{number:02d}.csv", new_rows(number))
    code = (
        "from datasets import get_dataset; from runtime.errors import UserError; from tasks.arrivals import receive\n"
        "try: receive.receive(get_dataset('iris'))\n"
        "except UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(text == "" or "being written by another run" in text for text in told)
    taken = [batch.name for batch in sorted((workspace / "data/batches/iris").iterdir())]
    assert taken == [f"{number:04d}-{number:02d}.csv" for number in range(1, 30)]
    assert not (workspace / "data/rejected").exists()


def test_a_full_disk_is_told_and_the_arrival_stays(workspace, api_url):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    path = put(workspace, "a.csv", new_rows(1, 1_000))
    before = path.read_bytes()
    (workspace / "data/batches").mkdir()
    script = f"mount -t tmpfs -o size=32k none data/batches && exec '{sys.executable}' -m flows.receive iris"
    command = ["unshare", "--mount", "sh", "-c", script]
    env = {**os.environ, "PREFECT_API_URL": api_url}
    done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("error: no space left on the disk") == 1
    assert "Traceback" not in done.stderr
    assert contents(workspace / "data/incoming") == {str(path): before}


def test_a_folder_that_may_not_be_written_is_named(workspace, run_flow):
    put(workspace, "a.csv", new_rows(1))
    (workspace / "data/batches").write_text("")
    done = run_flow("receive", "iris")
    assert done.returncode == 1
    assert "data/batches is a file, and a folder is needed there" in done.stderr
    assert "Traceback" not in done.stderr
