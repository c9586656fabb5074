"""The outputs of a search, in artifacts/search/M: every trial, the finalists, and the winner with its recipe.

trials.csv, best.yaml and metrics.json are the same after a rerun; run.json has what is not, the durations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from pydantic import Field, NonNegativeInt, PositiveInt
from ruamel.yaml import YAML

from config import paths
from config.search import MAXIMIZED, Objective, Search, Space
from datasets import get_dataset
from tasks.data.contracts import (
    Contract,
    Number,
    OpenContract,
    Seconds,
    Sha256,
    Source,
    only_with_batches,
    read_contract,
    refuse_false_source,
    refuse_other_values,
    write_contract,
)
from tasks.data.schema import PreparedSchema
from tasks.search.proposals import direction_of
from tasks.search.records import FinalRecord, TrialRecord, WinnerRecord
from tasks.search.space import distributions
from tasks.search.store import frozen

TRIALS, BEST, METRICS, RUN = "trials.csv", "best.yaml", "metrics.json", "run.json"
# The columns of trials.csv before those of the parameters.
COLUMNS = ("trial", "round", "state", "value", "best", "epochs")
IMPORTANCE_SEED = 0
FOR_IMPORTANCE = 4  # trials that say nothing yet on what matters, if there are no more


class Finalist(OpenContract):
    """What one of the best trials reaches on valid with each of the seeds."""

    trial: NonNegativeInt
    values: list[Number] = Field(min_length=1)
    mean: Number


class Winner(OpenContract):
    """The finalist with the best mean on valid; the only one that is measured on test.

    valid, test: the mean over the seeds, by metric. tests: the metrics on test of each seed.
    """

    trial: NonNegativeInt
    parameters: dict[str, Any]
    valid: dict[str, Number]
    test: dict[str, Number]
    tests: list[dict[str, Number]] = Field(min_length=1)


class SearchMetrics(OpenContract):
    """artifacts/search/M/metrics.json.

    importance: the share of the variance of the objective that a parameter explains; {} after few trials.
    """

    name: str
    dataset: str
    source: Source
    raw_sha256: Sha256
    source_sha256: Sha256 | None = only_with_batches()
    objective: Objective
    sampler: str
    pruner: str
    trials: NonNegativeInt
    pruned: NonNegativeInt
    failed: NonNegativeInt
    seeds: list[NonNegativeInt]
    finalists: list[Finalist] = Field(min_length=1)
    winner: Winner
    importance: dict[str, Number]


class SearchRun(Contract):
    """artifacts/search/M/run.json: seconds of the search and of each trial, and the trials that ran at once."""

    seconds: Seconds
    at_once: PositiveInt
    trials: dict[str, Seconds]
    finalists: dict[str, Seconds]


def is_better(objective: Objective, value: float, than: float) -> bool:
    return value > than if objective in MAXIMIZED else value < than


def best_trials(records: Sequence[TrialRecord], objective: Objective, count: int) -> list[TrialRecord]:
    """Return the trials with the best values, of those that were trained to their end; of equal ones the first."""
    sign = -1 if objective in MAXIMIZED else 1
    complete = [
        (sign * record.value, record) for record in records if record.state == "complete" and record.value is not None
    ]
    return [record for _, record in sorted(complete, key=lambda pair: (pair[0], pair[1].number))[:count]]


def rank(finals: Mapping[int, Sequence[FinalRecord]], objective: Objective) -> list[Finalist]:
    """Return the finalists, by their mean on valid, the best first.

    Args:
        finals: by trial, what it reaches with each seed.
        objective: what is compared.
    """
    found = []
    for number, records in finals.items():
        values = [record.metrics["valid"][objective] for record in records]
        found.append(Finalist(trial=number, values=values, mean=float(np.mean(values))))
    sign = -1 if objective in MAXIMIZED else 1
    return sorted(found, key=lambda finalist: (sign * finalist.mean, finalist.trial))


def importance(records: Sequence[TrialRecord], space: Space, objective: Objective) -> dict[str, float]:
    """Return how much of the objective's variance each parameter explains, the largest first.

    By functional ANOVA on a random forest (F. Hutter et al., "An efficient approach for assessing hyperparameter
    importance", ICML 2014).
    """
    complete = [record for record in records if record.state == "complete"]
    varied = [name for name, distribution in distributions(space).items() if not distribution.single()]
    if len(complete) < FOR_IMPORTANCE or not varied or len({record.value for record in complete}) == 1:
        return {}
    study = optuna.create_study(direction=direction_of(objective))
    study.add_trials([frozen(record, space) for record in complete])
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=IMPORTANCE_SEED)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def trials_table(records: Sequence[TrialRecord], search: Search, space: Space, objective: Objective) -> pd.DataFrame:
    """Return a row for each trial; `best` is the best value until then."""
    best, rows = None, []
    for record in records:
        if record.state == "complete" and record.value is not None:
            best = record.value if best is None or is_better(objective, record.value, best) else best
        fixed = (record.number, record.number // search.round, record.state, record.value, best, len(record.epochs))
        rows.append({**dict(zip(COLUMNS, fixed, strict=True)), **record.parameters})
    return pd.DataFrame(rows, columns=[*COLUMNS, *distributions(space)])


def describe(
    name: str,
    search: Search,
    space: Space,
    objective: Objective,
    schema: PreparedSchema,
    records: Sequence[TrialRecord],
    finals: Mapping[int, Sequence[FinalRecord]],
    test: WinnerRecord,
) -> SearchMetrics:
    """Return what a search has found.

    Args:
        name: of the model.
        search, space, objective: what was searched.
        schema: of the prepared data.
        records: of the trials.
        finals: of the finalists, by trial.
        test: of the winner.
    """
    ranked = rank(finals, objective)
    won = records[ranked[0].trial]
    valid = [record.metrics["valid"] for record in finals[won.number]]
    states = [record.state for record in records]
    return SearchMetrics(
        name=name,
        dataset=search.dataset,
        source=schema.source,
        raw_sha256=schema.raw_sha256,
        source_sha256=schema.source_sha256,
        objective=objective,
        sampler=search.sampler,
        pruner=search.pruner,
        trials=len(records),
        pruned=states.count("pruned"),
        failed=states.count("failed"),
        seeds=search.seeds,
        finalists=ranked,
        winner=Winner(
            trial=won.number,
            parameters=won.parameters,
            valid=mean_of(valid),
            test=mean_of(test.metrics),
            tests=test.metrics,
        ),
        importance=importance(records, space, objective),
    )


def mean_of(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([measured[key] for measured in metrics])) for key in metrics[0]}


def write_results(
    metrics: SearchMetrics, run: SearchRun, table: pd.DataFrame, recipe: Mapping[str, Any], folder: Path
) -> None:
    """Write the outputs of a search.

    Args:
        metrics, run: what it has found, and how long it took.
        table: of the trials.
        recipe: of the winner: build, compile, fit, and preparation where that was varied.
        folder: an empty folder, for artifacts/search/M.
    """
    table.to_csv(folder / TRIALS, index=False)
    write_contract(folder / METRICS, metrics)
    write_contract(folder / RUN, run)
    yaml = YAML()
    yaml.default_flow_style = False
    with (folder / BEST).open("w", encoding="utf-8") as file:
        yaml.dump(dict(recipe), file)


def read_search_metrics(name: str) -> SearchMetrics:
    """Read what `search@name` has found; raises UserError where it is missing or damaged."""
    path, stage = paths.search_folder(name) / METRICS, f"search@{name}"
    found = read_contract(path, SearchMetrics, stage)
    refuse_other_values(path, stage, found, {"name": name}, "its folder")
    refuse_false_source(path, stage, get_dataset(found.dataset), found, "raw_sha256")
    return found


def read_search_run(name: str) -> SearchRun:
    return read_contract(paths.search_folder(name) / RUN, SearchRun, f"search@{name}")
