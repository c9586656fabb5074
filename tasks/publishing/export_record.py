"""export/export.json: what an exported model takes, and its further formats. The report reads it, without Keras."""

from pathlib import Path

from pydantic import NonNegativeInt

from config import paths
from tasks.data.contracts import Number, OpenContract, read_contract, write_contract

FILE = "export/export.json"


class Column(OpenContract):
    """An input of the exported model: a raw column. shape: of a row. example: of a number, that of a row of valid."""

    name: str
    dtype: str
    shape: list[NonNegativeInt]
    example: Number | None


class Format(OpenContract):
    """A further format. file: its name; None where it is not published. difference: the largest one from the trained
    model, relative to the largest output. reason: why it is not published."""

    file: str | None = None
    difference: Number | None = None
    reason: str | None = None


class ExportRecord(OpenContract):
    """artifacts/M/export/export.json. formats: those that params.yaml asks for, by name."""

    inputs: list[Column]
    formats: dict[str, Format]


def write_export_record(record: ExportRecord, folder: Path) -> None:
    write_contract(folder / FILE, record)


def read_export_record(name: str) -> ExportRecord:
    return read_contract(paths.artifacts_folder(name) / FILE, ExportRecord, f"train@{name}")
