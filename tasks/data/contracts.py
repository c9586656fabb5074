"""Contracts: what the JSON files of the pipeline have in common, as pydantic models.

Each file has a model in the room that writes it, with functions to write and to read it. A missing or unknown key, a
wrong type, a number that cannot be used, or a contradiction is an error: what is made from it would be wrong silently.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from datasets.dataset import Dataset
from runtime.errors import UserError
from tasks.data.files import read_json, write_json

MAX_SHOWN_VALUE = 80  # characters

Source = Literal["real", "sample"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[Number, Field(ge=0)]


def fit_float32(value: float) -> float:
    if not np.isfinite(np.float32(value)):
        raise ValueError("is too large")
    return value


# A statistic with which float32 values are computed.
Statistic = Annotated[Number, Field(ge=-1e38, le=1e38), AfterValidator(fit_float32)]


def only_with_batches() -> Any:
    """Return a field that is None, and not in the file, unless batches add rows to those of the source."""
    return Field(default=None, exclude_if=lambda value: value is None)


class Contract(BaseModel):
    """A JSON object whose keys are all known. The order of the fields is that of the keys in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OpenContract(Contract):
    """A JSON object that keeps keys which it does not know: the report shows files of older and newer versions, too."""

    model_config = ConfigDict(extra="allow")


Model = TypeVar("Model")


def read_contract(path: Path, contract: type[Model] | TypeAdapter[Model], stage: str) -> Model:
    """Read a JSON object.

    Args:
        path: the file.
        contract: what it holds.
        stage: which makes it, for the message.

    Raises:
        UserError: the file is missing or holds something else; the message names key, value and stage.
    """
    values = read_json(path, stage)
    adapter = contract if isinstance(contract, TypeAdapter) else TypeAdapter(contract)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise fault(path, stage, *describe(error)) from None


def write_contract(path: Path, values: Any) -> None:
    """Write a contract, or a dictionary or list of contracts."""
    write_json(path, to_jsonable_python(values))


def describe(error: ValidationError) -> tuple[str, str]:
    """Return the key of the first fault and what is wrong with it; a long value is cut."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        return key, "is missing"
    if found["type"] == "union_tag_not_found":
        return found["ctx"]["discriminator"].strip("'"), "is missing"
    if found["type"] == "union_tag_invalid":
        tag = found["ctx"]["discriminator"].strip("'")
        return tag, f"expected one of {found['ctx']['expected_tags']}, got {shorten(found['input'][tag])}"
    if found["type"] == "extra_forbidden":
        return key, "is not known here"
    if found["type"] == "model_type":  # pydantic names the Python class, too
        return key, f"Input should be a valid dictionary, got {shorten(found['input'])}"
    return key, f"{found['msg'].removeprefix('Value error, ')}, got {shorten(found['input'])}"


def fault(path: Path, stage: str, key: str, message: str) -> UserError:
    """Return the error for a file that holds something wrong.

    Args:
        path: the file.
        stage: which makes it anew.
        key: where in the file; "" for all of it.
        message: what is wrong there.
    """
    return UserError(f"{path}: {key + ': ' if key else ''}{message}. Run `dvc repro --force {stage}`.")


def refuse_other_values(path: Path, stage: str, found: Contract, expected: dict[str, Any], where: str) -> None:
    """Raise UserError where a field of `found` has another value than in `expected`.

    Args:
        path: the file that holds `found`.
        stage: which makes it anew.
        found: what the file holds.
        expected: values by field.
        where: the file that states them.
    """
    for key, value in expected.items():
        if getattr(found, key) != value:
            raise fault(path, stage, key, f"is {shorten(getattr(found, key))}, but {where} says {shorten(value)}")


def refuse_false_source(path: Path, stage: str, dataset: Dataset, found: Any, key: str) -> None:
    """Raise UserError where rows are called real and their source rows are not the published ones.

    Args:
        path: the file that says so.
        stage: which makes it anew.
        dataset: whose rows they are.
        found: what the file says; has `source`, "real" or "sample", and `source_sha256`, None where no batch adds rows.
        key: of the checksum of all rows in the file.
    """
    key = key if found.source_sha256 is None else "source_sha256"
    sha256 = getattr(found, key)
    if found.source == "real" and sha256 != dataset.sha256:
        message = f"is {sha256}, but source is 'real', and the real rows have {dataset.sha256}"
        raise fault(path, stage, key, message)


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_VALUE else f"{text[:MAX_SHOWN_VALUE]}…"
