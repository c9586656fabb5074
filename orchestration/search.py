"""Run a search: rounds of trials, the finalists with several seeds, and test for the winner.

Each training is a process of its own, which the scheduler starts under the same budget of threads and GPUs as a stage.
"""

import math
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State

from config.params import Params
from config.search import OBJECTIVES, Objective, Search, Space, preparation
from orchestration.dvc.graph import Plan
from orchestration.executors.executor import Executor, ExecutorKind, open_executor
from orchestration.executors.local import Stopped
from orchestration.progress import Progress, show_progress
from orchestration.resources import Resources, resources_of
from orchestration.scheduler import Launch, run_schedule
from orchestration.status import StageStatus
from runtime.disk import explain
from runtime.errors import UserError
from runtime.progress_line import StepProgress
from tasks.data.schema import PreparedSchema, read_schema
from tasks.search.proposals import propose, seed_of
from tasks.search.records import (
    TEST,
    FinalRecord,
    Job,
    TrialRecord,
    WinnerRecord,
    describe_search,
    final_name,
    folder_of,
    job_file,
    model_file,
    open_records,
    read_record,
    trial_name,
    write_whole,
)
from tasks.search.records import (
    State as SearchState,
)
from tasks.search.results import (
    SearchRun,
    best_trials,
    describe,
    rank,
    trials_table,
    write_results,
)
from tasks.search.space import Parameters, values_of
from tasks.search.store import Store, add_running, frozen, open_store, tell

ERROR = "error: "  # what a process prints before a user's error
STEP = 400_000  # multiplications of weights that take as long as the rest of a step does (housing, 2 cores)


