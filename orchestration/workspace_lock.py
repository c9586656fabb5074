"""The lock on a workspace: one run of the graph at a time, the flow's or `dvc repro`'s.

Each process that holds the lock has a record, `workspace.lock.PID`, from which others learn its name.
"""

import atexit
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from config import paths
from config.paths import STAGING
from runtime.disk import refuse_unless_file, refuse_unless_folder, refuse_unwritable
from runtime.errors import UserError
from runtime.variables import PIPELINE_RUN

WORKSPACE_LOCK = STAGING / "workspace.lock"
# In a path, DVC takes braces for places to fill in, and stores no bytes that are not UTF-8.
UNUSABLE = re.compile("[{}\ud800-\udfff]")
# While an experiment runs: the files that it changes, as they were (orchestration/experiment.py).
EXPERIMENT_BACKUP = STAGING / "before-experiment"
RECORD_SECONDS = 1  # within which a process that has just taken the lock has written its record
CLOCK_SECONDS = 2  # by which the start of a process may seem to move when the system's clock is set


@contextmanager
def exclusive_workspace() -> Iterator[None]:
    """Hold the workspace alone; raises UserError, naming the holder, if another process uses it.

    A stage that a person runs shares the lock while it runs (`shared_workspace`), and a `dvc repro` from its first
    stage to its end (`share_workspace_until_exit`).
    """
    with workspace_lock(fcntl.LOCK_EX, "Wait until it has finished, or stop it."):
        for record in other_records():
            record.unlink(missing_ok=True)  # its process was killed
        yield


@contextmanager
def shared_workspace() -> Iterator[None]:
    """Share the workspace with other stages; raises UserError if a flow holds it that did not start this process."""
    if PIPELINE_RUN in os.environ:
        yield
        return
    with workspace_lock(fcntl.LOCK_SH, "Its stages would be mixed with yours: wait until it has finished, or stop it."):
        if EXPERIMENT_BACKUP.exists():
            raise UserError(
                "an experiment was killed before it had restored the workspace. Run `make pipeline`, or "
                "`python -m flows.pipeline --dry`, which restores it first."
            )
        yield


def share_workspace_until_exit(owner: psutil.Process) -> None:
    """Share the lock in the name of `owner` for as long as this process runs, unless a flow holds it."""
    WORKSPACE_LOCK.parent.mkdir(exist_ok=True)
    with suppress(BlockingIOError):
        fcntl.flock(os.open(WORKSPACE_LOCK, os.O_RDONLY | os.O_CREAT), fcntl.LOCK_SH | fcntl.LOCK_NB)
        record_holder(owner)
        atexit.register(own_record().unlink, missing_ok=True)


@contextmanager
def workspace_lock(kind: int, remedy: str) -> Iterator[None]:
    refuse_unusable_folders()
    WORKSPACE_LOCK.parent.mkdir(exist_ok=True)
    with WORKSPACE_LOCK.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"this workspace is in use by {holders()}. {remedy}") from None
        record_holder(psutil.Process())
        try:
            yield
        finally:
            own_record().unlink(missing_ok=True)


def refuse_unusable_folders() -> None:
    """Raise UserError where a file lies in a folder's place or the other way round, where nothing can be written, and
    where DVC cannot work in the workspace's path.
    """
    root = str(Path.cwd())
    if unusable := UNUSABLE.search(root):
        raise UserError(
            f"DVC cannot work in a folder whose path holds {unusable[0]!r}, as {root!r} does. Move or rename it."
        )
    for folder in paths.FOLDERS:
        refuse_unless_folder(folder)
    for folder in (STAGING, Path(".prefect")):
        refuse_unwritable(folder)
    for file in (paths.PARAMS, WORKSPACE_LOCK, Path("prefect.yaml")):
        refuse_unless_file(file)


def own_record() -> Path:
    return WORKSPACE_LOCK.with_name(f"{WORKSPACE_LOCK.name}.{os.getpid()}")


def other_records() -> list[Path]:
    return [record for record in sorted(STAGING.glob(f"{WORKSPACE_LOCK.name}.*")) if record != own_record()]


def record_holder(named: psutil.Process) -> None:
    """Record that this process holds the lock. named: the process that messages name, this one or its owner."""
    with suppress(OSError, psutil.Error):  # without a record, on a full disk, it is "another process"
        name = f"process {named.pid} ({' '.join(named.cmdline()[-4:])})"
        own_record().write_text(json.dumps({"name": name, "started": psutil.Process().create_time()}))


def holders() -> str:
    """Return the other processes that hold the lock, in words."""
    deadline = time.monotonic() + RECORD_SECONDS
    while not (found := [name for record in other_records() if (name := living_holder(record))]):
        if time.monotonic() > deadline:
            return "another process"
        time.sleep(0.05)
    return " and ".join(dict.fromkeys(found))


def living_holder(record: Path) -> str | None:
    """Return what a record says of the process that wrote it; None if that has ended."""
    try:
        written = json.loads(record.read_text())
        process = psutil.Process(int(record.suffix[1:]))
        same = abs(process.create_time() - written["started"]) < CLOCK_SECONDS
        return str(written["name"]) if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
