"""Bring the stages of dvc.yaml up to date, side by side: the graph, the cache and dvc.lock are those of `dvc repro`."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from config import paths
from config.params import Params, load_params
from orchestration.command_line import (
    ignore_interrupts,
    log_mistakes_once,
    parent_run,
    prepare_process,
    reporting,
    telling_mistakes,
)
from orchestration.dvc.graph import Plan, read_plan, target_names
from orchestration.dvc.lockfile import locked_stages, put_in_order
from orchestration.dvc.reproduce import reproduce
from orchestration.dvc.yaml_cache import reading_instead
from orchestration.executors.dask import open_cluster, run_on_cluster, stop_on_cluster
from orchestration.executors.local import Emit, Stopped, import_ahead, open_processes, run, stop
from orchestration.experiment import experiment, refuse_without_commits, restored_workspace
from orchestration.prefect.server import reporting_environment
from orchestration.progress import Progress, show_progress, summary
from orchestration.resources import Machine, takes_gpu, this_machine, threads_of
from orchestration.scheduler import DONE, Ending, Needs, Start, drive
from orchestration.settings import override
from runtime.disk import explain
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS, PIPELINE_RUN, STAGES_NOT_DONE

MOST_JOBS = 256
INTERRUPTED = "interrupted. What was done until then is recorded; the stages that were running are as they were before."

Runner = Literal["local", "dask"]
if TYPE_CHECKING:
    Target = str
else:  # read at import: Prefect makes the UI's form, with these choices, of the flow's signature
    names = target_names(Path(__file__).parents[1])
    Target = Literal[tuple(names)] if names else str
# A key, and a value without ${...}, which Hydra would replace.
Setting = Annotated[str, Field(pattern=r"^(\+\+|\+|~)?[\w.]+(=([^$]|\$+[^${])*\$*)?$")]
# Empty, as a form sends it, is none.
Address = Annotated[str, Field(pattern=r"^(([a-z]+://)?[^\s/]+:\d+)?$", description="of a Dask scheduler")]
Jobs = Annotated[int, Field(ge=1, le=MOST_JOBS, description="the most stages at once")]


class PipelineFailed(UserError):
    """Some stages failed."""


# So many threads that the ready queue alone decides what waits.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=MOST_JOBS)


@flow(name="pipeline", task_runner=RUNNER)
def pipeline(
    targets: list[Target] | None = None,
    force: bool = False,
    jobs: Jobs | None = None,
    settings: list[Setting] | None = None,
    address: Address | None = None,
) -> None:
    """Run what has changed of `targets`, stages or groups of dvc.yaml, and of all that they need; None: of everything.

    force: run them though nothing has changed. jobs: the most stages at once; None: as many as there are cores.
    settings: other parameters for this run, such as models.iris_mlp.fit.epochs=9, which makes it a DVC experiment.
    address: of the scheduler of a Dask cluster, such as tcp://host:8786, where the stages run; None: on this machine.
    """
    log_mistakes_once()
    runner: Runner = "dask" if address else "local"
    with restored_workspace(), experiment(settings or [], targets or []):
        # An experiment puts the report back as it was, whatever became of it.
        run_graph(targets or [], force, jobs, runner, address, reports_failures=not settings)


def run_graph(
    targets: list[str],
    force: bool,
    jobs: int | None = None,
    runner: Runner = "local",
    address: str | None = None,
    reports_failures: bool = False,
) -> None:
    began = time.monotonic()
    params = load_params()
    plan, before = read_plan(targets), locked_stages()
    endings: dict[str, Ending] = {}
    futures: dict[str, PrefectFuture] = {}
    with show_progress(len(plan.order)) as progress, open_host(runner, address, params, jobs) as host:
        needs = {stage: Needs(threads_of(stage, params, host.machine), takes_gpu(stage)) for stage in plan.order}

        def start(chosen: Start) -> PrefectFuture:
            known = chosen.stage not in plan.changed and not force
            known = known and all(endings[need] == "unchanged" for need in plan.needs[chosen.stage])

            def run_stage() -> State:
                return bring_up_to_date(chosen, known, force, needs[chosen.stage].threads, host, progress)

            done = [futures[need] for need in plan.needs[chosen.stage] if endings[need] in DONE]
            stage_task = task(name=chosen.stage, task_run_name=chosen.stage)(run_stage)
            futures[chosen.stage] = stage_task.submit(return_state=False, wait_for=done)
            return futures[chosen.stage]

        def ending(stage: str, future: Any) -> Ending:
            future.wait()  # until then its state is not the last one
            endings[stage] = ENDINGS.get(future.state.name, "failed")
            progress.ended(stage, endings[stage])
            return endings[stage]

        try:
            drive(plan, host.machine, needs, start, ending)
        except BaseException:  # Ctrl-C, most likely
            progress.tell("stopping: what runs puts its outputs back")
            ignore_interrupts()
            host.stop()
            for stage in futures.keys() - endings.keys():
                ending(stage, futures[stage])
            raise
        finally:
            put_in_order(plan.order, before)
        if reports_failures and endings.get("report") == "not run":
            report_failures(endings, host, progress)
        told = summary(endings, time.monotonic() - began)
        progress.tell(told)
    get_run_logger().info(told)
    if endings.get("report") in DONE:
        show_figures(told)
    if failed := [stage for stage, ending in endings.items() if ending == "failed"]:
        raise PipelineFailed(f"{', '.join(failed)} failed. {told}. What did not fail is done and recorded.")


# The names of the states that Prefect shows, and what they say of a stage.
ENDINGS: dict[str, Ending] = {
    "Completed": "ran",
    "Restored": "restored",
    "Unchanged": "unchanged",
    "Failed": "failed",
    "Interrupted": "interrupted",
    "NotRun": "not run",
}


@dataclass(frozen=True)
class Host:
    """Where stages run. run: a command, in an environment, with so many threads; it hands over the lines that are
    printed and returns the exit code. stop: ask all that is running to end, and wait until it has.
    """

    machine: Machine
    run: Callable[[str, dict[str, str], Emit, int], int]
    stop: Callable[[], None]


@contextmanager
def open_host(runner: Runner, address: str | None, params: Params, jobs: int | None) -> Iterator[Host]:
    """Yield this machine or a Dask cluster; at the block's end nothing of ours runs there."""
    if runner == "dask":
        if not address:
            raise UserError("the runner dask needs the address of its scheduler: --address tcp://host:8786.")
        refuse_unreachable_server(address, str(PREFECT_API_URL.value()))
        with open_cluster(address) as cluster:
            machine = Machine(cluster.threads, (), jobs or cluster.threads)
            yield Host(machine, partial(run_on_cluster, cluster), partial(stop_on_cluster, cluster))
        return
    machine = this_machine(params, jobs)
    with open_processes(warm=not machine.gpus) as processes:

        def run_here(command: str, environment: dict[str, str], emit: Emit, _threads: int) -> int:
            return run(processes, command, environment | {PIPELINE_PROCESS: str(os.getpid())}, emit)

        yield Host(machine, run_here, partial(stop, processes))


