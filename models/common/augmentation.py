"""Layers that change pictures at random while a network is trained, and that average mirror images later.

They are part of the network: their random numbers follow from the seed and the epoch, as those of Dropout do, so an
epoch is the same with rows from memory or from disk, and after a checkpoint. An exported model does not change its
input.
"""

from typing import Annotated, NotRequired

import keras
from keras import ops
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

ERASE_SHARE = 0.5


class Augmentation(TypedDict):
    """How pictures are changed in training.

    shift: pixels, at most, by which a picture moves along each axis; its edge is mirrored. flip: mirror every picture
    in every other epoch. erase: pixels of the side of a square that is set to 0. erase_share: of the pictures in which
    one is erased.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # how pydantic wants it

    shift: NotRequired[Annotated[int, Field(ge=0)]]
    flip: NotRequired[bool]
    erase: NotRequired[Annotated[int, Field(ge=0)]]
    erase_share: NotRequired[Annotated[float, Field(ge=0, le=1)]]


@keras.saving.register_keras_serializable("heaviside")
class Augment(keras.layers.Layer):
    """Changes pictures in training: [batch, height, width] or [..., channels] -> the same shape and dtype.

    Which of two epochs mirrors a picture is decided by whether an even number of its values is above 0: so no picture
    is seen twice the same way round in two epochs (K. Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU",
    arXiv:2404.00498, 2024). Squares are erased as in Z. Zhong et al., "Random erasing data augmentation",
    arXiv:1708.04896, 2017.

    Args:
        shift, flip, erase, erase_share: see `Augmentation`.

    Raises:
        ValueError: `shift` or `erase` does not fit into the picture, or there is an `erase_share` without `erase`.
    """

    def __init__(
        self,
        shift: int = 0,
        flip: bool = False,
        erase: int = 0,
        erase_share: float = ERASE_SHARE,
        seed=None,
        **settings,
    ):
        super().__init__(**settings)
        self.shift, self.flip, self.erase, self.erase_share = shift, flip, erase, erase_share
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        height, width = input_shape[1:3]
        if not self.erase and self.erase_share != ERASE_SHARE:
            raise ValueError(f"erase_share is {self.erase_share}, and erase, the side of the square, is not given")
        for name, pixels in (("shift", self.shift), ("erase", self.erase)):
            if pixels >= min(height, width):
                raise ValueError(f"{name} is {pixels} pixels, and the picture has {height} x {width}")
        # A float, as TensorFlow keeps whole numbers off a GPU.
        self.epoch = self.add_weight(
            shape=(), initializer="zeros", trainable=False, dtype="float32", autocast=False, name="epoch"
        )

    def call(self, inputs, training=False):
        if not training:
            return inputs
        changed = inputs if len(inputs.shape) == 4 else ops.expand_dims(inputs, 3)
        if self.flip:
            above = ops.sum(ops.cast(changed > 0, "float32"), axis=(1, 2, 3), keepdims=True)
            changed = ops.where(ops.mod(above + self.epoch, 2) > 0.5, ops.flip(changed, axis=2), changed)
        if self.shift:
            changed = self.moved(changed)
        if self.erase:
            changed = self.erased(changed)
        return ops.reshape(changed, ops.shape(inputs))

    def moved(self, pictures):
        for axis in (1, 2):
            size = pictures.shape[axis]
            by = ops.cast(self.draw(pictures, -self.shift, self.shift + 1), "int32")
            places = ops.abs(ops.arange(size, dtype="int32")[None] + by)  # behind the first edge: mirrored
            places = (size - 1) - ops.abs((size - 1) - places)  # behind the last one
            shape = (-1, size, 1, 1) if axis == 1 else (-1, 1, size, 1)
            pictures = ops.take_along_axis(pictures, ops.reshape(places, shape), axis=axis)
        return pictures

    def erased(self, pictures):
        hit = self.draw(pictures, 0, 1) < self.erase_share
        inside = []
        for axis in (1, 2):
            size = pictures.shape[axis]
            first = self.draw(pictures, -(self.erase // 2), size - self.erase // 2)
            place = ops.arange(size, dtype="float32")[None]
            inside.append(ops.logical_and(place >= first, place < first + self.erase))
        square = ops.logical_and(ops.expand_dims(inside[0], 2), ops.expand_dims(inside[1], 1))
        square = ops.logical_and(square, ops.expand_dims(hit, 2))
        return ops.where(ops.expand_dims(square, 3), ops.zeros_like(pictures), pictures)

    def draw(self, pictures, low: int, high: int):
        """Return a number for each picture: a whole one from low to high - 1; of 0 and 1, any between them."""
        drawn = keras.random.uniform((ops.shape(pictures)[0], 1), low, high, dtype="float32", seed=self.seed_generator)
        return drawn if (low, high) == (0, 1) else ops.floor(drawn)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {key: getattr(self, key) for key in ("shift", "flip", "erase", "erase_share")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("heaviside")
class WithMirrored(keras.layers.Layer):
    """Puts the mirror image of each picture behind all of them, except in training.

    [batch, height, width, ...] -> [2 * batch, height, width, ...]. `MeanOfMirrored` undoes it.
    """

    def call(self, inputs, training=False):
        return inputs if training else ops.concatenate([inputs, ops.flip(inputs, axis=2)], axis=0)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])


@keras.saving.register_keras_serializable("heaviside")
class MeanOfMirrored(keras.layers.Layer):
    """Averages what was found in a picture and in its mirror image: [2 * batch, features] -> [batch, features].

    In training there are no mirror images, and nothing changes.
    """

    def call(self, inputs, training=False):
        return inputs if training else ops.mean(ops.reshape(inputs, (2, -1, inputs.shape[-1])), axis=0)

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:])


def picture_layers(augment: Augmentation | None, mirror: bool) -> list[keras.layers.Layer]:
    """Return the layers for pictures at the beginning of a network.

    Args:
        augment: how pictures are changed in training; None: not.
        mirror: beyond training, look at mirror images, too; `MeanOfMirrored` must follow.
    """
    layers: list[keras.layers.Layer] = [Augment(**augment, name="augment")] if augment else []
    return layers + ([WithMirrored(name="with_mirrored")] if mirror else [])
