"""Checkpoints of an interrupted or extended training, in checkpoints/M.

They are no output of a DVC stage, because DVC removes outputs before the stage runs. A training ends with the same
result with or without them.
"""

import csv
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from config.params import ModelParams
from runtime.atomic_outputs import remove
from runtime.disk import refuse_unwritable
from tasks.data.streaming import Split
from tasks.training.callbacks import TimeSpent
from tasks.training.hardware import processor_name

ROOT = Path(__file__).parents[2]
# A training does not resume from a checkpoint of other code.
CODE = [file for folder in ("models", "tasks/data", "tasks/training") for file in sorted((ROOT / folder).rglob("*.py"))]
# The files that `checkpoint_callbacks` and `open_checkpoints` write.
OWN = re.compile(r"(best|epoch-\d{4,})\.(weights\.h5|keras)|history\.csv|last|seconds|training\.json")

logger = logging.getLogger(__name__)


def checkpoint_callbacks(params: ModelParams, folder: Path) -> list[keras.callbacks.Callback]:
    """Return the callbacks that write the checkpoints of the recipe into `folder`."""
    callbacks: list[keras.callbacks.Callback] = []
    chosen = params.fit.checkpoint
    if chosen:
        kind = "weights.h5" if chosen.weights_only else "keras"
        file = f"best.{kind}" if chosen.best_only else "epoch-{epoch:04d}." + kind
        earlier = read_history(folder).get("val_loss", [])
        callbacks.append(
            keras.callbacks.ModelCheckpoint(
                str(folder / file),
                save_best_only=chosen.best_only,
                save_weights_only=chosen.weights_only,
                initial_value_threshold=min(earlier, default=None),
            )
        )
    if params.fit.resume:
        callbacks += [
            keras.callbacks.CSVLogger(str(folder / "history.csv"), append=True),
            keras.callbacks.BackupAndRestore(str(folder / "last"), double_checkpoint=True, delete_checkpoint=False),
            TimeSpent(folder / "seconds", seconds_spent(folder)),
        ]
    return callbacks


def open_checkpoints(params: ModelParams, seed: int, how: Sequence[str], splits: Sequence[Split], folder: Path) -> None:
    """Remove the files of an earlier training, unless this training resumes from them.

    Args:
        params: the recipe.
        seed: of the training.
        how: further settings that affect the numerical result, such as the precision.
        splits: the rows of train and valid.
        folder: of the checkpoints.
    """
    training = describe_training(params, seed, how, splits) if params.fit.resume else {}
    described = folder / "training.json"
    done = epochs_done(folder)
    if params.fit.resume and done:
        same = read_training(described) == training and is_readable(folder)
        if same and done <= params.fit.epochs:
            logger.info("resuming after epoch %d from %s", done, folder)
            return
        reason = (
            "is damaged, or of another recipe, other data or other code" if not same else f"has {done} epochs already"
        )
        logger.info("starting at epoch 1: the checkpoint in %s %s", folder, reason)
    for entry in own_entries(folder):
        remove(entry)
    if params.fit.resume or params.fit.checkpoint:
        refuse_unwritable(folder)
        folder.mkdir(parents=True, exist_ok=True)
    if params.fit.resume:
        described.write_text(json.dumps(training, indent=2), encoding="utf-8")


def read_training(described: Path) -> object:
    """Return the description of the training that wrote the checkpoint; None where it cannot be read."""
    try:
        return json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def is_readable(folder: Path) -> bool:
    """Tell whether the metrics of the finished epochs can be read."""
    try:
        read_history(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def own_entries(folder: Path) -> list[Path]:
    """Return the files of a training in `folder`; all others are the user's."""
    return [entry for entry in folder.iterdir() if OWN.fullmatch(entry.name)] if folder.is_dir() else []


def epochs_done(folder: Path) -> int:
    """Return how many epochs the last checkpoint of Keras' BackupAndRestore in `folder` has finished; 0 without one."""
    try:
        return int(json.loads((folder / "last/training_metadata.json").read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def seconds_spent(folder: Path) -> float:
    """Return the seconds that the finished epochs of the checkpoint in `folder` took; 0 where it is not known."""
    try:
        return float((folder / "seconds").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def describe_training(params: ModelParams, seed: int, how: Sequence[str], splits: Sequence[Split]) -> dict:
    """Return what determines the epochs of a training, except their number: equal descriptions give equal epochs.

    Args:
        params: the recipe.
        seed: of the training.
        how: further settings that affect the numerical result, such as the precision.
        splits: the rows of train and valid.
    """
    recipe = params.model_dump(mode="json", exclude={"probes": True, "fit": {"resume", "checkpoint"}})
    if params.compile.schedule == "constant":  # any other schedule depends on the number of epochs
        del recipe["fit"]["epochs"]
    data = hashlib.blake2b()
    for part in (part for split in splits for part in split.parts()):
        for values in (
            *part.inputs.values(),
            part.target,
            *part.own.values(),
            *([] if part.weight is None else [part.weight]),
        ):
            data.update(np.ascontiguousarray(values).data)
    code = hashlib.blake2b(b"".join(file.read_bytes() for file in CODE))
    return {
        "recipe": recipe,
        "seed": seed,
        "how": list(how),
        "data": data.hexdigest(),
        "code": code.hexdigest(),
        "processor": processor_name(),
        "keras": keras.version(),
        "backend": f"{(backend := keras.backend.backend())} {version(backend)}",
    }


def read_history(folder: Path) -> dict[str, list[float]]:
    """Return the metrics of every epoch of a resumed training, from its first epoch on; {} without a file.

    Raises ValueError, KeyError or TypeError where the file is damaged.
    """
    file = folder / "history.csv"
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as text:
        rows = csv.DictReader(text)
        names = [name for name in rows.fieldnames or () if name != "epoch"]
        by_epoch = {int(row["epoch"]): row for row in rows}  # of an epoch that was run twice, the last one
    if not by_epoch:
        raise ValueError(f"{file} has no rows")
    return {name: [float(by_epoch[epoch][name]) for epoch in sorted(by_epoch)] for name in names}
