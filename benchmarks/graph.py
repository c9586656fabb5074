"""Graph: the pipeline flow against `dvc repro`, on the sample, with every stage changed and with none."""

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

from config import paths
from config.errors import UserError
from flows.demo import DVC, make_workspace

PIPELINE = [sys.executable, "-m", "flows.pipeline"]
EPOCHS = 1


def measure(targets: list[str], rounds: int) -> dict[str, Any]:
    """Return the medians of some rounds, each in fresh workspaces; targets: stages of dvc.yaml, none: all."""
    taken: dict[str, list[float]] = {way: [] for way in ("repro", "pipeline", "status", "unchanged", "learning")}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            plain, parallel = Path(folder, "plain"), Path(folder, "parallel")
            for workspace in (plain, parallel):
                make_workspace(workspace, EPOCHS)
            taken["repro"].append(seconds([*DVC, "repro", *targets], plain))
            taken["pipeline"].append(seconds([*PIPELINE, *targets], parallel))
            taken["status"].append(seconds([*DVC, "status", *targets], parallel))
            taken["unchanged"].append(seconds([*PIPELINE, *targets], parallel))
            taken["learning"].append(learning_seconds(parallel))
            stages = count_stages(parallel)
    medians = {way: median(values) for way, values in taken.items()}
    at_once = os.cpu_count() or 1
    return {
        "stages": stages,
        "repro_seconds": medians["repro"],
        "pipeline_seconds": medians["pipeline"],
        "share_of_repro": medians["pipeline"] / medians["repro"],
        "status_seconds": medians["status"],
        "unchanged_seconds": medians["unchanged"],
        "unchanged_to_status": medians["unchanged"] / medians["status"],
        # As if fit and evaluate had always run as many at a time as there are cores.
        "overhead_seconds_a_stage": (medians["pipeline"] - medians["learning"] / at_once) / stages,
    }


def seconds(command: list[str], workspace: Path) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "PYTHONPATH")}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:])} failed:\n{(done.stdout + done.stderr)[-1500:]}")
    return time.perf_counter() - began


def learning_seconds(workspace: Path) -> float:
    """Return the seconds that the networks of a workspace spent in fit and evaluate."""
    records = [json.loads(file.read_text()) for file in workspace.glob(f"{paths.ARTIFACTS}/*/run.json")]
    runs = [record["seconds"] for record in records if "seconds" in record]  # not the baselines'
    return sum(run["fit"] + run["evaluate"] for run in runs)


def count_stages(workspace: Path) -> int:
    return len(YAML(typ="safe").load(workspace / "dvc.lock")["stages"])
