"""How a model is used in each way: lines that work when pasted, for its card and its page of the report."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from config import paths
from tasks.publishing.export_record import Column, ExportRecord

PORT = 8500  # of `make serve`
PYTHON = ".venv/bin/python"


class Way(NamedTuple):
    """A way to use a model. name: of the way. text: what to know, in a sentence. language: of the code."""

    name: str
    text: str
    language: str
    code: str


def ways(model: str, record: ExportRecord) -> list[Way]:
    """Return the ways to use a model.

    model: its name. record: what its export takes.
    """
    folder = paths.artifacts_folder(model)
    columns = json_columns(record.inputs)
    found = [
        Way("TensorFlow", "The SavedModel needs nothing but TensorFlow.", "python", tensorflow(folder, columns)),
        Way(
            "Files",
            f"`{PYTHON} -m flows.predict {model} ...` takes the champion instead of a folder.",
            "sh",
            files(folder, record.inputs),
        ),
        Way(
            "HTTP",
            f"While `{PYTHON} -m flows.serve {model} --models artifacts` runs; `make serve` serves the champions.",
            "sh",
            http(model, record.inputs),
        ),
    ]
    made = {name: entry.file for name, entry in record.formats.items() if entry.file}
    if "litert" in made:
        found.append(
            Way("LiteRT", "It needs ai-edge-litert.", "python", litert(f"{folder}/export/{made['litert']}", columns))
        )
    if "onnx" in made:
        found.append(Way("ONNX", "It needs onnxruntime.", "python", onnx(f"{folder}/export/{made['onnx']}", columns)))
    return found


def is_picture(column: Column) -> bool:
    return bool(column.shape)


def json_columns(inputs: list[Column]) -> str:
    """Return the lines of Python that make the columns of one row: an example, or a black picture."""
    lines = []
    for column in inputs:
        shape = ", ".join(map(str, [1, *column.shape]))
        value = f"np.zeros(({shape}), np.{column.dtype})" if is_picture(column) else f"np.float32([{column.example}])"
        lines.append(f'    "{column.name}": {value},\n')
    return f"columns = {{\n{''.join(lines)}}}\n"


def tensorflow(folder: object, columns: str) -> str:
    return f"""import numpy as np
import tensorflow as tf

{columns}model = tf.saved_model.load("{folder}/saved_model")
answer = model.signatures["serving_default"](**{{name: tf.constant(values) for name, values in columns.items()}})
print(answer)
"""


def litert(path: str, columns: str) -> str:
    return f"""import numpy as np
from ai_edge_litert.interpreter import Interpreter

{columns}answer = Interpreter("{path}").get_signature_runner("serving_default")(**columns)
print(answer)
"""


def onnx(path: str, columns: str) -> str:
    return f"""import numpy as np
import onnxruntime

{columns}session = onnxruntime.InferenceSession("{path}")
names = [output.name for output in session.get_outputs()]
answer = dict(zip(names, session.run(names, columns)))
print(answer)
"""


def files(folder: object, inputs: list[Column]) -> str:
    given, made = "rows.csv", "\n".join(csv_lines(inputs))
    if pictures := [column for column in inputs if is_picture(column)]:
        height, width = pictures[0].shape[:2]
        kind = "L" if len(pictures[0].shape) == 2 else "RGB"
        given = "pictures"
        made = (
            f'mkdir -p pictures\n{PYTHON} -c "from PIL import Image; '
            f"Image.new('{kind}', ({width}, {height})).save('pictures/black.png')\""
        )
    return f"{made}\n{PYTHON} -m flows.predict {folder}/saved_model {given} predictions.parquet\n"


def csv_lines(inputs: list[Column]) -> Iterator[str]:
    yield f"echo {','.join(column.name for column in inputs)} > rows.csv"
    yield f"echo {','.join(str(column.example) for column in inputs)} >> rows.csv"


def http(model: str, inputs: list[Column]) -> str:
    address = f"http://127.0.0.1:{PORT}/v1/models/{model}:predict"
    if any(is_picture(column) for column in inputs):
        values = {column.name: zeros(column.shape) if is_picture(column) else column.example for column in inputs}
        row = ", ".join(f"'{name}': {value}" for name, value in values.items())
        made = f"{PYTHON} -c \"import json; print(json.dumps({{'instances': [{{{row}}}]}}))\""
        return f"{made} |\n  curl --silent --data @- {address}\n"
    row = json.dumps({"instances": [{column.name: column.example for column in inputs}]})
    return f"curl --silent {address} \\\n  --data '{row}'\n"


def zeros(shape: list[int]) -> str:
    """Return the Python text of nested lists of zeros."""
    return f"[0] * {shape[0]}" if len(shape) == 1 else f"[{zeros(shape[1:])}] * {shape[0]}"
