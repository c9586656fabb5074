"""A SavedModel that is loaded to be used. It needs TensorFlow alone: no Keras, no data, no parameters."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UserError, shortened
from runtime.stderr import quiet_stderr
from tasks.publishing.checksums import tree_sha256
from tasks.publishing.origin import Origin, read_origin

SIGNATURE = "serving_default"
MAX_REASON = 300  # characters


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: its dtype, and the shape of one row, () for a number."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LoadedModel:
    """A SavedModel in memory.

    name: of the model. version: such as v0.0.3, or what the user has given instead. sha256: of the SavedModel's files.
    inputs, outputs: by name; the first dimension, the rows, is not counted. origin: None for a foreign SavedModel.
    largest_layer: how many numbers its largest layer has for a row.
    """

    name: str
    version: str
    sha256: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    origin: Origin | None
    signature: Any
    largest_layer: int

    def answer(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for some rows, [rows, ...] by name. Several threads may call it at once.

        columns: a value of each input, [rows] or [rows, ...], of the input's dtype.
        """
        import tensorflow as tf

        given = {name: tf.convert_to_tensor(columns[name]) for name in self.inputs}
        return {name: value.numpy() for name, value in self.signature(**given).items()}

    def zeros(self, rows: int) -> dict[str, np.ndarray]:
        """Return columns of `rows` rows of zeros, to warm the model up."""
        return {name: np.zeros((rows, *tensor.shape), tensor.dtype) for name, tensor in self.inputs.items()}

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes of the main output; None for a quantity, or where the export does not say it."""
        if self.origin is None:
            return None
        if self.origin.task:
            return self.origin.classes or None
        names, [width] = self.origin.class_names, next(iter(self.outputs.values())).shape or (1,)
        return names if names and len(names) == width else None


def load_model(folder: Path, name: str, version: str) -> LoadedModel:
    """Load a SavedModel.

    Args:
        folder: it.
        name: of the model.
        version: for what is made with it.

    Raises:
        UserError: it is missing or damaged, or has no signature that takes rows by name.
    """
    if not (folder / "saved_model.pb").is_file():
        raise UserError(f"{folder} is no SavedModel: it has no file saved_model.pb.")
    with quiet_stderr():
        import tensorflow as tf

    # TensorFlow reads [ ] and the like in a path as a pattern, so it gets a path without any.
    with tempfile.TemporaryDirectory(prefix="heaviside-") as place:
        link = Path(place) / "saved_model"
        link.symlink_to(folder.resolve())
        try:
            with quiet_stderr():
                loaded = tf.saved_model.load(str(link))
                signature = loaded.signatures[SIGNATURE]
        except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
            said = shortened(" ".join(str(error).split()).replace(str(link), str(folder)), MAX_REASON)
            raise UserError(f"{folder} cannot be loaded: {said or type(error).__name__}") from None
    signature.loaded = loaded  # it holds the weights
    return LoadedModel(
        name=name,
        version=version,
        sha256=tree_sha256(folder),
        inputs=tensors(signature.structured_input_signature[1], folder),
        outputs=tensors(signature.structured_outputs, folder),
        origin=read_origin(folder),
        signature=signature,
        largest_layer=largest_layer(signature.graph.as_graph_def(add_shapes=True)),
    )


def largest_layer(graph: Any) -> int:
    """Return how many numbers the largest output of an operation has for a row.

    graph: a GraphDef with shapes; the first dimension of what has rows is not known.
    """
    largest = 1
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        for node in nodes:
            for shape in node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ():
                sizes = [dimension.size for dimension in shape.dim]
                if sizes and sizes[0] < 0 and all(size >= 0 for size in sizes[1:]):
                    largest = max(largest, prod(sizes[1:]))
    return largest


def tensors(specs: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    found = {}
    for name, spec in specs.items():
        shape = spec.shape.as_list() if spec.shape.rank else []
        if not shape or None in shape[1:]:
            raise UserError(f"{folder}: {name!r} has the shape {spec.shape}, which is no column of rows.")
        found[name] = Tensor(np.dtype(spec.dtype.as_numpy_dtype), tuple(shape[1:]))
    return found
