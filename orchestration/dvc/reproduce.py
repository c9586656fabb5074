"""Reproduce a stage: DVC does the bookkeeping as in `dvc repro`, and our executor runs the command.

DVC decides whether a stage has changed, saves its new outputs and writes dvc.lock. What is replaced in DVC for that is
listed in patches.py. These are internals of DVC: its version is pinned, and tests compare with `dvc repro`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import dvc.stage.run
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

from orchestration.dvc.restore_outputs import restore_missing, uncached_outputs
from runtime.errors import UserError

# Runs a command of a stage in an environment and returns its exit code.
RunCommand = Callable[[str, dict[str, str]], int]

_runner: ContextVar[RunCommand] = ContextVar("runner")
# Held by the thread for which DVC works, except while its stage's command runs. DVC is not safe to use in several
# threads: two that read dvc.yaml at once can find it invalid. And only one of them polls DVC's lock file.
_dvc_thread = threading.Lock()


class StageFailed(UserError):
    """A stage's command ended with an exit code other than 0."""


def run_commands(stage: Any, dry: bool, run_env: dict[str, str] | None) -> None:  # noqa: ARG001  # DVC names it
    """Stand in for `dvc.stage.run.cmd_run`, which DVC calls with its own lock released."""
    environment = dvc.stage.run.prepare_kwargs(stage, run_env)["env"]
    with released(_dvc_thread):
        for command in dvc.stage.run._enforce_cmd_list(stage.cmd):
            if code := _runner.get()(command, environment):
                raise StageCmdFailedError(command, code)


@contextmanager
def released(lock: threading.Lock) -> Iterator[None]:
    """Release a lock, which this thread holds, for the block."""
    lock.release()
    try:
        yield
    finally:
        lock.acquire()


def reproduce(
    name: str, run_command: RunCommand, warn: Callable[[str], None], force: bool = False
) -> Literal["ran", "restored", "unchanged"]:
    """Bring stage `name` up to date; the stages that it needs already are.

    On an error, dvc.lock and the stage's outputs are as they were before.

    Args:
        name: the stage, as DVC addresses it, such as train@iris_mlp.
        run_command: runs a command of the stage.
        warn: gets a sentence when the stage runs and so replaces outputs of which DVC's cache has no copy.
        force: run the stage even if nothing has changed.

    Returns:
        "ran"; "restored", where only outputs were missing and DVC's cache had them; or "unchanged".

    Raises:
        StageFailed: the stage's command failed.
        UserError: DVC cannot do something else.
        Exception: whatever `run_command` raises.
    """
    ran, restored = False, False

    def run(command: str, environment: dict[str, str]) -> int:
        nonlocal ran
        ran = True
        with _dvc_thread:
            lost = uncached_outputs(repo, name)
        if lost:
            warn(f"{name} replaces {', '.join(lost)}, which were not made by a recorded run: DVC's cache has no copy.")
        return run_command(command, environment)

    token = _runner.set(run)
    try:
        with _dvc_thread, Repo(_wait_for_lock=True) as repo:
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
    """Return the innermost cause of an error that DVC raised; one of DVC's own becomes a UserError."""
    while error.__cause__:
        error = error.__cause__
    if isinstance(error, StageCmdFailedError):
        return StageFailed(f"{name} failed: {error}")
    return UserError(f"{name}: {error}") if isinstance(error, DvcException) else error
