"""The paths of a workspace, relative to its root, which is the current directory of every command."""

from pathlib import Path

from runtime.atomic_outputs import STAGING

PARAMS = Path("params.yaml")
INCOMING = Path("data/incoming")  # arrivals: files of new rows that users put there
BATCHES = Path("data/batches")  # accepted arrivals
REJECTED = Path("data/rejected")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
EXPECTATIONS = Path("data/expectations")  # kept in git
DRIFT = Path("data/drift")  # of accepted batches, no output of DVC
ARTIFACTS = Path("artifacts")
LOGS = Path("logs")
CHECKPOINTS = Path("checkpoints")
BASELINES = ARTIFACTS / "baselines"
REPORTS = Path("reports")
LAST_RUN = REPORTS / "last_run.js"  # the timeline of the last `make pipeline`, no output of DVC
RETRAIN = Path(".retrain")  # the workspace of `retrain`, and the champions that it compares with
FOLDERS = (INCOMING, BATCHES, REJECTED, RAW, PREPARED, ARTIFACTS, LOGS, CHECKPOINTS, REPORTS, STAGING)

SPLITS = ("train", "valid", "test")


def incoming_folder(dataset: str) -> Path:
    return INCOMING / dataset


def batches_folder(dataset: str) -> Path:
    return BATCHES / dataset


def rejected_folder(dataset: str) -> Path:
    return REJECTED / dataset


def raw_table(dataset: str) -> Path:
    return RAW / f"{dataset}.parquet"


def raw_provenance(dataset: str) -> Path:
    return RAW / f"{dataset}.json"


def prepared_folder(dataset: str) -> Path:
    return PREPARED / dataset


def prepared_table(dataset: str, split: str) -> Path:
    return prepared_folder(dataset) / f"{split}.parquet"


def expectations_file(dataset: str) -> Path:
    return EXPECTATIONS / f"{dataset}.yaml"


def drift_folder(dataset: str) -> Path:
    return DRIFT / dataset


def artifacts_folder(model: str) -> Path:
    return ARTIFACTS / model


def logs_folder(model: str) -> Path:
    return LOGS / model


def checkpoints_folder(model: str) -> Path:
    return CHECKPOINTS / model


def search_folder(model: str) -> Path:
    return ARTIFACTS / "search" / model


def search_checkpoints_folder(model: str) -> Path:
    return CHECKPOINTS / "search" / model


def search_logs_folder(model: str) -> Path:
    return LOGS / "search" / model


def lecture_recipe_folder(model: str) -> Path:
    return ARTIFACTS / "lecture_recipes" / model
