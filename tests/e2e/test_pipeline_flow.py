"""The pipeline flow over the real DVC: the same dvc.lock as `dvc repro`, and nothing lost or left, whatever happens."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from ruamel.yaml import YAML

from tests.support.clusters import dask_cluster
from tests.support.s3 import s3_remote
from tests.support.servers import serve
from tests.support.waiting import hold, make_it_wait, wait_until_it_waits
from tests.support.workspaces import DVC, PIPELINE, clone, contents, edit_params

# What holds dates, durations or random names: their checksums differ from run to run.
UNSTABLE = re.compile(r"artifacts(/.*(model\.keras|saved_model|run\.json))?|reports/.*")
LONG = 100_000  # epochs that no test waits for


@pytest.fixture
def run(small, settings, monkeypatch) -> Callable[..., subprocess.CompletedProcess]:
    monkeypatch.chdir(small)

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(words, cwd=small, env=settings, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def started(run, small, settings) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start the pipeline with a long training of linear_neuron, and wait until that has begun its epochs."""
    processes = []

    def start(*words: str) -> subprocess.Popen:
        edit_params(small, models__linear_neuron__fit__epochs=LONG)
        process = subprocess.Popen(
            [*PIPELINE, *words],
            cwd=small,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        process.seen = []
        for line in process.stdout:
            process.seen.append(line)
            if line.startswith("train@linear_neuron epoch"):
                return process
        raise AssertionError("".join(process.seen))

    yield start
    for process in processes:
        process.kill()
        process.wait()


def rest_of(process: subprocess.Popen) -> str:
    return "".join(process.seen) + process.communicate(timeout=120)[0]


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    """Return what the flow started, as far as it still runs."""
    return psutil.Process(process.pid).children(recursive=True)


def stage_processes(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the forks that run a stage: heads of sessions that the fork server has started."""
    return [child for child in descendants(process) if os.getsid(child.pid) == child.pid != process.pid != child.ppid()]


def none_left(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=40)[1]


def stable(lock: Path) -> list:
    """Return what dvc.lock says, in its order, without the checksums that differ from run to run."""

    def plain(entry: dict) -> tuple:
        return tuple(entry.items()) if not UNSTABLE.fullmatch(entry["path"]) else entry["path"]

    rows = []
    for name, stage in YAML(typ="safe").load(lock)["stages"].items():
        files = [[plain(entry) for entry in stage.get(kind, [])] for kind in ("deps", "outs")]
        rows.append((name, stage["cmd"], str(stage.get("params")), *files))
    return rows


def test_dvc_lock_and_all_metrics_are_those_of_dvc_repro(two_models, two_models_by_dvc):
    assert stable(two_models / "dvc.lock") == stable(two_models_by_dvc / "dvc.lock")
    metrics = sorted(path.relative_to(two_models) for path in two_models.glob("artifacts/**/metrics.json"))
    assert len(metrics) == 3
    for path in metrics:
        assert (two_models / path).read_bytes() == (two_models_by_dvc / path).read_bytes()


def test_afterwards_dvc_has_nothing_to_do(repo, settings):
    repro = subprocess.run([*DVC, "repro"], cwd=repo, env=settings, capture_output=True, text=True, check=True)
    assert "Running stage" not in repro.stdout
    assert "up to date" in repro.stdout


def test_after_dvc_repro_the_pipeline_has_nothing_to_do(two_models_by_dvc, settings, tmp_path):
    folder = clone(two_models_by_dvc, tmp_path / "by dvc")
    done = subprocess.run(PIPELINE, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    stages = len(YAML(typ="safe").load(folder / "dvc.lock")["stages"])
    assert done.stdout == f"{stages} stages: {stages} unchanged.\n", done.stderr


def test_the_log_tells_of_every_stage(repo):
    log = (repo / "run.log").read_text()
    stages = [*YAML(typ="safe").load(repo / "dvc.lock")["stages"]]
    for stage in stages:
        assert f"\n{stage} ran in" in f"\n{log}"
    assert f"{len(stages)} stages: {len(stages)} ran" in log
    assert "train@housing_mlp epoch 1/1  loss" in log


@pytest.fixture
def another_server(tmp_path) -> Iterator[str]:
    """The address of a server that no other test uses."""
    home = tmp_path / "server"
    home.mkdir()
    with serve(home) as address:
        yield address


def test_every_stage_is_a_task_of_the_run_and_its_flow_a_subflow(small, settings, another_server):
    edit_params(small, datasets__iris__split__seed=7)
    command = [*PIPELINE, "prepare@iris"]
    subprocess.run(command, cwd=small, env=settings | {"PREFECT_API_URL": another_server}, check=True)

    def ask(what: str, **query: object) -> list[dict]:
        return httpx.post(f"{another_server}/{what}/filter", json=query).json()

    query = {"flow_runs": {"name": {"any_": ["prepare-iris"]}}, "sort": "START_TIME_DESC"}
    subflow = ask("flow_runs", **query)[0]
    parent = httpx.get(f"{another_server}/task_runs/{subflow['parent_task_run_id']}").json()["flow_run_id"]
    time.sleep(1.5)  # a server without pages records the states of tasks once a second
    states = {task["name"]: task["state_name"] for task in ask("task_runs", flow_runs={"id": {"any_": [parent]}})}
    assert states["prepare@iris"] == "Completed"
    assert states["ingest@iris"] == "Unchanged"


def test_deleted_outputs_come_back_from_the_cache(run):
    shutil.rmtree("artifacts/iris_mlp")
    done = run(*PIPELINE)
    assert "train@iris_mlp restored" in done.stderr
    assert "1 restored" in done.stderr
    assert Path("artifacts/iris_mlp/metrics.json").exists()


def test_force_runs_the_targets_and_what_they_need(run):
    done = run(*PIPELINE, "--force", "prepare@iris")
    ran = re.findall(r"^(\S+) ran in", done.stderr, re.M)
    assert ran == ["receive@iris", "ingest@iris", "prepare@iris"]


def test_a_whole_run_says_how_long_it_will_take_and_does_without_models_to_leave_out(run):
    kept = contents(Path("artifacts/iris_mlp"))
    edit_params(Path(), seed=7, leave_out=["iris_mlp"])
    planned = run(*PIPELINE, "--dry").stdout
    assert "train@linear_neuron: changed" in planned
    assert "iris_mlp" not in planned
    done = run(*PIPELINE)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"^\d+ stages, \d+ threads: about \d+ s, by the last time. leave_out: iris_mlp.$", done.stderr, re.M
    )
    assert re.search(r"^train@linear_neuron ran in", done.stderr, re.M)
    assert "train@iris_mlp" not in done.stderr
    assert contents(Path("artifacts/iris_mlp")) == kept
    assert "train@iris_mlp ran in" in run(*PIPELINE, "train@iris_mlp").stderr  # it was named

    edit_params(Path(), leave_out=["iris_mpl"])
    refused = run(*PIPELINE)
    assert refused.returncode == 1
    assert "leave_out: unknown model 'iris_mpl'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_dry_says_what_would_run_and_runs_nothing(run):
    edit_params(Path(), datasets__iris__split__seed=7)
    before = contents(Path("artifacts"))
    planned = run(*PIPELINE, "--dry").stdout.splitlines()
    assert planned[:2] == [
        "prepare@iris: changed",
        "train@iris_mlp: if prepare@iris ends with other outputs",
    ]
    assert not any("@line" in line for line in planned)
    assert contents(Path("artifacts")) == before


@pytest.mark.rotates
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train@iris"], "unknown stage 'train@iris'. Did you mean 'train@iris_mlp'?"),
        (["--set", "models.iris_mlp.fit.epoch=3"], "--set models.iris_mlp.fit.epoch=3: expected KEY=VALUE"),
        (["--set", "models.iris_mlp.fit.epochs=0"], "models.iris_mlp.fit.epochs: Input should be greater than 0"),
        (["--set", "models.iris_mlp.fit.epochs=range(1,3)"], "--set models.iris_mlp.fit.epochs=range(1,3): "),
        (["--set", "models.iris_mlp.fit.resume=true"], "or +KEY=VALUE to add one that it does not have"),
        (["--jobs", "0"], "--jobs must be from 1 to 256, got 0"),
        (["--address", "tcp://127.0.0.1:9"], "--runner dask and --address, of its scheduler, go together"),
    ],
)
def test_a_mistake_is_told_in_one_message_and_changes_nothing(run, words, told):
    done = run(*PIPELINE, *words)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert run("git", "status", "--porcelain").stdout == ""


def test_a_faulty_params_file_is_told_in_one_message(run):
    Path("params.yaml").write_text("seed: [\n")
    done = run(*PIPELINE)
    assert done.returncode == 1
    assert "error: params.yaml line 2: not valid YAML" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.rotates
def test_a_failing_stage_leaves_its_siblings_done_and_the_lock_without_it(run):
    before = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
    kept = contents(Path("artifacts/linear_neuron"))
    edit_params(
        Path(),
        models__linear_neuron__compile__learning_rate=1e30,
        models__linear_neuron__fit__epochs=50,
        models__iris_mlp__fit__epochs=3,
    )
    done = run(*PIPELINE)
    assert done.returncode == 1
    assert "train@linear_neuron failed. " in done.stderr
    assert "training diverged" in done.stderr
    assert "report not run" in done.stderr
    assert "Traceback" not in done.stderr
    after = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
    assert after["train@linear_neuron"] == before["train@linear_neuron"]
    assert after["report"] == before["report"]
    assert after["train@iris_mlp"] != before["train@iris_mlp"]
    assert json.loads(Path("artifacts/iris_mlp/metrics.json").read_text())["epochs"] == 3
    assert contents(Path("artifacts/linear_neuron")) == kept
    assert "reports/index.html says what failed" in done.stderr + done.stdout
    assert "failed in the last run" in Path("reports/models/linear_neuron.html").read_text()
    assert run("git", "status", "--porcelain", "reports").stdout == ""


@pytest.mark.rotates
def test_an_experiment_is_saved_and_leaves_the_workspace_as_it_was(run):
    before = contents(Path("artifacts")) | contents(Path("reports"))
    done = run(*PIPELINE, "--set", "models.iris_mlp.fit.epochs=4")
    assert done.returncode == 0, done.stderr
    assert run("git", "status", "--porcelain").stdout == ""
    assert contents(Path("artifacts")) | contents(Path("reports")) == before
    assert "up to date" in run(*DVC, "status").stdout
    [name] = run(*DVC, "exp", "list", "--name-only").stdout.split()
    assert f"Saved as experiment {name}" in done.stderr
    assert run(*DVC, "exp", "apply", name).returncode == 0
    assert json.loads(Path("artifacts/iris_mlp/metrics.json").read_text())["epochs"] == 4


@pytest.mark.rotates
def test_an_experiment_records_nothing_of_the_stages_that_it_does_not_bring_up_to_date(run):
    edit_params(Path(), models__linear_neuron__fit__epochs=2)
    edited = Path("params.yaml").read_bytes()
    done = run(
        *PIPELINE,
        "--set",
        "models.iris_mlp.fit.epochs=4",
        "--set",
        "+models.iris_mlp.fit.resume=false",
        "train@iris_mlp",
    )
    assert done.returncode == 0, done.stderr
    assert Path("params.yaml").read_bytes() == edited
    assert run(*PIPELINE, "--dry", "train@linear_neuron").stdout == "train@linear_neuron: changed\n"


@pytest.mark.rotates
def test_what_is_edited_while_an_experiment_runs_is_not_lost(waiting, run):
    process = waiting(*PIPELINE, "--set", "seed=7", "ingest@line")
    edit_params(Path(), models__iris_mlp__fit__epochs=9)
    process.send_signal(signal.SIGINT)
    assert "params.yaml was edited while an experiment ran" in process.communicate(timeout=120)[0]
    assert "epochs: 9" in Path("params.yaml").read_text()
    assert "seed: 42" in Path(".staging/params.before.yaml").read_text()


@pytest.mark.rotates
def test_a_worker_that_is_killed_fails_its_stage_alone(started, small, run):
    before = contents(small / "artifacts/linear_neuron")
    edit_params(small, models__iris_mlp__fit__epochs=5)
    process = started()
    while "train@iris_mlp ran" not in "".join(process.seen):
        process.seen.append(process.stdout.readline())
    [worker] = stage_processes(process)
    worker.kill()
    told = rest_of(process)
    assert process.returncode == 1
    assert "train@linear_neuron failed" in told
    assert "1 failed" in told
    assert contents(small / "artifacts/linear_neuron") == before
    assert json.loads((small / "artifacts/iris_mlp/metrics.json").read_text())["epochs"] == 5


def assert_told_as_in_use(done: subprocess.CompletedProcess, process: subprocess.Popen) -> None:
    assert done.returncode != 0
    assert f"this workspace is in use by process {process.pid}" in done.stderr


@pytest.mark.rotates
def test_two_runs_never_mix_and_an_interrupted_one_puts_back_what_was_running(started, run):
    before = contents(Path("artifacts/linear_neuron"))
    process = started()
    for command in (PIPELINE, [*PIPELINE, "--force", "ingest@line"]):
        done = run(*command)
        assert_told_as_in_use(done, process)
        assert "Traceback" not in done.stderr
    assert_told_as_in_use(run(*DVC, "repro", "--force", "-s", "ingest@iris"), process)
    assert Path("data/raw/iris.parquet").exists()
    left = descendants(process)
    process.send_signal(signal.SIGINT)
    told = rest_of(process)
    assert process.returncode == 130
    assert "interrupted" in told
    assert "train@linear_neuron interrupted" in told
    assert "Traceback" not in told
    assert none_left(left)
    assert contents(Path("artifacts/linear_neuron")) == before


def test_a_killed_run_leaves_no_process_and_no_lock(started, run):
    process = started()
    left = descendants(process)
    assert len(stage_processes(process)) == 1
    process.kill()
    process.wait()
    assert none_left(left)
    run("git", "checkout", "--quiet", "params.yaml")
    done = run(*PIPELINE)
    assert done.returncode == 0, done.stderr
    assert "up to date" in run(*DVC, "status").stdout


@pytest.fixture
def waiting(run, small, environment) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a command that runs `ingest@line`, and return when that waits; a PREFECT_API_URL must be given."""
    make_it_wait(small, environment)
    hold(small)
    processes = []

    def start(*words: str, **more: str) -> subprocess.Popen:
        process = subprocess.Popen(
            words,
            cwd=small,
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        wait_until_it_waits(small)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=60)


@pytest.mark.rotates
@pytest.mark.parametrize("own_server", [False, True])
def test_a_running_dvc_repro_is_seen(waiting, run, api_url, own_server):
    waiting(*DVC, "repro", "-s", "ingest@line", **({} if own_server else {"PREFECT_API_URL": api_url}))
    done = run(*PIPELINE)
    assert done.returncode == 1
    assert re.search(r"this workspace is in use by .*process \d+ \(.*flows\.ingest line\)", done.stderr)
    # Between two of its stages, too: the supervisor of its server sees to that, where it has one.
    assert bool(re.search(r"process \d+ \(.*dvc repro -s ingest@line\)", done.stderr)) == own_server


@pytest.fixture
def cluster(settings, tmp_path) -> Iterator[str]:
    """The address of a Dask scheduler with two workers of one thread each."""
    with dask_cluster(settings, tmp_path) as address:
        yield address


@pytest.mark.rotates
def test_stages_run_on_a_dask_cluster_that_shares_the_workspace(run, cluster):
    edit_params(Path(), seed=43)
    done = run(*PIPELINE, "--runner", "dask", "--address", cluster, "train@iris_mlp")
    assert done.returncode == 0, done.stderr
    assert "train@iris_mlp epoch 1/1  accuracy" in done.stderr
    assert "1 ran" in done.stderr
    assert "up to date" in run(*DVC, "status", "train@iris_mlp").stdout
    assert json.loads(Path("artifacts/iris_mlp/metrics.json").read_text())["seed"] == 43


def test_a_cluster_that_does_not_answer_is_named(run):
    edit_params(Path(), seed=43)
    done = run(*PIPELINE, "--runner", "dask", "--address", "tcp://127.0.0.1:9", "train@iris_mlp")
    assert done.returncode == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr


@pytest.fixture
def s3(small, settings) -> Iterator[None]:
    with s3_remote(small, settings):
        yield


def test_another_clone_gets_the_results_from_s3_and_has_nothing_to_do(run, s3, small, settings, tmp_path):
    pushed = run(*DVC, "push")
    assert pushed.returncode == 0, pushed.stderr
    run("git", "commit", "--quiet", "--all", "-m", "the remote")
    clone = tmp_path / "another machine"
    subprocess.run(["git", "clone", "--quiet", small, clone], check=True)
    for words in ([*DVC, "pull"], PIPELINE):
        done = subprocess.run(words, cwd=clone, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "unchanged." in done.stdout
    assert (clone / "artifacts/iris_mlp/model.keras").exists()
