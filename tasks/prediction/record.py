"""STEM.json beside the output: what it was made of, and how long that took."""

from pathlib import Path

from pydantic import Field

from tasks.data.contracts import Contract, Number, Seconds, Sha256, write_contract


class Input(Contract):
    """A file of the input, or a folder of pictures. sha256: of a folder, of the names and contents of its pictures."""

    path: str
    sha256: Sha256
    bytes: int = Field(ge=0)


class PredictionRecord(Contract):
    """What an output was made of.

    rows: of the readable files, `predicted` and `rejected` ones. unreadable_files: those of which all rows, or the last
    ones, could not be read. seconds, rows_per_second: of the last run, without the start of TensorFlow.
    """

    model: str
    version: str
    saved_model_sha256: Sha256
    inputs: list[Input]
    rows: int = Field(ge=0)
    predicted: int = Field(ge=0)
    rejected: int = Field(ge=0)
    unreadable_files: int = Field(ge=0)
    seconds: Seconds
    rows_per_second: Number = Field(ge=0)


def write_record(path: Path, record: PredictionRecord) -> None:
    write_contract(path, record)
