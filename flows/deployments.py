"""The deployments of prefect.yaml that train one model, and that test the whole graph on the sample.

Each runs the graph of dvc.yaml, so that its results are recorded like those of any other run.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from config.params import load_params
from flows.choices import Model, Searched
from flows.demo import make_workspace
from flows.pipeline import run_environment, run_graph
from orchestration.command_line import log_user_errors_once
from orchestration.experiment import experiment, restored_workspace
from orchestration.prefect.task_runner import RUNNER
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS

SMOKE = Path(".smoke")
MAX_EPOCHS = 10_000


Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS, description="instead of the recipe's: a DVC experiment")]


@flow(name="train model", flow_run_name="train-{model}", task_runner=RUNNER)
def train_model(model: Model, epochs: Epochs | None = None, force: bool = False) -> None:
    """Train a model if its data, code or parameters have changed.

    Args:
        model: a name of params.yaml.
        epochs: instead of the recipe's. The run is then an experiment: `dvc exp show` lists it, `dvc exp apply` applies
            it, and the workspace stays as it was.
        force: train it in any case.
    """
    log_user_errors_once()
    settings = [f"models.{model}.fit.epochs={epochs}"] if epochs else []
    targets = [f"train@{model}"]
    with restored_workspace(), experiment(settings, targets):
        run_graph(targets, force)


@flow(name="search model", flow_run_name="search-{model}", task_runner=RUNNER)
def search_model(model: Searched, force: bool = False) -> None:
    """Search hyperparameters of a model if the space, its data or the code have changed.

    A search that was interrupted goes on. `python -m flows.search M --apply` puts the winner into params.yaml.

    Args:
        model: a name in `search` of params.yaml.
        force: search again in any case; trials that are known are not trained again.
    """
    log_user_errors_once()
    with restored_workspace():
        run_graph([f"search@{model}"], force)


@flow(name="smoke")
def smoke(epochs: Annotated[int, Field(ge=1, le=10)] = 1) -> None:
    """Run the whole graph on the built-in sample, in the folder .smoke/; needs no network."""
    log_user_errors_once()
    load_params()
    make_workspace(SMOKE, epochs)
    environment = {**os.environ, **run_environment(), PIPELINE_PROCESS: str(os.getpid())}
    command = [sys.executable, "-m", "flows.pipeline", "--force"]
    process = subprocess.Popen(command, cwd=SMOKE, env=environment, start_new_session=True)
    try:
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
    if code:
        raise UserError(f"the pipeline ended with exit code {code} in {SMOKE}")
