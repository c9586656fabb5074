"""The device, precision and compiler of a training, by `hardware` of params.yaml.

docs/speed.md says what `auto` chooses, and has the measurements.
"""

import ctypes
import hashlib
import json
import logging
import os
import platform
import site
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import psutil
from filelock import FileLock

from config import paths
from config.params import Execution, Fit, Hardware
from models.common.layers import convolutions
from runtime.errors import UserError

# Compiling by XLA pays from this many steps of a training on.
XLA_STEPS = 5000

# bfloat16 is used where a training step in float32 takes at least this many times as long, clearly above the noise.
BFLOAT16_MARGIN = 1.15
MEASURED_PRECISIONS = ("float32", "mixed_bfloat16")
# Steps of each precision that compile and warm up, and steps that are timed.
WARM_STEPS, MEASURED_STEPS = 3, 15
# A measurement takes a few seconds, mostly TensorFlow's import, but minutes on a busy machine.
MEASURE_SECONDS = 300

# Bytes that malloc keeps when memory is freed, and requests at once when it needs more.
KEPT_BYTES = 64 * 2**20
# malloc.h of glibc
M_TOP_PAD = -2

# Libraries that TensorFlow 2.21 loads for a GPU, and what each belongs to.
GPU_LIBRARIES = {"libcuda.so.1": "the driver", "libcudart.so.12": "CUDA", "libcudnn.so.9": "cuDNN"}

logger = logging.getLogger(__name__)


def use_device(device: str, threads: int | None) -> None:
    """Make the devices of `hardware.device` visible to TensorFlow. Call it before TensorFlow's first operation.

    Memory of a GPU is allocated as needed, so that several trainings can share it.

    Args:
        device: "auto", "cpu" or "gpu".
        threads: of the processor, within an operation and between operations; None: TensorFlow's own number.

    Raises:
        UserError: `device` is "gpu" and TensorFlow finds none.
    """
    keep_freed_memory()
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise UserError(f"{paths.PARAMS}: hardware.device is gpu, and TensorFlow sees none: {why_no_gpu()}")
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        return
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)


def keep_freed_memory() -> None:
    """Make glibc's malloc keep the memory of a block of rows for the next one.

    New memory costs a page fault every 4 KiB, and returning it interrupts every thread, also those that train.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TOP_PAD, KEPT_BYTES)


def why_no_gpu() -> str:
    """Return why TensorFlow finds no GPU, and the remedy."""
    import tensorflow as tf

    remedy = "Or set hardware.device to auto or cpu."
    build = tf.sysconfig.get_build_info()
    if not build.get("is_cuda_build"):
        return f"this build of TensorFlow {tf.__version__} has no GPU support. {remedy}"
    missing = [f"{library} ({part})" for library, part in GPU_LIBRARIES.items() if not loads(library)]
    if missing:
        versions = f"CUDA {build.get('cuda_version')} and cuDNN {build.get('cudnn_version')}"
        return (
            f"it cannot load {', '.join(missing)}. Install the driver, and {versions} with "
            f"`.venv/bin/python -m uv pip install -r pyproject.toml --extra gpu`. {remedy}"
        )
    return f"the libraries load, so look for the card with `nvidia-smi` and at CUDA_VISIBLE_DEVICES. {remedy}"


def loads(library: str) -> bool:
    """Return whether the dynamic linker, or a folder of the `nvidia` wheels, has `library`."""
    wheels = (Path(root) / "nvidia" for root in site.getsitepackages())
    candidates = [library, *(str(file) for folder in wheels for file in folder.glob(f"*/lib/{library}"))]
    for candidate in candidates:
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return True
    return False


def data_parallel():
    """Return a `tf.distribute.MirroredStrategy` over the visible devices where there are several GPUs, else None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus]) if len(gpus) > 1 else None


def has_gpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


def has_convolutions(model: keras.Model) -> bool:
    return bool(convolutions(model))


class ChosenPrecision(NamedTuple):
    """The dtype policy of a training, and the reason in words."""

    policy: str
    reason: str


def choose_precision(hardware: Hardware, model: keras.Model) -> ChosenPrecision:
    """Return the dtype policy to train `model` with.

    auto: bfloat16 for networks with convolutions, where the processor has units for it and a measurement shows that it
    trains faster with them, or the GPU has units (float16 on an older GPU); else float32, because other networks are
    bound by memory and by the time between steps.
    """
    if hardware.precision != "auto":
        return ChosenPrecision(hardware.precision, f"set in {paths.PARAMS}")
    if not has_convolutions(model):
        return ChosenPrecision("float32", "the network has no convolutions")
    if has_gpu():
        return ChosenPrecision(gpu_precision(), "by the compute capability of the GPU")
    if not processor_multiplies_bfloat16():
        return ChosenPrecision("float32", "the processor has no units for bfloat16")
    return faster_precision(step_seconds(hardware.training_threads(pictures=True)))


def faster_precision(seconds: dict[str, float]) -> ChosenPrecision:
    """Return bfloat16 where it is clearly faster. seconds: of a training step, by policy; {}: not known."""
    if not seconds:
        return ChosenPrecision("float32", "bfloat16 could not be measured on this machine")
    ratio = seconds["float32"] / seconds["mixed_bfloat16"]
    steps = ", ".join(f"{1000 * seconds[policy]:.1f} ms in {policy}" for policy in MEASURED_PRECISIONS)
    policy = "mixed_bfloat16" if ratio >= BFLOAT16_MARGIN else "float32"
    return ChosenPrecision(policy, f"measured on this machine: a training step takes {steps}")


