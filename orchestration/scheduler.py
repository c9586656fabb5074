"""The ready queue: start each stage as soon as what it needs is done and there is room for it on the machine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal, Protocol

from orchestration.dvc.graph import Plan
from orchestration.resources import Machine

# What became of a stage. restored: from DVC's cache, not run. not run: because what it needs failed.
Ending = Literal["ran", "restored", "unchanged", "failed", "interrupted", "not run"]
DONE: tuple[Ending, ...] = ("ran", "restored", "unchanged")


class Future(Protocol):
    def add_done_callback(self, function: Callable[["Future"], None]) -> None: ...


@dataclass
class Room:
    """What is free of a machine."""

    threads: int
    jobs: int
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Needs:
    """What a stage takes of the machine. gpu: one of its own, if there are any."""

    threads: int
    gpu: bool


@dataclass(frozen=True)
class Start:
    """A stage that is to be started. blocked_by: the stages that it needs and that were not done; then it is not run.

    gpu: the one that is its own while it runs, None: none.
    """

    stage: str
    blocked_by: list[str]
    gpu: str | None


def drive(
    plan: Plan,
    machine: Machine,
    needs: dict[str, Needs],
    start: Callable[[Start], Future],
    ending: Callable[[str, Future], Ending],
) -> dict[str, Ending]:
    """Start every stage of `plan` once, by `start`, and return what became of each, by `ending` of its future.

    A stage starts when all that it needs has ended, in the order of the plan as far as there is room. One that takes
    more threads than the machine has waits until it has the machine to itself.
    """
    room = Room(machine.threads, machine.jobs, [*machine.gpus])
    ended: SimpleQueue[tuple[str, Future]] = SimpleQueue()
    waiting, running = [*plan.order], {}
    endings: dict[str, Ending] = {}

    def begin(stage: str) -> None:
        blocked_by = [need for need in plan.needs[stage] if endings[need] not in DONE]
        gpu = room.gpus.pop(0) if room.gpus and needs[stage].gpu and not blocked_by else None
        running[stage] = (threads(stage), gpu)
        room.threads -= threads(stage)
        room.jobs -= 1
        start(Start(stage, blocked_by, gpu)).add_done_callback(lambda future: ended.put((stage, future)))

    def threads(stage: str) -> int:
        return min(needs[stage].threads, machine.threads)

    def may_begin(stage: str) -> bool:
        if any(need not in endings for need in plan.needs[stage]) or not room.jobs:
            return False
        if machine.gpus and needs[stage].gpu and not room.gpus:
            return False
        return threads(stage) <= room.threads

    while waiting or running:
        for stage in [*waiting]:
            if may_begin(stage):
                waiting.remove(stage)
                begin(stage)
        stage, future = ended.get()
        endings[stage] = ending(stage, future)
        given_back, gpu = running.pop(stage)
        room.threads += given_back
        room.jobs += 1
        if gpu is not None:
            room.gpus.append(gpu)
    return endings
