"""Network: what a trained network is made of, for whoever reads the report and has no Keras: `network/`.

`graph.json` has its layers and which of them reads which. `filters.npz` holds the kernels of the convolutions that see
the picture itself, `maps.npz` what every convolution makes of one picture; without convolutions both are empty.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from prefect import task

from models.common.layers import convolutions
from models.common.outputs import named_outputs, network_input
from tasks.data.streaming import Split
from tasks.publishing.records import Graph, Layer, write_graph

MAX_MAPS = 16  # of a layer's channels


def write_network(model: keras.Model, valid: Split, folder: Path) -> None:
    """Write `network/` into `folder`; the picture that is looked at is the first one of `valid`."""
    own = folder / "network"
    own.mkdir()
    first = valid.first_rows().take(np.arange(1))
    layers, links = describe(model, first.inputs)
    write_graph(Graph(layers=layers, links=links, index=int(first.index[0])), folder)
    np.savez_compressed(own / "filters.npz", **filters(model, links, list(first.inputs)))  # type: ignore[arg-type]
    np.savez_compressed(own / "maps.npz", **feature_maps(model, first.x))  # type: ignore[arg-type]


def describe(model: keras.Model, inputs: dict[str, np.ndarray]) -> tuple[list[Layer], list[list[str]]]:
    """Return the layers in the order of the calculation, and pairs of names: a layer and one that reads its output.

    inputs: by name, float32 [rows, ...]. A subclassed network is followed through its `call`.
    """
    given = {name: keras.Input(values.shape[1:], dtype="float32", name=name) for name, values in inputs.items()}
    graph = keras.Model(given, named_outputs(model.call(network_input(given))))
    reads = {
        entry["name"]: list(dict.fromkeys(history_names(entry["inbound_nodes"])))
        for entry in graph.get_config()["layers"]
    }
    shown = {operation.name: operation for operation in graph.operations if not is_conversion(operation)}

    def sources(name: str) -> Iterator[str]:
        for source in reads[name]:
            if source in shown:
                yield source
            else:
                yield from sources(source)

    layers = [describe_layer(operation) for operation in shown.values()]
    return layers, [[source, name] for name in shown for source in sources(name)]


def history_names(value: Any) -> Iterator[str]:
    """Yield the name of each layer whose output is an argument of a call, as Keras writes calls into a config."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from history_names(part)


def is_conversion(operation: keras.Operation) -> bool:
    """Tell whether an operation is none of the network's own, but how Keras takes a tensor in."""
    return type(operation).__name__ == "ConvertToTensor"


def describe_layer(operation: keras.Operation) -> Layer:
    """Return a layer's name, type, activation, the shape of a row of its output, and how many numbers it has learnt or
    keeps besides; an operation between layers has none.
    """
    weights = getattr(operation, "weights", [])
    trainable = getattr(operation, "trainable_weights", [])
    return Layer(
        name=operation.name,
        type=type(operation).__name__,
        activation=activation(operation),
        shape=list(keras.tree.flatten(operation.output)[0].shape[1:]),
        parameters=sum(int(keras.ops.size(weight)) for weight in weights),
        trainable=sum(int(keras.ops.size(weight)) for weight in trainable),
    )


def activation(operation: keras.Operation) -> str | None:
    """Return the name of what a layer applies to its sums, unless that is nothing."""
    name = getattr(getattr(operation, "activation", None), "__name__", None)
    return None if name == "linear" else name


def image_convolutions(model: keras.Model) -> list[keras.layers.Conv2D]:
    return [layer for layer in convolutions(model) if isinstance(layer, keras.layers.Conv2D)]


def filters(model: keras.Model, links: list[list[str]], inputs: list[str]) -> dict[str, np.ndarray]:
    """Return by name the kernel, float32 [height, width, channels, filters], of each convolution that sees an input."""
    first = {reader for source, reader in links if source in inputs}
    return {
        layer.name: keras.ops.convert_to_numpy(layer.kernel)
        for layer in image_convolutions(model)
        if layer.name in first
    }


def feature_maps(model: keras.Model, x: Any) -> dict[str, np.ndarray]:
    """Return what each convolution makes of the one row `x`: its first channels, float16 [height, width, MAX_MAPS].

    Each layer's own `call` notes what it returns, which works whatever the network is built of.
    """
    seen: dict[str, np.ndarray] = {}
    layers = image_convolutions(model)
    for layer in layers:
        layer.call = noting(layer, seen)
    try:
        model(x, training=False)
    finally:
        for layer in layers:
            del layer.call
    return seen


def noting(layer: keras.Layer, seen: dict[str, np.ndarray]) -> Any:
    call = layer.call

    def noted(inputs: Any) -> Any:
        output = call(inputs)
        seen[layer.name] = keras.ops.convert_to_numpy(output)[0, ..., :MAX_MAPS].astype(np.float16)
        return output

    return noted


write_network_task = task(write_network)
