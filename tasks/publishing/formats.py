"""More formats of an exported model: LiteRT (`export/model.tflite`) and ONNX (`export/model.onnx`).

Both are made of the published SavedModel, so they also take raw columns by name, and any number of rows. A process
without TensorFlow and without this project's code loads each; it must answer as the trained model does. A format that
cannot be made, or answers otherwise, is not published; `export/export.json` says why.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from prefect import task

from runtime.errors import shortened
from runtime.isolated_process import run_program
from runtime.stderr import quiet_stderr
from tasks.publishing.export_record import Column, ExportRecord, Format, write_export_record

MAX_REASON = 300  # characters
OPSET = 18  # of ONNX; onnxruntime knows it since 1.14 (2023)
FILES = {"litert": "model.tflite", "onnx": "model.onnx"}

logger = logging.getLogger(__name__)


def to_litert(saved_model: Path) -> bytes:
    """Return a SavedModel in the format of LiteRT."""
    return tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert()


def to_onnx(saved_model: Path) -> bytes:
    """Return a SavedModel in the format of ONNX; its inputs and outputs keep their names."""
    import onnx
    import tf2onnx

    loaded = tf.saved_model.load(str(saved_model))  # a name of its own: it holds the variables
    serve = loaded.signatures["serving_default"]
    specs = serve.structured_input_signature[1]
    given = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    whole = tf.function(lambda *values: serve(**dict(zip(specs, values, strict=True))), input_signature=given)
    model, _ = tf2onnx.convert.from_function(whole, input_signature=given, opset=OPSET)
    # tf2onnx takes a constant of the graph that is no variable for an input, as are mean and variance of Keras'
    # Normalization. Here they become what they are.
    held = {inside.name: outside for outside, inside in whole.get_concrete_function().graph.captures}
    for extra in [entry for entry in model.graph.input if entry.name not in specs]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(held[extra.name].numpy(), extra.name))
        model.graph.input.remove(extra)
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "rows"
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


CONVERTERS: Mapping[str, Callable[[Path], bytes]] = {"litert": to_litert, "onnx": to_onnx}

# It imports NumPy and the runtime of the format only.
RUN_LITERT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(sys.argv[1]).get_signature_runner("serving_default")
with np.load(sys.argv[2]) as columns:
    np.savez(sys.argv[3], **run(**dict(columns)))
"""
RUN_ONNX = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
with np.load(sys.argv[2]) as columns:
    answers = session.run(None, dict(columns))
np.savez(sys.argv[3], **dict(zip([output.name for output in session.get_outputs()], answers)))
"""
RUNNERS = {"litert": RUN_LITERT, "onnx": RUN_ONNX}


def convert(names: list[str], folder: Path) -> dict[str, Format]:
    """Write `export/` with the SavedModel in further formats.

    names: of the formats. folder: what the training publishes, with `saved_model/`.

    Returns:
        What is known of each format, by name: its file, or why there is none.
    """
    own = folder / "export"
    own.mkdir()
    found = {}
    for name in names:
        try:
            with quiet_stderr(), tempfile.TemporaryDirectory() as place:
                # TensorFlow reads [ ] and the like in a path as a pattern, so it gets a path without any.
                link = Path(place, "saved_model")
                link.symlink_to((folder / "saved_model").resolve())
                content = CONVERTERS[name](link)
        except Exception as error:  # noqa: BLE001 - a converter can raise anything
            found[name] = Format(reason=reason_of(error))
        else:
            (own / FILES[name]).write_bytes(content)
            found[name] = Format(file=FILES[name])
    return found


def verify(
    formats: Mapping[str, Format],
    columns: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
    folder: Path,
) -> dict[str, Format]:
    """Load each format in an isolated process and compare its answers; remove the files that do not pass.

    Args:
        formats: of `convert`.
        columns: values of each raw column, [rows] or [rows, ...], of the input's dtype.
        expected: the outputs of the trained model for them, [rows, ...].
        tolerance: the largest allowed difference, relative to the largest output.
        folder: what the training publishes.

    Returns:
        The formats, with the largest difference, or why they are not published.
    """
    return {
        name: verify_one(name, found, columns, expected, tolerance, folder) if found.file else found
        for name, found in formats.items()
    }


def verify_one(
    name: str,
    found: Format,
    columns: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
    folder: Path,
) -> Format:
    assert found.file
    path = folder / "export" / found.file
    answers = run_format(name, path, columns)
    if isinstance(answers, str):
        path.unlink()
        return Format(reason=answers)
    worst = max(difference(answers.get(output), values) for output, values in expected.items())
    if not worst <= tolerance:
        path.unlink()
        return Format(reason=f"its answers differ by {worst:.2g}, more than {tolerance:g}")
    return Format(file=found.file, difference=float(f"{worst:.1e}"))


def run_format(name: str, path: Path, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | str:
    """Return the outputs of a model in a format, by name; or why an isolated process could not get them.

    Args:
        name: of the format.
        path: its file.
        columns: values of each raw column.
    """
    with tempfile.TemporaryDirectory() as place:
        given, returned = Path(place, "inputs.npz"), Path(place, "outputs.npz")
        np.savez(given, **columns)  # type: ignore[arg-type]  # its stub takes every keyword for allow_pickle
        code, errors = run_program(RUNNERS[name], [str(path.resolve()), str(given), str(returned)], Path(place))
        if code:
            return reason_of(errors.strip() or f"its process ended with {code}")
        with np.load(returned) as outputs:
            return dict(outputs)


def difference(answer: np.ndarray | None, values: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value; infinity where an answer is missing or no number.

    answer: what a format gives for an output. values: what it should be.
    """
    if answer is None or answer.shape != values.shape or not np.isfinite(answer).all():
        return float("inf")
    return float(np.abs(answer - values).max() / max(1.0, np.abs(values).max()))


def reason_of(error: Exception | str) -> str:
    """Return the last line of an error, without the paths and code that stand before it."""
    text = str(error).strip() or type(error).__name__
    return shortened(text.splitlines()[-1].strip(), MAX_REASON)


def record_export(columns: Mapping[str, np.ndarray], formats: Mapping[str, Format], folder: Path) -> ExportRecord:
    """Write export.json.

    Args:
        columns: the raw columns of some rows, of which the first one is the example.
        formats: of `verify`.
        folder: what the training publishes.
    """
    inputs = [
        Column(
            name=name,
            dtype=values.dtype.name,
            shape=[*values.shape[1:]],
            example=None if values.ndim > 1 else float(f"{values[0]:.6g}"),
        )
        for name, values in columns.items()
    ]
    record = ExportRecord(inputs=inputs, formats=dict(formats))
    write_export_record(record, folder)
    for name, found in formats.items():
        if found.reason:
            logger.warning("%s is not published: %s", name, found.reason)
    return record


convert_task: Any = task(convert)
