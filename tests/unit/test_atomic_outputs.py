"""Outputs appear whole or not at all."""

import contextlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from runtime.atomic_outputs import atomic_files, atomic_folder
from runtime.errors import UserError
from tasks.data.files import read_json, read_table, write_json


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def publish(text: str) -> None:
    with atomic_folder(Path("artifacts/m")) as folder:
        (folder / "file").write_text(text)


def test_what_a_stage_makes_is_replaced_whole():
    with atomic_folder(Path("artifacts/m")) as folder:
        (folder / "file").mkdir()
        (folder / "file/old").write_text("old")
    publish("new")
    assert Path("artifacts/m/file").read_text() == "new"


def test_files_that_the_stage_did_not_make_are_kept():
    publish("old")
    Path("artifacts/m/notes.txt").write_text("mine")
    Path("artifacts/m/own/deep").mkdir(parents=True)
    Path("artifacts/m/own/deep/file").write_text("mine, too")
    publish("new")
    assert Path("artifacts/m/file").read_text() == "new"
    assert Path("artifacts/m/notes.txt").read_text() == "mine"
    assert Path("artifacts/m/own/deep/file").read_text() == "mine, too"


def test_a_folder_that_is_one_output_is_not_replaced_over_files_of_the_user():
    with atomic_folder(Path("data/prepared/iris"), others="refuse") as folder:
        (folder / "train.parquet").write_text("old")
    Path("data/prepared/iris/notes.txt").write_text("mine")
    with (
        pytest.raises(UserError, match=r"data/prepared/iris holds notes\.txt"),
        atomic_folder(Path("data/prepared/iris"), others="refuse") as folder,
    ):
        (folder / "train.parquet").write_text("new")
    assert Path("data/prepared/iris/notes.txt").read_text() == "mine"
    assert Path("data/prepared/iris/train.parquet").read_text() == "old"


def test_a_failure_leaves_the_previous_folder_and_no_rubbish():
    publish("before")
    with contextlib.suppress(RuntimeError), atomic_folder(Path("artifacts/m")) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert Path("artifacts/m/file").read_text() == "before"
    assert not [entry for entry in Path(".staging").iterdir() if entry.is_dir()]


def test_files_are_moved_beside_those_of_others():
    for name in ("a", "b"):
        with atomic_files(Path("data/raw"), name) as folder:
            (folder / f"{name}.json").write_text(name)
    assert sorted(file.name for file in Path("data/raw").iterdir()) == ["a.json", "b.json"]


def killed_in_the_middle() -> None:
    with atomic_folder(Path("artifacts/m")) as folder:
        (folder / "file").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_after_a_kill_the_previous_folder_is_there_and_the_next_run_succeeds():
    publish("before")
    process = multiprocessing.get_context("fork").Process(target=killed_in_the_middle)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert Path("artifacts/m/file").read_text() == "before"
    publish("after")
    assert Path("artifacts/m/file").read_text() == "after"


def test_an_interrupt_between_the_two_renames_puts_the_previous_folder_back(monkeypatch):
    publish("before")
    rename = Path.replace

    def interrupted(self, target):
        if self.name == "new" and Path(target).name == "m":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        publish("after")
    assert Path("artifacts/m/file").read_text() == "before"


def test_a_kill_between_the_two_renames_is_mended_by_the_next_run():
    publish("before")
    Path(".staging/artifacts-m").mkdir()
    Path("artifacts/m").rename(".staging/artifacts-m/old")
    with contextlib.suppress(RuntimeError), atomic_folder(Path("artifacts/m")):
        raise RuntimeError
    assert Path("artifacts/m/file").read_text() == "before"


def killed_between_two_parts() -> None:
    rename = Path.replace

    def killed(self, target):
        if self.name == "b" and self.parent.name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = killed  # type: ignore[method-assign]  # of the forked process alone
    publish_parts("new")


def publish_parts(text: str) -> None:
    with atomic_files(Path("data/raw"), "d") as folder:
        for name in ("a", "b"):
            (folder / name).write_text(text)


def test_files_that_belong_together_come_back_together_after_a_kill_between_them():
    publish_parts("old")
    process = multiprocessing.get_context("fork").Process(target=killed_between_two_parts)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with contextlib.suppress(RuntimeError), atomic_files(Path("data/raw"), "d"):
        raise RuntimeError
    assert {file.name: file.read_text() for file in Path("data/raw").iterdir()} == {"a": "old", "b": "old"}


def test_files_that_belong_together_stay_together_where_one_cannot_be_moved(monkeypatch):
    publish_parts("old")
    rename = Path.replace

    def failing(self, target):
        if self.name == "b" and self.parent.name == "new":
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(PermissionError):
            publish_parts("new")
    assert {file.name: file.read_text() for file in Path("data/raw").iterdir()} == {"a": "old", "b": "old"}


def test_two_writers_of_one_output_exclude_each_other():
    with atomic_folder(Path("artifacts/m")), pytest.raises(UserError, match="being written by another run"):
        publish("second")


def test_a_missing_or_damaged_file_names_the_stage_that_makes_it():
    with pytest.raises(UserError, match=r"x\.json not found\. Run `dvc repro prepare@iris`"):
        read_json(Path("x.json"), "prepare@iris")
    Path("x.json").write_text("{")
    with pytest.raises(UserError, match=r"not valid JSON.*dvc repro --force prepare@iris"):
        read_json(Path("x.json"), "prepare@iris")
    Path("x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"x\.parquet is not a readable Parquet file"):
        read_table(Path("x.parquet"), "ingest@iris")
    with pytest.raises(UserError, match=r"y\.parquet not found"):
        read_table(Path("y.parquet"), "ingest@iris")


def test_json_refuses_nan_rather_than_write_what_others_cannot_read():
    with pytest.raises(ValueError, match="JSON"):
        write_json(Path("x.json"), {"loss": float("nan")})