def refuse_unreachable_server(scheduler: str, server: str) -> None:
    """Raise UserError where the workers may be on other machines and the Prefect server is on this one's loopback."""
    if is_loopback(server) and not is_loopback(scheduler):
        raise UserError(
            f"the workers of {scheduler} cannot report to {server}, which only this machine reaches: "
            "set PREFECT_API_URL to a server that they reach."
        )


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bring_up_to_date(chosen: Start, known: bool, force: bool, threads: int, host: Host, progress: Progress) -> State:
    """Run a stage if it has changed, and return the state that tells what became of it. known: it has not."""
    stage = chosen.stage
    if chosen.blocked_by:
        return Cancelled(name="NotRun", message=f"It needs {', '.join(chosen.blocked_by)}.")
    if known:
        return Completed(name="Unchanged")
    logger = get_run_logger()

    def emit(line: str) -> None:
        logger.info(line)
        progress.line(stage, line)

    def run_command(command: str, environment: dict[str, str]) -> int:
        progress.started(stage)
        own = {"CUDA_VISIBLE_DEVICES": chosen.gpu or ""} if host.machine.gpus else {}
        return host.run(command, environment | run_environment() | own, emit, threads)

    def warn(message: str) -> None:
        logger.warning(message)
        progress.tell(message)

    try:
        outcome = reproduce(stage, run_command, warn, force)
    except Stopped:
        return Cancelled(name="Interrupted")
    except (UserError, OSError) as error:
        message = explain(error) or str(error)
        logger.error(message)
        progress.line(stage, message)
        return Failed(message=message)
    except Exception as error:
        progress.line(stage, f"{type(error).__name__}: {error}")  # its traceback is in Prefect's log
        raise
    return Completed(name={"ran": "Completed", "restored": "Restored", "unchanged": "Unchanged"}[outcome])


