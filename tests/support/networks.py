"""Networks of params.yaml for tests: what each takes, and how many parameters it has."""

import pytest

# Inputs, parameters in all, trainable parameters: the table of the notes' architectures, and further networks. Of an
# ensemble: those of a member. A layer that changes pictures keeps the epoch, one number more than the notes' network.
EXPECTED = {
    "linear_neuron": ({"x": (1,)}, 2, 2),
    "logic_perceptron": ({"ab": (2,)}, 12, 12),
    "logic_perceptron_sign": ({"ab": (2,)}, 12, 12),
    "logic_mlp": ({"ab": (2,)}, 17, 17),
    "iris_perceptron": ({"petals": (2,)}, 3, 3),
    "iris_mlp": ({"features": (4,)}, 83, 83),
    "housing_mlp": ({"features": (8,)}, 5_618, 5_601),
    "housing_mlp_tuned": ({"features": (8,)}, 245_887, 244_863),
    "housing_wide_deep": ({"features": (8,)}, 1_256, 1_239),
    "housing_wide_deep_two_inputs": ({"wide": (5,), "deep": (6,)}, 1_200, 1_176),
    "housing_wide_deep_aux": ({"wide": (5,), "deep": (6,)}, 1_231, 1_207),
    "housing_wide_deep_subclassed": ({"wide": (5,), "deep": (6,)}, 1_231, 1_207),
    "housing_neighbours": ({"features": (8,), "place": (2,)}, 195_776, 68_066),
    "housing_neighbours_ensemble": ({"features": (8,), "place": (2,)}, 195_776, 68_066),
    "binary_mlp": ({"features": (10,)}, 551, 551),
    "fashion_mlp": ({"image": (28, 28)}, 266_611, 266_610),
    "fashion_mlp_300": ({"image": (28, 28)}, 328_811, 328_810),
    "fashion_mlp_ensemble": ({"image": (28, 28)}, 328_811, 328_810),
    "fashion_mlp_tuned": ({"image": (28, 28)}, 453_130, 453_130),
    "fashion_cnn": ({"image": (28, 28, 1)}, 1_413_835, 1_413_834),
    "fashion_resnet": ({"image": (28, 28, 1)}, 1_979_716, 1_977_408),
    "fashion_resnet_ensemble": ({"image": (28, 28, 1)}, 1_979_716, 1_977_408),
    "fashion_multitask": ({"image": (28, 28, 1)}, 220_299, 220_299),
    "fashion_attributes": ({"image": (28, 28, 1)}, 219_844, 219_844),
    "binary_cnn": ({"grey": (64, 64, 1)}, 35_813, 35_813),
    "shared_input_cnn": ({"grey": (64, 64, 1)}, 86_787, 86_787),
    "multi_input_cnn": ({"grey": (64, 64, 1), "colour": (32, 32, 3)}, 49_699, 49_699),
}
TRAIN_ROWS = 11_610  # of California housing, which housing_neighbours keeps

# Of each family the quickest.
QUICK = (
    "linear_neuron",
    "iris_perceptron",
    "iris_mlp",
    "housing_wide_deep_aux",
    "housing_wide_deep_subclassed",
    "fashion_cnn",
    "multi_input_cnn",
)


def each_model() -> list:
    """Return every model for `parametrize`; only one or two of each family belong to the fast tier."""
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in EXPECTED]
