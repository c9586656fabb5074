"""Report on all models and data sets: artifacts/, data/ -> reports/ (index.html, a page each, summary.json)."""

import json
import os

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run
from runtime.variables import STAGES_NOT_DONE


@flow(name="report")
def report() -> None:
    """Render the report for all models of params.yaml; mark stages that failed or did not run."""
    from runtime.atomic_outputs import atomic_files
    from tasks.report.build import report_task

    with atomic_files(paths.REPORTS, "report") as folder:
        report_task(load_params(), folder, json.loads(os.environ.get(STAGES_NOT_DONE, "{}")))


if __name__ == "__main__":
    run(report)
