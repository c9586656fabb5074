"""Logs: TensorBoard's folders, one a run, the latest few of each model.

They are no output of a DVC stage: DVC removes a stage's outputs before it runs, and a log is a history
to compare the next run with. They hold wall-clock times, so no rerun gives the same bytes either.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from config import paths

KEPT_RUNS = 10


@contextmanager
def run_logs(model: str, began: datetime) -> Iterator[Path]:
    """Yield the folder of this run's TensorBoard logs, which can be watched while it trains.

    When the block raises, the folder is removed; when it succeeds, all but the latest runs are.
    """
    folder = paths.logs_folder(model) / began.strftime("%Y%m%d-%H%M%S-%f")
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    runs = sorted(entry for entry in paths.logs_folder(model).iterdir() if entry.is_dir())
    for old in runs[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
