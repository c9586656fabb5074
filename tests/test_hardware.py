"""Hardware: what `auto` chooses, and what is refused."""

import os
import subprocess
import sys
from fractions import Fraction

import pytest
import tensorflow as tf
from conftest import ROOT, edit_params
from pydantic import TypeAdapter, ValidationError

from config.errors import UserError
from config.params import Hardware, load_params
from datasets import get_dataset
from models import build_model
from tasks import hardware
from tasks.hardware import choose_execution, choose_precision, memory_limit, processor_multiplies_bfloat16, use_device

needs_no_gpu = pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")


def network(name: str):
    params = load_params(ROOT / "params.yaml").model(name)
    shapes = {"fashion_cnn": {"image": (28, 28, 1)}, "fashion_mlp": {"image": (28, 28)}}[name]
    return build_model(params.family, shapes, name, params.build), params.fit


@pytest.mark.parametrize(
    ("value", "limit"),
    [("1/2", 500), (0.25, 250), ("800 MB", 800_000_000), ("2GiB", 2 * 2**30), (4096, 4096)],
)
def test_memory_is_a_share_of_what_is_free_or_a_size(monkeypatch, value, limit):
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    values = {"device": "auto", "precision": "auto", "execution": "auto", "threads": "auto", "memory": value}
    assert memory_limit(TypeAdapter(Hardware).validate_python(values)) == limit


@pytest.mark.parametrize("value", ["3/2 GB", "much", 0, -1, True, "1/0"])
def test_other_memory_is_refused_with_what_would_be_valid(value):
    values = {"device": "auto", "precision": "auto", "execution": "auto", "threads": "auto", "memory": value}
    with pytest.raises(ValidationError, match="a share of free memory such as 1/2, or a size such as 800 MB"):
        TypeAdapter(Hardware).validate_python(values)


def test_the_share_stays_exact():
    values = {"device": "auto", "precision": "auto", "execution": "auto", "threads": "auto", "memory": "1/3"}
    assert TypeAdapter(Hardware).validate_python(values).memory == Fraction(1, 3)


def test_threads_are_one_for_numbers_and_every_core_for_pictures():
    chosen = load_params(ROOT / "params.yaml").hardware
    assert chosen.training_threads(get_dataset("california_housing").has_pictures) == 1
    assert chosen.training_threads(get_dataset("fashion_mnist").has_pictures) == len(os.sched_getaffinity(0))
    assert chosen.model_copy(update={"threads": 3}).training_threads(pictures=False) == 3


# How many threads run operations, by the name that TensorFlow gives them.
THREADS = """
import sys
from pathlib import Path
from tasks.hardware import use_device
use_device("cpu", int(sys.argv[1]))
import tensorflow as tf
big = tf.random.normal([1000, 1000])
tf.function(lambda: big @ big @ big)()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(names.count("tf_Compute"))
"""


def test_tensorflow_starts_as_many_threads_as_asked_for():
    started = []
    for threads in (1, 5):
        command = [sys.executable, "-c", THREADS, str(threads)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        started.append(int(done.stdout))
    assert started == [1, 5]


@pytest.mark.parametrize(
    ("flags", "multiplies"),
    [("fpu avx512f avx512_bf16 sse", True), ("fpu amx_tile amx_bf16", True), ("fpu avx512f avx2", False)],
)
def test_bfloat16_is_chosen_by_the_processors_flags(tmp_path, flags, multiplies):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: {flags}\n")
    assert processor_multiplies_bfloat16(file) is multiplies
    assert not processor_multiplies_bfloat16(tmp_path / "missing")


@needs_no_gpu
def test_only_convolutions_are_trained_in_bfloat16(monkeypatch):
    monkeypatch.setattr(hardware, "processor_multiplies_bfloat16", lambda: True)
    assert choose_precision("auto", network("fashion_cnn")[0]) == "mixed_bfloat16"
    assert choose_precision("auto", network("fashion_mlp")[0]) == "float32"
    assert choose_precision("mixed_float16", network("fashion_mlp")[0]) == "mixed_float16"
    monkeypatch.setattr(hardware, "processor_multiplies_bfloat16", lambda: False)
    assert choose_precision("auto", network("fashion_cnn")[0]) == "float32"


def test_xla_is_chosen_for_long_trainings_without_convolutions():
    dense, fit = network("fashion_mlp")
    assert choose_execution("auto", dense, fit, hardware.XLA_STEPS) == "xla"
    assert choose_execution("auto", dense, fit, hardware.XLA_STEPS - 1) == "graph"
    assert choose_execution("batches", dense, fit, hardware.XLA_STEPS) == "batches"
    convolutional, fit = network("fashion_cnn")
    assert choose_execution("auto", convolutional, fit, 10**6) == "graph"
    profiled = fit.model_copy(update={"profile_batches": (1, 2)})
    assert choose_execution("xla", dense, profiled, 10**6) == "batches"


@needs_no_gpu
def test_a_gpu_that_is_absent_is_told_with_what_is_missing(monkeypatch):
    monkeypatch.setattr(hardware, "loads", lambda library: library != "libcuda.so.1")
    with pytest.raises(UserError, match=r"hardware.device is gpu, .* cannot load libcuda\.so\.1 \(the driver\)"):
        use_device("gpu", None)
    monkeypatch.setattr(hardware, "loads", lambda library: True)
    with pytest.raises(UserError, match="nvidia-smi"):
        use_device("gpu", None)


# Two processors out of one: as two GPUs, for TensorFlow.
TWO_DEVICES = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from config.params import load_params
from tasks import fit as fitting
from tasks.examples import read_examples
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
    fitted = fitting.fit(name, recipe, 42, hardware, *splits, source="sample", logs=None, checkpoints=Path(folder))
    assert all(np.isfinite(fitted.history["val_loss"]))
    weights.append(fitted.model.get_weights())
    print(fitted.history)
differences = [np.abs(one - other).max() for one, other in zip(*weights)]
print("DIFFERENCE", max(differences))
assert max(differences) < 1e-3, differences
"""


@pytest.mark.parametrize("name", ["iris_mlp", "housing_wide_deep_aux", "multi_input_cnn"])
def test_two_devices_share_each_batch_and_end_with_the_weights_of_one(prepared, tmp_path, name):
    edit_params(prepared, **{f"models__{name}__compile__average": None, f"models__{name}__fit__batch_size": 32})
    command = [sys.executable, "-c", TWO_DEVICES, name, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, cwd=prepared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
