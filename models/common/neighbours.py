"""The layer that looks up the nearest rows of the train split."""

import keras
import numpy as np
from keras import ops

SAME = 1e-10  # squared distance of two rows of features that are one and the same
NEAR = 0.01  # added to a distance before its logarithm
NEVER = -1e9  # closeness of the row itself: no weight is left of it
DECAY = 20.0  # of exp(-DECAY * distance)


@keras.saving.register_keras_serializable("heaviside")
class Neighbours(keras.layers.Layer):
    """Looks up the train rows nearest to each row, by place; a train row is not its own neighbour.

    Its weights are the table of all train rows, so that an exported model holds it. Called with features [batch, f]
    and place [batch, p], it returns, with n = neighbours + 2:

    - relations, float32 [batch, n, f + 4]: features of a neighbour less those of the row; its target less the mean of
      all targets; logarithm, value and exponential decay of its distance.
    - closeness, float32 [batch, n, 1]: the logarithm of 1 - (distance / largest distance)^2, an Epanechnikov kernel as
      wide as the distance of the nearest row that is left out. So nothing jumps where two rows change places, and two
      runtimes that round otherwise give the same answer. V. A. Epanechnikov, "Non-parametric estimation of a
      multivariate probability density", 1969.

    Args:
        neighbours: how many train rows count, at most.
        rows: of the train split.

    Raises:
        ValueError: the train split has fewer rows than are looked up.
    """

    def __init__(self, neighbours: int, rows: int, **settings):
        super().__init__(**{"dtype": "float32", **settings})
        if not 1 <= neighbours <= rows - 2:
            raise ValueError(f"neighbours is {neighbours}, expected 1 to {rows - 2}, of {rows} train rows")
        self.neighbours, self.rows = neighbours, rows

    def build(self, features_shape, place_shape):
        def table(name: str, *shape: int):
            return self.add_weight(shape=shape, initializer="zeros", trainable=False, name=name)

        self.features = table("features", self.rows, features_shape[-1])
        self.places = table("places", place_shape[-1], self.rows)
        self.targets = table("targets", self.rows)

    def adapt(self, features: np.ndarray, place: np.ndarray, target: np.ndarray) -> None:
        """Fill the table: features float32 [rows, f], place float32 [rows, p], target float32 [rows, 1]."""
        self.features.assign(features)
        self.places.assign(place.T)
        self.targets.assign(target[:, 0] - target.mean())

    def call(self, features, place):
        # By subtraction: the difference of squared lengths loses the digits that tell near rows apart.
        squared = sum(
            ops.square(place[:, axis : axis + 1] - ops.expand_dims(self.places[axis], 0))
            for axis in range(place.shape[-1])
        )
        nearest, number = ops.top_k(-squared, self.neighbours + 2)
        squared = -nearest
        difference = ops.take(self.features, number, axis=0) - ops.expand_dims(features, 1)
        others = ops.cast(ops.sum(ops.square(difference), axis=-1) > SAME, "float32")
        # The row itself, if it is there, takes the place of the last one.
        counted = others * ops.cast(ops.cumsum(others, axis=1) <= self.neighbours + 1, "float32")
        width = ops.max(counted * squared, axis=1, keepdims=True)
        kernel = counted * (1 - squared / ops.maximum(width, SAME))
        distance = ops.sqrt(squared)
        target = counted * ops.take(self.targets, number, axis=0)  # where nothing counts, no target is seen
        columns = [target, ops.log(distance + NEAR), distance, ops.exp(-DECAY * distance)]
        relations = ops.concatenate([difference, ops.stack(columns, axis=-1)], axis=-1)
        closeness = ops.where(counted > 0, ops.log(ops.maximum(kernel, SAME)), NEVER)
        return relations, ops.expand_dims(closeness, -1)

    def compute_output_shape(self, features_shape, place_shape):
        found = (features_shape[0], self.neighbours + 2)
        return (*found, features_shape[-1] + 4), (*found, 1)

    def get_config(self):
        return {**super().get_config(), "neighbours": self.neighbours, "rows": self.rows}
