"""An experiment: other values of some parameters for one run, saved by DVC, which leaves the workspace as it was."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from prefect import get_run_logger

from config import paths
from config.errors import UserError
from stages.graph import open_repo, read_plan
from stages.lockfile import LOCK_FILE, write
from stages.settings import override
from stages.workspace import BEFORE, claimed_workspace

# In BEFORE: the files as they were, and what `keep` notes of them.
FILES, NOTES = "files", "notes.json"
# What was of params.yaml, where somebody edited it in the meantime.
PARAMS_BEFORE = paths.STAGING / "params.before.yaml"


@contextmanager
def own_workspace() -> Iterator[None]:
    """Claim the workspace, and put it back first where an experiment was killed before it had done so."""
    with claimed_workspace():
        put_back()
        yield


@contextmanager
def experiment(settings: list[str], targets: list[str]) -> Iterator[None]:
    """Have the block see other parameters: KEY=VALUE each, as `dvc exp run -S` takes them; none: do nothing.

    targets: what the block brings up to date. When it succeeds, DVC saves these stages as an experiment: `dvc exp show`
    has it. In any case params.yaml, dvc.lock and the outputs of these stages are then put back.
    Raises UserError for a setting that params.yaml does not admit, and outside git, which DVC keeps experiments in.
    """
    if not settings:
        yield
        return
    refuse_without_commits()
    changed = override(settings)
    keep(read_plan(targets).order, changed)
    try:
        write(paths.PARAMS, changed)
        yield
        name = save(targets)
        told = f"Saved as experiment {name}: `dvc exp show` lists it, `dvc exp apply {name}` takes it over."
        get_run_logger().info(told)
        print(told, file=sys.stderr)  # the command line keeps the log off the terminal
    finally:
        put_back()


def refuse_without_commits() -> None:
    with open_repo() as repo:
        if isinstance(repo.scm, NoSCM) or repo.scm.no_commits:
            raise UserError("an experiment needs git, where DVC keeps it: run `git init` and commit first.")


def save(targets: list[str]) -> str:
    """Have DVC save the workspace as an experiment and return its name.

    targets: the stages that are up to date, for DVC records them all as they lie; none: all.
    """
    stages = read_plan(targets).order if targets else None
    with Repo(_wait_for_lock=True) as repo:
        with repo.lock:
            pass  # until no other DVC command runs; what follows would soon give up
        try:
            revision = repo.experiments.save(targets=stages, force=True)
        except DvcException as error:
            raise UserError(f"DVC cannot save the experiment: {error}") from None
        return str(repo.experiments.get_exact_name([revision])[revision])


def keep(stages: list[str], changed: str) -> None:
    """Copy what is not in DVC's cache: the parameters, dvc.lock and those outputs of `stages` that git tracks.

    changed: what params.yaml is about to be.
    """
    outputs = uncached_outputs(stages)
    partial = BEFORE.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path in [str(paths.PARAMS), LOCK_FILE, *outputs]:
        if Path(path).exists():
            copy = partial / FILES / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    notes = {"stages": stages, "files": [LOCK_FILE, *outputs], "changed": changed}
    (partial / NOTES).write_text(json.dumps(notes), encoding="utf-8")
    partial.rename(BEFORE)


def put_back() -> None:
    """Undo what the last experiment changed, if it did not do so itself."""
    if not BEFORE.exists():
        return
    notes = json.loads((BEFORE / NOTES).read_text(encoding="utf-8"))
    put_params_back(notes["changed"])
    for path in map(Path, notes["files"]):
        if (copy := BEFORE / FILES / path).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(copy, path)
        else:
            path.unlink(missing_ok=True)
    with Repo(_wait_for_lock=True) as repo:
        repo.checkout(notes["stages"], force=True, allow_missing=True)
    shutil.rmtree(BEFORE)


def put_params_back(changed: str) -> None:
    """Put params.yaml back, unless somebody has edited what the experiment made of it."""
    before = BEFORE / FILES / paths.PARAMS
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


def uncached_outputs(stages: list[str]) -> list[str]:
    with Repo() as repo:
        return [
            str(out)
            for stage in repo.index.stages
            if stage.addressing in stages
            for out in stage.outs
            if not out.use_cache
        ]
