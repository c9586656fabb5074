"""summary.json: the metrics of all models and baselines, which git keeps."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from tasks.data.contracts import Number, OpenContract, Source, write_contract
from tasks.evaluation.metrics_files import LectureRun, MemberMetrics, SplitMetrics

FILE = "summary.json"


class SummarySeconds(OpenContract):
    """The seconds of a fit, and of all steps of its training."""

    fit: Number
    total: Number


class SummaryRow(OpenContract):
    """A model or a baseline in summary.json.

    params: its parameters. probes: its example predictions. notes: what the lecture notes print for it.
    notes_recipe: its trainings by their recipe. members: of an ensemble, alone. Earlier versions can lack all but name,
    source and metrics.
    """

    name: str
    kind: str = ""
    dataset: str = ""
    task: str = ""
    source: Source
    params: int = 0
    metrics: SplitMetrics
    probes: dict[str, Number] = Field(default_factory=dict)
    notes: dict[str, Any] | None = None
    notes_recipe: list[LectureRun] | None = None
    members: list[MemberMetrics] | None = Field(default=None, exclude_if=lambda value: value is None)
    seconds: SummarySeconds | None = None


ROWS = TypeAdapter(list[SummaryRow])


def write_summary(rows: list[SummaryRow], folder: Path) -> None:
    write_contract(folder / FILE, rows)


def parse_summary(text: str) -> list[SummaryRow]:
    """Return the rows of a summary.json; raises ValueError where it is none."""
    return ROWS.validate_python(json.loads(text))
