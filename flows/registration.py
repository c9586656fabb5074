"""Register the work pool and the deployments of prefect.yaml with a server."""

import os
import subprocess
import sys
from pathlib import Path

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from config.errors import UserError

DEPLOYMENTS = Path("prefect.yaml")


def register() -> None:
    """Register the work pool and the deployments of prefect.yaml with the server at PREFECT_API_URL."""
    prefect("work-pool", "create", pool_name(), "--type", "process", "--overwrite")
    prefect("work-pool", "set-concurrency-limit", pool_name(), "1")
    prefect("--no-prompt", "deploy", "--all")
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool_name()]))
        for deployment in client.read_deployments(work_pool_filter=pool):
            refuse_unknown_parameters(client, str(deployment.id), deployment.parameter_openapi_schema or {})


def refuse_unknown_parameters(client: SyncPrefectClient, deployment: str, schema: dict) -> None:
    """Have the server answer 409 to a parameter that the flow does not have, which it would let crash the run."""
    strict = {**schema, "additionalProperties": False}
    client.request(
        "PATCH", "/deployments/{id}", path_params={"id": deployment}, json={"parameter_openapi_schema": strict}
    )


def pool_name() -> str:
    return YAML(typ="safe").load(DEPLOYMENTS)["definitions"]["work_pool"]["name"]


def prefect(*words: str) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"prefect {' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def environment() -> dict[str, str]:
    return {**os.environ, "PWD": str(Path.cwd()), "PYTHONPATH": str(Path.cwd())}
