"""The pipeline flow against `dvc repro` on the sample, with all stages changed and with none."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from ruamel.yaml import YAML

from flows.demo import DVC, make_workspace
from runtime.errors import UserError

PIPELINE = [sys.executable, "-m", "flows.pipeline"]
EPOCHS = 1


def measure(targets: list[str], rounds: int) -> dict[str, Any]:
    """Return the medians of some rounds, each in new workspaces. targets: stages of dvc.yaml; none: all."""
    timed = ("repro", "pipeline", "flow", "learning", "status", "unchanged")
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            plain, parallel = Path(folder, "plain"), Path(folder, "parallel")
            for workspace in (plain, parallel):
                make_workspace(workspace, EPOCHS)
            taken["repro"].append(seconds([*DVC, "repro", *targets], plain))
            taken["pipeline"].append(seconds([*PIPELINE, *targets], parallel))
            for name, value in flow_times(parallel).items():
                taken[name].append(value)
            taken["status"].append(seconds([*DVC, "status", *targets], parallel))
            taken["unchanged"].append(seconds([*PIPELINE, *targets], parallel))
            stages = count_stages(parallel)
    medians = {name: median(values) for name, values in taken.items()}
    return {
        "stages": stages,
        "repro_seconds": medians["repro"],
        "pipeline_seconds": medians["pipeline"],
        "share_of_repro": medians["pipeline"] / medians["repro"],
        "status_seconds": medians["status"],
        "unchanged_seconds": medians["unchanged"],
        "unchanged_to_status": medians["unchanged"] / medians["status"],
        "flow_seconds": medians["flow"],
        "learning_seconds": medians["learning"],
        # The time of the flow in which no stage was fitting or evaluating.
        "overhead_seconds_a_stage": (medians["flow"] - medians["learning"]) / stages,
    }


def seconds(command: list[str], workspace: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=workspace, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:])} failed:\n{(done.stdout + done.stderr)[-1500:]}")
    return time.perf_counter() - began


def flow_times(workspace: Path) -> dict[str, float]:
    """Return the seconds of the last flow of a workspace, and those in which some stage was fitting or evaluating."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning"],
        cwd=workspace,
        env={**environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "PYTHONPATH")}


def count_stages(workspace: Path) -> int:
    return len(YAML(typ="safe").load(workspace / "dvc.lock")["stages"])
