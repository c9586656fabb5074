"""A convolutional network for one image, as `keras.Sequential`.

| model | layers | parameters |
|---|---|---|
| fashion_cnn | Conv 64 7x7, pool, 2 x Conv 128 3x3, pool, 2 x Conv 256 3x3, pool, Flatten, Dense 128, Dropout, \
Dense 64, Dropout, Dense(10, softmax) | 1,413,834 |

Same padding, ReLU, He's normal initialization (K. He et al., "Delving deep into rectifiers", arXiv:1502.01852, 2015).
The architecture is that of the lecture notes. `augment` adds a weight: its count of epochs.
"""

from collections.abc import Sequence
from typing import Annotated, NotRequired

import keras
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from models.common.augmentation import Augmentation, MeanOfMirrored, picture_layers
from models.common.layers import DepthPool
from models.common.outputs import MAIN_OUTPUT, Shapes


class Block(TypedDict):
    """`convolutions` layers with `filters` filters of kernel x kernel, and a pooling layer that halves the image.

    depth_pool: then also pool the channels, in groups of so many.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # how pydantic wants it

    filters: int
    kernel: int
    convolutions: NotRequired[Annotated[int, Field(ge=1, le=100)]]
    depth_pool: NotRequired[int]


class Head(TypedDict):
    """A further output. outputs: its units. activation: of these."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # how pydantic wants it

    outputs: int
    activation: str


def build(
    inputs: Shapes,
    name: str,
    blocks: Sequence[Block],
    hidden: Sequence[int],
    outputs: int,
    dropout: float = 0.0,
    global_pool: bool = False,
    activation: str = "relu",
    output_activation: str = "linear",
    mirror: bool = False,
    augment: Augmentation | None = None,
    heads: dict[str, Head] | None = None,
) -> keras.Model:
    """Return a network from an image [batch, height, width, channels] to [batch, outputs], float32.

    With `heads` it has further outputs, each [batch, its outputs], that share all but their last layer.

    Args:
        inputs: the shape of a row of the input.
        name: of the network.
        blocks: of convolutions.
        hidden: units of each Dense layer behind the convolutions.
        outputs: units of the output layer.
        dropout: rate of the Dropout behind each hidden Dense layer; 0: none.
        global_pool: average each feature map instead of flattening them.
        activation: of the convolutions and hidden layers.
        output_activation: of the output layer.
        mirror: beyond training, average a picture and its mirror image before the output layer.
        augment: how pictures are changed in training; None: not.
        heads: the further outputs, by name; None: none.

    Raises:
        ValueError: there is not exactly one input, an image, or a head has the name of the main output.
    """
    if len(inputs) != 1 or len(next(iter(inputs.values()))) != 3:
        raise ValueError(f"a cnn has one input [height, width, channels], got {inputs}")
    [(input_name, shape)] = inputs.items()
    layers = [keras.Input(shape, name=input_name), *picture_layers(augment, mirror)]
    for number, block in enumerate(blocks, start=1):
        for repetition in range(1, block.get("convolutions", 1) + 1):
            layers.append(
                keras.layers.Conv2D(
                    block["filters"],
                    block["kernel"],
                    padding="same",
                    activation=activation,
                    kernel_initializer="he_normal",
                    name=f"convolution_{number}_{repetition}",
                )
            )
        layers.append(keras.layers.MaxPooling2D(name=f"pool_{number}"))
        if "depth_pool" in block:
            layers.append(DepthPool(block["depth_pool"], name=f"depth_pool_{number}"))
    layers.append(
        keras.layers.GlobalAveragePooling2D(name="average") if global_pool else keras.layers.Flatten(name="flatten")
    )
    for number, units in enumerate(hidden, start=1):
        dense = keras.layers.Dense(
            units, activation=activation, kernel_initializer="he_normal", name=f"hidden_{number}"
        )
        layers.append(dense)
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{number}"))
    if mirror:
        layers.append(MeanOfMirrored(name="mean_of_mirrored"))
    output = keras.layers.Dense(outputs, activation=output_activation, name=MAIN_OUTPUT)
    if MAIN_OUTPUT in (heads or {}):
        raise ValueError(f"a head cannot have the name {MAIN_OUTPUT!r} of the main output")
    if not heads:
        return keras.Sequential([*layers, output], name=name)
    trunk = keras.Sequential(layers)  # only its layers are used
    ends = {MAIN_OUTPUT: output(trunk.outputs[0])}
    for further, head in heads.items():
        dense = keras.layers.Dense(head["outputs"], activation=head["activation"], name=further)
        ends[further] = dense(trunk.outputs[0])
    return keras.Model(trunk.inputs[0], ends, name=name)
