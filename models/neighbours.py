"""A regression that looks at the train rows nearest to a row, with their targets; functional.

Each neighbour is described by how it differs from the row. One layer turns that into a vector, attention weighs the
vectors, and an MLP gets the row's own features with their weighted mean. The idea is that of Y. Gorishniy et al.,
"TabR: tabular deep learning meets nearest neighbors", ICLR 2024; here the neighbours are found by place instead of by a
learned distance, so they are few.
"""

from collections.abc import Sequence

import keras

from models.common.neighbours import Neighbours
from models.common.outputs import Shapes

ROLES = ["features", "place"]


def build(
    inputs: Shapes,
    name: str,
    train_rows: int,
    neighbours: int,
    width: int,
    hidden: Sequence[int],
    outputs: int,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    activation: str = "relu",
    output_activation: str = "linear",
) -> keras.Model:
    """Return a network from the inputs `features` and `place` to [batch, outputs], float32.

    Args:
        inputs: the shape of a row of each input.
        name: of the network.
        train_rows: rows of the train split, which the network keeps.
        neighbours: how many of them it looks at.
        width: units of the layer for each neighbour.
        hidden: units of each hidden layer of the MLP.
        outputs: units of the output layer.
        dropout: share of the outputs of each hidden layer that is dropped in training.
        attention_dropout: share of the neighbours that is dropped in training.
        activation: of the hidden layers.
        output_activation: of the output layer.

    Raises:
        ValueError: the inputs are others, or there are fewer train rows than are looked at.
    """
    if sorted(inputs) != ROLES or any(len(shape) != 1 for shape in inputs.values()):
        raise ValueError(f"a network with neighbours has the inputs features and place, got {', '.join(inputs)}")
    given = {role: keras.Input(inputs[role], name=role) for role in ROLES}
    relations, closeness = Neighbours(neighbours, train_rows, name="neighbours")(given["features"], given["place"])
    seen = keras.layers.Dense(width, activation=activation, name="relation")(relations)
    seen = keras.layers.Dropout(dropout, name="dropout_relation")(seen)
    score = keras.layers.Add(name="add_closeness")([keras.layers.Dense(1, name="score")(seen), closeness])
    weight = keras.layers.Softmax(axis=1, name="attention")(score)
    weight = keras.layers.Dropout(attention_dropout, name="dropout_attention")(weight)
    value = keras.layers.Dense(width, name="value")(seen)
    context = keras.layers.Flatten(name="context")(keras.layers.Dot(1, name="weighted_mean")([weight, value]))
    whole = keras.layers.Concatenate(name="with_context")([given["features"], context])
    for number, units in enumerate(hidden, start=1):
        whole = keras.layers.Dense(units, activation=activation, name=f"hidden_{number}")(whole)
        whole = keras.layers.Dropout(dropout, name=f"dropout_{number}")(whole)
    output = keras.layers.Dense(outputs, activation=output_activation, name="output")(whole)
    return keras.Model(given, output, name=name)
