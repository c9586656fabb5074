"""Compare the metrics of two revisions, such as the last commit and an experiment: -> reports/compare.html."""

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run


@flow(name="compare")
def compare(old: str = "HEAD", new: str = "workspace") -> None:
    """Show the differences between two commits, branches, tags or DVC experiments; `workspace` is this workspace."""
    from runtime.atomic_outputs import atomic_files
    from tasks.report.build import comparison_task

    with atomic_files(paths.REPORTS, "compare") as folder:
        comparison_task(load_params(), old, new, folder)


if __name__ == "__main__":
    run(compare)
