"""Convolutional feature extractors side by side, functional: each looks at an input, their features are joined.

| model | inputs | extractors | units behind them | parameters |
|---|---|---|---|---|
| binary_cnn | grey [64, 64, 1] | one, kernel 4 | 10, 1 | 35,813 |
| shared_input_cnn | grey [64, 64, 1] | two on the same picture, kernels 4 and 8 | 10, 10, 1 | 86,787 |
| multi_input_cnn | grey [64, 64, 1], colour [32, 32, 3] | one each, kernel 4 | 10, 10, 1 | 49,699 |

An extractor is Conv 32, pool, Conv 16, pool, Flatten, valid padding, ReLU; the last unit is a sigmoid. The
architectures are the notes'.
"""

from collections.abc import Sequence

import keras
from pydantic import ConfigDict
from typing_extensions import TypedDict

from models.common.outputs import Shapes, network_input


class Extractor(TypedDict):
    """The name of the input that it looks at, and the size of its kernels."""

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
    """Return a network from pictures [batch, height, width, channels] to [batch, outputs], float32.

    filters: of each convolution of every extractor. hidden: units of each Dense layer behind them.
    Raises ValueError unless every extractor looks at an input, and every input is looked at.
    """
    looked_at = {extractor["input"] for extractor in extractors.values()}
    if looked_at != set(inputs):
        raise ValueError(f"the extractors look at {', '.join(sorted(looked_at))}, the inputs are {', '.join(inputs)}")
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
