"""Report on all models: artifacts/ -> reports/index.html and reports/summary.json."""

from prefect import flow

from config import paths
from config.params import load_params
from flows.command_line import run


@flow(name="report")
def report() -> None:
    """Show what `train` measured of every model of params.yaml."""
    from tasks.files import staged_files
    from tasks.report import report_task

    with staged_files(paths.REPORTS, "report") as folder:
        report_task(load_params(), folder)


if __name__ == "__main__":
    run(report)