def report_failures(endings: dict[str, Ending], host: Host, progress: Progress) -> None:
    """Make the report of a run in which something failed, and which therefore did not come to it: it says what failed.

    That is no business of DVC's, for which the report remains to be made.
    """
    undone = {stage: ending for stage, ending in endings.items() if ending not in DONE}
    environment = {**os.environ, **run_environment(), STAGES_NOT_DONE: json.dumps(undone)}
    try:
        made = host.run("python -m flows.report", environment, get_run_logger().info, 1) == 0
    except (UserError, OSError) as error:
        get_run_logger().error(str(error))
        made = False
    told = "says what failed" if made else "could not be made; the log says why"
    progress.tell(f"{paths.REPORTS / 'index.html'} {told}")


def run_environment() -> dict[str, str]:
    """Return what the process of a stage gets to know of this run."""
    context = FlowRunContext.get()
    assert context
    assert context.flow_run
    return {PIPELINE_RUN: str(context.flow_run.id), **reporting_environment()}


def show_figures(told: str) -> None:
    """Put the table of figures, and where the report is, on the run's page."""
    summary_file, report = paths.REPORTS / "summary.json", paths.REPORTS / "index.html"
    models = json.loads(summary_file.read_text(encoding="utf-8"))
    lines = [f"{told}.", "", f"[Report]({report.resolve().as_uri()})", "", "| model | source | test |", "|---|---|---|"]
    for model in models:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in model["metrics"]["test"].items())
        lines.append(f"| {model['name']} | {model['source']} | {figures} |")
    create_markdown_artifact(key="figures", markdown="\n".join(lines), description="What the models reach on test")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a stage or group of dvc.yaml; none: everything")
    parser.add_argument("--force", action="store_true", help="run stages that have not changed, too")
    parser.add_argument("--jobs", type=int, metavar="N", help="the most stages at once; as many as there are cores")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="another parameter: a DVC experiment")
    parser.add_argument("--runner", choices=["local", "dask"], default="local", help="where the stages run")
    parser.add_argument("--address", metavar="URL", help="of the Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--dry", action="store_true", help="say what would be run, and run nothing")
    given = parser.parse_args()
    if (given.runner == "dask") != bool(given.address):
        parser.error("--runner dask and --address, of its scheduler, go together")
    if given.jobs is not None and not 1 <= given.jobs <= MOST_JOBS:
        parser.error(f"--jobs must be from 1 to {MOST_JOBS}, got {given.jobs}")
    return given


def show_plan(plan: Plan, force: bool) -> None:
    """Print each stage that would run for sure, or might because what it needs does."""
    for stage in plan.order:
        if force or stage in plan.changed:
            print(f"{stage}: {'forced' if force else 'changed'}")
        elif needed := sorted(plan.behind(stage) & plan.changed):
            print(f"{stage}: if {' or '.join(needed)} ends with other outputs")


def main() -> int:
    given = parse()
    prepare_process()
    with telling_mistakes(INTERRUPTED):
        with restored_workspace():
            load_params()
            changed = override(given.set) if given.set else None
            if given.set and not given.dry:
                refuse_without_commits()
            with reading_instead(paths.PARAMS, changed):
                plan = read_plan(given.targets)
        if given.dry:
            show_plan(plan, given.force)
            return 0
        if not (plan.changed or given.force or given.set):  # known without a server
            print(f"{len(plan.order)} stages: {len(plan.order)} unchanged.")
            return 0
        if given.runner == "local":
            import_ahead()
        keep_logs_off_the_terminal()
        with reporting(), parent_run(pipeline):
            pipeline(given.targets, given.force, given.jobs, given.set, given.address)
    return 0


def keep_logs_off_the_terminal() -> None:
    """Leave the terminal to `show_progress`; Prefect's server still gets every log line."""
    logging.getLogger("dvc").setLevel(logging.WARNING)
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.getLogger().manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL + 1)


if __name__ == "__main__":
    sys.exit(main())
