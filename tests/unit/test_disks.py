"""Folders on other disks, of other users, no files in a file's place: outputs are whole, or one message says why."""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

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
from tests.support.workspaces import ROOT, contents


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


def test_an_output_behind_a_link_out_of_git_is_refused_before_the_stage_works(linked, tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    publish("by hand")
    monkeypatch.setenv("DVC_STAGE", "train@m")
    with pytest.raises(UserError, match=r"artifacts is a symbolic link.*mount --bind"):
        publish("by DVC")


# Folders that cannot be written


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
    shutil.copy(ROOT / ".dvcignore", workspace)
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
