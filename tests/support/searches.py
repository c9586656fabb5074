"""A small search for tests: four hyperparameters of iris_mlp, trained for a few epochs."""

from pathlib import Path

from pydantic import TypeAdapter

from config.search import Search, Space
from tasks.search.records import TrialRecord
from tests.support.workspaces import edit_params

SPACE = {
    "build.hidden": {"layers": {"low": 0, "high": 2}, "units": {"low": 4, "high": 16}},
    "compile.learning_rate": {"low": 0.01, "high": 1.0, "log": True},
    "compile.optimizer": {"choices": ["sgd", "adam"]},
}
SEARCH = {
    "dataset": "iris",
    "family": "mlp",
    "spaces": ["small"],
    "build": {"outputs": 3, "output_activation": "softmax"},
    "compile": {"loss": "sparse_categorical_crossentropy"},
    "fit": {"epochs": 4, "batch_size": 8},
    "objective": "loss",
    "pruner": "median",
    "warmup": 2,
    "trials": 6,
    "round": 2,
    "finalists": 2,
    "seeds": [1, 2],
}


def put_search(folder: Path, **values: object) -> None:
    """Write the search into params.yaml of a workspace, with other values of it."""
    edit_params(folder, search_spaces={"small": SPACE}, search={"iris_mlp": {**SEARCH, **values}})


def record(number: int, parameters: dict, value: float | None, epochs: tuple[float, ...] = (), **more) -> TrialRecord:
    """Return the record of a trial that was trained to its end, or failed without a value."""
    state = "failed" if value is None else "complete"
    given = {"state": state, "seed": 1, "notes": {}, "seconds": 0.5, "reason": "diverged" if value is None else ""}
    return TrialRecord(number=number, parameters=parameters, value=value, epochs=list(epochs), **{**given, **more})


def small_search(**values: object) -> Search:
    return Search.model_validate({**SEARCH, **values})


def small_space() -> Space:
    return TypeAdapter(Space).validate_python(SPACE)
