"""Comparison: the figures and parameters of two revisions side by side, as DVC tells them apart."""

from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from config.errors import UserError

WORKSPACE = "workspace"
SPLITS = ("train", "valid", "test")


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
    for found in (metrics, params):
        for revision, faults in found.get("errors", {}).items():
            raise UserError(f"{revision} cannot be read: {first_fault(faults)}.")
    return {
        "old": old,
        "new": new,
        "figures": figures(metrics.get("diff", {})),
        "params": [
            {"key": key, **change} for changes in params.get("diff", {}).values() for key, change in changes.items()
        ],
    }


def first_fault(faults: Any) -> str:
    return str(next(iter(faults.values()))) if isinstance(faults, dict) else str(faults)


def figures(diff: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the figures that differ, a row each: model, split, figure, old, new, change, and whether it is better.

    diff: of `dvc metrics diff`: by file, then by the dotted way in it.
    """
    rows = []
    for path, changes in diff.items():
        model = "/".join(Path(path).parts[1:-1])
        for key, change in changes.items():
            split, _, figure = key.removeprefix("metrics.").partition(".")
            if key.startswith("metrics.") and split in SPLITS:
                rows.append({"model": model, "split": split, "figure": figure, **judge(figure, change)})
    return rows


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
