"""What tests share: workspaces on the sample with a few epochs, and one Prefect server for all flows."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from ruamel.yaml import YAML

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell starts what it runs in the background with SIGINT ignored, which every process below would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
# Of each kind the quickest: several inputs, several outputs, subclassed, convolutional, ...
FEW_MODELS = (
    "linear_neuron",
    "iris_perceptron",
    "iris_mlp",
    "housing_mlp",
    "housing_wide_deep_aux",
    "housing_wide_deep_subclassed",
    "fashion_mlp",
    "multi_input_cnn",
)
FEW_LECTURE_RECIPES = ("housing_mlp", "housing_wide_deep_aux")
DVC = [sys.executable, "-m", "dvc"]


def edit_params(folder: Path, **values: object) -> None:
    """Set dotted keys of `folder/params.yaml`; a double underscore stands for the dot."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for dotted, value in values.items():
        *sections, key = dotted.split("__")
        section = params
        for name in sections:
            section = section[name]
        section[key] = value
    yaml.dump(params, folder / "params.yaml")


def make_workspace(folder: Path) -> Path:
    """Copy the code into `folder`, with parameters for the sample, one epoch a model, and two runs for parity."""
    from flows.demo import copy_workspace

    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        copy_workspace(folder)
    finally:
        os.chdir(before)
    params = YAML().load(folder / "params.yaml")
    short: dict[str, object] = {f"models__{name}__fit__epochs": 1 for name in params["models"]}
    for name in params["lecture_recipes"]:
        short |= {f"lecture_recipes__{name}__fit__epochs": 1, f"lecture_recipes__{name}__seeds": [42]}
    edit_params(folder, **short)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below `folder`, by path."""
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a space in its path, which is also the current directory."""
    folder = make_workspace(tmp_path / "a workspace")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/raw and data/prepared of every data set, made by the plain functions."""
    from config import paths
    from config.params import load_params
    from datasets import get_dataset
    from tasks.preparation.ingest import fetch, provenance, write_raw
    from tasks.preparation.prepare import prepare, write_prepared

    folder = make_workspace(tmp_path_factory.mktemp("prepared"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = load_params()
        paths.RAW.mkdir(parents=True)
        for name in params.datasets:
            dataset = get_dataset(name)
            raw = fetch(dataset, "sample")
            write_raw(dataset, "sample", raw, paths.RAW)
            paths.prepared_folder(name).mkdir(parents=True)
            made = prepare(dataset, params.dataset(name), raw, provenance(dataset, "sample", raw))
            write_prepared(made, paths.prepared_folder(name))
    return folder / "data"


@pytest.fixture
def prepared(workspace: Path, prepared_data: Path) -> Path:
    """A workspace in which every data set is ingested and prepared."""
    shutil.copytree(prepared_data, workspace / "data", dirs_exist_ok=True)
    return workspace


@pytest.fixture(scope="session")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server that lives as long as the tests, as a user's own: it asks for no secret."""
    home = tmp_path_factory.mktemp("prefect")
    with serve(home) as address:
        yield address


@contextmanager
def serve(home: Path, **settings: str) -> Iterator[str]:
    """Run a Prefect server that is none of a workspace's; settings: of Prefect, as environment variables."""
    from orchestration.environment import SERVER
    from orchestration.prefect.server import BARE, answers, bound_socket, stop

    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with bound_socket(None) as listener, (home / "server.log").open("w") as log:
        port, descriptor = listener.getsockname()[1], listener.fileno()
        words = [os.getpid(), home / "server", descriptor]
        supervisor = subprocess.Popen(  # which ends it even when the tests are killed
            [sys.executable, "-m", "orchestration.prefect.server", *map(str, words)],
            cwd=ROOT,
            env={**own, **BARE, SERVER: "1", "PREFECT_HOME": ".", "PREFECT_SERVER_ANALYTICS_ENABLED": "0", **settings},
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}/api"
        assert answers(address, 120), (home / "server.log").read_text()
        yield address
    finally:
        stop(supervisor)


