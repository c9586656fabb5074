"""Training in a process of its own: threads, devices, and checks that change no digit."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import UserError
from tests.support.training import train
from tests.support.warm_python import warm_python
from tests.support.workspaces import ROOT, edit_params

pytestmark = pytest.mark.xdist_group("warm")

Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Run]:
    """Run a program that trains, with our code and a command line, and return what it prints and its errors."""
    modules = ("keras", "tensorflow", "prefect.flow_engine", "pyarrow.parquet")
    with warm_python(tmp_path_factory.mktemp("warm"), *modules) as warm:

        def run(program: str, *arguments: object, folder: Path = ROOT, **variables: str) -> tuple[str, str]:
            code = f"import sys; sys.path.insert(0, '')\n{program}"
            done = warm(code, [*map(str, arguments)], folder, {**os.environ, **variables})
            assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
            return done.stdout, done.stderr

        yield run


# Trains with the size looked at first, or not; prints what it ends with.
WITH_OR_WITHOUT = """
import hashlib, sys
from pathlib import Path
from config.params import load_params
from tasks.training import fit as fitting
from tasks.data.examples import read_examples
from tasks.training.hardware import use_device
if sys.argv[1] == "without":
    fitting.check_size = lambda *_: None
params = load_params()
hardware = params.hardware.model_copy(update={"device": "cpu"})
use_device("cpu", 1)
recipe = params.model("fashion_cnn")
splits = [read_examples(recipe, split).take(range(96)) for split in ("train", "valid")]
fitted = fitting.fit("m", recipe, 42, hardware, *splits, logs=None, checkpoints=Path(sys.argv[2]))
digest = hashlib.sha256(b"".join(weight.tobytes() for weight in fitted.model.get_weights()))
print(digest.hexdigest(), fitted.history, [layer.name for layer in fitted.model.layers])
"""


def test_looking_at_the_size_changes_no_digit_of_the_training(run, prepared, tmp_path):
    build = {"blocks": [{"filters": 4, "kernel": 3}], "hidden": [8], "dropout": 0.5, "outputs": 10}
    edit_params(
        prepared,
        models__fashion_cnn__build={**build, "output_activation": "softmax"},
        models__fashion_cnn__fit__resume=False,
        hardware__precision="float32",
    )
    checkpoints = tmp_path / "checkpoints"
    looked, not_looked = (run(WITH_OR_WITHOUT, way, checkpoints, folder=prepared)[0] for way in ("with", "without"))
    assert looked == not_looked


def test_units_without_end_are_refused_by_the_training(prepared):
    edit_params(prepared, models__iris_mlp__build__hidden=[10**9])
    told = "params.yaml: models.iris_mlp.build: a network of 8,000,000,003 parameters"
    with pytest.raises(UserError, match=re.escape(told)):
        train("iris_mlp")


# How many threads run operations, by the name that TensorFlow gives them.
THREADS = """
import sys
from pathlib import Path
from tasks.training.hardware import use_device
use_device("cpu", int(sys.argv[1]))
import tensorflow as tf
big = tf.random.normal([1000, 1000])
tf.function(lambda: big @ big @ big)()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(names.count("tf_Compute"))
"""


def test_tensorflow_starts_as_many_threads_as_asked_for(run):
    assert [int(run(THREADS, threads)[0]) for threads in (1, 5)] == [1, 5]


# A training that measures first, and the same one with its precision pinned; both print what they end with.
MEASURED_OR_PINNED = """
import hashlib, sys
from pathlib import Path
from config.params import load_params
from tasks.training import hardware
from tasks.data.examples import read_examples
from tasks.training.fit import fit
hardware.processor_multiplies_bfloat16 = lambda: True
hardware.BFLOAT16_MARGIN = 0
params = load_params()
chosen = params.hardware.model_copy(update={"precision": sys.argv[1], "device": "cpu"})
hardware.use_device("cpu", None)
recipe = params.model("multi_input_cnn")
splits = [read_examples(recipe, split) for split in ("train", "valid")]
fitted = fit("multi_input_cnn", recipe, 42, chosen, *splits, logs=None, checkpoints=Path(sys.argv[2]))
digest = hashlib.sha256(b"".join(weight.tobytes() for weight in fitted.model.get_weights()))
print(fitted.precision, digest.hexdigest(), [weight.name for weight in fitted.model.weights])
print(fitted.precision_reason, file=sys.stderr)
"""


@pytest.mark.rotates
def test_a_measurement_changes_no_digit_of_the_training(run, prepared, tmp_path):
    edit_params(prepared, models__multi_input_cnn__build__filters=[4, 2])
    measured, pinned = (
        run(MEASURED_OR_PINNED, precision, tmp_path, folder=prepared, XDG_CACHE_HOME=str(tmp_path / "cache"))
        for precision in ("auto", "mixed_bfloat16")
    )
    assert measured[0] == pinned[0]
    assert measured[0].startswith("mixed_bfloat16 ")
    assert "measured on this machine: a training step takes " in measured[1]
    assert len([*(tmp_path / "cache/heaviside").glob("precision-*.json")]) == 1


# Two processors out of one: as two GPUs, for TensorFlow.
TWO_DEVICES = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from config.params import load_params
from tasks.training import fit as fitting
from tasks.data.examples import read_examples
name, folder = sys.argv[1:]
params = load_params()
recipe = params.model(name)
hardware = params.hardware.model_copy(update={"precision": "float32", "execution": "auto"})
splits = []
for split in ("train", "valid"):
    examples = read_examples(recipe, split)
    splits.append(examples.take(np.arange(examples.rows // 64 * 64 or examples.rows // 2 * 2)))
weights = []
for devices in (None, ["CPU:0", "CPU:1"]):
    mirrored = tf.distribute.MirroredStrategy(devices) if devices else None
    fitting.data_parallel = lambda: mirrored
    fitted = fitting.fit(name, recipe, 42, hardware, *splits, logs=None, checkpoints=Path(folder))
    assert all(np.isfinite(fitted.history["val_loss"]))
    weights.append(fitted.model.get_weights())
    print(fitted.history)
differences = [np.abs(one - other).max() for one, other in zip(*weights)]
print("DIFFERENCE", max(differences))
assert max(differences) < 1e-3, differences
"""


@pytest.mark.rotates
@pytest.mark.parametrize("name", ["iris_mlp", "housing_wide_deep_aux", "multi_input_cnn"])
def test_two_devices_share_each_batch_and_end_with_the_weights_of_one(run, prepared, tmp_path, name):
    edit_params(prepared, models__multi_input_cnn__build__filters=[4, 2])
    edit_params(prepared, **{f"models__{name}__compile__average": None, f"models__{name}__fit__batch_size": 32})
    run(TWO_DEVICES, name, tmp_path / "checkpoints", folder=prepared)
