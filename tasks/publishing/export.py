"""Export a trained model as `.keras`, as weights alone, and as a SavedModel that takes raw units.

The graph of the SavedModel is: raw columns -> normalization -> features -> network. Its inputs have the names of the
raw columns and any batch size. It needs nothing but TensorFlow to run.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from prefect import task

from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import to_values
from models.common.features import columns_needed, compute_inputs
from models.common.outputs import MAIN_OUTPUT, named_outputs, network_input
from runtime.errors import UserError
from runtime.isolated_process import run_isolated
from tasks.data.examples import class_names
from tasks.data.normalization import Normalization
from tasks.data.raw import read_raw
from tasks.data.schema import PreparedSchema
from tasks.data.streaming import Split
from tasks.publishing.export_record import ExportRecord, Format
from tasks.publishing.formats import difference, record_export
from tasks.publishing.formats import verify as verify_formats
from tasks.publishing.origin import Origin, write_origin

# Largest allowed difference between the trained model and its loaded export, relative to the largest output.
TOLERANCE = 1e-5
COMPARED_ROWS = 256

logger = logging.getLogger(__name__)


def serving_model(model: keras.Model, params: ModelParams, normalization: Normalization) -> keras.Model:
    """Return a model from raw columns to the outputs of `model`, both by name.

    An input is float32 [batch] for numbers, and [batch, height, width] of the raw dtype for images.

    Args:
        model: the trained network.
        params: its recipe.
        normalization: of the features.
    """
    dataset = get_dataset(params.dataset)
    raw = {}
    for name in raw_columns_needed(params):
        field = dataset.schema.field(name).type
        shape = tuple(getattr(field, "shape", ()))
        raw[name] = keras.Input(shape, dtype=str(field.value_type) if shape else "float32", name=name)
    features = dataset.derive({name: keras.ops.cast(value, "float32") for name, value in raw.items()})
    columns = {name: normalization.apply(name, value) for name, value in features.items()}
    inputs = compute_inputs(params.inputs, columns, dataset.features)
    outputs = model(network_input(inputs))
    return keras.Model(raw, named_outputs(outputs), name=model.name)


def raw_columns_needed(params: ModelParams) -> list[str]:
    """Return the inputs of the exported model, in the data set's order."""
    dataset = get_dataset(params.dataset)
    return dataset.raw_columns(columns_needed(params.inputs, dataset.features, tuple(dataset.derived)))


def export(model: keras.Model, params: ModelParams, normalization: Normalization, origin: Origin, folder: Path) -> None:
    """Write `model.keras`, `model.weights.h5` and `saved_model/`.

    Args:
        model: the trained network.
        params: its recipe.
        normalization: of the features.
        origin: what `saved_model/assets.extra/origin.json` is to say.
        folder: what the training publishes.
    """
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    serving_model(model, params, normalization).export(folder / "saved_model", format="tf_saved_model", verbose=False)
    write_origin(origin, folder / "saved_model")


@dataclass(frozen=True)
class Sample:
    """The outputs of a trained model for some rows.

    model: its name. index: numbers of the raw rows. outputs: by name, [rows, ...].
    """

    model: str
    index: np.ndarray
    outputs: dict[str, np.ndarray]


def sample_outputs(model: keras.Model, valid: Split) -> Sample:
    """Return the outputs of `model` for the first COMPARED_ROWS rows of the valid split."""
    first = valid.first_rows().take(np.arange(min(COMPARED_ROWS, valid.rows)))
    return Sample(model.name, first.index, named_outputs(model.predict(first.x, verbose=0)))


def verify_export(
    sample: Sample, params: ModelParams, raw_sha256: str, formats: Mapping[str, Format], folder: Path
) -> tuple[ExportRecord, dict[str, float]]:
    """Load the SavedModel in an isolated process, compare it with the trained model, and make example predictions.

    The loaded model gets the rows of the sample in raw units. No operation of Keras runs in this process. The further
    formats are compared likewise, and removed where they differ.

    Args:
        sample: outputs of the trained model.
        params: its recipe.
        raw_sha256: of the raw rows.
        formats: of `convert`.
        folder: what the training publishes.

    Returns:
        What export.json says; and the example predictions: for each row of `params.probes`, by label, the main output
        (last class).

    Raises:
        UserError: an output of the SavedModel differs by more than TOLERANCE.
    """
    dataset = get_dataset(params.dataset)
    compared = read_raw(dataset, raw_sha256).take(sample.index)
    columns = {name: to_values(compared[name]) for name in raw_columns_needed(params)}
    columns = {name: values if values.ndim > 1 else values.astype(np.float32) for name, values in columns.items()}
    probed = columns
    for probe in params.probes.values():
        probed = {name: np.append(values, np.float32(probe[name])) for name, values in probed.items()}
    loaded = run_saved_model(folder / "saved_model", probed)
    for name, values in sample.outputs.items():
        differs = difference(loaded[name][: compared.num_rows], values)
        if not differs <= TOLERANCE:
            raise UserError(
                f"{sample.model}: the exported SavedModel and the trained model differ by {differs:.2g} in output "
                f"{name!r} (tolerance {TOLERANCE:g}). Nothing was published; the previous artifacts are unchanged."
            )
        logger.info("%s: the loaded SavedModel differs by %.1g", sample.model, differs)
    answers = loaded[MAIN_OUTPUT][compared.num_rows :]
    probes = {label: float(answer[-1]) for label, answer in zip(params.probes, answers, strict=True)}
    verified = verify_formats(formats, columns, sample.outputs, TOLERANCE, folder)
    return record_export(columns, verified, folder), probes


# It imports TensorFlow and NumPy only.
LOADER = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
specs = serve.structured_input_signature[1]
with np.load(sys.argv[2]) as columns:
    inputs = {name: tf.cast(columns[name], specs[name].dtype) for name in columns.files}
np.savez(sys.argv[3], **{name: value.numpy() for name, value in serve(**inputs).items()})
"""


def run_saved_model(saved_model: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of a SavedModel by name. An isolated process without this project's code loads it.

    columns: values of each raw column, [rows] or [rows, ...], by name.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, returned = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(given, **columns)  # type: ignore[arg-type]  # its stub takes every keyword for allow_pickle
        # TensorFlow reads [ ] and the like in a path as a pattern, so it gets a relative path without any.
        Path(folder, "saved_model").symlink_to(saved_model.resolve())
        arguments = ["saved_model", "inputs.npz", "outputs.npz"]
        code, errors = run_isolated(LOADER, arguments, Path(folder))
        if code:
            if os.strerror(errno.ENOSPC) in errors:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
            raise UserError(f"{saved_model} does not load in an isolated process:\n{errors.strip()[-2000:]}")
        with np.load(returned) as outputs:
            return dict(outputs)


def describe_origin(model: str, params: ModelParams, schema: PreparedSchema, seed: int) -> Origin:
    """Return the facts that an export holds.

    Args:
        model: its name.
        params: its recipe.
        schema: of the prepared data.
        seed: that it was trained with.
    """
    classes = class_names(params, schema) or None
    stated = ("dataset", "source", "raw_sha256", "class_names", "target_unit")
    facts = {key: getattr(schema, key) for key in stated}
    own = {output: class_names(params, schema, output) or None for output in params.targets}
    return Origin(**facts, seed=seed, model=model, task=params.task, classes=classes, further_classes=own)


export_task = task(export)
verify_export_task = task(verify_export)