def step_seconds(threads: int) -> dict[str, float]:
    """Return the seconds of a training step by policy, measured once on this machine; {} where that fails.

    The result is kept in the user's cache folder, or in the workspace where that cannot be written. The measurement
    runs in another process, so that it does not affect the training. threads: of the processor.
    """
    named = "\n".join((processor_name(), *sorted(processor_flags()), str(threads), keras.backend.backend(), versions()))
    name = f"precision-{hashlib.blake2b(named.encode(), digest_size=8).hexdigest()}.json"
    for folder in cache_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):  # one of several concurrent trainings measures
                seconds = read_seconds(folder / name)
                if not seconds and (seconds := measure(threads)):
                    write_seconds(folder / name, seconds)
        except (OSError, NotImplementedError) as error:  # read-only, full, or a file system without locks
            logger.debug("the measurement cannot be written to %s: %s", folder, error)
            continue
        return seconds
    return measure(threads)


def cache_folders() -> Iterator[Path]:
    """Yield the folders for measurements: the user's, then the workspace's."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # no home
        yield (given if given.is_absolute() else Path.home() / ".cache") / "heaviside"
    yield paths.STAGING / "measured"


def versions() -> str:
    from importlib.metadata import version

    return " ".join(f"{package} {version(package)}" for package in ("keras", "tensorflow"))


def read_seconds(file: Path) -> dict[str, float]:
    """Return the seconds in `file`; {} where it is missing, or not as `write_seconds` writes it."""
    try:
        seconds = json.loads(file.read_text(encoding="utf-8"))
        kept = {policy: float(seconds[policy]) for policy in MEASURED_PRECISIONS}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return kept if all(0 < value < float("inf") for value in kept.values()) else {}


def write_seconds(file: Path, seconds: dict[str, float]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(seconds | {"processor": processor_name()}), encoding="utf-8")
    partial.replace(file)


def measure(threads: int) -> dict[str, float]:
    """Return the seconds of a training step by policy, measured in a new process; {} where that fails."""
    logger.info("measuring training steps in bfloat16 and float32, once on this machine")
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tasks.training.hardware", str(threads)]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=MEASURE_SECONDS
        )
        return {policy: float(seconds) for policy, seconds in json.loads(done.stdout.splitlines()[-1]).items()}
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        logger.warning("bfloat16 could not be measured, so float32 is used: %s", error)
        return {}


def time_steps(threads: int) -> dict[str, float]:
    """Return the median seconds of a training step of a small convolutional network, by policy.

    The policies alternate, so that other work on the machine affects both. threads: of the processor.
    """
    use_device("cpu", threads)
    rng = np.random.default_rng(0)
    images, classes = rng.random((32, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, 32)
    networks = {policy: small_network(policy) for policy in MEASURED_PRECISIONS}
    seconds: dict[str, list[float]] = {policy: [] for policy in networks}
    for _ in range(WARM_STEPS + MEASURED_STEPS):
        for policy, network in networks.items():
            began = time.perf_counter()
            network.train_on_batch(images, classes)
            seconds[policy].append(time.perf_counter() - began)
    return {policy: statistics.median(taken[WARM_STEPS:]) for policy, taken in seconds.items()}


def small_network(policy: str) -> keras.Model:
    """Return a compiled network with convolutions like those of models/cnn.py, on images [28, 28, 1]."""
    keras.config.set_dtype_policy(policy)
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(64, 7, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(128, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(128, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    network.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    return network


def gpu_precision() -> str:
    """Return the dtype policy that every visible GPU has units for.

    bfloat16 from compute capability 8.0 on, float16 from 7.0 on (CUDA C++ Programming Guide, "Compute Capabilities").
    """
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    lowest = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    if lowest >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if lowest >= (7, 0) else "float32"


def processor_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether Linux lists AVX-512 BF16 or AMX BF16 among the processor's flags; False on other systems.

    The units need not be fast: an Intel Xeon without AMX trained at 0.55 of its float32 speed.
    """
    return bool({"avx512_bf16", "amx_bf16"} & processor_flags(cpuinfo))


@cache
def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def choose_execution(chosen: Execution, model: keras.Model, fit: Fit, steps: int) -> str:
    """Return "xla", "graph" or "batches".

    auto: XLA for a long training, which pays for compiling, of a network without convolutions. XLA is no faster than
    the convolutions of oneDNN and cuDNN.

    Args:
        chosen: `hardware.execution`.
        model: the network.
        fit: the settings of the recipe.
        steps: of the whole training.
    """
    if fit.profile_batches or keras.backend.backend() != "tensorflow":
        return "batches"  # the profiler counts batches
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return "batches"  # Keras' own loop spreads each batch over the devices
    if chosen != "auto":
        return chosen
    return "graph" if has_convolutions(model) or steps < XLA_STEPS else "xla"


def memory_limit(hardware: Hardware) -> int:
    """Return how many bytes a split may take in memory: a share of the free memory, or the given size."""
    if isinstance(hardware.memory, Fraction):
        return int(psutil.virtual_memory().available * hardware.memory)
    return hardware.memory


def processor_name() -> str:
    """Return the name of the processor from Linux, else from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


if __name__ == "__main__":
    print(json.dumps(time_steps(int(sys.argv[1]))))
