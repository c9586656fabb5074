"""The claim on a workspace: one run of the graph at a time, be it the flow's or `dvc repro`'s."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from config import paths
from runtime.disk import refuse_unless_file, refuse_unless_folder, refuse_unwritable
from runtime.errors import UserError
from runtime.variables import PIPELINE_RUN

CLAIM = paths.STAGING / "workspace.lock"
# In a path, DVC takes braces for places to fill in, and stores no bytes that are not UTF-8.
UNUSABLE = re.compile("[{}\ud800-\udfff]")
# Holds, while an experiment runs, the files that it changes as they were (orchestration/experiment.py).
BEFORE = paths.STAGING / "before-experiment"


@contextmanager
def claimed_workspace() -> Iterator[None]:
    """Have the workspace to oneself; raises UserError, naming who else uses it.

    A stage that a person runs shares the claim while it runs (`shared_workspace`), and a `dvc repro` from its first
    stage to its end (`share_workspace_until_exit`), so that they are seen.
    """
    with claim(fcntl.LOCK_EX, "Wait until it has finished, or stop it."):
        yield


@contextmanager
def shared_workspace() -> Iterator[None]:
    """Use the workspace beside others that do so, but not beside a flow that has claimed it and did not start us."""
    if PIPELINE_RUN in os.environ:
        yield
        return
    with claim(fcntl.LOCK_SH, "Its stages would be mixed with yours: wait until it has finished, or stop it."):
        if BEFORE.exists():
            raise UserError(
                "an experiment was killed before it had put the workspace back. Run `make pipeline`, or "
                "`python -m flows.pipeline --dry`, which puts it back first."
            )
        yield


def share_workspace_until_exit() -> None:
    """Share the claim for as long as this process runs, unless a flow has it."""
    CLAIM.parent.mkdir(exist_ok=True)
    with suppress(BlockingIOError):
        fcntl.flock(os.open(CLAIM, os.O_RDONLY | os.O_CREAT), fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def claim(kind: int, remedy: str) -> Iterator[None]:
    refuse_unusable_folders()
    CLAIM.parent.mkdir(exist_ok=True)
    with CLAIM.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"this workspace is in use by {users()}. {remedy}") from None
        yield


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
    for folder in (paths.STAGING, Path(".prefect")):
        refuse_unwritable(folder)
    for file in (paths.PARAMS, CLAIM, Path("prefect.yaml")):
        refuse_unless_file(file)


def users() -> str:
    """Return the other processes that have the claim's file open, in words."""
    path = str(CLAIM.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == path for file in process.open_files()):
                found.append(describe(process))
        except psutil.Error:
            continue
    return " and ".join(dict.fromkeys(found)) or "another process"


def describe(process: psutil.Process) -> str:
    words = process.cmdline()
    if "orchestration.prefect.server" in words:  # which a `dvc repro` has started
        return describe(psutil.Process(int(words[words.index("orchestration.prefect.server") + 1])))
    return f"process {process.pid} ({' '.join(words[-4:])})"
