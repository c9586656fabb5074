"""Hardware: what `auto` chooses, and what is refused."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import tensorflow as tf
from conftest import ROOT, edit_params
from pydantic import TypeAdapter, ValidationError

from config.params import Hardware, load_params
from datasets import get_dataset
from models.common.registry import build_model
from runtime.errors import UserError
from tasks.training import hardware
from tasks.training.hardware import (
    choose_execution,
    choose_precision,
    faster_precision,
    memory_limit,
    processor_multiplies_bfloat16,
    step_seconds,
    use_device,
)

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
from tasks.training.hardware import use_device
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
def test_units_for_bfloat16_are_known_by_the_processors_flags(tmp_path, flags, multiplies):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: {flags}\n")
    assert processor_multiplies_bfloat16(file) is multiplies
    assert not processor_multiplies_bfloat16(tmp_path / "missing")


FASTER, SLOWER = {"float32": 0.040, "mixed_bfloat16": 0.021}, {"float32": 0.040, "mixed_bfloat16": 0.073}


@pytest.fixture
def processor_with_units(monkeypatch, tmp_path) -> list[int]:
    """A processor with units for bfloat16 that is not measured yet; a test sets `measure`. The list gets its calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "processor_multiplies_bfloat16", lambda: True)
    calls: list[int] = []
    monkeypatch.setattr(hardware, "measure", lambda threads: calls.append(threads) or FASTER)
    return calls


def chosen(**values: str) -> Hardware:
    return load_params(ROOT / "params.yaml").hardware.model_copy(update=values)


@needs_no_gpu
def test_only_convolutions_are_trained_in_bfloat16(monkeypatch, processor_with_units):
    assert choose_precision(chosen(), network("fashion_mlp")[0]).policy == "float32"
    assert not processor_with_units  # nothing to measure
    assert choose_precision(chosen(), network("fashion_cnn")[0]).policy == "mixed_bfloat16"
    monkeypatch.setattr(hardware, "processor_multiplies_bfloat16", lambda: False)
    assert choose_precision(chosen(), network("fashion_cnn")[0]).policy == "float32"


@needs_no_gpu
def test_a_processor_that_is_slower_in_bfloat16_trains_in_float32_whatever_its_flags(monkeypatch, processor_with_units):
    monkeypatch.setattr(hardware, "measure", lambda threads: SLOWER)
    policy, reason = choose_precision(chosen(), network("fashion_cnn")[0])
    assert policy == "float32"
    assert "40.0 ms in float32, 73.0 ms in mixed_bfloat16" in reason


@needs_no_gpu
def test_a_pinned_precision_is_taken_without_a_measurement(processor_with_units):
    for pinned in ("float32", "mixed_bfloat16", "mixed_float16"):
        assert choose_precision(chosen(precision=pinned), network("fashion_cnn")[0]).policy == pinned
    assert not processor_with_units


def test_bfloat16_needs_a_clear_margin():
    assert faster_precision(FASTER).policy == "mixed_bfloat16"
    assert faster_precision({"float32": 0.040, "mixed_bfloat16": 0.037}).policy == "float32"
    assert faster_precision({}).policy == "float32"


def test_a_machine_is_measured_once_for_each_number_of_threads(processor_with_units):
    assert step_seconds(2) == step_seconds(2) == FASTER
    step_seconds(1)
    assert processor_with_units == [2, 1]


@pytest.mark.parametrize("damaged", ["", "{}", "[]", "null", '{"float32": 0.04}', '{"float32": "x"}', "\x00"])
def test_a_damaged_cache_is_measured_again(processor_with_units, tmp_path, damaged):
    step_seconds(2)
    [file] = (tmp_path / "cache/heaviside").glob("precision-*.json")
    file.write_text(damaged)
    assert step_seconds(2) == FASTER
    assert processor_with_units == [2, 2]
    assert json.loads(file.read_text())["float32"] == FASTER["float32"]


def test_trainings_that_begin_together_measure_once(monkeypatch, processor_with_units):
    both = threading.Event()

    def measure(threads: int) -> dict[str, float]:
        processor_with_units.append(threads)
        both.wait(0.5)
        return FASTER

    monkeypatch.setattr(hardware, "measure", measure)
    with ThreadPoolExecutor(4) as trainings:
        assert [*trainings.map(step_seconds, [2] * 4)] == [FASTER] * 4
    assert processor_with_units == [2]


def test_without_a_folder_for_the_user_the_workspace_keeps_it(monkeypatch, processor_with_units, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    step_seconds(2)
    step_seconds(2)
    assert processor_with_units == [2]
    assert [*(tmp_path / ".staging/measured").glob("precision-*.json")]


def test_where_nothing_can_be_kept_or_measured_float32_is_chosen(monkeypatch, processor_with_units, tmp_path):
    for name in ("a file", ".staging"):
        (tmp_path / name).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    assert step_seconds(2) == FASTER
    monkeypatch.setattr(hardware, "measure", lambda threads: {})
    assert faster_precision(step_seconds(2)).policy == "float32"


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


def test_a_measurement_changes_no_digit_of_the_training(prepared, tmp_path):
    told, printed = [], []
    for precision in ("auto", "mixed_bfloat16"):
        command = [sys.executable, "-c", MEASURED_OR_PINNED, precision, str(tmp_path / "checkpoints")]
        settings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(command, cwd=prepared, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        told.append(done.stderr)
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert printed[0].startswith("mixed_bfloat16 ")
    assert "measured on this machine: a training step takes " in told[0]
    assert len([*(tmp_path / "cache/heaviside").glob("precision-*.json")]) == 1


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


@pytest.mark.parametrize("name", ["iris_mlp", "housing_wide_deep_aux", "multi_input_cnn"])
def test_two_devices_share_each_batch_and_end_with_the_weights_of_one(prepared, tmp_path, name):
    edit_params(prepared, **{f"models__{name}__compile__average": None, f"models__{name}__fit__batch_size": 32})
    command = [sys.executable, "-c", TWO_DEVICES, name, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, cwd=prepared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
