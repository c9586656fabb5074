"""Register the work pool and the deployments of prefect.yaml with a server, and keep what a person has set in the UI.

In the UI a person can switch schedules on or off, change, add or remove them, pause a deployment, and change its limit
and its parameters. So prefect.yaml decides about these when a deployment is new, and again when its own text about them
has changed; the deployment's `version` is a digest of that text. What belongs to the code is updated each time.
`prefect deploy` would reset everything each time, and takes seconds per command.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import MissingFlowError, ObjectNotFound, PrefectHTTPStatusError, ScriptError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from orchestration.prefect.server import auth_settings
from runtime.errors import UserError

DEPLOYMENTS = Path("prefect.yaml")
# The worker alone decides how a run starts: neither a run nor a deployment can set a command, an environment, a name or
# a folder.
JOB_TEMPLATE = {
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
# Begins a deployment's version; the digest follows.
VERSION_PREFIX = "prefect.yaml-"


class WorkPool(BaseModel, extra="forbid"):
    """The section `work_pool` of a deployment."""

    name: str


class Deployment(BaseModel):
    """A deployment in prefect.yaml."""

    model_config = ConfigDict(extra="forbid")

    name: str
    entrypoint: str
    work_pool: WorkPool
    description: str | None = None
    parameters: dict[str, Any] = {}
    tags: list[str] = []
    concurrency_limit: int | ConcurrencyLimitConfig | None = None
    paused: bool = False
    schedules: list[dict[str, Any]] = []


def register() -> None:
    """Register the work pool and the deployments of prefect.yaml with our server at PREFECT_API_URL.

    Raises UserError if prefect.yaml, or the code that it names, is wrong.
    """
    deployments, pull_steps = read_deployments()
    flows = {deployment.name: load_flow(deployment) for deployment in deployments}
    address = os.environ["PREFECT_API_URL"]
    with temporary_settings({**auth_settings(), PREFECT_API_URL: address}), get_client(sync_client=True) as client:
        register_pool(client)
        for deployment in deployments:
            try:
                register_deployment(client, deployment, flows[deployment.name], pull_steps)
            except PrefectHTTPStatusError as error:
                reason = error.response.json().get("detail", error.response.text)
                raise UserError(
                    f"{DEPLOYMENTS}: the server refuses the deployment {deployment.name}: {reason}"
                ) from None


def register_pool(client: SyncPrefectClient) -> None:
    """Create the work pool, for one run at a time; if it exists, update only its template."""
    try:
        client.read_work_pool(pool_name())
    except ObjectNotFound:
        pool = WorkPoolCreate(name=pool_name(), type="process", base_job_template=JOB_TEMPLATE, concurrency_limit=1)
        client.create_work_pool(pool)
    else:
        client.update_work_pool(pool_name(), WorkPoolUpdate(base_job_template=JOB_TEMPLATE))


def register_deployment(
    client: SyncPrefectClient, deployment: Deployment, flow: Flow, pull_steps: list[dict[str, Any]]
) -> None:
    """Create a deployment, or update what belongs to the code and, if prefect.yaml has changed, the rest.

    Args:
        client: of the server.
        deployment: what prefect.yaml says.
        flow: the flow that it runs.
        pull_steps: how a run finds this workspace.
    """
    limit, options = concurrency(deployment)
    # Prefect would accept an unknown parameter, and the run would crash; with this, the server answers 409.
    schema = parameter_schema(flow).model_dump_for_openapi() | {"additionalProperties": False}
    code: dict[str, Any] = {
        "entrypoint": deployment.entrypoint,
        "description": deployment.description or flow.description,
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
        "pull_steps": pull_steps,
        "job_variables": {},
    }
    version = version_of(deployment)
    choices: dict[str, Any] = {
        "parameters": deployment.parameters,
        "tags": deployment.tags,
        "paused": deployment.paused,
        "concurrency_limit": limit,
    }
    schedules = [schedule_of(deployment, entry) for entry in deployment.schedules]
    try:
        known = client.read_deployment_by_name(f"{flow.name}/{deployment.name}")
    except ObjectNotFound:
        client.create_deployment(
            flow_id=client.create_flow(flow),
            name=deployment.name,
            version=version,
            work_pool_name=deployment.work_pool.name,
            schedules=schedules,
            concurrency_options=options,
            **code,
            **choices,
        )
        return
    if is_version_of_ours(known) and known.version != version:
        print(f"{DEPLOYMENTS} has other settings for {deployment.name}: they take the place of the UI's.")
        update(client, known, code | choices | {"concurrency_options": options and options.model_dump(mode="json")})
        for schedule in known.schedules:
            client.delete_deployment_schedule(known.id, schedule.id)
        if schedules:
            client.create_deployment_schedules(known.id, schedules)
        code = {}
    update(client, known, code | {"version": version})  # last: an interrupted update is repeated


def update(client: SyncPrefectClient, known: DeploymentResponse, fields: dict[str, Any]) -> None:
    """Change only some fields of a deployment; Prefect's own method also sends fields that it was not given.

    Args:
        client: of the server.
        known: the deployment.
        fields: as the API names them.
    """
    client.request("PATCH", "/deployments/{id}", path_params={"id": known.id}, json=fields)


def version_of(deployment: Deployment) -> str:
    """Return a digest of what prefect.yaml says about settings that a person can change in the UI."""
    settings = deployment.model_dump(
        mode="json", include={"schedules", "concurrency_limit", "paused", "parameters", "tags"}
    )
    return VERSION_PREFIX + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def is_version_of_ours(known: DeploymentResponse) -> bool:
    return (known.version or "").startswith(VERSION_PREFIX)


def concurrency(deployment: Deployment) -> tuple[int | None, ConcurrencyOptions | None]:
    """Return how many runs of a deployment may run at once, and how further ones are treated."""
    limit = deployment.concurrency_limit
    if not isinstance(limit, ConcurrencyLimitConfig):
        return limit, None
    return limit.limit, ConcurrencyOptions(**limit.model_dump(exclude={"limit"}))


def schedule_of(deployment: Deployment, entry: Mapping[str, Any]) -> DeploymentScheduleCreate:
    """Return the schedule that an entry of prefect.yaml describes by cron, interval (seconds) or rrule."""
    options = {"active", "parameters", "slug", "max_scheduled_runs"}
    fields = {
        **{name: value for name, value in entry.items() if name in options},
        "schedule": {name: value for name, value in entry.items() if name not in options},
    }
    try:
        return DeploymentScheduleCreate.model_validate(fields)
    except ValidationError as error:
        raise UserError(
            f"{DEPLOYMENTS}: deployments.{deployment.name}.schedules: {dict(entry)} is no schedule "
            f"({error.errors()[0]['msg']}). Write it as `cron: 0 3 * * *`, with `timezone` and `active`."
        ) from None


def read_deployments() -> tuple[list[Deployment], list[dict[str, Any]]]:
    """Return the deployments of prefect.yaml and the steps by which a run finds this workspace."""
    values = read_file()
    try:
        deployments = TypeAdapter(list[Deployment]).validate_python(values.get("deployments"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{DEPLOYMENTS}: deployments.{place}: {first['msg']}, got {first['input']!r}.") from None
    return deployments, in_this_workspace(values.get("pull") or [])


def in_this_workspace(steps: Any) -> Any:
    """Return `steps` with the path of this workspace in place of {{ $PWD }}."""
    if isinstance(steps, Mapping):
        return {name: in_this_workspace(step) for name, step in steps.items()}
    if isinstance(steps, list):
        return [in_this_workspace(step) for step in steps]
    return steps.replace("{{ $PWD }}", str(Path.cwd())) if isinstance(steps, str) else steps


def load_flow(deployment: Deployment) -> Flow:
    try:
        return load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)
    except (ScriptError, MissingFlowError, FileNotFoundError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"{DEPLOYMENTS}: deployments.{deployment.name}.entrypoint: {deployment.entrypoint} has no flow that can be "
            f"loaded ({type(cause).__name__}: {cause})."
        ) from None


def pool_name() -> str:
    """Return the name of the work pool; raises UserError if prefect.yaml lacks it."""
    try:
        return str(read_file()["definitions"]["work_pool"]["name"])
    except (KeyError, TypeError):
        raise UserError(f"{DEPLOYMENTS}: definitions.work_pool.name is missing, such as `name: heaviside`.") from None


def read_file() -> dict[str, Any]:
    try:
        values = YAML(typ="safe").load(DEPLOYMENTS)
    except (OSError, YAMLError) as error:
        raise UserError(
            f"{DEPLOYMENTS} cannot be read: {error}. `git checkout {DEPLOYMENTS}` brings it back."
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"{DEPLOYMENTS} holds no keys. `git checkout {DEPLOYMENTS}` brings it back.")
    return values
