"""Several networks as one, whose outputs are the mean of theirs."""

from collections.abc import Sequence

import keras

from models.common.outputs import MAIN_OUTPUT, Shapes, named_outputs, network_input


def average(members: Sequence[keras.Model], inputs: Shapes, name: str) -> keras.Model:
    """Return a network whose outputs are the means of the members' outputs, with the same names.

    Args:
        members: at least two networks of the same inputs and outputs, each with another name.
        inputs: the shape of a row of each input, by name.
        name: of the network.
    """
    given = {key: keras.Input(shape, name=key) for key, shape in inputs.items()}
    found = [named_outputs(member(network_input(given))) for member in members]
    means = {output: keras.layers.Average(name=output)([outputs[output] for outputs in found]) for output in found[0]}
    return keras.Model(network_input(given), means[MAIN_OUTPUT] if len(means) == 1 else means, name=name)
