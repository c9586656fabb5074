"""What the machine has for stages, and what each of them takes of it."""

import os
import subprocess
from dataclasses import dataclass
from itertools import takewhile

from config.params import Params
from datasets import get_dataset
from runtime.process_pool import usable_cores

# The groups of dvc.yaml whose stages train networks.
TRAININGS = ("train", "lecture_recipe")


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
        names = [name.strip() for name in chosen.split(",")]
        return tuple(takewhile(lambda name: name not in ("", "-1"), names))  # CUDA sees none from there on
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    cards = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return tuple(str(number) for number, _ in enumerate(cards))


def threads_of(stage: str, params: Params, machine: Machine) -> int:
    """Return how many threads `stage` takes; see `hardware.threads`. Those that train on GPUs share the processor."""
    group, _, model = stage.partition("@")
    if group not in TRAININGS:
        return 1
    threads = params.hardware.training_threads(get_dataset(params.model(model).dataset).has_pictures)
    return min(threads, max(1, machine.threads // len(machine.gpus))) if machine.gpus else threads


def takes_gpu(stage: str) -> bool:
    return stage.partition("@")[0] in TRAININGS
