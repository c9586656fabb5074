"""Wide and deep networks, functional: the inputs reach the output both directly and through hidden layers.

H.-T. Cheng et al., "Wide & deep learning for recommender systems", arXiv:1606.07792, 2016. Each input has its own
Normalization layer. One input can take both paths, and two inputs can share columns.

| model | inputs | layers | parameters |
|---|---|---|---|
| housing_wide_deep | features [8] | deep 30, 30; joined with the input; Dense(1) | 1,256, of which 1,239 trainable |
| housing_wide_deep_two_inputs | wide [5], deep [6] | the same | 1,200, of which 1,176 trainable |
| housing_wide_deep_aux | wide [5], deep [6] | the same, and a second Dense(1), `aux`, on the deep path alone | 1,231, \
of which 1,207 trainable |
"""

from collections.abc import Sequence

import keras

from models.common.outputs import Shapes, network_input


def build(
    inputs: Shapes,
    name: str,
    wide: str,
    deep: str,
    hidden: Sequence[int],
    outputs: int,
    aux: bool = False,
    activation: str = "relu",
    output_activation: str = "linear",
) -> keras.Model:
    """Return a network to [batch, outputs], float32. Its Normalization layers are not adapted yet.

    Args:
        inputs: the shape of a row of each input, by name.
        name: of the network.
        wide, deep: names of the inputs [batch, features] of each path; they can be the same.
        hidden: units of each hidden layer of the deep path.
        outputs: units of an output layer.
        aux: add an output `aux` of the deep path alone, so that this path also learns by itself.
        activation: of the hidden layers.
        output_activation: of the outputs.

    Raises:
        ValueError: `wide` and `deep` are not exactly the inputs.
    """
    if {wide, deep} != set(inputs):
        raise ValueError(f"wide and deep are {wide!r} and {deep!r}, the inputs {', '.join(inputs)}")
    given = {key: keras.Input(shape, name=key) for key, shape in inputs.items()}
    normal = {key: keras.layers.Normalization(name=f"normalize_{key}")(value) for key, value in given.items()}
    path = normal[deep]
    for number, units in enumerate(hidden, start=1):
        path = keras.layers.Dense(units, activation=activation, name=f"hidden_{number}")(path)
    joined = keras.layers.Concatenate(name="wide_and_deep")([normal[wide], path])
    output = keras.layers.Dense(outputs, activation=output_activation, name="output")(joined)
    if not aux:
        return keras.Model(network_input(given), output, name=name)
    auxiliary = keras.layers.Dense(outputs, activation=output_activation, name="aux")(path)
    return keras.Model(network_input(given), {"output": output, "aux": auxiliary}, name=name)