@contextmanager
def open_ui(folder: Path, environment: dict[str, str], port: int | None = None) -> Iterator[httpx.Client]:
    """Run `python -m flows.ui` in a workspace and yield a client of its API; at the end no process of it is left."""
    from orchestration.prefect.server import free_port

    port = port or free_port()
    command = [sys.executable, "-m", "flows.ui", "--port", str(port)]
    log = folder / "ui.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + 240
    while "Prefect UI:" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        with sign_in(folder, f"http://127.0.0.1:{port}/api") as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=60)[1]


def sign_in(folder: Path, address: str) -> httpx.Client:
    """Return a client of the server of a workspace that knows its secret."""
    user, _, password = (folder / ".prefect" / "auth-string").read_text().partition(":")
    return httpx.Client(base_url=address, auth=(user, password), timeout=60)


@pytest.fixture(scope="session")
def settings(api_url, tmp_path_factory) -> dict[str, str]:
    """The environment of the commands: our server, our Python, and a home that nobody may touch."""
    home = tmp_path_factory.mktemp("home")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {
        f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return {**os.environ, **author, "PREFECT_API_URL": api_url, "PATH": path, "HOME": str(home)}


def keep_only(folder: Path, models: Collection[str]) -> None:
    """Leave in `folder/params.yaml` these models and what belongs to them; the demo and test_training have them all."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for section, kept in (
        ("models", models),
        ("notes", models),
        ("lecture_recipes", {*FEW_LECTURE_RECIPES} & {*models}),
    ):
        for name in [*params[section]]:
            if name not in kept:
                del params[section][name]
    used = {recipe["dataset"] for recipe in params["models"].values()}
    for name in {*params["datasets"]} - used:
        del params["datasets"][name]
    for name in [name for name, baseline in params["baselines"].items() if baseline["dataset"] not in used]:
        del params["baselines"][name]
    yaml.dump(params, folder / "params.yaml")


def make_repository(
    folder: Path, settings: dict[str, str], command: list[str], models: Collection[str] = FEW_MODELS
) -> Path:
    """Make `folder` a git and DVC repository, run `command` there, and commit; what it printed is in run.log."""
    make_workspace(folder)
    keep_only(folder, models)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    save = (["git", "add", "."], ["git", "commit", "--quiet", "-m", "a state"])
    for words in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"]):
        subprocess.run(words, cwd=folder, env=settings, check=True)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    for words in save:
        subprocess.run(words, cwd=folder, env=settings, check=True)
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "run.log").write_text(done.stdout + done.stderr)
    for words in save:
        subprocess.run(words, cwd=folder, env=settings, check=True)
    return folder


@pytest.fixture(scope="session")
def repo(tmp_path_factory, settings) -> Path:
    """A git and DVC repository after one `dvc repro`."""
    return make_repository(tmp_path_factory.mktemp("repo") / "with a space", settings, [*DVC, "repro"])


@pytest.fixture(scope="session")
def small(tmp_path_factory, settings) -> Path:
    """A git and DVC repository of two small models after one run of the pipeline flow."""
    folder = tmp_path_factory.mktemp("small") / "with a space"
    return make_repository(
        folder, settings, [sys.executable, "-m", "flows.pipeline"], models=("linear_neuron", "iris_mlp")
    )


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run_flow(workspace: Path, api_url: str) -> Run:
    """Run `python -m flows.NAME ...` in the workspace, against the shared server."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", f"flows.{words[0]}", *words[1:]]
        settings = {**os.environ, "PREFECT_API_URL": api_url, **environment}
        return subprocess.run(command, cwd=workspace, env=settings, capture_output=True, text=True, check=False)

    return run


def has_real_data() -> bool:
    fashion = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    housing = Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")).expanduser()
    return (fashion / "fashion_mnist/3.0.1/dataset_info.json").exists() and (housing / "cal_housing_py3.pkz").exists()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not has_real_data():
        reason = "needs the real data sets: set TFDS_DATA_DIR and SCIKIT_LEARN_DATA, or `make repro` once"
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason=reason))
