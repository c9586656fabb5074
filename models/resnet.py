"""A residual network for one image, with batch normalization; functional.

After a first convolution, a stage is Conv 3x3, pool, batch normalization, ReLU, and a second Conv 3x3, batch
normalization, ReLU, to which its input is added. A global max-pool and the output layer follow. The shape is that of K.
Jordan's airbench (arXiv:2404.00498, 2024); residual connections are those of K. He et al., "Deep residual learning for
image recognition", CVPR 2016.
"""

from collections.abc import Sequence

import keras

from models.common.augmentation import Augmentation, MeanOfMirrored, picture_layers
from models.common.outputs import Shapes

MOMENTUM = 0.6  # of the moving statistics of batch normalization: those of the last few batches, as weights change fast


def build(
    inputs: Shapes,
    name: str,
    stem: int,
    stages: Sequence[int],
    outputs: int,
    scale: float = 1.0,
    dropout: float = 0.0,
    mirror: bool = False,
    augment: Augmentation | None = None,
    activation: str = "relu",
    output_activation: str = "linear",
) -> keras.Model:
    """Return a network from an image [batch, height, width, channels] to [batch, outputs], float32.

    Args:
        inputs: the shape of a row of the input.
        name: of the network.
        stem: filters of the first convolution.
        stages: filters of each stage.
        outputs: units of the output layer.
        scale: what the inputs of the output layer are multiplied with.
        dropout: share of the inputs of the output layer that is dropped in training.
        mirror: beyond training, average a picture and its mirror image.
        augment: how pictures are changed in training; None: not.
        activation: of the convolutions.
        output_activation: of the output layer.

    Raises:
        ValueError: there is not exactly one input, an image, or a stage has nothing left to pool.
    """
    if len(inputs) != 1 or len(next(iter(inputs.values()))) != 3:
        raise ValueError(f"a resnet has one input [height, width, channels], got {inputs}")
    [(input_name, shape)] = inputs.items()
    if min(shape[:2]) < 2 ** len(stages):
        raise ValueError(f"{len(stages)} stages halve a picture of {shape[0]} x {shape[1]} too often")
    given = keras.Input(shape, name=input_name)
    # Keras cannot adapt the layer in another precision.
    maps = keras.layers.Normalization(name=f"normalize_{input_name}", dtype="float32")(given)
    for layer in picture_layers(augment, mirror):
        maps = layer(maps)
    maps = keras.layers.Conv2D(stem, 3, padding="same", activation=activation, name="stem")(maps)
    for number, filters in enumerate(stages, start=1):
        maps = convolve(maps, filters, activation, f"{number}_1", pools=True)
        maps = keras.layers.Add(name=f"add_{number}")([maps, convolve(maps, filters, activation, f"{number}_2")])
    found = keras.layers.GlobalMaxPooling2D(name="maximum")(maps)
    if mirror:
        found = MeanOfMirrored(name="mean_of_mirrored")(found)
    if scale != 1:
        found = keras.layers.Rescaling(scale, name="scale")(found)
    if dropout:
        found = keras.layers.Dropout(dropout, name="dropout")(found)
    output = keras.layers.Dense(outputs, activation=output_activation, use_bias=False, name="output")(found)
    return keras.Model(given, output, name=name)


def convolve(maps, filters: int, activation: str, name: str, pools: bool = False):
    """Return feature maps behind a convolution, a pooling layer if wanted, batch normalization and the activation."""
    maps = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"convolution_{name}")(maps)
    if pools:
        maps = keras.layers.MaxPooling2D(name=f"pool_{name}")(maps)
    maps = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"normalize_{name}")(maps)
    return keras.layers.Activation(activation, name=f"activation_{name}")(maps)
