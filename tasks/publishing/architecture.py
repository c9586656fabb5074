"""The architecture of a trained network, as files that the report can read without Keras: `network/`.

`graph.json` has the layers and their links, `filters.npz` the kernels of the convolutions that read the image itself,
and `maps.npz` the output of every convolution for one image. Without convolutions both are empty.
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

MAX_MAPS = 16  # channels of a layer


def write_network(model: keras.Model, valid: Split, folder: Path) -> None:
    """Write `network/`.

    Args:
        model: the trained network.
        valid: the rows, whose first image is that of the feature maps.
        folder: what the training publishes.
    """
    own = folder / "network"
    own.mkdir()
    first = valid.first_rows().take(np.arange(1))
    layers, links = describe(model, first.inputs)
    write_graph(Graph(layers=layers, links=links, index=int(first.index[0])), folder)
    seen = readers_of_images(layers, links, list(first.inputs))
    np.savez_compressed(own / "filters.npz", **filters(model, seen))  # type: ignore[arg-type]
    np.savez_compressed(own / "maps.npz", **feature_maps(model, first.x))  # type: ignore[arg-type]


def describe(model: keras.Model, inputs: dict[str, np.ndarray]) -> tuple[list[Layer], list[list[str]]]:
    """Return the layers in the order of the calculation, and pairs of names: a layer and one that reads its output.

    A subclassed network is traced through its `call`. inputs: float32 [rows, ...] by name.
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
    """Yield the name of each layer whose output is an argument of a call, from Keras' config of that call."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from history_names(part)


def is_conversion(operation: keras.Operation) -> bool:
    """Tell whether Keras added an operation to convert an input to a tensor."""
    return type(operation).__name__ == "ConvertToTensor"


def describe_layer(operation: keras.Operation) -> Layer:
    """Return the facts of a layer, or of an operation between layers, which has no parameters."""
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
    """Return the name of a layer's activation; None without one."""
    name = getattr(getattr(operation, "activation", None), "__name__", None)
    return None if name == "linear" else name


def image_convolutions(model: keras.Model) -> list[keras.layers.Conv2D]:
    return [layer for layer in convolutions(model) if isinstance(layer, keras.layers.Conv2D)]


def readers_of_images(layers: list[Layer], links: list[list[str]], inputs: list[str]) -> set[str]:
    """Return the layers that read an input, or what layers without trained weights have made of it.

    Args:
        layers: of the network, in the order of the calculation.
        links: of its layers.
        inputs: the names of its inputs.
    """
    passed, found = {*inputs}, set()
    for layer in layers:
        if any(source in passed for source, reader in links if reader == layer.name):
            found.add(layer.name)
            if not layer.trainable:
                passed.add(layer.name)
    return found


def filters(model: keras.Model, seen: set[str]) -> dict[str, np.ndarray]:
    """Return the kernels of the convolutions among `seen`, float32 [height, width, channels, filters], by name."""
    return {
        layer.name: keras.ops.convert_to_numpy(layer.kernel)
        for layer in image_convolutions(model)
        if layer.name in seen
    }


def feature_maps(model: keras.Model, x: Any) -> dict[str, np.ndarray]:
    """Return the first channels of each convolution's output for the row `x`, float16 [height, width, MAX_MAPS].

    The `call` of each layer is wrapped to record its output, which works for functional and subclassed networks.
    """
    maps: dict[str, np.ndarray] = {}
    layers = image_convolutions(model)
    for layer in layers:
        layer.call = recording(layer, maps)
    try:
        model(x, training=False)
    finally:
        for layer in layers:
            del layer.call
    return maps


def recording(layer: keras.Layer, maps: dict[str, np.ndarray]) -> Any:
    """Return the `call` of a layer that also records its output in `maps`."""
    call = layer.call

    def recorded(inputs: Any) -> Any:
        output = call(inputs)
        maps[layer.name] = keras.ops.convert_to_numpy(output)[0, ..., :MAX_MAPS].astype(np.float16)
        return output

    return recorded


write_network_task = task(write_network)
