"""Initial weights, random generators of layers, and layers that are adapted to the data before training."""

from collections.abc import Iterator
from random import Random
from typing import Any

import keras
import numpy as np

from models.common.neighbours import Neighbours


def draw_weights(model: keras.Model, seed: int) -> None:
    """Draw the initial weights of `model` again, from `seed` and the order of its layers alone.

    Keras seeds an initializer without a seed from Python's global `random`. Other threads draw from it too, such as
    Prefect's client for each ping, so the initial weights would now and then be others.
    """
    draws = Random(seed)
    for layer in all_layers(model):
        for weight, initializer in initializers(layer):
            seeded = type(initializer).from_config({**initializer.get_config(), "seed": draws.randint(1, 10**9)})
            weight.assign(seeded(weight.shape, dtype=weight.dtype))
        for generator in generators_of(layer):
            generator.state.assign([draws.randint(1, 10**9), 0])


def seed_generators(model: keras.Model) -> Iterator[keras.random.SeedGenerator]:
    """Yield the random generator of each layer that has one, as `keras.layers.Dropout.seed_generator`."""
    for layer in all_layers(model):
        yield from generators_of(layer)


def generators_of(layer: keras.Layer) -> Iterator[keras.random.SeedGenerator]:
    generator = getattr(layer, "seed_generator", None)
    if isinstance(generator, keras.random.SeedGenerator):
        yield generator


def all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of `model` and of the models inside it, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
        else:
            yield layer


def initializers(layer: keras.Layer) -> Iterator[tuple[keras.Variable, keras.Initializer]]:
    """Yield each weight of `layer` that is drawn at random, with its initializer."""
    for key in layer.get_config():
        weight = getattr(layer, key.removesuffix("_initializer"), None)
        if key.endswith("_initializer") and weight is not None:
            initializer = getattr(layer, key)
            if "seed" in initializer.get_config():
                yield weight, initializer


def adapt_normalization(model: keras.Model, inputs: dict[str, Any]) -> None:
    """Give every layer `normalize_INPUT` the mean and variance of that input's rows.

    inputs: the rows of each input, by name: an array, or several one after another.
    """
    for name, rows in inputs.items():
        for layer in model.layers:
            if layer.name == f"normalize_{name}":
                layer.adapt(rows)


def adapt_neighbours(model: keras.Model, inputs: dict[str, np.ndarray], target: np.ndarray) -> None:
    """Give every layer that looks up train rows its table.

    Args:
        model: the network.
        inputs: the rows of each input, by name.
        target: float32 [rows, 1].
    """
    for layer in model.layers:
        if isinstance(layer, Neighbours):
            layer.adapt(inputs["features"], inputs["place"], target)


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Give `target`, a network of the same layers, the weights of `source`.

    A Normalization layer computes with values that Keras derives from its weights only when it is told to.
    """
    target.set_weights(source.get_weights())
    for layer in all_layers(target):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
