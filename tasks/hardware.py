"""Hardware: which device, precision and compiler a training uses, from `hardware` of params.yaml.

What `auto` chooses, and the measurements behind it, are in docs/speed.md.
"""

import ctypes
import logging
import platform
import site
from fractions import Fraction
from functools import cache
from pathlib import Path

import keras
import psutil

from config import paths
from config.errors import UserError
from config.params import Execution, Fit, Hardware, Precision

# Steps of a training after which compiling them by XLA has paid.
XLA_STEPS = 5000

# Bytes that malloc keeps of what is freed, and takes at once when it needs more.
KEPT_BYTES = 64 * 2**20
# malloc.h of glibc
M_TOP_PAD = -2

# Libraries that TensorFlow loads for a GPU, by what each is of; the numbers are those of TensorFlow 2.21.
GPU_LIBRARIES = {"libcuda.so.1": "the driver", "libcudart.so.12": "CUDA", "libcudnn.so.9": "cuDNN"}

logger = logging.getLogger(__name__)


def use_device(device: str, threads: int | None) -> None:
    """Have TensorFlow see the devices that `hardware.device` names; before its first operation.

    threads: of the processor, for one operation and for several at once; None: as many as TensorFlow takes.
    A GPU's memory is taken as needed, so that several trainings can share it.
    Raises UserError when a GPU is asked for and there is none.
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
    """Have glibc's malloc keep the memory of a block of rows for the next one, instead of returning it each time.

    Fresh memory costs a page fault every 4 KiB, and taking it away interrupts every thread, those that train too.
    """
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_TOP_PAD, KEPT_BYTES)


def why_no_gpu() -> str:
    """Return what TensorFlow lacks for a GPU, and the remedy."""
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
    return any("Conv" in type(layer).__name__ for layer in model.layers)


def choose_precision(chosen: Precision, model: keras.Model) -> str:
    """Return the dtype policy to train `model` with.

    auto: bfloat16 for convolutions where the device multiplies it in hardware (on a GPU without it, float16);
    float32 for the rest, which is bound by memory and by the time between steps.
    """
    if chosen != "auto":
        return chosen
    if not has_convolutions(model):
        return "float32"
    if has_gpu():
        return gpu_precision()
    return "mixed_bfloat16" if processor_multiplies_bfloat16() else "float32"


def gpu_precision() -> str:
    """Return the dtype policy that every visible GPU has units for, by compute capability.

    bfloat16 since 8.0, float16 since 7.0 (CUDA C++ Programming Guide, "Compute Capabilities").
    """
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    lowest = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    if lowest >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if lowest >= (7, 0) else "float32"


@cache
def processor_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has AVX-512 BF16 or AMX BF16, by the flags that Linux names; elsewhere False."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool({"avx512_bf16", "amx_bf16"} & set(flags))


def choose_execution(chosen: Execution, model: keras.Model, fit: Fit, steps: int) -> str:
    """Return "xla", "graph" or "batches". steps: of the whole training.

    auto: as one program with XLA, if the network has no convolutions, whose oneDNN and cuDNN kernels XLA does
    not beat, and is trained for long enough to pay for compiling.
    """
    if fit.profile_batches or keras.backend.backend() != "tensorflow":
        return "batches"  # the profiler counts batches
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return "batches"  # Keras' own loop spreads each batch over the devices
    if chosen != "auto":
        return chosen
    return "graph" if has_convolutions(model) or steps < XLA_STEPS else "xla"


def memory_limit(hardware: Hardware) -> int:
    """Return how many bytes a split may take in memory: a share of what is free now, or the size given."""
    if isinstance(hardware.memory, Fraction):
        return int(psutil.virtual_memory().available * hardware.memory)
    return hardware.memory


def processor_name() -> str:
    """Return the processor's name as Linux has it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
