"""Logs: TensorBoard's folders, one a run, the latest few of each model.

They are no output of a DVC stage: DVC removes a stage's outputs before it runs, and a log is a history
to compare the next run with. They hold wall-clock times, so no rerun gives the same bytes either.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from config import paths
from runtime.disk import refuse_unwritable

KEPT_RUNS = 10
# The name that `run_logs` gives a folder, and that of the files which TensorBoard's callback writes below it.
TIME = "%Y%m%d-%H%M%S-%f"
NAME = re.compile(r"\d{8}-\d{6}-\d{6}")
EVENTS = "events.out.tfevents.*"


@contextmanager
def run_logs(model: str, began: datetime) -> Iterator[Path]:
    """Yield the folder of this run's TensorBoard logs, which can be watched while it trains.

    When the block raises, the folder is removed; when it succeeds, all but the latest runs are. Whatever else lies
    there is the user's.
    """
    refuse_unwritable(paths.logs_folder(model))
    folder = paths.logs_folder(model) / began.strftime(TIME)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    runs = sorted(entry for entry in paths.logs_folder(model).iterdir() if is_run(entry))
    for old in runs[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)


def is_run(entry: Path) -> bool:
    """Tell whether `entry` is a folder of `run_logs`: by its name, and by TensorBoard's files in it, if any."""
    if not NAME.fullmatch(entry.name) or entry.is_symlink() or not entry.is_dir():
        return False
    return next(entry.rglob(EVENTS), None) is not None or next(entry.iterdir(), None) is None
