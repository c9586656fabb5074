"""What a night removes, so that a year of nights fits on the disk; `retention` in params.yaml says how much is kept.

It is called with the workspace locked. Whole files are removed that nothing needs, so it may be killed at any moment,
and the next night goes on.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from prefect import get_run_logger, task

from config.retention import Retention
from orchestration import registry
from orchestration.dvc.unneeded import remove_experiments, remove_files
from orchestration.git import git
from orchestration.model_files import CHAMPIONS
from runtime.atomic_outputs import remove
from runtime.errors import UserError

DAY = 86_400


def clean_up(folder: Path, kept: Retention, now: float | None = None) -> tuple[str, list[str]]:
    """Remove what is over the bounds. What cannot be removed is no reason for a night to fail.

    Args:
        folder: the workspace of `retrain`.
        kept: the bounds.
        now: seconds since 1970; None: the present.

    Returns:
        What was removed, in words, and why something could not be.
    """
    counts = {"experiments": 0, "former champions": 0, "files of DVC's cache": 0}
    sizes, faults = [], []

    def remove_all(what: str, removed: Iterator[int]) -> None:
        try:
            for size in removed:
                counts[what] += 1
                sizes.append(size)
        except (UserError, OSError) as error:
            faults.append(str(error))

    remove_all("experiments", remove_experiments(kept.experiments))
    for root in (Path(), folder):
        remove_all("former champions", remove_former_champions(root))
    if kept.cache_days:
        before = (now or time.time()) - kept.cache_days * DAY
        remove_all("files of DVC's cache", remove_files(before))
    try:
        pack_git()
    except UserError as error:
        faults.append(str(error))
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"removed {told}: {sum(sizes):,} bytes", faults


def remove_former_champions(root: Path) -> Iterator[int]:
    """Remove the fetched models of a workspace that are no champions any more; yield the bytes of each."""
    for model in sorted((root / CHAMPIONS).glob("*/")):
        champion = registry.champion(model.name)
        for entry in [entry for entry in model.iterdir() if not champion or entry.name != champion.version]:
            size = sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
            # Under its own name, half a model would be taken for the whole one.
            hidden = entry if entry.name.startswith(".") else entry.rename(entry.with_name(f".{entry.name}.removed"))
            remove(hidden)
            yield size


def pack_git() -> None:
    """Have git pack its objects if they have become many, and remove those that nothing has reached for two weeks.

    The commands of a night keep git from doing so behind their backs (`orchestration/worktree.py`).
    """
    git("-c", f"core.hooksPath={os.devnull}", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")


@task(name="clean-up")
def clean_up_task(folder: Path, kept: Retention) -> None:
    """Do `clean_up`, and log what came of it."""
    logger = get_run_logger()
    told, faults = clean_up(folder, kept)
    logger.info(told)
    for fault in faults:
        logger.warning(fault)
