"""The weights that a network begins with, and the layers that learn from the data before training."""

from collections.abc import Iterator
from random import Random
from typing import Any

import keras


def draw_weights(model: keras.Model, seed: int) -> None:
    """Draw the initial weights of `model` anew, from `seed` and the order of its layers alone.

    Keras seeds an initializer that has no seed from Python's global `random`, from which other threads draw as well:
    those that talk to Prefect's server do, for each ping. Now and then a model would begin with other weights.
    """
    draws = Random(seed)
    for layer in all_layers(model):
        for weight, initializer in initializers(layer):
            seeded = type(initializer).from_config({**initializer.get_config(), "seed": draws.randint(1, 10**9)})
            weight.assign(seeded(weight.shape, dtype=weight.dtype))
        if isinstance(generator := getattr(layer, "seed_generator", None), keras.random.SeedGenerator):
            generator.state.assign([draws.randint(1, 10**9), 0])


def all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of `model` that hold no others, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
        else:
            yield layer


def initializers(layer: keras.Layer) -> Iterator[tuple[keras.Variable, keras.Initializer]]:
    """Yield each weight of `layer` that is drawn at random, with what draws it."""
    for key in layer.get_config():
        weight = getattr(layer, key.removesuffix("_initializer"), None)
        if key.endswith("_initializer") and weight is not None:
            initializer = getattr(layer, key)
            if "seed" in initializer.get_config():
                yield weight, initializer


def adapt_normalization(model: keras.Model, inputs: dict[str, Any]) -> None:
    """Give every layer `normalize_INPUT` the mean and variance of that input's rows.

    inputs: name of an input: its rows, one array or several after another.
    """
    for name, rows in inputs.items():
        for layer in model.layers:
            if layer.name == f"normalize_{name}":
                layer.adapt(rows)
