"""An experiment: other values of some parameters for one run, saved by DVC, which leaves the workspace as it was."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM
from dvc.utils.hydra import apply_overrides
from prefect import get_run_logger

from config import paths
from config.errors import UserError
from config.params import load_params
from stages.reproduce import LOCK_FILE

# Holds, while an experiment runs, the files that it changes as they were.
BEFORE = paths.STAGING / "before-experiment"


@contextmanager
def experiment(settings: list[str]) -> Iterator[None]:
    """Have the block see other parameters: KEY=VALUE each, as `dvc exp run -S` takes them; none: do nothing.

    When the block succeeds, DVC saves the experiment: `dvc exp show` has it. In any case params.yaml, dvc.lock and all
    outputs are then put back. What a killed run did not put back is put back before the next one.
    Raises UserError for a setting that params.yaml does not admit, and outside git, which DVC keeps experiments in.
    """
    put_back()
    if not settings:
        yield
        return
    with Repo() as repo:
        if isinstance(repo.scm, NoSCM):
            raise UserError("an experiment needs git, where DVC keeps it: run `git init` and commit first.")
    keep_files()
    try:
        override(settings)
        yield
        with Repo() as repo:
            try:
                revision = repo.experiments.save(force=True)
            except DvcException as error:
                raise UserError(f"DVC cannot save the experiment: {error}") from None
            name = repo.experiments.get_exact_name([revision])[revision] if revision else None
        told = f"Saved as experiment {name}: `dvc exp show` lists it, `dvc exp apply {name}` takes it over."
        get_run_logger().info(told)
        print(told, file=sys.stderr)  # the command line keeps the log off the terminal
    finally:
        put_back()


def override(settings: list[str]) -> None:
    """Change params.yaml; raises UserError, naming what is wrong, where a setting does not fit."""
    known = load_params()
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not equals or not has_key(known.model_dump(), key):
            raise UserError(f"--set {setting}: expected KEY=VALUE with a key of {paths.PARAMS}, such as seed=7.")
    try:
        apply_overrides(paths.PARAMS, settings)
    except (DvcException, ValueError) as error:
        raise UserError(f"--set {' '.join(settings)}: {error}") from None
    load_params()


def has_key(values: object, key: str) -> bool:
    first, _, rest = key.partition(".")
    if not isinstance(values, dict) or first not in values:
        return False
    return not rest or has_key(values[first], rest)


def keep_files() -> None:
    """Copy what is not in DVC's cache: the parameters, dvc.lock and the outputs that git tracks."""
    partial = BEFORE.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in [str(paths.PARAMS), LOCK_FILE, *uncached_outputs()]:
        if Path(path).exists():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, partial / path)
    partial.rename(BEFORE)


def put_back() -> None:
    """Undo what the last experiment changed, if it did not do so itself."""
    if not BEFORE.exists():
        return
    for path in uncached_outputs():
        Path(path).unlink(missing_ok=True)
    Path(LOCK_FILE).unlink(missing_ok=True)
    for kept in BEFORE.rglob("*"):
        if kept.is_file():
            place = kept.relative_to(BEFORE)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept, place)
    with Repo() as repo:
        repo.checkout(force=True, allow_missing=True)
    shutil.rmtree(BEFORE)


def uncached_outputs() -> list[str]:
    with Repo() as repo:
        return [str(out) for stage in repo.index.stages for out in stage.outs if not out.use_cache]
