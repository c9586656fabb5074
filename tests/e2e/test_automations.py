"""What the server of `make ui` does by itself: it calls a webhook, and crashes runs that have gone silent."""

import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestration.prefect.automations import BATCH_REJECTED, MODEL_PROMOTED, WEBHOOK
from tests.support.processes import wait_for
from tests.support.ui import Ui, processes, start_ui
from tests.support.waiting import make_it_wait
from tests.support.workspaces import ROOT, clone

pytestmark = [pytest.mark.xdist_group("automations"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def calls() -> Iterator[list[dict]]:
    """What a webhook on loopback has received; its address is that of the environment."""
    received: list[dict] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(WEBHOOK, f"http://127.0.0.1:{server.server_port}/hook")
            yield received
        server.shutdown()


@pytest.fixture(scope="module")
def ui(calls, two_models, environment, tmp_path_factory) -> Iterator[Ui]:
    folder = clone(two_models, tmp_path_factory.mktemp("automations") / "with a space")
    shutil.copy(ROOT / "prefect.yaml", folder)
    make_it_wait(folder, environment)
    ui = start_ui(folder, {**environment, WEBHOOK: os.environ[WEBHOOK]})
    yield ui
    ui.process.send_signal(signal.SIGINT)
    ui.wait()
    for process in processes(folder):
        process.kill()


def emit(ui: Ui, event: str, resource: str, **payload: str) -> None:
    """Record an event on the server of the UI as a flow does."""
    body = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"heaviside.{resource}"},
        "payload": payload,
    }
    ui.http("POST", "events", json=[body])


def test_the_webhook_hears_of_a_failed_run_a_rejected_batch_and_a_promotion(ui, calls):
    failed = ui.ended(ui.start_run("pipeline/pipeline", targets=["train@iris_mlp"], settings=["seed=-1"]))
    assert failed["state"]["type"] == "FAILED"
    emit(ui, BATCH_REJECTED, "dataset.iris", dataset="iris", batch="0001-more.csv")
    emit(ui, MODEL_PROMOTED, "model.iris_mlp", model="iris_mlp", version="v0.0.2")
    expected = [
        {
            "event": "prefect.flow-run.Failed",
            "run": failed["name"],
            "deployment": "pipeline",
            "state": "Failed",
        },
        {"event": BATCH_REJECTED, "dataset": "iris", "batch": "0001-more.csv"},
        {"event": MODEL_PROMOTED, "model": "iris_mlp", "version": "v0.0.2"},
    ]
    wait_for(lambda: len(calls) >= len(expected), lambda: calls)
    assert sorted(calls, key=str) == sorted(expected, key=str)


@pytest.mark.rotates
def test_a_run_that_has_gone_silent_is_crashed(ui, calls):
    before = {process.pid for process in processes(ui.workspace)}
    id = ui.waiting_run()
    run = [process for process in processes(ui.workspace) if process.pid not in before]
    for process in run:
        process.suspend()
    try:
        assert wait_for(lambda: (found := ui.run(id))["state"]["type"] == "CRASHED" and found, "the crash")
        wait_for(lambda: any(call["event"] == "prefect.flow-run.Crashed" for call in calls), lambda: calls)
    finally:
        for process in run:
            process.kill()
