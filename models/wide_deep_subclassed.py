"""The wide and deep network with an auxiliary output, subclassed: layers in `__init__`, their order in `call`.

It computes the same function as `models.wide_deep` with two inputs and `aux`; a test compares them. See there for the
source.
housing_wide_deep_subclassed: wide [5], deep [6]; 1,231 parameters, of which 1,207 trainable.
"""

from collections.abc import Sequence

import keras

from models.common.outputs import Shapes


@keras.saving.register_keras_serializable("heaviside")
class WideAndDeepModel(keras.Model):
    """{"wide": [batch, n], "deep": [batch, m]} -> {"output": [batch, outputs], "aux": [batch, outputs]}, float32.

    hidden: units of each hidden layer of the deep path; `aux` reads this path alone.
    """

    def __init__(self, hidden=(30, 30), outputs=1, activation="relu", output_activation="linear", **settings):
        super().__init__(**settings)
        self.settings = {
            "hidden": list(hidden),
            "outputs": outputs,
            "activation": activation,
            "output_activation": output_activation,
        }
        self.normalize_wide = keras.layers.Normalization(name="normalize_wide")
        self.normalize_deep = keras.layers.Normalization(name="normalize_deep")
        self.hidden_layers = [
            keras.layers.Dense(units, activation=activation, name=f"hidden_{number}")
            for number, units in enumerate(hidden, start=1)
        ]
        self.join = keras.layers.Concatenate(name="wide_and_deep")
        self.main = keras.layers.Dense(outputs, activation=output_activation, name="output")
        self.aux = keras.layers.Dense(outputs, activation=output_activation, name="aux")

    def call(self, inputs):
        wide, path = self.normalize_wide(inputs["wide"]), self.normalize_deep(inputs["deep"])
        for layer in self.hidden_layers:
            path = layer(path)
        return {"output": self.main(self.join([wide, path])), "aux": self.aux(path)}

    def get_config(self):
        return {**super().get_config(), **self.settings}


def build(
    inputs: Shapes,
    name: str,
    hidden: Sequence[int],
    outputs: int,
    activation: str = "relu",
    output_activation: str = "linear",
) -> keras.Model:
    """Return a `WideAndDeepModel` with weights. Its Normalization layers are not adapted yet.

    Args:
        inputs: the shape of a row of each input, by name.
        name: of the network.
        hidden: units of each hidden layer of the deep path.
        outputs: units of an output layer.
        activation: of the hidden layers.
        output_activation: of the outputs.

    Raises:
        ValueError: the inputs are not "wide" and "deep".
    """
    if set(inputs) != {"wide", "deep"}:
        raise ValueError(f"the inputs are wide and deep, got {', '.join(inputs)}")
    model = WideAndDeepModel(hidden, outputs, activation, output_activation, name=name)
    for key, shape in inputs.items():  # before the call, because the statistics would stay in its graph
        getattr(model, f"normalize_{key}").build((None, *shape))
    model({key: keras.Input(shape, name=key) for key, shape in inputs.items()})
    return model
