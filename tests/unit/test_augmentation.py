"""Pictures that are changed in training, and networks that look at mirror images."""

import keras
import numpy as np
import pytest

from models.common.augmentation import Augment, MeanOfMirrored, WithMirrored
from models.resnet import build

SIDE = 8


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, SIDE, SIDE, 2)).astype(np.float32)


def changed(pictures: np.ndarray, epoch: int = 0, seed: int = 1, **settings) -> np.ndarray:
    layer = Augment(seed=seed, **settings)
    layer.build(pictures.shape)
    layer.epoch.assign(epoch)
    return keras.ops.convert_to_numpy(layer(pictures, training=True))


def test_nothing_changes_beyond_training(pictures):
    layer = Augment(shift=2, flip=True, erase=3, erase_share=1.0)
    np.testing.assert_array_equal(layer(pictures, training=False), pictures)


def test_a_seed_gives_the_same_pictures_and_another_seed_others(pictures):
    settings = {"shift": 2, "flip": True, "erase": 3}
    np.testing.assert_array_equal(changed(pictures, **settings), changed(pictures, **settings))
    assert not np.array_equal(changed(pictures, **settings), changed(pictures, seed=2, **settings))


def test_every_picture_is_mirrored_in_every_other_epoch(pictures):
    first, second, third = (changed(pictures, epoch, flip=True) for epoch in range(3))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    mirrored = [np.array_equal(now, before[:, ::-1]) for now, before in zip(first, pictures, strict=True)]
    assert 0.25 < np.mean(mirrored) < 0.75


@pytest.mark.parametrize("shift", [1, 3])
def test_a_shifted_picture_is_a_part_of_the_one_with_mirrored_edges(pictures, shift):
    wide = np.pad(pictures, [(0, 0), (shift, shift), (shift, shift), (0, 0)], mode="reflect")
    places = range(2 * shift + 1)
    found = set()
    for now, around in zip(changed(pictures, shift=shift), wide, strict=True):
        fits = [(y, x) for y in places for x in places if np.array_equal(now, around[y : y + SIDE, x : x + SIDE])]
        assert len(fits) == 1
        found |= {*fits}
    assert len(found) > len(places)


def test_a_square_is_erased_in_a_share_of_the_pictures(pictures):
    many = np.repeat(pictures, 20, axis=0)
    erased = changed(many, erase=3, erase_share=0.25) != many
    hit = erased.any(axis=(1, 2, 3))
    assert 0.2 < hit.mean() < 0.3
    for mask in erased[hit]:
        rows, columns = mask[:, :, 0].any(axis=1).nonzero()[0], mask[:, :, 0].any(axis=0).nonzero()[0]
        assert max(np.ptp(rows), np.ptp(columns)) <= 2
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert mask.sum() == 2 * len(rows) * len(columns)


def test_pictures_without_channels_are_changed_likewise(pictures):
    settings = {"shift": 2, "flip": True, "erase": 3}
    grey = pictures[..., :1]
    np.testing.assert_array_equal(changed(grey[..., 0], **settings), changed(grey, **settings)[..., 0])


def test_what_does_not_fit_into_the_picture_is_refused():
    with pytest.raises(ValueError, match="shift is 9 pixels, and the picture has 8 x 8"):
        Augment(shift=9).build((None, SIDE, SIDE, 1))


def test_a_network_with_mirror_images_answers_a_picture_and_its_mirror_image_alike(pictures):
    model = build({"image": (SIDE, SIDE, 2)}, "small", 4, [4, 8], 3, mirror=True, output_activation="softmax")
    answers, mirrored = (model.predict(given, verbose=0) for given in (pictures, pictures[:, :, ::-1]))
    np.testing.assert_allclose(answers, mirrored, atol=1e-6)
    assert answers.shape == (64, 3)


def test_the_mean_is_that_of_a_picture_and_its_own_mirror_image(pictures):
    both = WithMirrored()(pictures, training=False)
    mean = MeanOfMirrored()(keras.ops.reshape(both, (128, -1)), training=False)
    expected = (pictures + pictures[:, :, ::-1]) / 2
    np.testing.assert_allclose(mean, expected.reshape(64, -1), atol=1e-6)


def test_too_many_stages_are_refused():
    with pytest.raises(ValueError, match="4 stages halve a picture of 8 x 8 too often"):
        build({"image": (SIDE, SIDE, 1)}, "small", 4, [4] * 4, 3)
