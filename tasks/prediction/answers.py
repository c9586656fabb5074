"""The columns of the output: as `predictions.parquet` of a training has them, with where each row comes from."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from models.common.outputs import MAIN_OUTPUT, class_probabilities, metric_prefix, predicted_class
from runtime.errors import UserError
from tasks.prediction.chunks import Chunk, position
from tasks.prediction.saved_model import LoadedModel

NAME = pa.dictionary(pa.int32(), pa.string())
ONE_NAME = pa.dictionary(pa.int8(), pa.string())  # the same in all rows


def output_names(model: LoadedModel) -> list[str]:
    """Return the outputs of a model, the main one first; of a foreign one without such a name, its first is it."""
    names = sorted(model.outputs)
    main = MAIN_OUTPUT if MAIN_OUTPUT in names else names[0]
    return [main, *(name for name in names if name != main)]


def class_labels(model: LoadedModel, output: str) -> list[str] | None:
    """Return names for the classes of an output, numbers where the export has none; None for quantities."""
    if model.origin and output in model.origin.further_classes:
        return model.origin.further_classes[output]
    if model.classes:
        return model.classes
    if model.origin and model.origin.task in ("binary", "multiclass"):
        [width] = model.outputs[output_names(model)[0]].shape or (1,)
        return [str(number) for number in range(max(2, width))]
    return None


def answer_columns(model: LoadedModel, answers: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
    """Turn what a model answers into columns.

    A quantity is `predicted`; several that are no classes, as of a foreign model, are `predicted 0` and so on.

    Args:
        model: that has answered.
        answers: by output, [rows, ...].
    """
    columns: dict[str, pa.Array] = {}
    for number, name in enumerate(output_names(model)):
        start, labels = metric_prefix(name) if number else "", class_labels(model, name)
        values = answers[name].reshape(len(answers[name]), int(np.prod(answers[name].shape[1:])))
        values = values.astype(np.float32, copy=False)
        if labels is None:
            for column in range(values.shape[1]):
                end = "" if values.shape[1] == 1 else f" {column}"
                columns[f"{start}predicted{end}"] = pa.array(np.ascontiguousarray(values[:, column]))
            continue
        chosen = predicted_class(values).astype(np.int64)
        columns[f"{start}predicted"] = pa.array(chosen)
        if model.classes or (model.origin and name in model.origin.further_classes):
            indices = pa.array(chosen.astype(np.int32))
            columns[f"{start}label"] = pa.DictionaryArray.from_arrays(indices, pa.array(labels))
        probabilities = np.ascontiguousarray(class_probabilities(values).T)
        columns |= {f"{start}probability {label}": pa.array(probabilities[k]) for k, label in enumerate(labels)}
    return columns


def output_schema(model: LoadedModel, keep: Mapping[str, pa.DataType | None]) -> pa.Schema:
    """Return the columns of the output.

    Args:
        model: that answers.
        keep: types of the kept columns, which come first.

    Raises:
        UserError: a kept column has a name of another column.
    """
    for name, tensor in model.outputs.items():
        if tensor.dtype.kind not in "iuf":
            raise UserError(f"{model.name} answers {name} as {tensor.dtype}, and only numbers can be written.")
    nothing = {name: np.zeros((0, *tensor.shape), np.float32) for name, tensor in model.outputs.items()}
    made = answer_columns(model, nothing)
    own = {"file": NAME, "row": pa.int64(), **{name: array.type for name, array in made.items()}}
    own |= {"model": ONE_NAME, "version": ONE_NAME}
    for name in keep:
        if name in own:
            raise UserError(f"--keep {name}: the output has a column of this name. Rename that of the input.")
    return pa.schema([*((name, kind or pa.null()) for name, kind in keep.items()), *own.items()])


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of the output that repeat few values."""
    few = [field.name for field in schema if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type)]
    return few + [field.name for field in schema if field.name.endswith("predicted") and field.type == pa.int64()]


def to_output(
    model: LoadedModel, schema: pa.Schema, chunk: Chunk, answers: Mapping[str, np.ndarray], good: np.ndarray | None
) -> pa.RecordBatch:
    """Return the output for a chunk.

    Args:
        model: that has answered.
        schema: of `output_schema`.
        chunk: the rows.
        answers: for them, by output.
        good: the rows to use; None: all.
    """
    rows, kept = chunk.rows, chunk.kept
    if good is not None:
        rows, answers = rows[good], {name: values[good] for name, values in answers.items()}
        kept = {name: values.take(pa.array(good)) for name, values in kept.items()}
    columns = {**kept, "file": files(chunk, rows), "row": pa.array(position(chunk.source, rows))}
    columns |= answer_columns(model, answers)
    names = {"model": model.name, "version": model.version}
    columns |= {name: repeated(text, len(rows), np.int8) for name, text in names.items()}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def files(chunk: Chunk, rows: np.ndarray) -> pa.Array:
    if chunk.source.pictures is None:
        return repeated(chunk.source.name, len(rows))
    names: Sequence[str] = [chunk.source.name_of(row) for row in rows]
    return pa.DictionaryArray.from_arrays(pa.array(np.arange(len(rows), dtype=np.int32)), pa.array(names, pa.string()))


def repeated(text: str, rows: int, dtype: type[np.integer] = np.int32) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype)), pa.array([text], pa.string()))
