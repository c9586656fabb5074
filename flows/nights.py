"""Simulate nights of `retrain` on the real California housing rows, in the folder nights/, and end with a page.

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
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from config import paths
from datasets import get_dataset
from datasets.dataset import checksum
from flows.demo import DVC, FILES, MARK
from orchestration.command_line import exit_on_user_error, prepare_process, reporting
from orchestration.nights_page import Night, write_page
from orchestration.prefect.server import reporting_environment
from runtime.errors import UserError
from runtime.packages import PACKAGES
from tasks.arrivals.drift_record import drift_files, read_drift
from tasks.preparation.ingest import fetch
from tasks.promotion.verdict import FILE as VERDICT
from tasks.promotion.verdict import Verdict, read_verdict

FOLDER = Path("nights")
DATASET, MODEL, BASELINE = "california_housing", "housing_mlp", "dummy_housing"
WORKTREE = paths.RETRAIN / "workspace"
PARTS = 10  # into which the rows that are not the source's are divided
SEED = 42
NAME = "heaviside"  # of the author of commits in nights/
DOLLARS = 10_000  # of the unit of MedInc
# Appended to the data set's file in nights/: its source are the rows of a file.
SOURCE = """

import dataclasses  # noqa: E402

import pyarrow.parquet as pq  # noqa: E402

DATASET = dataclasses.replace(
    DATASET, fetch=lambda: pq.read_table("source.parquet"), sha256="{sha256}", cache=None, address=None, cached=None
)
"""


class Delivery(NamedTuple):
    """What arrives in a night. rows: None for an empty file. what: in words."""

    file: str
    rows: pa.Table | None
    what: str


def main() -> int:
    argparse.ArgumentParser(prog="python -m flows.nights", description=__doc__.partition("\n")[0]).parse_args()
    prepare_process()
    with exit_on_user_error("interrupted. Run it again to begin anew."):
        source, parts = divide(fetch(get_dataset(DATASET), "real"))
        make_workspace(FOLDER, source)
        deliveries = plan(parts)
        with chdir(FOLDER), reporting():
            nights = [run_night(number, delivery) for number, delivery in enumerate(deliveries, 1)]
            # What one training on all rows reaches: those that were kept out come again, in their unit, without a gate.
            set_drift("warn")
            kept_out = pa.concat_tables([parts[0], parts[-1]])
            whole = run_night(len(nights) + 1, Delivery("corrected.csv", kept_out, "the rejected rows, corrected"))
            page = write_page(nights, whole, MODEL)
        print(f"The page of these nights: {(FOLDER / page).resolve().as_uri()}")
    return 0


def divide(rows: pa.Table) -> tuple[pa.Table, list[pa.Table]]:
    """Return half of the rows, the source, and the rest in PARTS parts, of which the last has northern rows alone."""
    shuffled = np.random.default_rng(SEED).permutation(rows.num_rows)
    source, rest = np.split(shuffled, [rows.num_rows // 2])
    latitude = rows["Latitude"].to_numpy()
    north = rest[latitude[rest] > np.median(latitude)][: len(rest) // PARTS]
    others = np.array_split(rest[~np.isin(rest, north)], PARTS - 1)
    return rows.take(source), [rows.take(part) for part in (*others, north)]


def plan(parts: list[pa.Table]) -> list[Delivery]:
    """Return what arrives in each of the twelve nights. parts: of `divide`."""
    wrong, *honest, north = parts
    dollars = wrong.set_column(0, "MedInc", pa.array(wrong["MedInc"].to_numpy() * DOLLARS))
    nights = [Delivery(f"batch-{number}.csv", rows, "rows like train's") for number, rows in enumerate(honest, 1)]
    nights.insert(3, Delivery("dollars.csv", dollars, "MedInc in dollars"))
    nights.insert(5, Delivery("north.csv", north, "northern rows alone"))
    nights.insert(7, Delivery("empty.csv", None, "an empty file"))
    nights.insert(9, Delivery("again.csv", nights[8].rows, "the file of the night before"))
    return nights


def make_workspace(folder: Path, source: pa.Table) -> None:
    """Make a repository with MODEL alone, whose data set has the rows `source`; an earlier one is replaced.

    Raises UserError if `folder` is something else.
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
    code = folder / f"datasets/{DATASET}.py"
    code.write_text(code.read_text(encoding="utf-8") + SOURCE.format(sha256=checksum(source)), encoding="utf-8")
    keep_model(folder / paths.PARAMS)
    author = [
        ["git", "config", f"user.{key}", value] for key, value in (("name", NAME), ("email", f"{NAME}@localhost"))
    ]
    begin = ["git", "commit", "--quiet", "--message", "Begin"]
    for command in (["git", "init", "--quiet"], *author, [*DVC, "init", "--quiet"], ["git", "add", "."], begin):
        subprocess.run(command, cwd=folder, check=True)


