"""Multilayer perceptrons, from a single linear neuron (no hidden layer) upwards, as `keras.Sequential`.

| model | layers | parameters |
|---|---|---|
| linear_neuron | Dense(1) | 2 |
| iris_mlp | Dense(10, relu), Dense(3, softmax) | 83 |
| housing_mlp | Normalization, 3 x Dense(50, relu), Dense(1) | 5,618, of which 5,601 trainable |
| fashion_mlp | Flatten, Dense(300, relu), Dense(100, relu), Dense(10, softmax) | 266,610 |
| fashion_mlp_300 | Flatten, Dense(300, relu), Dense(300, relu), Dense(10, softmax) | 328,810 |

`augment` adds a weight: its count of epochs. The sizes of housing_mlp_tuned and fashion_mlp_tuned were found by search
(params.yaml).
"""

from collections.abc import Sequence

import keras

from models.common.augmentation import Augmentation, MeanOfMirrored, picture_layers
from models.common.layers import PiecewiseLinear
from models.common.outputs import Shapes


def build(
    inputs: Shapes,
    name: str,
    hidden: Sequence[int],
    outputs: int,
    normalization: bool = False,
    activation: str = "relu",
    output_activation: str = "linear",
    bins: int = 0,
    dropout: float = 0.0,
    mirror: bool = False,
    augment: Augmentation | None = None,
) -> keras.Model:
    """Return a network from one input [batch, ...] to [batch, outputs], float32.

    Args:
        inputs: the shape of a row of the input.
        name: of the network.
        hidden: units of each hidden layer.
        outputs: units of the output layer.
        normalization: begin with a Normalization layer, which is not adapted yet.
        activation: of the hidden layers.
        output_activation: of the output layer.
        bins: of each column, for a piecewise linear encoding in place of a Normalization layer; 0: none.
        dropout: share of the outputs of a hidden layer that is dropped in training.
        mirror: of pictures; beyond training, average a picture and its mirror image before the output layer.
        augment: how pictures are changed in training; None: not.

    Raises:
        ValueError: there is not exactly one input, `bins` is below 0, `dropout` is not from 0 to below 1, `mirror` or
            `augment` is for no pictures, or `normalization` or `bins` for pictures.
    """
    if len(inputs) != 1:
        raise ValueError(f"an mlp has one input, got {', '.join(inputs)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, expected from 0 to below 1")
    [(input_name, shape)] = inputs.items()
    if (mirror or augment) and len(shape) < 2:
        raise ValueError("mirror and augment are for pictures, and the input is a row of numbers")
    if (bins or normalization) and len(shape) > 1:
        raise ValueError("normalization and bins are for rows of numbers, and the input is a picture")
    layers = [keras.Input(shape, name=input_name), *picture_layers(augment, mirror)]
    if len(shape) > 1:
        layers.append(keras.layers.Flatten(name="flatten"))
    if bins:
        layers.append(PiecewiseLinear(bins, name=f"normalize_{input_name}"))
    elif normalization:
        layers.append(keras.layers.Normalization(name=f"normalize_{input_name}"))
    for number, units in enumerate(hidden, start=1):
        layers.append(keras.layers.Dense(units, activation=activation, name=f"hidden_{number}"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout_{number}"))
    if mirror:
        layers.append(MeanOfMirrored(name="mean_of_mirrored"))
    layers.append(keras.layers.Dense(outputs, activation=output_activation, name="output"))
    return keras.Sequential(layers, name=name)
