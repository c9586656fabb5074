"""Comparison: the figures and parameters of two revisions side by side, as DVC tells them apart."""

from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from config import paths
from runtime.errors import UserError

WORKSPACE = "workspace"


def compare(old: str, new: str) -> dict[str, Any]:
    """Return what differs in metrics and parameters between two revisions: commits, branches, tags, experiments.

    `workspace` is what lies in the current directory. Raises UserError for an unknown revision, and outside git.
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
    faults = [*read_faults(metrics), *read_faults(params)]
    changes = [change for by_key in params.get("diff", {}).values() for change in by_key.items()]
    return {
        "old": old,
        "new": new,
        "faults": faults,
        "figures": figures(metrics.get("diff", {})),
        "params": [{"key": key, **change} for key, change in sorted(changes)],
    }


def read_faults(diff: dict[str, Any]) -> list[str]:
    """Return a sentence for each file that DVC could not read; raises UserError where a whole revision cannot be."""
    found = []
    for revision, faults in diff.get("errors", {}).items():
        if not isinstance(faults, dict):
            raise UserError(f"{revision} cannot be read: {faults}.")
        found += [f"{path} of {revision} cannot be read: {fault}" for path, fault in faults.items()]
    return sorted(found)


def figures(diff: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the figures that differ, a row each: model, split, figure, old, new, change, and whether it is better.

    diff: of `dvc metrics diff`: by file, then by the dotted way in it.
    """
    rows = []
    for path, changes in diff.items():
        model = "/".join(Path(path).parts[1:-1])
        for key, change in changes.items():
            before, _, way = f".{key}".partition(".metrics.")
            split, _, figure = way.partition(".")
            if split in paths.SPLITS:  # before: of the baselines the name
                rows.append({"model": before[1:] or model, "split": split, "figure": figure, **judge(figure, change)})
    return sorted(rows, key=lambda row: (row["model"], paths.SPLITS.index(row["split"]), row["figure"]))


def judge(figure: str, change: dict[str, Any]) -> dict[str, Any]:
    """Return old, new, change and whether that is for the better; None where either is not there or the same."""
    difference = change.get("diff")
    if difference in (None, 0):
        return {"old": change["old"], "new": change["new"], "change": difference, "better": None}
    less_is_better = figure.rpartition("_")[2] in ("loss", "rmse", "mae")
    return {
        **{key: change[key] for key in ("old", "new")},
        "change": difference,
        "better": (difference < 0) == less_is_better,
    }