def keep_model(target: Path) -> None:
    """Write params.yaml with MODEL, its data set and one baseline alone."""
    yaml = YAML()
    params = yaml.load(paths.PARAMS)
    params["datasets"] = {DATASET: params["datasets"][DATASET]}
    params["models"] = {MODEL: params["models"][MODEL]}
    params["gates"] = {DATASET: {**params["gates"][DATASET], "drift": "block", "models": {}}}
    params["baselines"] = {BASELINE: params["baselines"][BASELINE]}
    for section in ("lecture_recipes", "notes"):
        params[section] = {}
    yaml.dump(params, target)


def set_drift(gate: str) -> None:
    """Commit another value of `gates.DATASET.drift`."""
    yaml = YAML()
    params = yaml.load(paths.PARAMS)
    params["gates"][DATASET]["drift"] = gate
    yaml.dump(params, paths.PARAMS)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", f"Set the gate drift to {gate}"], check=True)


def run_night(number: int, delivery: Delivery) -> Night:
    """Deliver a batch, run `retrain`, and return what came of it.

    Args:
        number: of the night, from 1.
        delivery: what arrives.

    Raises:
        UserError: the run failed.
    """
    print(f"night {number}: {delivery.file}, {delivery.what}", flush=True)
    arrive(delivery)
    rejected, judged = files_in(paths.rejected_folder(DATASET)), last_verdict()
    log = Path(f"night-{number}.log")
    with log.open("w") as output:
        command = [sys.executable, "-m", "flows.retrain", MODEL]
        environment = {**os.environ, **reporting_environment()}
        code = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
    if code:
        raise UserError(f"night {number} ended with exit code {code}: see {FOLDER / log}.")
    verdict = last_verdict()
    night = Night(
        number=number,
        what=delivery.what,
        rejected=bool(files_in(paths.rejected_folder(DATASET)) - rejected),
        drifted=drifted(delivery.file),
        verdict=None if verdict == judged else verdict,
    )
    print(f"  {night.result}", flush=True)
    return night


def arrive(delivery: Delivery) -> None:
    """Put a CSV file into data/incoming."""
    folder = paths.incoming_folder(DATASET)
    folder.mkdir(parents=True, exist_ok=True)
    if delivery.rows is None:
        (folder / delivery.file).touch()
    else:
        pa_csv.write_csv(delivery.rows, folder / delivery.file)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def last_verdict() -> Verdict | None:
    path = WORKTREE / paths.artifacts_folder(MODEL) / VERDICT
    return read_verdict(MODEL, WORKTREE) if path.exists() else None


def drifted(file: str) -> bool:
    """Return whether the batch that was made of a file drifts from train."""
    with chdir(WORKTREE):
        return any(read_drift(path).alarm for path in drift_files(DATASET) if path.name.endswith(f"-{file}.json"))


if __name__ == "__main__":
    sys.exit(main())
