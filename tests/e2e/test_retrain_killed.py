"""`retrain`, killed at random moments: one champion that loads, no batch lost or doubled, the next run completes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from config.gates import LoadLimit
from datasets import get_dataset
from orchestration import registry
from tasks.arrivals.batches import digest
from tasks.promotion.score import Scored, score
from tests.support.registries import champion_of_dvc, champion_of_gto
from tests.support.workspaces import ROOT, edit_params

pytestmark = pytest.mark.timeout(3600)

MODEL = "iris_mlp"
RETRAIN = [sys.executable, "-m", "flows.retrain", MODEL]
# A run takes as long as this many times its --help, roughly, on any machine; a kill after its end is none.
HELPS = 14
FOLDERS = ("incoming", "batches", "rejected")


@pytest.fixture
def repository(small, settings, monkeypatch) -> Path:
    """A trained repository whose model is the champion, and now has another recipe."""
    monkeypatch.chdir(small)
    for name in settings.keys() - os.environ.keys():  # of git
        monkeypatch.setenv(name, settings[name])
    registry.promote(MODEL, registry.register(MODEL, "HEAD", "the first one").version, "the first one")
    shutil.copytree(ROOT / "data/expectations", "data/expectations", dirs_exist_ok=True)
    edit_params(small, models__iris_mlp__fit__epochs=30, models__iris_mlp__compile__learning_rate=0.1)
    edit_params(small, models__linear_neuron__fit__epochs=2)  # changed, but nobody asks for it
    for words in (("add", "."), ("commit", "--quiet", "--message", "a day")):
        subprocess.run(["git", *words], check=True)
    return small


def deliver(number: int) -> str:
    """Put rows that no other batch has into data/incoming, and return their digest."""
    table = get_dataset("iris").generate().to_pandas().sample(40, random_state=number)
    numbers = table.select_dtypes("float").columns
    table[numbers] += 0.001 * number
    folder = Path("data/incoming/iris")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"day-{number}.csv"
    table.to_csv(file, index=False)
    return digest(file)


def kept(root: Path = Path()) -> Counter[str]:
    """Return how often each batch is in the folders of arrivals, by its digest."""
    files = [file for name in FOLDERS for file in (root / "data" / name / "iris").glob("[!.]*.csv")]
    return Counter(digest(file) for file in files if not file.name.endswith(".reasons.csv"))


def run_to_the_end(settings: dict[str, str]) -> None:
    done = subprocess.run(RETRAIN, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "train@linear_neuron" not in done.stdout + done.stderr
    assert Path(".retrain/workspace/reports/index.html").exists()


def start_and_kill(settings: dict[str, str], seconds: float, whole: bool) -> bool:
    """Kill -9 a run after some seconds, and wait until nothing of it lives; return whether it still ran.

    Args:
        settings: the environment of the run.
        seconds: from its start.
        whole: kill all of its processes; else the first alone, as a machine that is short of memory does.
    """
    process = psutil.Popen(
        RETRAIN, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    ended = time.monotonic() + seconds
    while time.monotonic() < ended and process.poll() is None:
        time.sleep(0.01)
    alive = process.poll() is None
    family = [process, *process.children(recursive=True)] if alive else [process]
    for each in family if whole else family[:1]:
        if each.is_running():
            os.kill(each.pid, signal.SIGKILL)
    assert not psutil.wait_procs(family, timeout=120)[1]
    return alive


def check_champion(rows: Path) -> None:
    """The champion is one, for GTO, for DVC and for us, and it answers."""
    champion = registry.champion(MODEL)
    assert champion
    assert champion_of_gto(MODEL) == champion.version
    assert champion_of_dvc(MODEL) == champion.commit
    folder = Path("exported")
    registry.export_version(champion, folder)
    scored = score(folder / "saved_model", rows, LoadLimit())
    shutil.rmtree(folder)
    assert isinstance(scored, Scored), scored


@pytest.mark.rotates
def test_a_killed_run_loses_nothing(repository, settings, request, tmp_path):
    kills, chance = request.config.getoption("--kills"), random.Random(request.config.getoption("--kill-seed"))
    rows = tmp_path / "rows.parquet"
    pq.write_table(get_dataset("iris").generate().slice(0, 5), rows)
    began = time.monotonic()
    subprocess.run([*RETRAIN, "--help"], env=settings, capture_output=True, check=True)
    duration = HELPS * (time.monotonic() - began)
    delivered = []
    for number in range(1, kills + 1):
        delivered.append(deliver(number))
        moment, whole = chance.uniform(0, duration), chance.random() < 0.5
        alive = start_and_kill(settings, moment, whole)
        print(f"kill {number}: after {moment:.1f} of {duration:.1f} s, {'all' if whole else 'first'}, alive: {alive}")
        check_champion(rows)
        assert kept() == Counter(delivered)
    run_to_the_end(settings)
    check_champion(rows)
    assert kept() == Counter(delivered)
    assert not [*Path("data/incoming/iris").iterdir()]
    batches = [file.read_bytes() for file in Path("data/batches/iris").iterdir()]
    trained = Path(".retrain/workspace/data/batches/iris")
    assert sorted(batches) == sorted(file.read_bytes() for file in trained.iterdir())
    assert len(batches) == kills
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""
