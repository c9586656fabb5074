"""The Open Inference Protocol, version 2, with the extension for binary tensors as Triton has it."""

from math import prod
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from runtime.errors import shortened
from serving.answers import Answer, first_fault
from serving.json_text import parsed, written
from serving.refusal import bad
from serving.tensors import (
    DATATYPES,
    NAMES,
    check_names,
    check_rows,
    column_of_bytes,
    column_of_json,
    finite_answer,
    flattened,
    rows_in,
)
from tasks.prediction.saved_model import LoadedModel, Tensor

HEADER = "Inference-Header-Content-Length"
SIZE = "binary_data_size"
# Parameters of Triton's further extensions, which would change the answer.
NOT_OFFERED = ("classification", "shared_memory_region")
PLATFORM = "tensorflow_savedmodel"

Size = Annotated[int, Field(ge=0, strict=True)]
Parameters = dict[str, Any]


class Open(BaseModel):
    """What may have further keys, which are ignored."""

    model_config = ConfigDict(extra="allow")


class RequestInput(Open):
    name: StrictStr
    shape: list[Size]
    datatype: StrictStr = Field(examples=["FP32"])
    parameters: Parameters | None = None
    data: list[Any] | None = Field(None, description="flat or nested; missing if the tensor is binary")


class RequestOutput(Open):
    name: StrictStr
    parameters: Parameters | None = None


class InferRequest(Open):
    id: StrictStr | None = None
    parameters: Parameters | None = None
    inputs: list[RequestInput]
    outputs: list[RequestOutput] | None = None


class ResponseOutput(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[float | int | bool] | None = None


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


def metadata(model: LoadedModel) -> ModelMetadata:
    return ModelMetadata(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=tensor_metadata(model.inputs),
        outputs=tensor_metadata(model.outputs),
    )


def tensor_metadata(tensors: dict[str, Tensor]) -> list[TensorMetadata]:
    return [
        TensorMetadata(name=name, datatype=NAMES[tensor.dtype], shape=[-1, *tensor.shape])
        for name, tensor in tensors.items()
    ]


def infer(model: LoadedModel, body: bytes, header: str | None, most_rows: int) -> Answer:
    """Answer a request.

    Args:
        model: that computes.
        body: JSON, with the binary tensors after it.
        header: of the request, the length of the JSON; None: all.
        most_rows: that a request may have.

    Raises:
        Refusal: the request is not valid, or the model has no finite answer.
    """
    text, binary = parts(body, header)
    request = read(text)
    check_names(model, [given.name for given in request.inputs])
    selected = selected_outputs(model, request)
    columns, rows = {}, {}
    for given in request.inputs:
        refuse_not_offered(given)
        tensor, data = model.inputs[given.name], None
        if SIZE in (given.parameters or {}):
            data, binary = taken(given, binary)
        columns[given.name], rows[given.name] = column(given, tensor, data, most_rows)
    if len(binary):
        raise bad(f"{len(binary)} bytes follow the last tensor.")
    number = check_rows(rows, most_rows)
    answers = finite_answer(model, columns)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        answer["id"] = request.id
    described, tail = described_outputs(answers, selected)
    start = written({**answer, "outputs": described})
    if not tail:
        return Answer(start, "application/json", number)
    return Answer(b"".join([start, *tail]), "application/octet-stream", number, {HEADER: str(len(start))})


def parts(body: bytes, header: str | None) -> tuple[memoryview, memoryview]:
    """Return the JSON of a request, and what follows it."""
    whole = memoryview(body)
    if header is None:
        return whole, whole[len(whole) :]
    if not (header.isascii() and header.isdecimal() and int(header) <= len(whole)):
        raise bad(f"{HEADER} is {shortened(repr(header))}; the body has {len(whole)} bytes.")
    return whole[: int(header)], whole[int(header) :]


def read(text: memoryview) -> InferRequest:
    try:
        request = InferRequest.model_validate(parsed(text))
    except ValidationError as error:
        raise bad(first_fault(error)) from None
    if not request.inputs:
        raise bad("inputs: it is empty.")
    return request


def refuse_not_offered(given: RequestInput | RequestOutput) -> None:
    for name in NOT_OFFERED:
        if name in (given.parameters or {}):
            raise bad(f"{shortened(repr(given.name))}: the parameter {name} is not offered.")


def taken(given: RequestInput, binary: memoryview) -> tuple[memoryview, memoryview]:
    """Return the bytes of an input, and those that are left."""
    size = (given.parameters or {})[SIZE]
    if type(size) is not int or not 0 <= size <= len(binary):
        raise bad(
            f"input {shortened(repr(given.name))}: {SIZE} is {shortened(repr(size))}, but {len(binary)} bytes follow; "
            f"{HEADER} says where the JSON ends."
        )
    if given.data is not None:
        raise bad(f"input {shortened(repr(given.name))} has both data and {SIZE}.")
    return binary[:size], binary[size:]


def column(given: RequestInput, tensor: Tensor, data: memoryview | None, most_rows: int) -> tuple[np.ndarray, int]:
    """Return the column of an input, and its rows.

    Args:
        given: the input of the request.
        tensor: that of the model.
        data: its bytes; None: it has JSON.
        most_rows: that a request may have.
    """
    name, shape = given.name, tuple(given.shape)
    if given.datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise bad(
            f"input {shortened(repr(name))}: the datatype {shortened(repr(given.datatype))} is none of {known}; the "
            f"model takes {NAMES[tensor.dtype]}."
        )
    rows = check_rows({name: rows_in(name, shape, tensor)}, most_rows)
    if data is not None:
        return column_of_bytes(name, data, given.datatype, rows, tensor), rows
    if given.data is None:
        raise bad(f"input {shortened(repr(name))} has no data.")
    flat, found = flattened(name, given.data)
    if found != shape and found != (prod(shape),):
        raise bad(f"input {shortened(repr(name))} has data of the shape {[*found]}, but says {[*shape]}.")
    return column_of_json(name, flat, rows, tensor), rows


def selected_outputs(model: LoadedModel, request: InferRequest) -> dict[str, bool]:
    """Return the outputs that the request asks for, and whether each is to be binary."""
    everywhere = flag(request.parameters, "binary_data_output", False)
    if not request.outputs:
        return dict.fromkeys(model.outputs, everywhere)
    for output in request.outputs:
        refuse_not_offered(output)
        if output.name not in model.outputs:
            known = ", ".join(sorted(model.outputs))
            raise bad(f"{model.name} has no output {shortened(repr(output.name))}. Its outputs: {known}.")
    return {output.name: flag(output.parameters, "binary_data", everywhere) for output in request.outputs}


def flag(parameters: Parameters | None, name: str, otherwise: bool) -> bool:
    value = (parameters or {}).get(name, otherwise)
    if not isinstance(value, bool):
        raise bad(f"the parameter {name} is {shortened(repr(value))}; true or false is needed.")
    return value


def described_outputs(
    answers: dict[str, np.ndarray], selected: dict[str, bool]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the outputs for the JSON, and the bytes of the binary ones."""
    described, tail = [], []
    for name, binary in selected.items():
        values = np.ascontiguousarray(answers[name])
        output = {"name": name, "shape": [*values.shape], "datatype": NAMES[values.dtype]}
        if binary:
            tail.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            described.append({**output, "parameters": {SIZE: len(tail[-1])}})
        else:
            described.append({**output, "data": values.reshape(-1)})
    return described, tail
