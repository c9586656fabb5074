"""However a flow, a stage or a `dvc repro` ends: outputs and parameters are as before, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from dvc.repo import Repo

from orchestration.workspace_lock import exclusive_workspace
from tests.support.processes import wait_for, words_of
from tests.support.waiting import WAITING, hold, make_it_wait
from tests.support.workspaces import DVC, PIPELINE, contents, edit_params

TRAINING, WAITING_STAGE = "train@linear_neuron", "ingest@line"
LONG = 1_000_000  # epochs that no test waits for
LOGS = Path("logs/linear_neuron")
OUTPUTS = {TRAINING: Path("artifacts/linear_neuron"), WAITING_STAGE: Path("data/raw")}
ENDS = {
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
    "kill": (signal.SIGTERM,),
    "a closed terminal": (signal.SIGHUP,),
    "kill -9": (signal.SIGKILL,),
}
SHARED = ("params.yaml", "dvc.lock")
# What is started, by its name in the table of docs/pipeline.md.
NAMES = ("an experiment of the flow", "a stage by hand", "dvc repro", "the stage of a dvc repro")
# A signal to the whole group reaches the stage of a `dvc repro`, too.
TESTED = [(name, end) for name in NAMES[:3] for end in ENDS] + [(NAMES[3], "kill"), (NAMES[3], "kill -9")]
# Those with a training, whose process is that of TensorFlow. All others have a stage that waits.
TRAINED = [(NAMES[0], "Ctrl-C"), (NAMES[0], "kill -9"), (NAMES[1], "Ctrl-C"), (NAMES[2], "kill")]
# Those with a server of their own, which has to end, too.
WITH_SERVER = ("Ctrl-C", "a closed terminal", "kill -9")


def command_of(name: str, stage: str) -> list[str]:
    """Return the command that starts a stage in the way that has this name."""
    return {
        "an experiment of the flow": [*PIPELINE, "--force", "--set", "seed=7", stage],
        "a stage by hand": [sys.executable, "-m", *f"flows.{stage}".split("@")],
    }.get(name, [*DVC, "repro", "--force", "-s", stage])


@pytest.fixture
def start(small, environment, settings, monkeypatch) -> Iterator[Callable[..., psutil.Process]]:
    """Start a command of a stage in a session of its own, and return when that trains or waits."""
    monkeypatch.chdir(small)
    make_it_wait(small, environment)
    edit_params(small, models__linear_neuron__fit__epochs=LONG)
    processes: list[psutil.Popen] = []

    def start(command: list[str], own_server: bool = True) -> psutil.Popen:
        earlier = set(LOGS.iterdir())
        if TRAINING not in command and "flows.train" not in command:
            hold(small)
        with Path("ending.log").open("w") as log:
            process = psutil.Popen(
                command,
                cwd=small,
                env=environment if own_server else settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        began = lambda: WAITING.exists() or set(LOGS.iterdir()) - earlier  # noqa: E731
        wait_for(lambda: process.poll() is not None or began(), log_of_the_end)
        assert process.poll() is None, Path("ending.log").read_text()
        return process

    yield start
    for process in processes:
        for left in family(process):
            left.kill()


def log_of_the_end() -> str:
    return Path("ending.log").read_text()[-3000:]


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it has started, directly or not, as far as it lives."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def stage_of(process: psutil.Process) -> psutil.Process:
    """Return the process of the stage that a `dvc repro` runs."""
    return next(child for child in process.children(recursive=True) if "flows.ingest" in words_of(child))


def send(process: psutil.Process, number: int) -> None:
    """Send a signal as it comes: from a terminal to the whole group, from `kill` to the one process."""
    if number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(os.getpgid(process.pid), number)
    else:
        process.send_signal(number)


@pytest.mark.rotates
@pytest.mark.parametrize(("started", "end"), TESTED)
def test_nothing_is_lost_and_nothing_is_left(start, small, settings, started, end):
    stage = TRAINING if (started, end) in TRAINED else WAITING_STAGE
    outputs, parameters, lock = contents(OUTPUTS[stage]), *(Path(name).read_bytes() for name in SHARED)
    process = start(command_of(started, stage), own_server=end in WITH_SERVER)
    processes = family(process)
    for number in ENDS[end]:
        if started == "the stage of a dvc repro":
            stage_of(process).send_signal(number)
        else:
            send(process, number)
        time.sleep(0.3)
        if not process.is_running():
            break
    assert not psutil.wait_procs(processes, timeout=90)[1], Path("ending.log").read_text()
    assert process.wait() != 0
    log = Path("ending.log").read_text()
    assert "Traceback" not in log
    assert contents(OUTPUTS[stage]) == outputs
    if (started, end) == ("an experiment of the flow", "kill -9"):
        again = [*DVC, "repro", "--force", "-s", "ingest@iris"]
        refused = subprocess.run(again, cwd=small, env=settings, capture_output=True, text=True, check=False)
        assert "an experiment was killed before it had restored the workspace" in refused.stderr
    if started == "an experiment of the flow":  # also puts params.yaml back after a kill -9
        planned = subprocess.run(
            [*PIPELINE, "--dry"], cwd=small, env=settings, capture_output=True, text=True, check=False
        )
        assert planned.returncode == 0, planned.stderr
    with exclusive_workspace(), Repo() as repo, repo.lock:  # none of these locks is left
        pass
    assert [Path(name).read_bytes() for name in SHARED] == [parameters, lock]
    if end != "kill -9":
        assert not Path(".staging/before-experiment").exists()


def test_a_stage_whose_dvc_is_killed_publishes_nothing_and_says_why_it_ends(start):
    process = start(command_of("dvc repro", WAITING_STAGE))
    processes = family(process)
    process.kill()
    wait_for(lambda: "error: the DVC that ran this stage has ended." in log_of_the_end(), log_of_the_end)
    assert not psutil.wait_procs(processes, timeout=90)[1]


def test_a_fork_server_that_is_killed_costs_its_stages_alone(start, small, settings):
    outputs = contents(OUTPUTS[TRAINING])
    process = start([*PIPELINE, TRAINING], own_server=False)
    processes = family(process)
    [server] = [child for child in process.children() if "multiprocessing.forkserver" in " ".join(words_of(child))]
    server.kill()
    assert not psutil.wait_procs(processes, timeout=90)[1]
    assert process.wait() == 1
    log = Path("ending.log").read_text()
    assert "train@linear_neuron failed" in log
    assert "Traceback" not in log
    assert contents(OUTPUTS[TRAINING]) == outputs


def test_a_flow_goes_on_where_no_process_can_be_forked_ahead(small, settings, monkeypatch):
    monkeypatch.chdir(small)
    preload = small / "orchestration/executors/preload.py"
    preload.write_text("raise SystemExit('broken')\n")
    command = [*PIPELINE, "--force", "ingest@line"]
    done = subprocess.run(command, cwd=small, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ingest@line ran in" in done.stderr


def test_nohup_keeps_its_meaning(start):
    process = start(["nohup", *command_of("a stage by hand", WAITING_STAGE)], own_server=False)
    os.killpg(os.getpgid(process.pid), signal.SIGHUP)
    time.sleep(3)
    assert process.is_running()
    assert process.status() != psutil.STATUS_ZOMBIE
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 130
