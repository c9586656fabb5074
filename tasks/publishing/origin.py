"""assets.extra/origin.json of a SavedModel: what the export says of its data and its training."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tasks.data.contracts import OpenContract, Sha256, Source
from tasks.data.files import write_json

FILE = Path("assets.extra/origin.json")


class Origin(OpenContract):
    """Facts of the data and the training that an export holds.

    class_names, target_unit: of the data set. model, task, classes: what the network learns, and the names of its
    classes (none for a quantity); exports of version 0.2 lack them. further_classes: those of outputs that learn
    another target, by output.
    """

    dataset: str
    source: Source
    raw_sha256: Sha256
    class_names: list[str] | None
    target_unit: str | None
    seed: int
    model: str | None = None
    task: Literal["regression", "binary", "multiclass"] | None = None
    classes: list[str] | None = None
    further_classes: dict[str, list[str] | None] = Field(default={}, exclude_if=lambda value: not value)


def write_origin(origin: Origin, saved_model: Path) -> None:
    path = saved_model / FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, origin.model_dump(mode="json"))


def read_origin(saved_model: Path) -> Origin | None:
    """Read the facts of an export; None where it has none, as a SavedModel that is not of this project."""
    try:
        return Origin.model_validate(json.loads((saved_model / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
