"""Folders on other disks, of other users, no files in a file's place: outputs are whole, or one message says why."""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import DVC, contents, make_workspace

from config import paths
from config.params import load_params
from datasets import get_dataset
from flows import demo
from orchestration.dvc.graph import read_plan
from orchestration.dvc.state import USERS, is_broken, repair_dvc_state
from orchestration.workspace_lock import WORKSPACE_LOCK, exclusive_workspace
from runtime.atomic_outputs import atomic_files, atomic_folder, write_text
from runtime.disk import explain
from runtime.errors import UserError
from tasks.data.normalization import read_normalization
from tasks.data.raw import read_provenance, read_raw
from tasks.report.read import read_artifacts
from tasks.training.checkpoints import open_checkpoints

MEMORY = Path("/dev/shm")


@pytest.fixture
def other_disk(tmp_path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def dvc_folder(tmp_path_factory) -> Path:
    """What `dvc init --no-scm` makes."""
    folder = tmp_path_factory.mktemp("dvc")
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    return folder / ".dvc"


@pytest.fixture
def dvc_workspace(workspace, dvc_folder) -> Path:
    shutil.copytree(dvc_folder, workspace / ".dvc")
    return workspace


@pytest.fixture
def mounting() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount (root)")


def in_mounts(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a shell script that may mount what nobody else sees. $PYTHON: the interpreter."""
    settings = {**os.environ, "PYTHON": sys.executable, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["unshare", "--mount", "sh", "-ec", script]
    return subprocess.run(
        command, cwd=folder, env=settings | environment, capture_output=True, text=True, check=False, timeout=900
    )


def hidden_folders(folder: Path) -> list[Path]:
    return list(folder.rglob(paths.STAGING.name))


# Outputs on another disk


@pytest.fixture
def linked(other_disk, tmp_path, monkeypatch) -> Path:
    """A workspace whose `artifacts` lies on another disk."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").symlink_to(other_disk)
    return other_disk


def publish(text: str) -> None:
    with atomic_folder(Path("artifacts/m")) as folder:
        (folder / "file").write_text(text)


def test_a_folder_on_another_disk_is_replaced_whole(linked):
    for text in ("old", "new"):
        publish(text)
    assert contents(linked) == {str(linked / "m/file"): b"new"}
    assert Path("artifacts").is_symlink()


def test_a_folder_that_is_a_link_to_another_disk_stays_one(other_disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    (other_disk / "m").mkdir()
    Path("artifacts/m").symlink_to(other_disk / "m")
    publish("new")
    assert Path("artifacts/m").is_symlink()
    assert contents(other_disk) == {str(other_disk / "m/file"): b"new"}


def test_files_on_another_disk_are_replaced_together(linked):
    for text in ("old", "new"):
        with atomic_files(Path("artifacts"), "d") as folder:
            for name in ("a", "b"):
                (folder / name).write_text(text)
    assert contents(linked) == {str(linked / name): b"new" for name in ("a", "b")}
    assert not hidden_folders(linked)


def killed_while_copying() -> None:
    copy = shutil.copytree

    def killed(source, target, **kwargs):
        copy(source, target, **kwargs)
        if Path(target).name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return target

    shutil.copytree = killed
    publish("half")


def test_what_a_kill_leaves_on_another_disk_is_removed_by_the_next_run(linked):
    publish("old")
    process = multiprocessing.get_context("fork").Process(target=killed_while_copying)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert Path("artifacts/m/file").read_text() == "old"
    assert hidden_folders(linked)
    publish("new")
    assert contents(linked) == {str(linked / "m/file"): b"new"}
    assert not hidden_folders(linked)


def test_a_file_is_replaced_whole_where_the_staging_is_on_another_disk(other_disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.STAGING.symlink_to(other_disk)
    for text in ("old", "new"):
        write_text(Path("dvc.lock"), text)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [paths.STAGING.name, "dvc.lock"]
    assert Path("dvc.lock").read_text() == "new"


@pytest.mark.parametrize("kind", ["another disk", "the same disk"])
def test_a_folder_that_is_a_mount_point_gets_its_new_content(mounting, other_disk, workspace, tmp_path, kind):
    source = other_disk if kind == "another disk" else tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "notes.txt").write_text("mine")
    (source / "file").write_text("old")
    code = "from tests_of_disks import publish; publish('new')"
    (workspace / "tests_of_disks.py").write_text(
        "from pathlib import Path\nfrom runtime.atomic_outputs import atomic_folder\n"
        "def publish(text):\n    with atomic_folder(Path('artifacts/m')) as folder:\n"
        "        (folder / 'file').write_text(text)\n        (folder / 'another').write_text(text)\n"
    )
    (workspace / "artifacts/m").mkdir(parents=True)
    done = in_mounts(f'mount --bind \'{source}\' artifacts/m; exec "$PYTHON" -c "{code}"', workspace)
    assert done.returncode == 0, done.stderr
    found = {file.name: file.read_text() for file in source.iterdir()}
    assert found == {"notes.txt": "mine", "file": "new", "another": "new"}


def test_the_pipeline_runs_where_every_folder_is_a_disk_of_its_own(mounting, other_disk, tmp_path):
    workspace = make_workspace(tmp_path / "ws")
    shutil.copy(Path(__file__).parents[1] / ".dvcignore", workspace)
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=workspace, check=True)
    mounts = []
    for name in (
        "data",
        "artifacts",
        "logs",
        "checkpoints",
        "reports",
        ".staging",
        ".prefect",
        ".dvc/cache",
        ".dvc/tmp",
    ):
        (workspace / name).mkdir(exist_ok=True)
        (other_disk / name).mkdir(parents=True)
        mounts.append(f"mount --bind '{other_disk / name}' {name}")
    run = '"$PYTHON" -m flows.pipeline train@iris_perceptron'
    script = "\n".join([*mounts, run, f"{run} --force", run, '"$PYTHON" -m dvc status train@iris_perceptron'])
    done = in_mounts(script, workspace, PREFECT_API_URL="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("3 stages: 3 unchanged.") == 1
    assert "up to date" in done.stdout
    assert (other_disk / "artifacts/iris_perceptron/model.keras").exists()
    assert not [found for found in hidden_folders(other_disk) if found != other_disk / paths.STAGING.name]


def test_an_output_behind_a_link_out_of_git_is_refused_before_the_stage_works(linked, tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    publish("by hand")
    monkeypatch.setenv("DVC_STAGE", "train@m")
    with pytest.raises(UserError, match=r"artifacts is a symbolic link.*mount --bind"):
        publish("by DVC")


# Folders that cannot be written


def run_plainly(folder: Path, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Run `python -m WORDS` with a server of its own; before: what starts it."""
    command = [*before, sys.executable, "-B", "-m", *words]
    settings = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=900)


def assert_one_message(done: subprocess.CompletedProcess, *told: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1, done.stderr
    assert len(errors) == 1, done.stderr
    assert all(words in errors[0] for words in told), errors[0]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [("flows.ingest", "iris"), ("flows.pipeline",), ("flows.demo",)])
def test_a_read_only_workspace_is_told_with_folder_and_remedy(mounting, workspace, words):
    script = f'mount --bind . .; mount -o remount,bind,ro .; cd "$PWD"; exec "$PYTHON" -B -m {" ".join(words)}'
    done = in_mounts(script, workspace, PREFECT_API_URL="")
    assert_one_message(done, str(workspace), "Read-only file system", "Mount it for writing")


# As another user: root without the right to go past the modes of files, since the interpreter may be root's alone.
NO_PASS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.fixture
def of_another_user(other_disk) -> Path:
    """A workspace that belongs to another user than the one whom `NO_PASS` leaves us."""
    if os.geteuid() or subprocess.run([*NO_PASS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs another user (root, setpriv)")
    workspace = make_workspace(other_disk / "ws")
    for entry in (workspace, *workspace.rglob("*")):
        os.chown(entry, 65534, 65534)
    return workspace


@pytest.mark.parametrize("words", [("flows.ingest", "iris"), ("flows.pipeline",), ("flows.demo",)])
def test_a_workspace_of_another_user_is_told_with_folder_and_remedy(of_another_user, words):
    done = run_plainly(of_another_user, *words, before=NO_PASS)
    assert_one_message(done, str(of_another_user), "Permission denied", "chown, chmod")


def test_a_folder_of_another_user_is_told_before_the_work(of_another_user):
    os.chown(of_another_user, 0, 0)
    (of_another_user / "data/raw").mkdir(parents=True)
    os.chown(of_another_user / "data/raw", 65534, 65534)
    done = run_plainly(of_another_user, "flows.ingest", "iris", before=NO_PASS)
    assert_one_message(done, str(of_another_user / "data/raw"), "Permission denied", "chown, chmod")
    assert not [*(of_another_user / "data/raw").iterdir()]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device", "artifacts/m"), r"no space left on the disk: artifacts/m.*Free some"),
        (OSError(122, "Disk quota exceeded", "x"), "quota"),
        (OSError(30, "Read-only file system", "x"), "Mount it for writing"),
        (PermissionError(13, "Permission denied", "x"), "chown, chmod"),
        (OSError(36, "File name too long", "x" * 300), "shorter"),
        (NotADirectoryError(20, "Not a directory", "artifacts/m"), "file that lies in a folder's place"),
        (OSError("[Errno 28] Unable to write (errno = 28, error message = 'No space left on device')"), "Free some"),
        (OSError("Unable to create file (errno = 13, error message = 'Permission denied')"), "chown, chmod"),
        (RuntimeError("artifacts/m/x.index; Permission denied"), "chown, chmod"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "Free some"),
    ],
)
def test_what_a_disk_refuses_is_told_with_its_remedy(error, told):
    outer = RuntimeError("a library's own words")
    outer.__cause__ = error
    for found in (error, outer):
        explained = explain(found)
        assert explained
        assert "\n" not in explained
        assert re.search(told, explained)


@pytest.mark.parametrize(
    "error", [PermissionError(1, "Operation not permitted"), ConnectionRefusedError(111, "x"), KeyError("x")]
)
def test_other_errors_keep_their_traceback(error):
    assert explain(error) is None


FILLING = """
import shutil, subprocess, sys
from pathlib import Path
from config import paths
from runtime.disk import explain
from datasets import get_dataset
from runtime.atomic_outputs import atomic_files, atomic_folder
from tasks.preparation.ingest import fetch, write_raw

def publish(source_rows, text):
    with atomic_files(paths.RAW, "iris") as folder:
        write_raw(dataset, "sample", table.slice(0, source_rows), folder)
    with atomic_folder(Path("data/own")) as folder:
        for name in "ab":
            (folder / name).write_text(text * 3000)

dataset = get_dataset("iris")
table = fetch(dataset, "sample")
whole = full = 0
for kilobytes in range(16, 104, 4):
    Path("data").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", sys.argv[1]], check=True)
    try:
        publish(100, "old")
        kept = {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()}
        assert len(kept) == 4, kept
        try:
            publish(150, "newer")
            whole += 1
        except OSError as error:
            assert "no space left on the disk" in explain(error), error
            full += 1
        found = {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()}
        assert found.keys() == kept.keys(), found.keys()
        for group in ("raw", "own"):
            same = {found[file] == kept[file] for file in kept if group in file.parts}
            assert len(same) == 1, (kilobytes, group)
    except OSError as error:
        assert "no space left" in explain(error), error
    finally:
        subprocess.run(["umount", sys.argv[1]], check=True)
        shutil.rmtree(paths.STAGING, ignore_errors=True)
        paths.STAGING.mkdir()
print(whole, full)
"""


@pytest.mark.parametrize("disk", ["data", ".staging"])
def test_a_disk_that_is_full_at_any_moment_leaves_old_or_new_files_and_no_mixture(mounting, workspace, disk):
    paths.STAGING.mkdir()
    (workspace / "filling.py").write_text(FILLING)
    done = in_mounts(f'exec "$PYTHON" filling.py {disk}', workspace)
    assert done.returncode == 0, done.stderr
    whole, full = map(int, done.stdout.split())
    assert whole
    assert full


# Other things in the place of a file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def listener(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(before)


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def circular(path: Path) -> None:
    path.symlink_to(path.name)


def loads_params() -> None:
    load_params()


def claims() -> None:
    with exclusive_workspace():
        pass


def reads_plan() -> None:
    read_plan([])


def ingests() -> None:
    with atomic_files(paths.RAW, "iris"):
        pass


READERS = [
    (paths.PARAMS, loads_params),
    (WORKSPACE_LOCK, claims),
    (Path("prefect.yaml"), claims),
    (Path("dvc.lock"), reads_plan),
    (Path("dvc.yaml"), reads_plan),
    (USERS, reads_plan),
    (paths.STAGING / "data-raw-iris.lock", ingests),
    (paths.raw_provenance("iris"), lambda: read_provenance(get_dataset("iris"))),
    (paths.raw_table("iris"), lambda: read_raw(get_dataset("iris"), "")),
    (paths.PREPARED / "iris/normalization.json", lambda: read_normalization("iris")),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [fifo, folder, listener, dangling, circular])
@pytest.mark.parametrize(("path", "read"), READERS, ids=[str(path) for path, _ in READERS])
def test_what_is_no_file_is_told_by_name_and_never_waited_for(dvc_workspace, path, read, make):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(UserError, match=rf"^{path}.*(Move it away|remove|Remove)") as told:
        read()
    assert "\n" not in str(told.value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "path", [paths.raw_table("iris"), paths.PREPARED / "iris/x", paths.ARTIFACTS / "m/metrics.json"]
)
def test_dvc_is_not_given_a_fifo_to_read(dvc_workspace, path):
    path.parent.mkdir(parents=True)
    fifo(path)
    with pytest.raises(UserError, match=rf"^{path} is a FIFO"):
        read_plan([])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [fifo, Path.touch, dangling, circular])
@pytest.mark.parametrize("name", ["data", "artifacts", "logs", "reports", ".staging", ".prefect"])
def test_what_is_no_folder_is_told_by_name(workspace, name, make):
    make(Path(name))
    with pytest.raises(UserError, match=rf"^{name}.*(Move it away|remove|Remove)"):
        claims()


def test_the_report_tells_of_what_is_no_file(workspace):
    Path("artifacts/iris_mlp").mkdir(parents=True)
    for name in ("metrics.json", "history.csv", "predictions.parquet"):
        fifo(Path("artifacts/iris_mlp") / name)
    assert sum("is a FIFO" in told for told in read_artifacts("iris_mlp").missing) == 3


# DVC's own files after a full disk


@pytest.mark.parametrize("text", ["", '{"read": {', "null", "[1]", '{"write": 3}', "\x00\xff", "[" * 100_000])
def test_a_broken_list_of_dvcs_users_is_mended_where_no_dvc_runs(dvc_workspace, text):
    USERS.write_text(text)
    assert "ingest@iris" in read_plan([]).order
    assert not is_broken(USERS)


def test_a_broken_list_of_dvcs_users_stays_while_dvc_runs(dvc_workspace):
    USERS.write_text("")
    (dvc_workspace / "dvc").write_text("import sys; sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "dvc", "repro"], cwd=dvc_workspace, stdin=subprocess.PIPE)
    try:
        with pytest.raises(UserError, match=rf"{USERS} is damaged.*process {other.pid}.*remove {USERS}"):
            repair_dvc_state()
    finally:
        with contextlib.suppress(BrokenPipeError):
            other.communicate(timeout=60)
    assert USERS.exists()


def test_a_healthy_list_of_dvcs_users_is_left_alone(dvc_workspace):
    USERS.write_text('{"read": {}, "write": {"/x": {"pid": 1, "cmd": "dvc repro"}}}')
    before = USERS.read_bytes()
    repair_dvc_state()
    assert USERS.read_bytes() == before


# Files of the user in the folders of the project


@pytest.mark.parametrize("name", ["notes.txt", "tasks/mine.py", "params.yaml"])
def test_a_folder_of_the_user_is_not_taken_for_the_demo(workspace, name):
    own = Path("demo") / name
    own.parent.mkdir(parents=True)
    own.write_text("mine: 1")
    with pytest.raises(UserError, match="demo holds other files than a workspace of this project"):
        demo.make_workspace(Path("demo"), 1)
    assert contents(Path("demo")) == {str(own): b"mine: 1"}


def test_a_demo_that_was_stopped_at_its_start_goes_on(workspace):
    shutil.copy(Path(__file__).parents[1] / ".dvcignore", workspace)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(demo, "copy_workspace", interrupted)
        demo.make_workspace(Path("demo"), 1)
    demo.make_workspace(Path("demo"), 1)
    assert load_params(Path("demo/params.yaml")).data.source == "sample"


def interrupted(folder: Path) -> None:
    raise KeyboardInterrupt


def test_files_of_the_user_among_the_checkpoints_stay(workspace):
    folder = Path("checkpoints/iris_mlp")
    (folder / "last").mkdir(parents=True)
    for name in (
        "best.keras",
        "epoch-0001.weights.h5",
        "history.csv",
        "last/x",
        "training.json",
        "notes.txt",
        "my.keras",
    ):
        (folder / name).write_text("{")
    open_checkpoints(load_params().model("iris_mlp"), 42, (), None, folder)
    assert sorted(entry.name for entry in folder.iterdir()) == ["my.keras", "notes.txt"]


# Paths


def test_a_model_is_trained_and_reported_in_a_folder_of_any_name(tmp_path, dvc_folder):
    workspace = make_workspace(tmp_path / "a [b] *?%20#'\"$HOME &;`\xe9\U0001f600")
    shutil.copytree(dvc_folder, workspace / ".dvc")
    done = run_plainly(workspace, "flows.pipeline", "train@linear_neuron")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace / "artifacts/linear_neuron/saved_model/saved_model.pb").exists()
    assert list((workspace / "logs/linear_neuron").rglob("events.out.tfevents.*"))
    done = run_plainly(workspace, "flows.report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace / "reports/models/linear_neuron.html").exists()


def test_a_path_that_dvc_cannot_work_in_is_refused_in_one_message(tmp_path):
    workspace = make_workspace(tmp_path / "a {b}")
    assert_one_message(run_plainly(workspace, "flows.ingest", "iris"), "'{'", "Move or rename it")
