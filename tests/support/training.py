"""Training, export and loading of models in the current workspace, whose data is prepared."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_values
from models.common.outputs import named_outputs, network_input
from models.common.registry import network_name
from tasks.data.examples import Examples, read_examples
from tasks.data.normalization import read_normalization
from tasks.data.raw import read_raw
from tasks.data.schema import read_schema
from tasks.publishing.export import describe_origin, export, raw_columns_needed
from tasks.publishing.formats import convert, verify
from tasks.training.fit import Fitted, fit
from tests.support.workspaces import edit_params

# Raw rows by column, and what an exported model answers to them by output.
Rows = dict[str, list]
Answers = Callable[[Path, list[Rows]], list[dict[str, list]]]


def train(
    name: str, logs: Path | None = None, rows: int | None = None, more: Sequence[keras.callbacks.Callback] = ()
) -> tuple[Fitted, dict[str, Examples]]:
    """Fit model `name`; also return its train and valid examples, the first `rows` of each or all.

    Args:
        name: of the model.
        logs: folder for TensorBoard; None: no logs.
        rows: of the train split to train with; None: all.
        more: callbacks of the training.
    """
    params = load_params().model(name)
    examples = {split: read_examples(params, split) for split in ("train", "valid")}
    if rows:
        examples = {split: found.take(np.arange(min(rows, found.rows))) for split, found in examples.items()}
    network = network_name(name, read_schema(params.dataset).source)
    folders = {"logs": logs, "checkpoints": paths.checkpoints_folder(name)}
    return fit(name, params, 42, load_params().hardware, **examples, network=network, more=more, **folders), examples


def raw_rows(name: str, rows: np.ndarray) -> pa.Table:
    """Return the given raw rows of the data set of model `name`."""
    params = load_params().model(name)
    return read_raw(get_dataset(params.dataset), read_schema(params.dataset).raw_sha256).take(rows)


def first(examples: Examples, rows: int):
    """Return what the network takes of the first rows."""
    return network_input({key: values[:rows] for key, values in examples.inputs.items()})


def check_training_and_export(name: str, folder: Path, answers: Answers, rows: int | None = None) -> None:
    """Check that `name` trains the same twice, and that its export answers raw rows as the trained network does.

    Args:
        name: of a model of the workspace.
        folder: where the model is exported to.
        answers: loads the SavedModel at a path and returns what it answers to each of some lists of raw rows.
        rows: of the train split to train with; None: all.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "randint", random.SystemRandom().randint)  # as when other threads draw from it too
        edit_params(Path(), **{f"models__{name}__fit__resume": False})
        (once, _), (fitted, _) = train(name, rows=rows), train(name, rows=rows)
    for one, other in zip(once.model.get_weights(), fitted.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert once.history == fitted.history

    params = load_params().model(name)
    schema = read_schema(params.dataset)
    export(
        fitted.model,
        params,
        read_normalization(params.dataset),
        describe_origin(fitted.model.name, params, schema, 42),
        folder,
    )

    test = read_examples(params, "test")
    tables = [raw_rows(name, test.index[:number]) for number in (1, 3)]
    asked = [{column: to_values(table[column]).tolist() for column in raw_columns_needed(params)} for table in tables]
    for table, answer in zip(tables, answers(folder / "saved_model", asked), strict=True):
        expected = named_outputs(fitted.model.predict(first(test, table.num_rows), verbose=0))
        assert set(answer) == set(expected)
        for output, values in expected.items():
            np.testing.assert_allclose(answer[output], values, rtol=1e-5, atol=1e-5)

    taken = {column: to_values(table[column]) for column in raw_columns_needed(params)}
    columns = {name: values if values.ndim > 1 else values.astype(np.float32) for name, values in taken.items()}
    made = convert(["litert", "onnx"], folder)
    for name, found in verify(made, columns, expected, 1e-5, folder).items():
        assert found.file, f"{name}: {found.reason}"

    restored = keras.saving.load_model(folder / "model.keras")
    assert restored.name.endswith("_sample")
    blank = keras.saving.load_model(folder / "model.keras", compile=False)
    blank.set_weights([np.zeros_like(weight) for weight in blank.get_weights()])
    blank.load_weights(folder / "model.weights.h5")
    # Operation by operation: a compiled prediction may round otherwise in another model.
    expected = named_outputs(fitted.model(first(test, 50), training=False))
    for copy in (restored, blank):
        for output, values in named_outputs(copy(first(test, 50), training=False)).items():
            np.testing.assert_array_equal(values, expected[output])