@dataclass
class Run:
    """A search that runs.

    objective: the metric on valid. state: what earlier runs have left. began: when this run began. records: of the
    trials that have ended, by number. trained: how many trainings this run has done. running: the trainings that run.
    faults: what stopped a training.
    """

    model: str
    params: Params
    search: Search
    space: Space
    objective: Objective
    schema: PreparedSchema
    executor: Executor
    resources: Resources
    progress: Progress
    state: SearchState
    began: float = field(default_factory=time.monotonic)
    records: dict[int, TrialRecord] = field(default_factory=dict)
    trained: int = 0
    running: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of this run and of those before."""
        return self.state.seconds + time.monotonic() - self.began

    @property
    def is_late(self) -> bool:
        return self.search.minutes is not None and self.seconds > 60 * self.search.minutes

    @property
    def at_once(self) -> int:
        """How many trainings run at once."""
        machine = self.executor.machine
        return max(1, min(machine.jobs, len(machine.gpus) or machine.threads // self.resources.threads))


def run_search(
    model: str,
    params: Params,
    folder: Path,
    runner: ExecutorKind = "local",
    address: str | None = None,
    jobs: int | None = None,
) -> str:
    """Search hyperparameters of a model within a Prefect flow, or go on with a search that was interrupted.

    Args:
        model: a name in `search` of params.yaml.
        params: all of params.yaml.
        folder: an empty folder for the outputs.
        runner: where the trials are trained.
        address: of the Dask scheduler.
        jobs: maximum of trials at once; None: as many as there are threads for.

    Returns:
        One line that says what was found.

    Raises:
        UserError: the data are not prepared, a training could not run, or no trial was trained to its end.
    """
    search, space, recipe = params.search_of(model), params.space_of(model), params.model(model)
    objective = search.objective or OBJECTIVES[recipe.task][0]
    schema = read_schema(recipe.dataset)
    hardware = params.hardware.model_dump(mode="json")
    made_with = describe_search(search, space, recipe.model_dump(mode="json"), hardware, schema.raw_sha256)
    state = open_records(model, made_with)
    total = search.trials + search.finalists * len(search.seeds)
    with (
        show_progress(total, unit="trainings", quiet=True) as progress,
        open_executor(runner, address, params, jobs, trains=True) as executor,
    ):
        resources = replace(resources_of(f"train@{model}", params, executor.machine), spare_process=False)
        run = Run(model, params, search, space, objective, schema, executor, resources, progress, state)
        progress.footer = lambda: "  ".join(standing(run))
        try:
            run_trials(run)
            finals = run_finals(run)
            test = run_test(run, finals)
        finally:
            write_whole(folder_of(model) / "state.json", state.model_copy(update={"seconds": round(run.seconds, 3)}))
        return publish(run, finals, test, folder)


def run_trials(run: Run) -> None:
    """Train the trials that have no record yet, a round after the other."""
    search, known = run.search, {}
    for number in range(search.trials):
        record = read_record(run.model, trial_name(number), TrialRecord)
        if record:
            known[number] = record
    store = None
    for first in range(0, search.trials, search.round):
        numbers = range(first, min(first + search.round, search.trials))
        if all(number in known for number in numbers):
            run.records |= {number: known[number] for number in numbers}
            continue
        if run.is_late:
            run.progress.show(f"{search.minutes:g} minutes are over: no further trial starts.")
            break
        if store is None:
            if known:
                run.progress.show(f"{len(known)} of {search.trials} trials are known from {folder_of(run.model)}.")
            store = open_store(run.model, run.space, run.objective, [run.records[number] for number in range(first)])
        earlier = [frozen(run.records[number], run.space) for number in range(first)]
        proposals = propose(search, run.space, run.objective, earlier, numbers)
        if not run_round(run, store, dict(zip(numbers, proposals, strict=True)), known):
            break
    if store is None:  # the database may be gone, or damaged
        open_store(run.model, run.space, run.objective, list(run.records.values()))


def run_round(run: Run, store: Store, proposals: dict[int, Parameters], known: dict[int, TrialRecord]) -> bool:
    """Train the trials of a round; return whether all have ended. Those that have not, because time was over, are left.

    Args:
        run: the search.
        store: the study.
        proposals: the parameters of each trial of the round.
        known: the records of trials that earlier runs have trained.
    """
    first = min(proposals)
    ids = {}
    for number, parameters in proposals.items():
        if number in known:
            ids[number] = store.storage.create_new_trial(store.study_id, frozen(known[number], run.space))
            run.records[number] = known[number]
        else:
            ids[number] = add_running(store, parameters)
    missing = {trial_name(number): number for number in proposals if number not in known}
    jobs = {
        name: make_job(run, number, seed_of(run.search.seed, number), proposals[number], known=first)
        for name, number in missing.items()
    }

    def ended(name: str) -> str:
        record = read_record(run.model, name, TrialRecord)
        if record is None:
            return ""
        run.records[record.number] = record
        run.trained += 1
        tell(store, ids[record.number], record)
        return describe_trial(run, record)

    run_jobs(run, jobs, ended)
    run.records = {number: run.records[number] for number in sorted(run.records)}
    return all(number in run.records for number in proposals)


def make_job(run: Run, number: int, seed: int, parameters: Parameters, known: int = 0) -> Job:
    """Return the job of a trial or finalist.

    Args:
        run: the search.
        number: of the trial.
        seed: of the training.
        parameters: of the trial.
        known: how many trials the pruner compares with.
    """
    values = values_of(run.space, parameters)
    recipe, prepared = run.params.searched(run.model, values)
    return Job(
        model=run.model,
        objective=run.objective,
        number=number,
        seed=seed,
        space=run.space,
        parameters=parameters,
        recipe=recipe.model_dump(mode="json"),
        preparation=prepared.model_dump(mode="json") if preparation(values) else None,
        hardware=run.params.hardware.model_dump(mode="json"),
        pruner=run.search.pruner,
        warmup=run.search.warmup,
        known=known,
        seeds=run.search.seeds,
    )


def run_jobs(run: Run, jobs: dict[str, Job], ended: Any) -> None:
    """Run jobs, as many at once as there are threads for; the longest first, so that it is not waited for at the end.

    Args:
        run: the search.
        jobs: by name.
        ended: is called in this thread when a job has ended, and returns the line that says how; "" where it left no
            record.

    Raises:
        UserError: a job could not run; those that ran have ended, and have their records.
    """
    for name, job in jobs.items():
        write_whole(job_file(run.model, name), job)
    futures: dict[str, PrefectFuture] = {}
    done: set[str] = set()

    def start(launch: Launch) -> PrefectFuture:
        name = launch.stage

        def run_job() -> State:
            if run.faults or (run.is_late and name.startswith("trial")):
                return Completed(name="NotRun")
            return train(run, name, launch.gpu)

        futures[name] = task(name=name.partition("-")[0], task_run_name=name)(run_job).submit(return_state=False)
        return futures[name]

    def status_of(name: str, future: Any) -> StageStatus:
        future.wait()
        done.add(name)
        run.running.discard(name)
        if line := ended(name):
            run.progress.statuses[name] = "ran"
            run.progress.show(line)
        return "ran"

    plan = Plan(sorted(jobs, key=lambda name: -work(jobs[name].recipe)), {name: [] for name in jobs}, set())
    try:
        run_schedule(plan, run.executor.machine, dict.fromkeys(jobs, run.resources), start, status_of)
    except BaseException:  # Ctrl-C, most likely
        run.executor.stop()
        for name in futures.keys() - done:
            status_of(name, futures[name])
        raise
    if run.faults:
        raise UserError(run.faults[0])


def work(recipe: dict[str, Any]) -> float:
    """Return about how long a training takes, in any unit, as far as its epochs, batches and hidden layers say."""
    fit, hidden = recipe["fit"], recipe["build"].get("hidden") or []
    weights = sum(before * after for before, after in pairwise(hidden))
    return fit["epochs"] * (STEP / fit["batch_size"] + weights)


def train(run: Run, name: str, gpu: str | None) -> State:
    """Run the process of a job and return the Prefect state of its end."""
    logger, lines = get_run_logger(), []
    own = {"CUDA_VISIBLE_DEVICES": gpu or ""} if run.executor.machine.gpus else {}
    run.running.add(name)
    run.progress.started(name)

    def emit(line: str) -> None:
        logger.info(line)
        lines.append(line)
        run.progress.line(name, line)

    try:
        code = run.executor.run(f"python -m flows.trial {run.model} {name}", {**os.environ, **own}, emit, run.resources)
    except Stopped:
        return Completed(name="Interrupted")
    except (UserError, OSError) as error:
        run.faults.append(f"{name}: {explain(error) or error}")
        return Failed(message=run.faults[-1])
    if code:
        told = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
        killed = f"its process was killed by signal {-code}, of a lack of memory perhaps" if code < 0 else ""
        message = (told or [killed] if told or killed else lines[-1:] or [f"exit code {code}"])[-1]
        run.faults.append(f"{name} could not be trained: {message}")
        return Failed(message=run.faults[-1])
    return Completed()


def run_finals(run: Run) -> dict[int, list[FinalRecord]]:
    """Train the best trials with each of the seeds, and return their records by trial.

    Raises UserError where no trial was trained to its end.
    """
    best = best_trials(list(run.records.values()), run.objective, run.search.finalists)
    if not best:
        reasons = [record.reason for record in run.records.values() if record.reason]
        raise UserError(
            f"search.{run.model}: no trial was trained to its end{': ' + reasons[0] if reasons else ''}. Change "
            "search_spaces, or give it more minutes."
        )
    wanted = {final_name(trial.number, seed): (trial, seed) for trial in best for seed in run.search.seeds}
    jobs = {
        name: make_job(run, trial.number, seed, trial.parameters)
        for name, (trial, seed) in wanted.items()
        if not read_final(run.model, trial.number, seed)
    }

    def ended(name: str) -> str:
        trial, seed = wanted[name]
        record = read_final(run.model, trial.number, seed)
        if record is None:
            return ""
        run.trained += 1
        return f"{name} {run.objective} {record.metrics['valid'][run.objective]:.4f} in {record.seconds:.1f} s"

    run_jobs(run, jobs, ended)
    finals = defaultdict(list)
    for trial, seed in wanted.values():
        if record := read_final(run.model, trial.number, seed):
            finals[trial.number].append(record)
    return dict(finals)


def read_final(model: str, number: int, seed: int) -> FinalRecord | None:
    """Return the record of a finalist; None where it, or its network, is missing."""
    record = read_record(model, final_name(number, seed), FinalRecord)
    return record if model_file(model, number, seed).exists() else None


def run_test(run: Run, finals: dict[int, list[FinalRecord]]) -> WinnerRecord:
    """Measure the winner on test, once, and return the record."""
    winner = rank(finals, run.objective)[0].trial
    known = read_record(run.model, TEST, WinnerRecord)
    if known and (known.number, known.seeds) == (winner, run.search.seeds):
        return known
    job = make_job(run, winner, run.search.seeds[0], run.records[winner].parameters)
    run_jobs(run, {TEST: job}, lambda _: "")
    return read_record(run.model, TEST, WinnerRecord)


def publish(run: Run, finals: dict[int, list[FinalRecord]], test: WinnerRecord, folder: Path) -> str:
    """Write the outputs into `folder` and return the line that says what was found."""
    records: Sequence[TrialRecord] = list(run.records.values())
    metrics = describe(run.model, run.search, run.space, run.objective, run.schema, records, finals, test)
    table = trials_table(records, run.search, run.space, run.objective)
    seconds = {final_name(record.number, record.seed): record.seconds for found in finals.values() for record in found}
    times = SearchRun(
        seconds=round(run.seconds, 3),
        at_once=run.at_once,
        trials={trial_name(record.number): record.seconds for record in records},
        finalists=seconds,
    )
    values = values_of(run.space, metrics.winner.parameters)
    recipe = run.search.recipe(values)
    if prepared := preparation(values):
        recipe["preparation"] = prepared
    write_results(metrics, times, table, recipe, folder)
    shown = (
        f"{run.objective} {metrics.winner.valid[run.objective]:.4f} on valid, {metrics.winner.test[run.objective]:.4f}"
    )
    return (
        f"{len(records)} trials, {metrics.pruned} pruned, {metrics.failed} failed, in {run.seconds / 60:.1f} minutes. "
        f"The best is trial {metrics.winner.trial}: {shown} on test, the mean of {len(run.search.seeds)} seeds."
    )


def describe_trial(run: Run, record: TrialRecord) -> str:
    """Return the line for a trial that has ended, with how far the search is."""
    shown = "failed" if record.value is None else f"{run.objective} {record.value:.4f}"
    if record.state == "pruned":
        shown = f"{shown}, pruned at epoch {len(record.epochs)}"
    step = StepProgress("trial", len(run.records), run.search.trials, standing(run))
    return f"{trial_name(record.number)} {shown} in {record.seconds:.1f} s  {step}"


def standing(run: Run) -> tuple[str, ...]:
    """Return how the search stands: the best trial so far, how many run and were pruned, and the time left."""
    best = best_trials(list(run.records.values()), run.objective, 1)
    pruned = sum(record.state == "pruned" for record in list(run.records.values()))
    left = run.search.trials - len(run.records) + run.search.finalists * len(run.search.seeds)
    told = [f"best {trial.value:.4f} of {trial_name(trial.number)}" for trial in best]
    told += [f"{len(run.running)} running"] if run.running else []
    told += [f"{pruned} pruned"] if pruned else []
    if run.trained:
        told.append(f"{math.ceil((time.monotonic() - run.began) / run.trained * left)} s left")
    return tuple(told) or ("no trial has ended",)
