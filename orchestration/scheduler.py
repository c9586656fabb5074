"""The scheduler: start each stage as soon as the stages that it needs are done and enough resources are free."""

from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from orchestration.dvc.graph import Plan
from orchestration.resources import Machine, Resources
from orchestration.status import DONE, StageStatus


class Future(Protocol):
    def add_done_callback(self, function: Callable[["Future"], None]) -> None: ...


@dataclass
class FreeResources:
    """What is free of a machine. jobs: how many more stages may run."""

    threads: int
    jobs: int
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Launch:
    """A stage that is to be started.

    blocked_by: the stages that it needs and that failed or did not run; if there are any, it must not run either.
    gpu: the GPU, or GPUs with a comma between them, that are its own while it runs; None: none.
    """

    stage: str
    blocked_by: list[str]
    gpu: str | None


def run_schedule(
    plan: Plan,
    machine: Machine,
    resources: dict[str, Resources],
    start: Callable[[Launch], Future],
    status_of: Callable[[str, Future], StageStatus],
) -> dict[str, StageStatus]:
    """Run every stage of a plan in dependency order.

    A stage starts when all that it needs has ended, in the order of the plan as far as resources allow. A stage that
    takes more threads than the machine has waits until it has the machine to itself.

    Args:
        plan: the stages, and what each needs.
        machine: what all stages together may take.
        resources: what each stage takes.
        start: starts a stage; called once for each stage.
        status_of: returns the status of a stage whose future is done.

    Returns:
        The status of each stage.
    """
    free = FreeResources(machine.threads, machine.jobs, [*machine.gpus])
    ended: SimpleQueue[tuple[str, Future]] = SimpleQueue()
    waiting, running = [*plan.order], {}
    statuses: dict[str, StageStatus] = {}

    def launch(stage: str) -> None:
        blocked_by = [need for need in plan.needs[stage] if statuses[need] not in DONE]
        wanted = len(free.gpus) if resources[stage].all_gpus else 1
        taken = free.gpus[:wanted] if resources[stage].gpu and not blocked_by else []
        del free.gpus[: len(taken)]
        running[stage] = (threads(stage), taken)
        free.threads -= threads(stage)
        free.jobs -= 1
        start(Launch(stage, blocked_by, ",".join(taken) or None)).add_done_callback(
            lambda future: ended.put((stage, future))
        )

    def threads(stage: str) -> int:
        return min(resources[stage].threads, machine.threads)

    def is_ready(stage: str) -> bool:
        if any(need not in statuses for need in plan.needs[stage]) or not free.jobs:
            return False
        if machine.gpus and resources[stage].gpu and not free.gpus:
            return False
        return threads(stage) <= free.threads

    while waiting or running:
        for stage in [*waiting]:
            if is_ready(stage):
                waiting.remove(stage)
                launch(stage)
        stage, future = ended.get()
        statuses[stage] = status_of(stage, future)
        released_threads, gpus = running.pop(stage)
        free.threads += released_threads
        free.jobs += 1
        free.gpus += gpus
    return statuses
