"""The resources of a machine, and those that each stage takes."""

import os
import subprocess
from dataclasses import dataclass
from itertools import takewhile

from config.params import Params
from datasets import get_dataset
from runtime.process_pool import usable_cores

# The groups of dvc.yaml whose stages train networks, and the one whose stages run a program in an isolated process.
TRAININGS = ("train", "lecture_recipe")
ISOLATING = "train"
# The group whose stages take the whole machine, and share it among the trainings that they start.
SEARCH = "search"


@dataclass(frozen=True)
class Machine:
    """What a run may take of a machine.

    threads: of the processor, shared by the running stages. gpus: as CUDA_VISIBLE_DEVICES names them. jobs: the
    maximum of stages that run at once.
    """

    threads: int
    gpus: tuple[str, ...]
    jobs: int


@dataclass(frozen=True)
class Resources:
    """What a stage takes of a machine.

    gpu: one of its own, if there are any. all_gpus: all of them. spare_process: see
    `runtime.isolated_process.fork_spare`.
    """

    threads: int
    gpu: bool = False
    all_gpus: bool = False
    spare_process: bool = False


def this_machine(params: Params, jobs: int | None) -> Machine:
    """Return what this machine has; without `jobs`, as many stages may run as it has threads."""
    threads = usable_cores()
    gpus = () if params.hardware.device == "cpu" else visible_gpus()
    return Machine(threads, gpus, jobs or threads)


def visible_gpus() -> tuple[str, ...]:
    """Return the NVIDIA GPUs that a process started here would see."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(takewhile(lambda name: name not in ("", "-1"), names))  # CUDA ignores the names that follow
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    cards = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return tuple(str(number) for number, _ in enumerate(cards))


def is_training(stage: str) -> bool:
    return stage.partition("@")[0] in TRAININGS


def resources_of(stage: str, params: Params, machine: Machine) -> Resources:
    """Return the resources that a stage takes.

    A training takes the threads that `hardware.threads` says; trainings on GPUs share the processor.

    Args:
        stage: such as train@iris_mlp.
        params: say which data set it trains on, and how it uses the machine.
        machine: where it runs.
    """
    group, _, model = stage.partition("@")
    if group == SEARCH:
        return Resources(machine.threads, gpu=True, all_gpus=True)
    if not is_training(stage):
        return Resources(threads=1)
    threads = params.hardware.training_threads(get_dataset(params.model(model).dataset).has_pictures)
    if machine.gpus:
        threads = min(threads, max(1, machine.threads // len(machine.gpus)))
    return Resources(threads, gpu=True, spare_process=group == ISOLATING)
