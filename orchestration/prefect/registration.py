"""Register the work pool and the deployments of prefect.yaml with a server, and leave there what a person has set.

A person may switch a schedule on or off, move, add or remove it, pause a deployment, and change its limit and its
parameters: all in the UI. So prefect.yaml counts when a deployment is new, and once more whenever what it says of these
has changed; the deployment's `version` is the digest of that. What belongs to the code is brought up to date each time.
`prefect deploy` would set everything back each time, and takes seconds for each of its commands.
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
# The worker alone says how a run is started: no run and no deployment brings a command, an environment, a name or a
# folder.
JOB_TEMPLATE = {
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
# Of a deployment's version, before the digest of what prefect.yaml says of what can be set in the UI.
VERSION = "prefect.yaml-"


class WorkPool(BaseModel, extra="forbid"):
    """The part `work_pool` of a deployment."""

    name: str


class Deployment(BaseModel):
    """A deployment as prefect.yaml describes it."""

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

    Raises UserError where prefect.yaml, or the code that it names, is at fault.
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
    """Create the work pool, for one run at a time, or renew its template alone."""
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
    """Create a deployment, in one request; or renew what belongs to the code and, if prefect.yaml changed, the rest."""
    limit, options = concurrency(deployment)
    # Prefect lets a parameter pass that the flow does not have, and the run crash; so the server answers 409.
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
    update(client, known, code | {"version": version})  # last: what is interrupted is done again at the next start


def update(client: SyncPrefectClient, known: DeploymentResponse, fields: dict[str, Any]) -> None:
    """Change these fields of a deployment and no other: Prefect's own method also sends those that it was not given."""
    client.request("PATCH", "/deployments/{id}", path_params={"id": known.id}, json=fields)


def version_of(deployment: Deployment) -> str:
    """Return a name for what prefect.yaml says of what can be set in the UI."""
    said = deployment.model_dump(
        mode="json", include={"schedules", "concurrency_limit", "paused", "parameters", "tags"}
    )
    return VERSION + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def is_version_of_ours(known: DeploymentResponse) -> bool:
    return (known.version or "").startswith(VERSION)


def concurrency(deployment: Deployment) -> tuple[int | None, ConcurrencyOptions | None]:
    """Return how many runs of a deployment there may be at once, and what becomes of more."""
    limit = deployment.concurrency_limit
    if not isinstance(limit, ConcurrencyLimitConfig):
        return limit, None
    return limit.limit, ConcurrencyOptions(**limit.model_dump(exclude={"limit"}))


def schedule_of(deployment: Deployment, entry: Mapping[str, Any]) -> DeploymentScheduleCreate:
    """Return the schedule that an entry of prefect.yaml describes by cron, interval (seconds) or rrule."""
    apart = {"active", "parameters", "slug", "max_scheduled_runs"}
    fields = {
        **{name: value for name, value in entry.items() if name in apart},
        "schedule": {name: value for name, value in entry.items() if name not in apart},
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
    """Return `steps` with the path of this workspace where they say {{ $PWD }}."""
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
    """Return the name of the work pool; raises UserError where prefect.yaml does not say it."""
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
