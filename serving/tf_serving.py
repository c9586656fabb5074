"""The REST interface of TensorFlow Serving: predict, status and metadata."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from runtime.errors import shortened
from serving.answers import Answer, first_fault
from serving.json_text import parsed, written
from serving.refusal import bad
from serving.tensors import check_names, check_rows, column_of_json, finite_answer, flattened, rows_in
from tasks.prediction.saved_model import SIGNATURE, LoadedModel, Tensor

DT = {"bool": "DT_BOOL", "float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE"}
ROWS = "rows: the value of the one input, or an object with the value of each input"
COLUMNS = "columns: the values of the one input, or an object with those of each input"


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    signature_name: StrictStr | None = Field(None, examples=[SIGNATURE])
    instances: list[Any] | None = Field(None, description=ROWS)
    inputs: dict[str, Any] | list[Any] | None = Field(None, description=COLUMNS)


class PredictResponse(BaseModel):
    """predictions: of `instances`. outputs: of `inputs`."""

    predictions: list[Any] | None = None
    outputs: list[Any] | dict[str, Any] | None = None


class Status(BaseModel):
    error_code: str
    error_message: str


class VersionStatus(BaseModel):
    version: str
    state: str
    status: Status


class ModelStatus(BaseModel):
    model_version_status: list[VersionStatus]


class ModelSpec(BaseModel):
    name: str
    signature_name: str
    version: str


class MetadataResponse(BaseModel):
    model_spec: ModelSpec
    metadata: dict[str, Any]


def predict(model: LoadedModel, body: bytes, most_rows: int) -> Answer:
    """Answer a request; raises Refusal if it is not valid, or the model has no finite answer.

    Args:
        model: that computes.
        body: JSON.
        most_rows: that a request may have.
    """
    try:
        request = PredictRequest.model_validate(parsed(body))
    except ValidationError as error:
        raise bad(first_fault(error)) from None
    if request.signature_name not in (None, "", SIGNATURE):
        raise bad(f"signature_name is {shortened(repr(request.signature_name))}; there is {SIGNATURE} alone.")
    if (request.instances is None) == (request.inputs is None):
        raise bad("the body needs either `instances` or `inputs`.")
    by_name = named_columns(model, request, most_rows)
    columns, rows = {}, {}
    for name, values in by_name.items():
        if not isinstance(values, list):
            raise bad(f"input {shortened(repr(name))}: a list with a value for each row is needed.")
        tensor = model.inputs[name]
        flat, shape = flattened(name, values)
        rows[name] = check_rows({name: rows_in(name, shape, tensor)}, most_rows)
        columns[name] = column_of_json(name, flat, rows[name], tensor)
    number = check_rows(rows, most_rows)
    answers = finite_answer(model, columns)
    made = predictions(answers) if request.instances is not None else outputs(answers)
    return Answer(written(made), "application/json", number)


def named_columns(model: LoadedModel, request: PredictRequest, most_rows: int) -> dict[str, Any]:
    """Return what is given for each input: values row by row."""
    if request.instances is None:
        given = request.inputs
        if not isinstance(given, dict):
            given = {only_input(model): given}
        check_names(model, [*given])
        return given
    rows = request.instances
    check_rows({"instances": len(rows)}, most_rows)
    if not isinstance(rows[0], dict):
        return {only_input(model): rows}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise bad(f"instances, row {number}: an object is needed, as in row 0.")
        if row.keys() != model.inputs.keys():
            missing, unknown = (
                [*one.keys() - other.keys()] for one, other in ((model.inputs, row), (row, model.inputs))
            )
            told = "lacks the input" if missing else "has the unknown input"
            name = sorted(missing or unknown)[0]
            raise bad(f"instances, row {number} {told} {shortened(repr(name))}.")
    return {name: [row[name] for row in rows] for name in model.inputs}


def only_input(model: LoadedModel) -> str:
    if len(model.inputs) > 1:
        known = ", ".join(sorted(model.inputs))
        raise bad(f"{model.name} has several inputs, so each needs its name: {known}.")
    return next(iter(model.inputs))


def predictions(answers: dict[str, np.ndarray]) -> dict[str, Any]:
    if len(answers) == 1:
        return {"predictions": contiguous(answers)[0][1]}
    named = contiguous(answers)
    return {"predictions": [{name: values[row] for name, values in named} for row in range(len(named[0][1]))]}


def outputs(answers: dict[str, np.ndarray]) -> dict[str, Any]:
    named = contiguous(answers)
    return {"outputs": named[0][1] if len(named) == 1 else dict(named)}


def contiguous(answers: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(name, np.ascontiguousarray(values)) for name, values in answers.items()]


def status(model: LoadedModel) -> ModelStatus:
    found = Status(error_code="OK", error_message="")
    return ModelStatus(model_version_status=[VersionStatus(version=model.version, state="AVAILABLE", status=found)])


def metadata(model: LoadedModel) -> MetadataResponse:
    signature = {
        "inputs": tensor_infos(model.inputs),
        "outputs": tensor_infos(model.outputs),
        "method_name": "tensorflow/serving/predict",
    }
    return MetadataResponse(
        model_spec=ModelSpec(name=model.name, signature_name="", version=model.version),
        metadata={"signature_def": {"signature_def": {SIGNATURE: signature}}},
    )


def tensor_infos(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return what TensorFlow Serving says of inputs or outputs; sizes are texts there, as 64 bits are in its JSON."""
    return {
        name: {
            "dtype": DT.get(tensor.dtype.name, f"DT_{tensor.dtype.name.upper()}"),
            "tensor_shape": {
                "dim": [{"size": str(size), "name": ""} for size in (-1, *tensor.shape)],
                "unknown_rank": False,
            },
            "name": f"{name}:0",
        }
        for name, tensor in tensors.items()
    }
