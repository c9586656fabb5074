"""Reproduce a stage: DVC does the bookkeeping as `dvc repro` would, and we run the command.

DVC decides whether a stage has changed, saves its new outputs and writes dvc.lock. We replace how the stage's command
runs, how threads wait for DVC's lock, and how an entry of dvc.lock is written (lockfile.py). These are internals of
DVC: its version is pinned, and tests compare with `dvc repro`.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal

import dvc.stage.run
from dvc.exceptions import DvcException
from dvc.lock import Lock
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

from orchestration.dvc.restore_outputs import restore_missing, uncached_outputs
from runtime.errors import UserError

Outcome = Literal["ran", "restored", "unchanged"]
# Runs a command of a stage in an environment and returns its exit code.
RunCommand = Callable[[str, dict[str, str]], int]

_runner: ContextVar[RunCommand] = ContextVar("runner")
_one_at_a_time = threading.Lock()


class StageFailed(UserError):
    """A stage's command ended with another exit code than 0."""


class QueuedLock(Lock):
    """DVC's lock of the workspace, for which the threads of this process queue, so that only one of them polls it."""

    def lock(self) -> None:
        _one_at_a_time.acquire()
        try:
            super().lock()
        except BaseException:
            _one_at_a_time.release()
            raise

    def unlock(self) -> None:
        try:
            super().unlock()
        finally:
            _one_at_a_time.release()


def run_commands(stage: Any, dry: bool, run_env: dict[str, str] | None) -> None:  # noqa: ARG001  # DVC names it
    """Stand in for `dvc.stage.run.cmd_run`."""
    environment = dvc.stage.run.prepare_kwargs(stage, run_env)["env"]
    for command in dvc.stage.run._enforce_cmd_list(stage.cmd):
        if code := _runner.get()(command, environment):
            raise StageCmdFailedError(command, code)


def reproduce(name: str, run_command: RunCommand, warn: Callable[[str], None], force: bool = False) -> Outcome:
    """Bring stage `name` up to date, whose needs are; force: run it though nothing changed.

    warn: gets a sentence when the stage runs and so replaces outputs of which DVC's cache has no copy.
    Outputs that are missing come from the cache if nothing else has changed ("restored").
    Raises StageFailed when its command fails, UserError for whatever else DVC cannot do, and what `run_command` raises.
    dvc.lock and the stage's outputs are then as they were.
    """
    ran, restored = False, False

    def run(command: str, environment: dict[str, str]) -> int:
        nonlocal ran
        ran = True
        if lost := uncached_outputs(repo, name):
            warn(f"{name} replaces {', '.join(lost)}, which were not made by a recorded run: DVC's cache has no copy.")
        return run_command(command, environment)

    token = _runner.set(run)
    try:
        with Repo() as repo:
            repo.lock = QueuedLock(repo.lock.lockfile, wait=True)
            if not force:
                with repo.lock:
                    restored = bool(restore_missing(repo, name))
            repo.reproduce(name, single_item=True, force=force)
    except DvcException as error:
        raise cause(name, error) from None
    finally:
        _runner.reset(token)
    if ran:
        return "ran"
    return "restored" if restored else "unchanged"


def cause(name: str, error: BaseException) -> BaseException:
    """Return what lies behind an error that DVC raised: where that is another one of DVC's, as a UserError."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, StageCmdFailedError):
        return StageFailed(f"{name} failed: {error}")
    return UserError(f"{name}: {error}") if isinstance(error, DvcException) else error
