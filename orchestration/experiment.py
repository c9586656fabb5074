"""An experiment: one run with other parameters, saved by DVC, after which the workspace is as it was before."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from prefect import get_run_logger

from config import paths
from config.params import load_params
from orchestration.dvc.graph import open_repo, read_plan
from orchestration.dvc.lockfile import LOCK_FILE
from orchestration.settings import override
from orchestration.workspace_lock import EXPERIMENT_BACKUP, exclusive_workspace
from runtime.atomic_outputs import write_text
from runtime.errors import UserError

# In EXPERIMENT_BACKUP: copies of files and folders, and a list of them.
FILES, NOTES = "files", "notes.json"
# Backup of params.yaml if the user edited it during the experiment.
PARAMS_BEFORE = paths.STAGING / "params.before.yaml"


@contextmanager
def restored_workspace() -> Iterator[None]:
    """Hold the workspace exclusively, restored first if an experiment was killed before it had done so."""
    with exclusive_workspace():
        restore_workspace()
        yield


@contextmanager
def experiment(settings: list[str], targets: list[str]) -> Iterator[None]:
    """Change parameters for the block; without settings, do nothing.

    When the block succeeds, DVC saves the targets as an experiment, which `dvc exp show` lists. In any case
    params.yaml, dvc.lock and all outputs are then restored byte for byte, including outputs that DVC does not know,
    such as a model that was trained by hand.

    Args:
        settings: KEY=VALUE each, as `dvc exp run -S` takes them.
        targets: what the block brings up to date.

    Raises:
        UserError: a setting does not fit params.yaml, or there is no git repository, where DVC keeps experiments.
    """
    if not settings:
        yield
        return
    refuse_without_commits()
    changed = override(settings)
    try:
        back_up_workspace([str(paths.PARAMS), LOCK_FILE], changed)
        write_text(paths.PARAMS, changed)
        back_up_workspace(outputs_of(read_plan(targets).order), changed)
        yield
        name = save(targets, load_params().leave_out)
        message = f"Saved as experiment {name}: `dvc exp show` lists it, `dvc exp apply {name}` takes it over."
        get_run_logger().info(message)
        print(message, file=sys.stderr)  # the command line keeps the log off the terminal
    finally:
        restore_workspace()


def refuse_without_commits() -> None:
    with open_repo() as repo:
        if isinstance(repo.scm, NoSCM) or repo.scm.no_commits:
            raise UserError("an experiment needs git, where DVC keeps it: run `git init` and commit first.")


def save(targets: list[str], leave_out: list[str]) -> str:
    """Have DVC save the workspace as an experiment, and return its name.

    Args:
        targets: the stages that are up to date, which DVC records without a check; none: all but those left out.
        leave_out: models whose stages a whole run does without.
    """
    stages = read_plan(targets, leave_out).order if targets or leave_out else None
    with Repo(_wait_for_lock=True) as repo:
        with repo.lock:
            pass  # wait until no other DVC command runs: what follows would soon give up
        try:
            revision = repo.experiments.save(targets=stages, force=True)
        except DvcException as error:
            raise UserError(f"DVC cannot save the experiment: {error}") from None
        return str(repo.experiments.get_exact_name([revision])[revision])


def outputs_of(stages: list[str]) -> list[str]:
    with Repo() as repo:
        return [out.def_path for stage in repo.index.stages if stage.addressing in stages for out in stage.outs]


def back_up_workspace(files: list[str], changed: str) -> None:
    """Copy files and folders into the backup, beside those of an earlier call.

    changed: the text that params.yaml is about to have. The notes are written last: they name only what was copied.
    """
    kept = read_notes()["files"] if EXPERIMENT_BACKUP.exists() else []
    folder = EXPERIMENT_BACKUP if kept else EXPERIMENT_BACKUP.with_suffix(".partial")
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
    for path in map(Path, files):
        copy = folder / FILES / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, symlinks=True, dirs_exist_ok=True)
        elif path.exists():
            shutil.copy2(path, copy)
    partial = folder / f"{NOTES}.partial"
    partial.write_text(json.dumps({"files": [*kept, *files], "changed": changed}), encoding="utf-8")
    partial.replace(folder / NOTES)
    if not kept:
        folder.rename(EXPERIMENT_BACKUP)


def read_notes() -> dict[str, Any]:
    """Return what the backup holds; raises UserError, with nothing touched, if its notes are damaged."""
    try:
        notes = json.loads((EXPERIMENT_BACKUP / NOTES).read_text(encoding="utf-8"))
        if isinstance(notes["changed"], str) and all(isinstance(path, str) for path in notes["files"]):
            return notes
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(
        f"{EXPERIMENT_BACKUP / NOTES}, the notes of an experiment that was not undone, cannot be read. "
        f"{EXPERIMENT_BACKUP / FILES} holds the files as they were before it: copy back what you need, then remove "
        f"{EXPERIMENT_BACKUP}."
    )


def restore_workspace() -> None:
    """Undo what the last experiment changed, if it did not do so itself."""
    if not EXPERIMENT_BACKUP.exists():
        return
    notes = read_notes()
    restore_params(notes["changed"])
    for path in map(Path, notes["files"]):
        if path != paths.PARAMS:
            restore_path(EXPERIMENT_BACKUP / FILES / path, path)
    done = EXPERIMENT_BACKUP.with_suffix(".done")  # so that nobody restores a half-removed backup
    shutil.rmtree(done, ignore_errors=True)
    EXPERIMENT_BACKUP.rename(done)
    shutil.rmtree(done, ignore_errors=True)


def restore_path(copy: Path, path: Path) -> None:
    """Replace `path` by `copy`: a file, a folder, or nothing. Of a link, replace what it points to."""
    path = path.resolve() if path.is_symlink() else path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if copy.is_dir():
        shutil.copytree(copy, path, symlinks=True)
    elif copy.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(copy, path)


def restore_params(changed: str) -> None:
    """Restore params.yaml, unless the user has edited it during the experiment, which had made it `changed`."""
    before = EXPERIMENT_BACKUP / FILES / paths.PARAMS
    now = paths.PARAMS.read_text(encoding="utf-8") if paths.PARAMS.exists() else changed
    if now in (changed, before.read_text(encoding="utf-8")):
        shutil.copy2(before, paths.PARAMS)
        return
    shutil.copy2(before, PARAMS_BEFORE)
    print(
        f"{paths.PARAMS} was edited while an experiment ran, and is left so. It has that experiment's values, too: "
        f"as it was before, it is {PARAMS_BEFORE}.",
        file=sys.stderr,
    )
