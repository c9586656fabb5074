"""Report on all models and data sets: artifacts/, data/ -> reports/ (index.html, a page each, summary.json)."""

import json
import os

from prefect import flow

from config import paths
from config.params import load_params
from flows.command_line import run
from stages.workspace import ENDINGS_OF_RUN


@flow(name="report")
def report() -> None:
    """Show what `train` measured of every model of params.yaml, and what became of those that a run did not do."""
    from tasks.files import staged_files
    from tasks.report import report_task

    with staged_files(paths.REPORTS, "report") as folder:
        report_task(load_params(), folder, json.loads(os.environ.get(ENDINGS_OF_RUN, "{}")))


if __name__ == "__main__":
    run(report)
