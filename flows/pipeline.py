"""Bring the stages of dvc.yaml up to date in parallel, with the graph, the cache and the dvc.lock of `dvc repro`."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed, State
from pydantic import Field

from config import paths
from config.params import load_params, parse_params
from orchestration.command_line import (
    add_executor_options,
    exit_on_user_error,
    ignore_interrupts,
    keep_logs_off_the_terminal,
    log_user_errors_once,
    parent_run,
    parse_executor_options,
    prepare_process,
    reporting,
)
from orchestration.duration import estimate
from orchestration.dvc.graph import Plan, read_plan, target_names
from orchestration.dvc.lockfile import locked_stages, put_in_order
from orchestration.dvc.patches import reading_instead
from orchestration.dvc.reproduce import reproduce
from orchestration.executors.executor import Executor, ExecutorKind, open_executor
from orchestration.executors.local import Stopped, start_fork_server
from orchestration.experiment import experiment, refuse_without_commits, restored_workspace
from orchestration.prefect.server import reporting_environment
from orchestration.prefect.task_runner import MAX_JOBS, RUNNER
from orchestration.progress import Progress, show_progress, summary
from orchestration.resources import Machine, Resources, is_training, resources_of
from orchestration.scheduler import Launch, run_schedule
from orchestration.settings import override
from orchestration.status import DONE, STATE_NAMES, StageStatus, status_of_state
from orchestration.timeline import Timeline
from runtime.disk import explain
from runtime.errors import UserError
from runtime.variables import PIPELINE_RUN, STAGES_NOT_DONE

INTERRUPTED = "interrupted. What was done until then is recorded; the stages that were running are as they were before."

if TYPE_CHECKING:
    Target = str
else:  # read at import: Prefect makes the UI's form, with these choices, of the flow's signature
    names = target_names(Path(__file__).parents[1])
    Target = Literal[tuple(names)] if names else str
# A key, and a value without ${...}, which Hydra would replace.
Setting = Annotated[str, Field(pattern=r"^(\+\+|\+|~)?[\w.]+(=([^$]|\$+[^${])*\$*)?$")]
# A form sends an empty address for none.
Address = Annotated[str, Field(pattern=r"^(([a-z]+://)?[^\s/]+:\d+)?$", description="of a Dask scheduler")]
Jobs = Annotated[int, Field(ge=1, le=MAX_JOBS, description="maximum of stages at once")]


class PipelineFailed(UserError):
    """Some stages failed."""


@flow(name="pipeline", task_runner=RUNNER)
def pipeline(
    targets: list[Target] | None = None,
    force: bool = False,
    jobs: Jobs | None = None,
    settings: list[Setting] | None = None,
    address: Address | None = None,
) -> None:
    """Run the changed stages among `targets` and all that they need; without targets, of the whole graph.

    Args:
        targets: stages or groups of dvc.yaml, such as train@iris_mlp or train.
        force: run them even if nothing has changed.
        jobs: maximum of stages at once; without it, as many as there are cores.
        settings: other parameters for this run, such as models.iris_mlp.fit.epochs=9; makes it a DVC experiment.
        address: scheduler of a Dask cluster for the stages, such as tcp://host:8786; without it, they run here.
    """
    log_user_errors_once()
    runner: ExecutorKind = "dask" if address else "local"
    with restored_workspace(), experiment(settings or [], targets or []):
        # An experiment restores the report in any case.
        run_graph(targets or [], force, jobs, runner, address, reports_failures=not settings)


def run_graph(
    targets: list[str],
    force: bool,
    jobs: int | None = None,
    runner: ExecutorKind = "local",
    address: str | None = None,
    reports_failures: bool = False,
) -> None:
    """Run the graph within a Prefect flow.

    Args:
        targets: see `pipeline`, as for force, jobs and address.
        force: run stages even if nothing has changed.
        jobs: maximum of stages at once.
        runner: where the stages run.
        address: of the Dask scheduler.
        reports_failures: render the report also if it cannot be reached, because a stage failed.

    Raises:
        PipelineFailed: some stages failed.
        UserError: nothing could be run.
    """
    began = time.monotonic()
    params = load_params()
    plan, before = read_plan(targets, params.leave_out), locked_stages()
    statuses: dict[str, StageStatus] = {}
    futures: dict[str, PrefectFuture] = {}
    timeline = Timeline({stage: plan.needs[stage] for stage in plan.order})
    trains = may_train(plan, force)
    with show_progress(len(plan.order)) as progress, open_executor(runner, address, params, jobs, trains) as executor:
        resources = {stage: resources_of(stage, params, executor.machine) for stage in plan.order}
        announce(plan, force, resources, executor.machine, [] if targets else params.leave_out, progress)

        def start(launch: Launch) -> PrefectFuture:
            stage, needs = launch.stage, plan.needs[launch.stage]
            unchanged = stage not in plan.changed and not force and all(statuses[need] == "unchanged" for need in needs)

            def run_stage() -> State:
                return bring_up_to_date(launch, unchanged, force, resources[stage], executor, progress)

            timeline.started(stage)
            done = [futures[need] for need in needs if statuses[need] in DONE]
            stage_task = task(name=stage, task_run_name=stage)(run_stage)
            futures[stage] = stage_task.submit(return_state=False, wait_for=done)
            return futures[stage]

        def status_of(stage: str, future: Any) -> StageStatus:
            future.wait()  # before that, its state is not the last one
            statuses[stage] = status_of_state(future.state.name)
            timeline.ended(stage, statuses[stage])
            progress.ended(stage, statuses[stage])
            return statuses[stage]

        try:
            run_schedule(plan, executor.machine, resources, start, status_of)
        except BaseException:  # Ctrl-C, most likely
            progress.show("stopping: the running stages restore their outputs")
            ignore_interrupts()
            executor.stop()
            for stage in futures.keys() - statuses.keys():
                status_of(stage, futures[stage])
            raise
        finally:
            put_in_order(plan.order, before)
            # An experiment leaves the report as it was.
            if reports_failures and (fault := timeline.write()):
                progress.show(fault)
        if reports_failures and statuses.get("report") == "not run":
            report_failures(statuses, executor, progress)
        message = summary(statuses, time.monotonic() - began)
        progress.show(message)
    get_run_logger().info(message)
    if statuses.get("report") in DONE:
        show_metrics(message)
    if failed := [stage for stage, status in statuses.items() if status == "failed"]:
        raise PipelineFailed(f"{', '.join(failed)} failed. {message}. What did not fail is done and recorded.")


def announce(
    plan: Plan,
    force: bool,
    resources: dict[str, Resources],
    machine: Machine,
    leave_out: list[str],
    progress: Progress,
) -> None:
    """Say before a run which models are left out, and about how long it will take.

    Args:
        plan: of the run.
        force: run stages even if nothing has changed.
        resources: what each stage takes.
        machine: where they run.
        leave_out: the models that it does without.
        progress: shows it.
    """
    expected = estimate(plan.may_run(force), resources, machine)
    left_out = f" leave_out: {', '.join(leave_out)}." if leave_out else ""
    if expected.seconds or expected.unknown:
        progress.show(f"{len(plan.order)} stages, {machine.threads} threads: {expected}.{left_out}")


def may_train(plan: Plan, force: bool) -> bool:
    return any(map(is_training, plan.may_run(force)))


def bring_up_to_date(
    launch: Launch, unchanged: bool, force: bool, resources: Resources, executor: Executor, progress: Progress
) -> State:
    """Run a stage if it has changed.

    Args:
        launch: the stage.
        unchanged: nothing has changed, as the plan says.
        force: run it even if nothing has changed.
        resources: what it takes.
        executor: runs its command.
        progress: shows its output.

    Returns:
        The Prefect state that stands for the stage's status.
    """
    stage = launch.stage
    if launch.blocked_by:
        return Cancelled(name=STATE_NAMES["not run"], message=f"It needs {', '.join(launch.blocked_by)}.")
    if unchanged:
        return Completed(name=STATE_NAMES["unchanged"])
    logger = get_run_logger()

    def emit(line: str) -> None:
        logger.info(line)
        progress.line(stage, line)

    def run_command(command: str, environment: dict[str, str]) -> int:
        progress.started(stage)
        own = {"CUDA_VISIBLE_DEVICES": launch.gpu or ""} if executor.machine.gpus else {}
        return executor.run(command, environment | run_environment() | own, emit, resources)

    def warn(message: str) -> None:
        logger.warning(message)
        progress.show(message)

    try:
        status = reproduce(stage, run_command, warn, force)
    except Stopped:
        return Cancelled(name=STATE_NAMES["interrupted"])
    except (UserError, OSError) as error:
        message = explain(error) or str(error)
        logger.error(message)
        progress.line(stage, message)
        return Failed(message=message)
    except Exception as error:
        progress.line(stage, f"{type(error).__name__}: {error}")  # its traceback is in Prefect's log
        raise
    return Completed(name=STATE_NAMES[status])


def report_failures(statuses: dict[str, StageStatus], executor: Executor, progress: Progress) -> None:
    """Render the report of a failed run, outside of DVC, so that the failures are visible.

    DVC does not record this report: the next run renders it again.

    Args:
        statuses: of all stages.
        executor: runs the command of the report.
        progress: shows where the report is.
    """
    not_done = {stage: status for stage, status in statuses.items() if status not in DONE}
    environment = {**os.environ, **run_environment(), STAGES_NOT_DONE: json.dumps(not_done)}
    try:
        command = "python -m flows.report"
        rendered = executor.run(command, environment, get_run_logger().info, Resources(threads=1)) == 0
    except (UserError, OSError) as error:
        get_run_logger().error(str(error))
        rendered = False
    message = "says what failed" if rendered else "could not be made; the log says why"
    progress.show(f"{paths.REPORTS / 'index.html'} {message}")


def run_environment() -> dict[str, str]:
    """Return the variables by which a stage's process reports to this run."""
    context = FlowRunContext.get()
    assert context
    assert context.flow_run
    return {PIPELINE_RUN: str(context.flow_run.id), **reporting_environment()}


