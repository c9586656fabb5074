"""TensorBoard's logs: a folder for each of the latest runs of a model.

They are no output of a DVC stage: DVC removes outputs before the stage runs, and the logs of earlier runs are there to
compare with. They also contain times, so that a rerun does not reproduce them.
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
# The names of a folder of `run_logs`, and of the files that TensorBoard's callback writes into it.
TIME = "%Y%m%d-%H%M%S-%f"
NAME = re.compile(r"\d{8}-\d{6}-\d{6}")
EVENTS = "events.out.tfevents.*"


@contextmanager
def run_logs(model: str, began: datetime) -> Iterator[Path]:
    """Yield the folder for this run's TensorBoard logs.

    If the block raises, the folder is removed; if not, those of all but the latest runs. Other files there stay.
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
    """Tell whether `entry` is a folder of `run_logs`: by its name, and because it has TensorBoard's files or none."""
    if not NAME.fullmatch(entry.name) or entry.is_symlink() or not entry.is_dir():
        return False
    return next(entry.rglob(EVENTS), None) is not None or next(entry.iterdir(), None) is None
