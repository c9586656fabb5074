"""Comparison: the metrics and parameters that differ between two revisions, as DVC finds them."""

from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from config import paths
from runtime.errors import UserError
from tasks.report.formatting import number
from tasks.report.verdict import Outcome, judge

WORKSPACE = "workspace"


def compare(old: str, new: str) -> dict[str, Any]:
    """Return what differs in metrics and parameters between two revisions: commits, branches, tags, experiments.

    `workspace` is the current directory. Raises UserError for an unknown revision, and outside git.
    """
    try:
        with Repo() as repo:
            metrics = repo.metrics.diff(a_rev=old, b_rev=new)
            params = repo.params.diff(a_rev=old, b_rev=new)
    except DvcException as error:
        raise UserError(
            f"{old} and {new} cannot be compared: {error}. A revision is a commit, a branch, a tag, an experiment of "
            f"`dvc exp show`, or `{WORKSPACE}`."
        ) from None
    changes = [change for by_key in params.get("diff", {}).values() for change in by_key.items()]
    return {
        "old": old,
        "new": new,
        "faults": [*read_faults(metrics), *read_faults(params)],
        "metrics": metric_rows(metrics.get("diff", {})),
        "params": [{"key": key, **change} for key, change in sorted(changes)],
    }


def read_faults(diff: dict[str, Any]) -> list[str]:
    """Return a sentence for each file that DVC could not read; raises UserError if a whole revision cannot be."""
    found = []
    for revision, faults in diff.get("errors", {}).items():
        if not isinstance(faults, dict):
            raise UserError(f"{revision} cannot be read: {faults}.")
        found += [f"{path} of {revision} cannot be read: {fault}" for path, fault in faults.items()]
    return sorted(found)


def metric_rows(diff: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each metric that differs: model, split, metric, old, new, change and outcome.

    diff: of `dvc metrics diff`: by file, then by the dotted key in it.
    """
    rows = []
    for path, changes in diff.items():
        model = "/".join(Path(path).parts[1:-1])
        for key, change in changes.items():
            before, _, rest = f".{key}".partition(".metrics.")
            split, _, metric = rest.partition(".")
            if split in paths.SPLITS:
                row = {"model": before[1:] or model, "split": split, "metric": metric}  # a baseline's name is a key
                values = {"old": change["old"], "new": change["new"], "change": change.get("diff")}
                rows.append(row | values | {"outcome": outcome(metric, change)})
    return sorted(rows, key=lambda row: (row["model"], paths.SPLITS.index(row["split"]), row["metric"]))


def outcome(metric: str, change: dict[str, Any]) -> Outcome | None:
    """Return what a change says: "same" if both values are shown as the same number; None if either is not there."""
    if change.get("diff") is None:
        return None
    if number(change["old"]) == number(change["new"]):
        return "same"
    return judge(change["diff"], 0.0, metric)
