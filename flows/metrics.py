"""Print the test metrics of all models, and what DVC's experiments changed, in tables that fit a screen.

`dvc metrics show` and `dvc exp show` have a column for every metric of every model: hundreds.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.scm import NoSCM
from rich.console import Console
from rich.table import Table

from config import paths
from config.params import load_params
from orchestration.command_line import exit_on_user_error
from orchestration.dvc.graph import open_repo
from runtime.errors import UserError

WIDTH = 100  # of the tables, outside of a terminal
SPLIT = "test"  # whose metrics are shown
# FILE:KEY of compared values; the groups are their names in the table.
PARAMETERS = re.compile(rf"{paths.PARAMS}:(.+)")
METRICS = re.compile(rf"{paths.ARTIFACTS}/([^/]+)/metrics\.json:metrics\.{SPLIT}\.(.+)")


def main() -> int:
    argparse.ArgumentParser(prog="python -m flows.metrics", description=__doc__).parse_args()
    with exit_on_user_error():
        load_params()
        show_metrics()
        if experiments := read_experiments():
            console().print(experiments_table(experiments))
    return 0


def show_metrics() -> None:
    """Print what every model of the current workspace reaches; raises UserError if there is none."""
    console().print(metrics_table())


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def metrics_table() -> Table:
    """Return a row for each metrics.json of a model; raises UserError where there is none, or one cannot be read."""
    table = Table("model", "source", "epochs", f"on {SPLIT}", title="Models")
    files = sorted(paths.ARTIFACTS.glob("*/metrics.json"))
    models = [read(file) for file in files if file.parent != paths.BASELINES]
    if not models:
        raise UserError(f"{paths.ARTIFACTS}: there is no model yet. Run `make pipeline` or `dvc repro` first.")
    for name, source, epochs, metrics in models:
        table.add_row(name, source, epochs, listed(metrics))
    return table


def read(file: Path) -> tuple[str, str, str, dict[str, float]]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return values["name"], values["source"], str(values["epochs"]), dict(values["metrics"][SPLIT])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"Run `dvc repro --force train@{file.parent.name}`."
        raise UserError(f"{file} is damaged ({type(error).__name__}: {error}). {remedy}") from None


def listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def read_experiments() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return pairs of the last commit and an experiment made from it, as `dvc exp show --json` has them."""
    with open_repo() as repo:
        if isinstance(repo.scm, NoSCM) or repo.scm.no_commits:
            return []
        try:
            states = [state.dumpd() for state in repo.experiments.show()]
        except DvcException as error:
            raise UserError(f"DVC cannot read its experiments: {error}") from None
    return [
        (commit, experiment)
        for commit in states
        if commit["rev"] != "workspace"
        for group in commit["experiments"] or ()
        for experiment in group["revs"]
    ]


def experiments_table(experiments: list[tuple[dict[str, Any], dict[str, Any]]]) -> Table:
    """Return a row for each experiment: the changed parameters, and the changed metrics of each model."""
    table = Table("experiment", "parameters", f"on {SPLIT}, before and after", title="Experiments from the last commit")
    for commit, experiment in experiments:
        before, after = commit["data"] or {}, experiment["data"] or {}
        params = changes(values_of(before, "params", PARAMETERS), values_of(after, "params", PARAMETERS))
        metrics = changes(values_of(before, "metrics", METRICS), values_of(after, "metrics", METRICS))
        settings = [f"{key}={new}" for key, (_, new) in params.items()]
        measured = [f"{key} {shown(old)} → {shown(new)}" for key, (old, new) in metrics.items()]
        name = experiment["name"] or experiment["rev"][:7]
        table.add_row(name, "\n".join(settings), "\n".join(measured) or "no change")
    return table


def values_of(state: dict[str, Any], kind: str, wanted: re.Pattern) -> dict[str, Any]:
    """Return the values of a commit.

    Args:
        state: the commit, as DVC has it.
        kind: "params" or "metrics".
        wanted: matches FILE:KEY of the values to return; its groups make the name.
    """
    found = {}
    for file, read in (state.get(kind) or {}).items():
        for key, value in flattened(read.get("data") or {}):
            if match := wanted.fullmatch(f"{file}:{key}"):
                found[" ".join(match.groups())] = value
    return found


def flattened(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys((*before, *after))
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "none" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
