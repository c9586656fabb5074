"""Fixtures that tests share: workspaces on the sample, repositories that are trained once, and one Prefect server."""

import compileall
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from runtime.packages import PACKAGES
from tests.support.searches import put_search
from tests.support.servers import start_server
from tests.support.warm_python import WarmRun, warm_python
from tests.support.workspaces import (
    DVC,
    FEW_MODELS,
    MIGRATED,
    PIPELINE,
    TWO_MODELS,
    build_once,
    clone,
    make_repository,
    make_workspace,
    migrate,
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell starts what it runs in the background with SIGINT ignored, which every process below would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` takes the first, by --hypothesis-profile.
hypothesis_settings.register_profile("fast", max_examples=25, deadline=None)
hypothesis_settings.register_profile("whole", deadline=None)
hypothesis_settings.load_profile("whole")

TESTS = Path(__file__).parent
SHARES = 6
SLOW_TIERS = ("integration", "e2e")
SLOW_SECONDS = 300  # a test of several processes, where two workers share a core
# A test that needs one of these may have to wait until it is trained.
BUILT = {"trained", "two_models", "two_models_by_dvc"}
BUILD_SECONDS = 900


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a space in its path, which is also the current directory."""
    folder = make_workspace(tmp_path / "a workspace")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def prepared_data(shared: Path) -> Path:
    """A folder with data/raw and data/prepared of every data set, made by the plain functions."""
    return build_once(shared / "prepared", make_prepared) / "data"


def make_prepared(folder: Path) -> None:
    from config import paths
    from config.params import load_params
    from datasets import get_dataset
    from tasks.preparation.ingest import fetch, provenance, write_raw
    from tasks.preparation.prepare import prepare, write_prepared

    make_workspace(folder)
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


@pytest.fixture
def prepared(workspace: Path, prepared_data: Path) -> Path:
    """A workspace in which every data set is ingested and prepared."""
    shutil.copytree(prepared_data, workspace / "data", dirs_exist_ok=True)
    return workspace


@pytest.fixture(scope="session")
def api_url(shared: Path) -> str:
    """The address of a real Prefect server, as a user's own: it asks for no secret. It ends with this run of tests."""
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()

    def build(folder: Path) -> None:
        folder.mkdir()
        (folder / "address").write_text(start_server(folder, run)[0])

    return (build_once(shared / "server", build) / "address").read_text()


@pytest.fixture(scope="session")
def environment(shared: Path) -> dict[str, str]:
    """The environment of commands that start a server of their own: our Python, and a home that nobody may touch."""
    MIGRATED[:] = [build_once(shared / "database", migrate) / "prefect.db"]
    home = shared / "home"
    home.mkdir(exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    author = {
        f"GIT_{role}_{what}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    own = {"PATH": path, "HOME": str(home), "DVC_SITE_CACHE_DIR": str(shared / "dvc")}
    given = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return {**given, **author, **own}


@pytest.fixture(scope="session")
def settings(environment: dict[str, str], api_url: str) -> dict[str, str]:
    """The same with the shared server."""
    return {**environment, "PREFECT_API_URL": api_url}


# Each repository is trained once a run, for all workers. A test that changes one gets a copy.


@pytest.fixture(scope="session")
def trained(shared: Path, settings: dict[str, str]) -> Path:
    """A git and DVC repository after one run of the pipeline flow, which no test changes.

    Its models are in all formats, and one has a search.
    """
    search = partial(put_search, trials=4, finalists=1, seeds=[1])

    def build(folder: Path) -> None:
        make_repository(folder, settings, PIPELINE, FEW_MODELS, ["litert", "onnx"], search)

    return build_once(shared / "trained", build)


@pytest.fixture(scope="session")
def two_models(shared: Path, settings: dict[str, str]) -> Path:
    """The same of linear_neuron and iris_mlp alone."""
    return build_once(shared / "two models", lambda folder: make_repository(folder, settings, PIPELINE, TWO_MODELS))


@pytest.fixture(scope="session")
def two_models_by_dvc(shared: Path, settings: dict[str, str]) -> Path:
    """The same after one `dvc repro`."""
    command = [*DVC, "repro"]
    return build_once(shared / "by dvc", lambda folder: make_repository(folder, settings, command, TWO_MODELS))


@pytest.fixture
def repo(trained: Path, tmp_path: Path) -> Path:
    """A git and DVC repository after one run of the pipeline flow."""
    return clone(trained, tmp_path / "a repository")


@pytest.fixture
def small(two_models: Path, tmp_path: Path) -> Path:
    """A git and DVC repository of linear_neuron and iris_mlp after one run of the pipeline flow."""
    return clone(two_models, tmp_path / "two models")


@pytest.fixture(scope="module")
def clean_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmRun]:
    """Run programs in processes that have nothing but TensorFlow, and none of our code."""
    with warm_python(tmp_path_factory.mktemp("warm"), "numpy", "pyarrow.parquet", "tensorflow") as run:
        yield run


@pytest.fixture(scope="module")
def warm_scores(clean_tensorflow) -> Iterator[None]:
    """Let `score` start its clean processes from one that has imported TensorFlow."""
    from tasks.promotion import score

    def run(program: str, arguments: list[str], folder: Path) -> tuple[int, str]:
        done = clean_tensorflow(program, arguments, folder, {**os.environ})
        return done.returncode, done.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "run_isolated", run)
        yield


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def dvc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc init --no-scm` makes."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("dvc")
    Repo.init(str(folder), no_scm=True).close()
    return folder / ".dvc"


@pytest.fixture
def dvc_workspace(workspace: Path, dvc_folder: Path) -> Path:
    shutil.copytree(dvc_folder, workspace / ".dvc")
    return workspace


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


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Mark each test with its tier, the name of its folder, and give those of a slow one more time.

    With `--share N`, only every sixth of the tests that rotate stays.
    """
    share = config.getoption("--share")
    if share is not None:
        rotating = [item for item in items if item.get_closest_marker("rotates")]
        others = {item for number, item in enumerate(rotating) if number % SHARES != share % SHARES}
        config.hook.pytest_deselected(items=[*others])
        items[:] = [item for item in items if item not in others]
    reason = "needs the real data sets: set TFDS_DATA_DIR and SCIKIT_LEARN_DATA, or `make repro` once"
    skip = None if has_real_data() else pytest.mark.skip(reason=reason)
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier in SLOW_TIERS:
            item.add_marker(tier)
        if skip and item.get_closest_marker("real_data"):
            item.add_marker(skip)
        if tier in SLOW_TIERS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS if BUILT & {*item.fixturenames} else SLOW_SECONDS))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=1, help="how often test_retrain_killed.py kills a run")
    parser.addoption("--kill-seed", type=int, default=0, help="of the moments of these kills")
    parser.addoption("--share", type=int, help="which sixth of the tests that rotate runs, by any number")
    parser.addoption("--batches", type=int, default=100, help="how many batches test_real_drift.py draws for a share")


def pytest_configure(config: pytest.Config) -> None:
    """Compile our code once, for the many processes that import a copy of it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for name in PACKAGES:
            compileall.compile_dir(TESTS.parent / name, quiet=2)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a text that is too long for a list of tests by its beginning."""
    return f"{val[:40]!r} and {len(val) - 40} more" if isinstance(val, str) and len(val) > 100 else None