def show_metrics(message: str) -> None:
    """Show the metrics of all models, and where the report is, on the run's page in the UI."""
    summary_file, report = paths.REPORTS / "summary.json", paths.REPORTS / "index.html"
    models = json.loads(summary_file.read_text(encoding="utf-8"))
    lines = [f"{message}.", "", f"[Report]({report.resolve().as_uri()})", ""]
    lines += ["| model | source | test |", "|---|---|---|"]
    for model in models:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in model["metrics"]["test"].items())
        lines.append(f"| {model['name']} | {model['source']} | {metrics} |")
    create_markdown_artifact(key="metrics", markdown="\n".join(lines), description="What the models reach on test")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a stage or group of dvc.yaml; none: all")
    parser.add_argument("--force", action="store_true", help="run stages even if nothing has changed")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="another parameter: a DVC experiment")
    add_executor_options(parser, "stages")
    parser.add_argument("--dry", action="store_true", help="print what would run, and run nothing")
    return parse_executor_options(parser)


def show_plan(plan: Plan, force: bool) -> None:
    """Print each stage that would run, or that might run because a stage that it needs does."""
    for stage in plan.order:
        if force or stage in plan.changed:
            print(f"{stage}: {'forced' if force else 'changed'}")
        elif needed := sorted(plan.ancestors(stage) & plan.changed):
            print(f"{stage}: if {' or '.join(needed)} ends with other outputs")


def main() -> int:
    given = parse()
    prepare_process()
    with exit_on_user_error(INTERRUPTED):
        with restored_workspace():
            params = load_params()
            changed = override(given.set) if given.set else None
            if given.set and not given.dry:
                refuse_without_commits()
            with reading_instead(paths.PARAMS, changed):
                if changed:
                    params = parse_params(changed, paths.PARAMS)
                plan = read_plan(given.targets, params.leave_out)
        if given.dry:
            show_plan(plan, given.force)
            return 0
        if not (plan.changed or given.force or given.set):  # then no server is started
            print(f"{len(plan.order)} stages: {len(plan.order)} unchanged.")
            return 0
        if given.runner == "local":
            start_fork_server(may_train(plan, given.force))
        keep_logs_off_the_terminal()
        with reporting(), parent_run(pipeline):
            pipeline(given.targets, given.force, given.jobs, given.set, given.address)
    return 0


if __name__ == "__main__":
    sys.exit(main())
