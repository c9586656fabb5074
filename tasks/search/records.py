"""The files of a running search, in checkpoints/search/M: a job for each training, a record of each that has ended.

A record is written whole by the process that trained, before the search hears of it. Records are what a search resumes
from; its database is made of them.
"""

import hashlib
import json
import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from config import paths
from config.search import Objective, Search, Space
from runtime.atomic_outputs import remove
from runtime.disk import refuse_unwritable
from runtime.errors import UserError
from tasks.data.contracts import Contract, Number, Seconds, read_contract, write_contract
from tasks.search.space import Parameters

ROOT = Path(__file__).parents[2]
# What decides the result of a trial; a search does not resume from records that other code has made.
CODE = [
    file
    for folder in ("models", "tasks/data", "tasks/evaluation", "tasks/search", "tasks/training")
    for file in sorted((ROOT / folder).rglob("*.py"))
]
VERSIONED = ("keras", "numpy", "optuna", "scikit-learn", "tensorflow")
# Of a search, what decides nothing of a trial: it goes on when these are changed.
BUDGET = {"trials", "minutes", "finalists", "seeds", "reference"}

logger = logging.getLogger(__name__)


class Job(Contract):
    """What a process is to train.

    model: its name. recipe, preparation, hardware: sections of params.yaml with the values of the trial; preparation is
    None where data/prepared has the rows as they are wanted. known: the number of trials of earlier rounds, with which
    the pruner compares. seeds: of the finalists.
    """

    model: str
    objective: Objective
    number: NonNegativeInt
    seed: NonNegativeInt
    space: Space
    parameters: Parameters
    recipe: dict[str, Any]
    preparation: dict[str, Any] | None
    hardware: dict[str, Any]
    pruner: Literal["none", "median", "halving"]
    warmup: PositiveInt
    known: NonNegativeInt
    seeds: list[NonNegativeInt]


class TrialRecord(Contract):
    """How a trial ended.

    value: of the objective on valid; None: the trial failed. epochs: the value after each epoch. notes: what the
    pruner keeps of the trial. reason: of a failure.
    """

    number: NonNegativeInt
    state: Literal["complete", "pruned", "failed"]
    seed: NonNegativeInt
    parameters: Parameters
    value: Number | None
    epochs: list[Number]
    notes: dict[str, Any]
    seconds: Seconds
    reason: str = ""


class FinalRecord(Contract):
    """What a finalist reaches with one seed, on train and valid."""

    number: NonNegativeInt
    seed: NonNegativeInt
    epochs: PositiveInt
    metrics: dict[str, dict[str, Number]]
    seconds: Seconds


class WinnerRecord(Contract):
    """What the winner reaches on test, by seed, in the order of `seeds`."""

    number: NonNegativeInt
    seeds: list[NonNegativeInt]
    metrics: list[dict[str, Number]]


class State(Contract):
    """What the records were made with, and the seconds that the search has taken so far."""

    made_with: dict[str, Any]
    seconds: Seconds = Field(default=0.0)


TEST = "test"  # the job that measures the winner


def folder_of(model: str) -> Path:
    return paths.search_checkpoints_folder(model)


def job_file(model: str, job: str) -> Path:
    return folder_of(model) / "jobs" / f"{job}.json"


def trial_name(number: int) -> str:
    return f"trial-{number:04d}"


def final_name(number: int, seed: int) -> str:
    return f"final-{number:04d}-{seed}"


def record_file(model: str, job: str) -> Path:
    return folder_of(model) / "records" / f"{job}.json"


def model_file(model: str, number: int, seed: int) -> Path:
    """Return where the network of a finalist is kept until test is read."""
    return folder_of(model) / "records" / f"{final_name(number, seed)}.keras"


def write_whole(path: Path, values: Any) -> None:
    """Write a contract; a reader finds the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    write_contract(partial, values)
    partial.replace(path)


def read_record(model: str, job: str, contract: type[Contract]) -> Any:
    """Return a record; None where there is none, or it is damaged, which is logged: its training is repeated."""
    path = record_file(model, job)
    if not path.exists():
        return None
    try:
        return read_contract(path, contract, f"search@{model}")
    except UserError as error:
        logger.warning("%s It is trained again.", str(error).partition(" Run ")[0])
        return None


def describe_search(
    search: Search, space: Space, recipe: dict[str, Any], hardware: dict[str, Any], data: str
) -> dict[str, Any]:
    """Return what decides the result of every trial: equal descriptions give equal trials.

    Args:
        search: how to search.
        space: what is varied.
        recipe: the model's section of params.yaml.
        hardware: that section of params.yaml.
        data: SHA-256 of the rows.
    """
    code = hashlib.blake2b(b"".join(file.read_bytes() for file in CODE))
    return {
        "search": search.model_dump(mode="json", exclude=BUDGET),
        "space": {key: varied.model_dump(mode="json") for key, varied in space.items()},
        "recipe": {key: recipe[key] for key in ("inputs", "target", "task")},
        "hardware": hardware,
        "data": data,
        "code": code.hexdigest(),
        "versions": {name: version(name) for name in VERSIONED},
    }


def open_records(model: str, made_with: dict[str, Any]) -> State:
    """Return the state of the search of a model; records that were made with something else are moved to M.before."""
    folder = folder_of(model)
    refuse_unwritable(folder)
    try:
        state = read_contract(folder / "state.json", State, f"search@{model}")
    except UserError:
        state = None
    if state and json.loads(json.dumps(made_with)) == state.made_with:
        return state
    if folder.exists():
        before = folder.with_name(f"{model}.before")
        logger.info(
            "Starting at trial 0: %s is of another space, other data, code or versions; now %s.", folder, before
        )
        remove(before)
        folder.replace(before)
        shutil.rmtree(paths.search_logs_folder(model), ignore_errors=True)
    state = State(made_with=made_with)
    write_whole(folder / "state.json", state)
    return state
