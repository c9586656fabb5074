"""What the machine has for stages, and what each of them takes of it."""

import os
import subprocess
from dataclasses import dataclass

from config.params import Params, usable_cores
from datasets import get_dataset

# The groups of dvc.yaml whose stages train networks.
TRAININGS = ("train", "parity")


@dataclass(frozen=True)
class Machine:
    """threads: of the processor, to be divided among the running stages. gpus: as CUDA_VISIBLE_DEVICES names them.

    jobs: the most stages that may run at once.
    """

    threads: int
    gpus: tuple[str, ...]
    jobs: int


def this_machine(params: Params, jobs: int | None) -> Machine:
    """Return what this machine has. jobs: None for as many as it has threads."""
    threads = usable_cores()
    gpus = () if params.hardware.device == "cpu" else visible_gpus()
    return Machine(threads, gpus, jobs or threads)


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs of NVIDIA's that a process of ours would see."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name for name in chosen.split(",") if name.strip())
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    return tuple(str(number) for number, _ in enumerate(listed.splitlines()))


def threads_of(stage: str, params: Params) -> int:
    """Return how many threads `stage` takes; see `hardware.threads`."""
    group, _, model = stage.partition("@")
    if group not in TRAININGS:
        return 1
    return params.hardware.training_threads(get_dataset(params.model(model).dataset).has_pictures)


def takes_gpu(stage: str) -> bool:
    return stage.partition("@")[0] in TRAININGS
