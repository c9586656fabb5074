"""data/drift/D/NAME.json: how far the rows of an accepted batch are from train, as the report shows it."""

from pathlib import Path

from pydantic import Field, PositiveInt, ValidationError

from config import paths
from runtime.atomic_outputs import atomic_files
from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.data.contracts import Contract, Number, Sha256, describe
from tasks.data.files import write_json


class ColumnDrift(Contract):
    """How far one thing is from train. distance: Wasserstein, in standard deviations, or Hellinger."""

    column: str
    distance: str
    effect: Number
    limit: Number
    alarm: bool


class Drift(Contract):
    """How far a batch is from train.

    rate: the share of batches without drift that raise any alarm. sha256: of the train rows.
    """

    dataset: str
    batch: str = Field(pattern=r"^[^./\\][^/\\]*$")  # the name of a file
    rows: PositiveInt
    train_rows: PositiveInt
    sha256: Sha256
    rate: Number = Field(gt=0, lt=1)
    columns: list[ColumnDrift]
    alarm: bool


def write_drift(drift: Drift) -> None:
    """Write data/drift/D/BATCH.json, which replaces an earlier record of that batch."""
    with atomic_files(paths.drift_folder(drift.dataset), drift.batch) as folder:
        write_json(folder / f"{drift.batch}.json", drift.model_dump(mode="json"))


def drift_files(dataset: str) -> list[Path]:
    """Return the records of all batches of a data set, by name."""
    return sorted(paths.drift_folder(dataset).glob("*.json"))


def read_drift(path: Path) -> Drift:
    """Read a record; raises UserError where it is damaged."""
    refuse_unless_file(path)
    remedy = "It is a record of an accepted batch and may be removed."
    try:
        return Drift.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UserError(f"{path}: {': '.join(filter(None, describe(error)))}. {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). {remedy}") from None


def to_markdown(drift: Drift) -> str:
    """Return a page that shows a record: what is far from train first, then the rest by effect and limit."""
    alarms = [column for column in drift.columns if column.alarm]
    ordered = sorted(drift.columns, key=lambda column: -column.effect / column.limit)
    lines = [
        f"# Drift of {drift.batch}",
        "",
        f"**{len(alarms)} of {len(drift.columns)} measures are over their limit.**" if alarms else "**No drift.**",
        f"{drift.rows:,} rows of {drift.dataset}, compared with {drift.train_rows:,} train rows.",
        f"Of batches without drift, {100 * drift.rate:g} % raise an alarm.",
        "",
        "| column | distance | effect | limit | drift |",
        "|---|---|---:|---:|---|",
    ]
    for column in ordered:
        told = "**yes**" if column.alarm else "no"
        name = column.column.replace("|", "\\|")
        lines.append(f"| {name} | {column.distance} | {column.effect:.3f} | {column.limit:.3f} | {told} |")
    return "\n".join([*lines, ""])
