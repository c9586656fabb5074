"""What our Prefect server does by itself: crash silent runs, and call the user's webhook when something has happened.

HEAVISIDE_WEBHOOK of `make ui` is the address that gets a POST with JSON. The automations carry our names; those that a
person makes in the UI stay as they are.
"""

import os
from datetime import timedelta
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events import emit_event
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from orchestration.prefect.server import HEARTBEAT_SECONDS

WEBHOOK = "HEAVISIDE_WEBHOOK"
BLOCK = "heaviside"
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
BEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}
BATCH_REJECTED, MODEL_PROMOTED = "heaviside.batch.rejected", "heaviside.model.promoted"
# The events that the webhook gets, of what, and with which values: expressions that Prefect evaluates.
TOLD: dict[str, tuple[set[str], str, dict[str, str]]] = {
    "heaviside: tell of a run that failed or crashed": (
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        "prefect.flow-run.*",
        {"run": "flow_run.name", "deployment": "deployment.name", "state": "flow_run.state.name"},
    ),
    "heaviside: tell of a rejected batch": (
        {BATCH_REJECTED},
        "heaviside.dataset.*",
        {"dataset": "event.payload.dataset", "batch": "event.payload.batch"},
    ),
    "heaviside: tell of a promotion": (
        {MODEL_PROMOTED},
        "heaviside.model.*",
        {"model": "event.payload.model", "version": "event.payload.version"},
    ),
}
CRASH = "heaviside: crash a run that has gone silent"


def tell_of(event: str, resource: str, **payload: str) -> None:
    """Record an event that the webhook gets.

    Args:
        event: BATCH_REJECTED or MODEL_PROMOTED.
        resource: what it happened to, such as "dataset.iris".
        payload: of TOLD.
    """
    emit_event(event, resource={"prefect.resource.id": f"heaviside.{resource}"}, payload=payload)


def register_automations(client: SyncPrefectClient) -> None:
    """Create or update our automations; without HEAVISIDE_WEBHOOK those that call it are removed."""
    put(client, crash_silent_runs())
    address = os.environ.get(WEBHOOK)
    block = save_block(address) if address else None
    for name, (events, resource, payload) in TOLD.items():
        if block:
            put(client, call_webhook(name, events, resource, payload, block))
        else:
            for known in client.read_automations_by_name(name):
                client.delete_automation(known.id)


def crash_silent_runs() -> AutomationCore:
    """Return the automation that Prefect's documentation gives for runs whose process has vanished."""
    return AutomationCore(
        name=CRASH,
        trigger=EventTrigger(
            after={BEAT},
            expect={BEAT, *ENDED},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"It gave no sign of life for {SILENT_SECONDS} s.",
                force=True,
            )
        ],
    )


def call_webhook(name: str, events: set[str], resource: str, payload: dict[str, str], block: UUID) -> AutomationCore:
    """Return an automation that calls the webhook.

    Args:
        name: of the automation.
        events: any of which it waits for.
        resource: the pattern of what they happen to.
        payload: of the call, beside the event's name: expressions.
        block: the webhook.
    """
    values = {"event": "event.event", **payload}
    body = ", ".join(f'"{key}": {{{{ {expression} | tojson }}}}' for key, expression in values.items())
    deployed: dict[str, str | list[str]] = {}
    if resource.startswith("prefect."):  # not each stage's own flow
        deployed = {"prefect.resource.role": "deployment"}
    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            expect=events,
            match={"prefect.resource.id": [resource]},
            match_related=deployed,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(seconds=0),
        ),
        actions=[CallWebhook(block_document_id=block, payload=f"{{{body}}}")],
    )


def save_block(address: str) -> UUID:
    """Keep the webhook's address, a secret, on the server, and return its id."""
    return Webhook(url=address).save(BLOCK, overwrite=True)  # type: ignore[arg-type,return-value]


def put(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or replace ours of that name, which stays off if a person has switched it off."""
    known = client.read_automations_by_name(automation.name)
    if not known:
        client.create_automation(automation)
        return
    client.update_automation(known[0].id, automation.model_copy(update={"enabled": known[0].enabled}))
