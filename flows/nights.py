"""Simulate nights of `retrain` on the real rows of a data set, in the folder nights/, and end with a page.

Half of the rows are the source. The rest arrives in twelve nights: one batch has a column in other units, one drifts,
one is empty, one comes twice. The flows, the registry and the Prefect server are the real ones.
"""

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from config import paths
from datasets import get_dataset
from datasets.dataset import checksum
from flows.demo import DVC, FILES, MARK
from orchestration.command_line import exit_on_user_error, prepare_process, reporting
from orchestration.nights_batches import SIMULATIONS, Delivery, Simulation, divide, plan
from orchestration.nights_page import Night, write_page
from orchestration.prefect.server import reporting_environment
from runtime.errors import UserError
from runtime.packages import PACKAGES
from tasks.arrivals.drift_record import drift_files, read_drift
from tasks.preparation.ingest import fetch
from tasks.promotion.verdict import FILE as VERDICT
from tasks.promotion.verdict import Verdict, read_verdict

FOLDER = Path("nights")
WORKTREE = paths.RETRAIN / "workspace"
NAME = "heaviside"  # of the author of commits in nights/
# Appended to the data set's file in nights/: its source are the rows of a file.
SOURCE = """

import dataclasses  # noqa: E402

import pyarrow.parquet as pq  # noqa: E402

DATASET = dataclasses.replace(
    DATASET, fetch=lambda: pq.read_table("source.parquet"), sha256="{sha256}", cache=None, address=None, cached=None
)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.nights", description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", nargs="?", choices=[*SIMULATIONS], default="california_housing", metavar="DATASET")
    dataset = parser.parse_args().dataset
    prepare_process()
    with exit_on_user_error("interrupted. Run it again to begin anew."):
        simulation = SIMULATIONS[dataset]
        source, parts = divide(fetch(get_dataset(dataset), "real"), simulation)
        make_workspace(FOLDER, source, dataset, simulation)
        with chdir(FOLDER), reporting():
            deliveries = enumerate(plan(parts, simulation), 1)
            nights = [run_night(number, delivery, dataset, simulation) for number, delivery in deliveries]
            # What one training on all rows reaches: those that were kept out come again, sound, without a gate.
            set_drift("warn", dataset)
            kept_out = pa.concat_tables([parts[0], parts[-1]])
            corrected = Delivery(f"corrected.{simulation.ending}", kept_out, "the rejected rows, corrected")
            whole = run_night(len(nights) + 1, corrected, dataset, simulation)
            page = write_page(nights, whole, simulation.model)
        print(f"The page of these nights: {(FOLDER / page).resolve().as_uri()}")
    return 0


def make_workspace(folder: Path, source: pa.Table, dataset: str, simulation: Simulation) -> None:
    """Make a repository with one model, whose data set has the rows `source`; an earlier one is replaced.

    Args:
        folder: the repository.
        source: the first rows.
        dataset: its name.
        simulation: of the data set.

    Raises:
        UserError: `folder` is something else.
    """
    if folder.exists() and not (folder / MARK).exists():
        raise UserError(f"{folder} exists and was not made by this command. Move it away, and run again.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / MARK).touch()
    for name in PACKAGES:
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, ".gitignore"):
        shutil.copy(name, folder)
    shutil.copytree(paths.EXPECTATIONS, folder / paths.EXPECTATIONS)
    pq.write_table(source, folder / "source.parquet")
    code = folder / f"datasets/{dataset}.py"
    code.write_text(code.read_text(encoding="utf-8") + SOURCE.format(sha256=checksum(source)), encoding="utf-8")
    keep_model(folder / paths.PARAMS, dataset, simulation)
    author = [
        ["git", "config", f"user.{key}", value] for key, value in (("name", NAME), ("email", f"{NAME}@localhost"))
    ]
    begin = ["git", "commit", "--quiet", "--message", "Begin"]
    for command in (["git", "init", "--quiet"], *author, [*DVC, "init", "--quiet"], ["git", "add", "."], begin):
        subprocess.run(command, cwd=folder, check=True)


def keep_model(target: Path, dataset: str, simulation: Simulation) -> None:
    """Write params.yaml with one model, its data set and one baseline alone; batches that drift are kept out.

    Args:
        target: the file.
        dataset: the name of the data set.
        simulation: of it.
    """
    yaml = YAML()
    params = yaml.load(paths.PARAMS)
    gates = {**params["gates"].get(dataset, {}), "drift": "block", "models": {}}
    kept = {"datasets": dataset, "models": simulation.model, "baselines": simulation.baseline}
    for section, name in kept.items():
        params[section] = {name: params[section][name]}
    params["gates"] = {dataset: gates}
    params["leave_out"] = []
    for section in ("lecture_recipes", "notes", "search"):
        params[section] = {}
    yaml.dump(params, target)


def set_drift(gate: str, dataset: str) -> None:
    """Commit another value of `gates.DATASET.drift`.

    Args:
        gate: the value.
        dataset: the name of the data set.
    """
    yaml = YAML()
    params = yaml.load(paths.PARAMS)
    params["gates"][dataset]["drift"] = gate
    yaml.dump(params, paths.PARAMS)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", f"Set the gate drift to {gate}"], check=True)


def run_night(number: int, delivery: Delivery, dataset: str, simulation: Simulation) -> Night:
    """Deliver a batch, run `retrain`, and return what came of it.

    Args:
        number: of the night, from 1.
        delivery: what arrives.
        dataset: the name of the data set.
        simulation: of it.

    Raises:
        UserError: the run failed.
    """
    print(f"night {number}: {delivery.file}, {delivery.what}", flush=True)
    arrive(delivery, dataset)
    rejected, judged = files_in(paths.rejected_folder(dataset)), last_verdict(simulation.model)
    log = Path(f"night-{number}.log")
    with log.open("w") as output:
        command = [sys.executable, "-m", "flows.retrain", simulation.model]
        environment = {**os.environ, **reporting_environment()}
        code = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
    if code:
        raise UserError(f"night {number} ended with exit code {code}: see {FOLDER / log}.")
    verdict = last_verdict(simulation.model)
    night = Night(
        number=number,
        what=delivery.what,
        rejected=bool(files_in(paths.rejected_folder(dataset)) - rejected),
        drifted=drifted(delivery.file, dataset),
        verdict=None if verdict == judged else verdict,
    )
    print(f"  {night.result}", flush=True)
    return night


def arrive(delivery: Delivery, dataset: str) -> None:
    """Put a file into data/incoming.

    Args:
        delivery: what arrives.
        dataset: the name of the data set.
    """
    folder = paths.incoming_folder(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / delivery.file
    if delivery.rows is None:
        file.touch()
    elif file.suffix == ".csv":
        pa_csv.write_csv(delivery.rows, file)
    else:
        pq.write_table(delivery.rows, file)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def last_verdict(model: str) -> Verdict | None:
    path = WORKTREE / paths.artifacts_folder(model) / VERDICT
    return read_verdict(model, WORKTREE) if path.exists() else None


def drifted(file: str, dataset: str) -> bool:
    """Return whether the batch that was made of a file drifts from train.

    Args:
        file: its name.
        dataset: the name of the data set.
    """
    with chdir(WORKTREE):
        return any(read_drift(path).alarm for path in drift_files(dataset) if path.name.endswith(f"-{file}.json"))


if __name__ == "__main__":
    sys.exit(main())
