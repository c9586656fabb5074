"""Parallel convolutional feature extractors, functional: each reads an input, and their features are concatenated.

| model | inputs | extractors | units behind them | parameters |
|---|---|---|---|---|
| binary_cnn | grey [64, 64, 1] | one, kernel 4 | 10, 1 | 35,813 |
| shared_input_cnn | grey [64, 64, 1] | two on the same image, kernels 4 and 8 | 10, 10, 1 | 86,787 |
| multi_input_cnn | grey [64, 64, 1], colour [32, 32, 3] | one each, kernel 4 | 10, 10, 1 | 49,699 |

An extractor is Conv 32, pool, Conv 16, pool, Flatten, valid padding, ReLU; the last unit is a sigmoid. The
architectures are those of the lecture notes.
"""

from collections.abc import Sequence

import keras
from pydantic import ConfigDict
from typing_extensions import TypedDict

from models.common.outputs import Shapes, network_input


class Extractor(TypedDict):
    """The name of the input that an extractor reads, and the size of its kernels."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # how pydantic wants it

    input: str
    kernel: int


def build(
    inputs: Shapes,
    name: str,
    extractors: dict[str, Extractor],
    filters: Sequence[int],
    hidden: Sequence[int],
    outputs: int,
    activation: str = "relu",
    output_activation: str = "linear",
) -> keras.Model:
    """Return a network from images [batch, height, width, channels] to [batch, outputs], float32.

    Args:
        inputs: the shape of a row of each input, by name.
        name: of the network.
        extractors: by name.
        filters: of each convolution of every extractor.
        hidden: units of each Dense layer behind the extractors.
        outputs: units of the output layer.
        activation: of the convolutions and hidden layers.
        output_activation: of the output layer.

    Raises:
        ValueError: an extractor reads no input, or no extractor reads an input.
    """
    read = {extractor["input"] for extractor in extractors.values()}
    if read != set(inputs):
        raise ValueError(f"the extractors read {', '.join(sorted(read))}, the inputs are {', '.join(inputs)}")
    given = {key: keras.Input(shape, name=key) for key, shape in inputs.items()}
    features = []
    for extractor_name, extractor in extractors.items():
        maps = given[extractor["input"]]
        for number, count in enumerate(filters, start=1):
            convolution = keras.layers.Conv2D(
                count, extractor["kernel"], activation=activation, name=f"{extractor_name}_convolution_{number}"
            )
            maps = keras.layers.MaxPooling2D(name=f"{extractor_name}_pool_{number}")(convolution(maps))
        features.append(keras.layers.Flatten(name=f"{extractor_name}_flatten")(maps))
    joined = keras.layers.Concatenate(name="features")(features) if len(features) > 1 else features[0]
    for number, units in enumerate(hidden, start=1):
        joined = keras.layers.Dense(units, activation=activation, name=f"hidden_{number}")(joined)
    output = keras.layers.Dense(outputs, activation=output_activation, name="output")(joined)
    return keras.Model(network_input(given), output, name=name)
