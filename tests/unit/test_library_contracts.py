"""What we rely on in DVC, Prefect, Keras and scikit-learn beyond their documented interfaces, one test for each.

When one of these tests fails after an upgrade, it says what has changed and which file has to follow.
"""

import asyncio
import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dvc.stage.run
import pytest
from dvc.dvcfile import Lockfile

from tests.support.workspaces import ROOT

# As DVC brings them; `patch_dvc` replaces them for good in a process, and another test may have called it.
REPLACED = [
    (dvc.stage.run, "cmd_run", dvc.stage.run.cmd_run),
    (Lockfile, "dump_stages", Lockfile.dump_stages),
]


def contract(library: str, reliance: str, *files: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator by which a test that fails says so in one sentence: `files` rely on `reliance`."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def told(*args: Any, **kwargs: Any) -> None:
            assert all((ROOT / file).exists() for file in files), files
            try:
                test(*args, **kwargs)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, the library has changed
                pytest.fail(
                    f"{library} {version(library)} has changed. {', '.join(files)} rely on this: {reliance}. "
                    f"Found instead: {type(error).__name__}: {error}"
                )

        return told

    return decorate


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository with two stages, of which `second` reads what `first` writes; it is the current directory."""
    from dvc.repo import Repo

    for owner, name, value in REPLACED:
        monkeypatch.setattr(owner, name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("number: 1\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  second: {cmd: cp one two, deps: [one], outs: [two]}\n"
        "  first: {cmd: echo 1 > one, params: [number], outs: [one]}\n"
    )
    Repo.init(no_scm=True).close()
    return tmp_path


def fresh_repo() -> Any:
    from dvc.repo import Repo

    return Repo()


@contract(
    "dvc",
    "a stage's command runs by dvc.stage.run.cmd_run(stage, dry=..., run_env=...), outside DVC's lock",
    "orchestration/dvc/patches.py",
    "orchestration/dvc/reproduce.py",
)
def test_dvc_runs_a_command_by_cmd_run_with_its_lock_released(project, monkeypatch):
    import dvc.stage.run

    calls = []

    def cmd_run(stage, dry, run_env):
        calls.append((stage.addressing, stage.cmd, dry, run_env, repo.lock.is_locked))
        Path("one").write_text("made by the replacement")

    monkeypatch.setattr(dvc.stage.run, "cmd_run", cmd_run)
    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
    assert calls == [("first", "echo 1 > one", False, None, False)]
    assert Path("one").read_text() == "made by the replacement"
    assert "first" in Path("dvc.lock").read_text()


@contract(
    "dvc",
    "prepare_kwargs(stage, run_env)['env'] has DVC_STAGE and run_env; _enforce_cmd_list splits lines",
    "orchestration/dvc/reproduce.py",
)
def test_dvc_prepares_the_environment_and_the_commands_of_a_stage(project):
    from dvc.stage.run import _enforce_cmd_list, prepare_kwargs

    with fresh_repo() as repo:
        [stage] = repo.stage.collect("first")
        environment = prepare_kwargs(stage, {"OWN": "1"})["env"]
        assert (environment["DVC_STAGE"], environment["OWN"]) == ("first", "1")
        assert environment["PATH"] == os.environ["PATH"]
        assert [*_enforce_cmd_list("one\ntwo")] == [*_enforce_cmd_list(["one", "two"])] == ["one", "two"]


@contract("dvc", "an exception of cmd_run is in the chain of __cause__", "orchestration/dvc/reproduce.py")
def test_dvc_raises_what_a_command_raises_as_the_innermost_cause(project, monkeypatch):
    import dvc.stage.run
    from dvc.exceptions import DvcException

    class Own(Exception):
        pass

    def cmd_run(stage, dry, run_env):
        raise Own

    monkeypatch.setattr(dvc.stage.run, "cmd_run", cmd_run)
    with fresh_repo() as repo, pytest.raises(DvcException) as caught:
        repo.reproduce("first", single_item=True)
    error: BaseException = caught.value
    while error.__cause__:
        error = error.__cause__
    assert isinstance(error, Own)


@contract(
    "dvc",
    "Lockfile.dump_stages(stages, **kwargs) writes the entries to_lockfile(stage, **kwargs) into dvc.lock",
    "orchestration/dvc/patches.py",
    "orchestration/dvc/lockfile.py",
)
def test_dvc_records_a_stage_by_dump_stages(project, monkeypatch):
    from dvc.dvcfile import Lockfile
    from dvc.stage.serialize import to_lockfile

    dumped = []
    original = Lockfile.dump_stages

    def dump_stages(lockfile, stages, **kwargs):
        entries = [to_lockfile(stage, **kwargs) for stage in stages]
        dumped.append((Path(lockfile.path), lockfile.relpath, [[*entry] for entry in entries]))
        assert callable(lockfile.repo.scm_context.track_file)
        original(lockfile, stages, **kwargs)

    monkeypatch.setattr(Lockfile, "dump_stages", dump_stages)
    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
    assert dumped == [(project / "dvc.lock", "dvc.lock", [["first"]])]
    assert Path("dvc.lock").read_text().startswith("schema: '2.0'\nstages:\n  first:\n    cmd: ")


@contract(
    "dvc",
    "params.yaml is read by serialize._yaml.parse_yaml",
    "orchestration/dvc/patches.py",
)
def test_dvc_reads_the_parameters_that_it_is_given_instead(project):
    from dvc.utils.serialize import _yaml

    from orchestration.dvc.patches import reading_instead

    assert [*inspect.signature(_yaml.parse_yaml).parameters] == ["text", "path", "typ"]
    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
        assert not repo.status(["first"])
    changed = Path("params.yaml").read_text().replace("1", "2")
    with reading_instead(Path("params.yaml"), changed), fresh_repo() as repo:
        assert repo.status(["first"])
    with fresh_repo() as repo:
        assert not repo.status(["first"])


@contract(
    "dvc",
    "plan_repro orders get_active_graph(repo.index.graph); lock_repo holds one reading of it for all",
    "orchestration/dvc/graph.py",
)
def test_dvc_plans_a_graph_whose_successors_are_needs(project):
    from dvc.repo import lock_repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    with fresh_repo() as repo, lock_repo(repo):
        graph = get_active_graph(repo.index.graph)
        assert graph is not repo.index.graph
        assert [stage.addressing for stage in plan_repro(graph, None)] == ["first", "second"]
        [second] = collect_stages(repo, ["second"])
        assert [stage.addressing for stage in plan_repro(graph, [second])] == ["first", "second"]
        assert [need.addressing for need in graph.successors(second)] == ["first"]
        index = repo.index
        assert set(repo.status(["second"], with_deps=True)) == {"first", "second"}
        assert repo.index is index


@contract(
    "dvc",
    "Repo(_wait_for_lock=True) waits for repo.lock, however long; without it, DVC gives up",
    "orchestration/dvc/reproduce.py",
    "orchestration/experiment.py",
)
def test_dvc_waits_for_its_lock_where_that_is_asked_for(project, monkeypatch):
    import dvc.lock
    from dvc.repo import Repo

    monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0.06)
    with Repo() as first, Repo() as hasty, Repo(_wait_for_lock=True) as patient:
        first.lock.lock()
        with pytest.raises(dvc.lock.LockError):
            hasty.lock.lock()
        threading.Timer(0.3, first.lock.unlock).start()
        patient.lock.lock()
        assert patient.lock.is_locked
        patient.lock.unlock()


@contract(
    "dvc",
    "an output has hash_info, exists, use_cache, changed_cache, checkout, workspace_status; a stage says what changed",
    "orchestration/dvc/restore_outputs.py",
)
def test_dvc_knows_of_an_output_what_is_recorded_and_what_is_there(project):
    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
    with fresh_repo() as repo:
        [stage] = repo.stage.collect("first")
        [out] = stage.outs
        assert (out.def_path, Path(out.fs_path), out.use_cache) == ("one", project / "one", True)
        assert out.hash_info.value == "b026324c6904b2a9cb4b88d6d61c81d1"  # MD5 of "1\n"
        assert out.cache.exists(out.get_hash().value)
        assert not any((stage.is_callback, stage.always_changed, stage.changed_stage()))
        assert not any(dep.status() for dep in stage.deps)
        assert not out.workspace_status()
        out.fs.remove(out.fs_path)
        assert not out.exists
        assert not out.changed_cache()
        out.checkout()
        assert Path("one").read_text() == "1\n"
        Path("one").write_text("other\n")
        assert out.workspace_status()
        assert not out.cache.exists(out.get_hash().value)
        shutil.rmtree(".dvc/cache")
        assert out.changed_cache()


@contract(
    "dvc",
    ".dvc/tmp/rwlock holds JSON that dvc.rwlock.SCHEMA accepts, below a lock file of its own",
    "orchestration/dvc/state.py",
)
def test_dvc_lists_its_users_in_a_file_with_a_schema(project):
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA, Invalid

    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
    SCHEMA(json.loads(Path(".dvc/tmp", RWLOCK_FILE).read_text()))
    assert Path(".dvc/tmp", RWLOCK_LOCK).exists()
    with pytest.raises(Invalid):
        SCHEMA({"one": 3})


@contract(
    "dvc",
    "experiments.save(targets=, force=) returns a revision, which get_exact_name([revision]) names",
    "orchestration/experiment.py",
)
def test_dvc_names_an_experiment_by_its_revision(project, monkeypatch):
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    Path(".dvc/config").write_text("")
    with fresh_repo() as repo:
        repo.reproduce("first", single_item=True)
        Path("params.yaml").write_text("number: 2\n")
        revision = repo.experiments.save(targets=["first"], force=True)
        name = repo.experiments.get_exact_name([revision])[revision]
        assert name in [found for names in repo.experiments.ls().values() for found, _ in names]


@contract("dvc", "to_hydra_overrides returns Hydra's Override of each KEY=VALUE", "orchestration/settings.py")
def test_dvc_has_hydra_read_a_setting():
    from dvc.utils.hydra import to_hydra_overrides

    [setting] = to_hydra_overrides(["+a.b=[1,2]"])
    assert (setting.key_or_group, setting.value(), setting.is_add()) == ("a.b", [1, 2], True)


@contract(
    "prefect",
    "begin_transaction of the configuration that set_database_config was given begins every transaction",
    "orchestration/prefect/app.py",
)
def test_prefect_takes_another_database_configuration(tmp_path):
    from prefect.server.database import provide_database_interface
    from prefect.server.database.dependencies import temporary_database_config

    from orchestration.prefect.app import WritingSqliteConfiguration

    async def read_in_a_transaction(config: Any) -> None:
        from sqlalchemy import text

        engine = await config.engine()
        async with await config.session(engine) as session, config.begin_transaction(session):
            await session.execute(text("SELECT 1"))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                sqlite3.connect(tmp_path / "prefect.db", timeout=0).execute("BEGIN IMMEDIATE")

    config = WritingSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/prefect.db")
    with temporary_database_config(config):
        assert provide_database_interface().database_config is config
    asyncio.run(read_in_a_transaction(config))


@contract("prefect", "create_app takes `ephemeral` and `final`", "orchestration/prefect/app.py")
def test_prefect_makes_a_server_without_services_and_pages():
    from prefect.server.api.server import create_app

    assert {"ephemeral", "final"} <= {*inspect.signature(create_app).parameters}


@contract("prefect", "Prefect reads these variables of a server", "orchestration/prefect/server.py")
def test_prefect_knows_the_variables_of_our_servers(monkeypatch, tmp_path):
    from prefect.settings import PREFECT_HOME, Settings, temporary_settings

    from config.retention import Retention
    from orchestration.prefect.server import server_environment, vacuum_environment

    with temporary_settings({PREFECT_HOME: tmp_path}):
        environment = server_environment(1234, pages=False)
        environment |= vacuum_environment(Retention(runs_days=30, events_days=7))
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    for name in [name for name in environment if name.startswith("PREFECT_")]:
        monkeypatch.setenv(name, environment[name])
    server = Settings().server
    assert not server.ui.enabled
    assert not server.analytics_enabled
    assert not server.services.event_persister.enabled
    assert not server.services.triggers.enabled
    assert server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert (server.services.db_vacuum.retention_period.days, server.events.retention_period.days) == (30, 7)
    assert server.services.task_run_recorder.batch_size == 1000
    assert server.services.task_run_recorder.flush_interval == 1
    assert (server.api.host, server.api.port) == ("127.0.0.1", 1234)
    assert server.api.cors_allowed_origins == "http://127.0.0.1:1234,http://localhost:1234"
    assert server.ui.api_url == "http://127.0.0.1:1234/api"
    secret = environment["PREFECT_SERVER_API_AUTH_STRING"]
    assert [found.get_secret_value() for found in (server.api.auth_string, Settings().api.auth_string)] == [secret] * 2


@contract(
    "prefect",
    "hydrated_context({'flow_run_context': {flow, flow_run, start_time, result_store}}) makes it the parent",
    "orchestration/command_line.py",
)
def test_prefect_hydrates_a_parent_run_from_a_dict():
    from prefect import flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.context import FlowRunContext, hydrated_context
    from prefect.results import ResultStore

    parent = FlowRun(id=uuid4(), flow_id=uuid4(), name="parent")
    context = {
        "flow": flow(name="ours")(lambda: None),
        "flow_run": parent,
        "start_time": datetime.now(UTC),
        "result_store": ResultStore(),
    }
    client = SyncPrefectClient("http://127.0.0.1:9/api")  # nobody is asked
    with hydrated_context({"flow_run_context": context}, client=client):
        found = FlowRunContext.get()
        assert found
        assert found.flow_run
        assert found.flow_run.id == parent.id
    assert FlowRunContext.get() is None


@contract(
    "prefect",
    "get_and_submit_flow_runs starts what is due; a run's process has its id in PREFECT__FLOW_RUN_ID",
    "orchestration/prefect/worker.py",
    "orchestration/prefect/dead_runs.py",
)
def test_prefects_worker_asks_for_runs_by_a_method_and_names_a_run_in_its_environment():
    from prefect.client.schemas.objects import FlowRun
    from prefect.workers.base import BaseJobConfiguration
    from prefect.workers.process import ProcessWorker

    from orchestration.prefect.dead_runs import RUN_ID

    run = FlowRun(id=UUID(int=7), flow_id=uuid4(), name="a run")
    assert inspect.iscoroutinefunction(ProcessWorker.get_and_submit_flow_runs)
    assert BaseJobConfiguration._base_flow_run_environment(run)[RUN_ID] == str(run.id)


@pytest.fixture
def network() -> Any:
    """A compiled network of one number to one number, whose layers draw nothing that a test depends on."""
    import keras

    given = keras.Input((4, 4, 1), name="picture")
    path = keras.layers.Conv2D(2, 3, name="look")(given)
    path = keras.layers.Dropout(0.5, name="drop")(keras.layers.Flatten(name="flatten")(path))
    model = keras.Model(given, keras.layers.Dense(1, name="output")(path))
    model.compile(optimizer="sgd", loss="mean_squared_error")
    return model


@contract(
    "keras",
    "fit calls train_function and test_function, iterator to logs, and leaves those that are set",
    "tasks/training/fused_steps.py",
)
def test_keras_keeps_the_functions_of_an_epoch_that_are_set(network):
    import numpy as np

    called = []

    def function(kind: str) -> Any:
        return lambda iterator: called.append((kind, next(iterator)[0].shape[0])) or {"loss": np.float32(7)}

    x, y = np.zeros((3, 4, 4, 1), np.float32), np.zeros((3, 1), np.float32)
    train, test = function("train"), function("test")
    network.train_function, network.test_function = train, test
    network.make_train_function()
    network.make_test_function()
    assert (network.train_function, network.test_function) == (train, test)
    history = network.fit(x, y, batch_size=3, validation_data=(x, y), validation_batch_size=3, verbose=0)
    assert called == [("train", 3), ("test", 3)]
    assert {*history.history} == {"loss", "val_loss"}


@contract("keras", "Dropout draws from a variable seed_generator_state", "tasks/training/shuffling.py")
def test_keras_names_the_state_of_random_layers(network):
    import numpy as np

    [state] = [found for found in network.variables if found.name.startswith("seed_generator_state")]
    layer, ones = network.get_layer("drop"), np.ones((1, 64), np.float32)
    drawn = []
    for _ in range(2):
        state.assign(np.array([3, 5]))
        drawn.append(np.asarray(layer(ones, training=True)))
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != np.asarray(layer(ones, training=True))).any()


@contract(
    "keras",
    "get_config has `inbound_nodes` with `keras_history` of each layer; a conversion is a ConvertToTensor",
    "tasks/publishing/architecture.py",
)
def test_keras_writes_who_reads_whom_into_a_config(network):
    import keras

    from tasks.publishing.architecture import history_names, is_conversion

    reads = {entry["name"]: [*history_names(entry["inbound_nodes"])] for entry in network.get_config()["layers"]}
    assert reads == {
        "picture": [],
        "look": ["picture"],
        "flatten": ["look"],
        "drop": ["flatten"],
        "output": ["drop"],
    }
    given = keras.Input((2,), dtype="float64")
    converted = keras.Model(given, keras.ops.convert_to_tensor(given, dtype="float32"))
    assert [is_conversion(operation) for operation in converted.operations] == [False, True]


@contract("keras", "a layer runs `call`, also one set on the instance", "tasks/publishing/architecture.py")
def test_keras_calls_a_layer_by_the_call_that_is_set_on_it(network):
    import numpy as np

    seen = []
    layer = network.get_layer("look")
    call = layer.call
    layer.call = lambda inputs: seen.append(inputs.shape) or call(inputs)
    network(np.zeros((1, 4, 4, 1), np.float32), training=False)
    del layer.call
    assert seen == [(1, 4, 4, 1)]
    assert layer.call == call


@contract(
    "keras",
    "BackupAndRestore writes the number of epochs done into training_metadata.json",
    "tasks/training/checkpoints.py",
)
def test_keras_writes_the_epoch_of_a_backup(network, tmp_path):
    import keras

    callback = keras.callbacks.BackupAndRestore(str(tmp_path / "last"), double_checkpoint=True)
    callback.set_model(network)
    callback.on_train_begin()
    callback.on_epoch_end(1)
    assert json.loads((tmp_path / "last/training_metadata.json").read_text())["epoch"] == 2


@contract(
    "scikit-learn", "_validate_params raises ValueError for an argument out of range", "tasks/reference/baselines.py"
)
def test_scikit_learn_refuses_arguments_before_a_fit():
    from sklearn.neural_network import MLPClassifier

    MLPClassifier()._validate_params()
    with pytest.raises(ValueError, match="alpha"):
        MLPClassifier(alpha=-1)._validate_params()


@contract("scikit-learn", "_california_housing.ARCHIVE.url", "datasets/california_housing.py")
def test_scikit_learn_says_where_it_fetches_california_housing():
    from sklearn.datasets import _california_housing

    assert _california_housing.ARCHIVE.url.startswith("http")
