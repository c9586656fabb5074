"""Retrain: take in new rows, train in a workspace of its own, and promote the models that are sound and not worse.

data/incoming/D -> data/batches/D; then, in the git worktree .retrain/workspace, the graph of dvc.yaml -> a verdict on
each candidate -> a commit -> a version, and the mark `champion`, for each candidate that passes its gates.

The user's files, branch and index stay as they are: what a run makes lies in the worktree and in git's tags. A
candidate that is not promoted is no failure.
"""

import argparse
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import Dataset
from flows.choices import DatasetName, Model
from flows.pipeline import RUNNER, run_environment
from orchestration import registry
from orchestration.candidates import facts_of, find_candidate, is_promotable
from orchestration.command_line import (
    exit_on_user_error,
    log_user_errors_once,
    parent_run,
    prepare_process,
    reporting,
)
from orchestration.experiment import restored_workspace
from orchestration.new_batches import NewBatch, bring_back, bring_batches, list_new
from orchestration.prefect.automations import BATCH_REJECTED, MODEL_PROMOTED, tell_of
from orchestration.registry_state import Event
from orchestration.retention import clean_up_task
from orchestration.worktree import commit_worktree, open_worktree, uncommitted
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS
from tasks.arrivals.drift_record import to_markdown as to_page
from tasks.arrivals.receive import receive_task
from tasks.arrivals.train_rows import read_train_rows
from tasks.promotion.verdict import Verdict, read_verdict


@flow(name="retrain", task_runner=RUNNER)
def retrain(models: list[Model] | None = None, datasets: list[DatasetName] | None = None, force: bool = False) -> None:
    """Receive new rows, train what they change, judge the candidates, and promote those that pass their gates.

    Args:
        models: those to train; without them, all but those of `leave_out`.
        datasets: those whose arrivals are received; without them, all.
        force: train in any case.
    """
    log_user_errors_once()
    with restored_workspace():
        params = load_params()
        chosen = models or [name for name in params.models if name not in params.leave_out]
        folder = open_worktree()
        clean_up_task(folder, params.retention)  # not at the end, which a night that fails does not reach
        for name in datasets or params.datasets:
            take_arrivals(get_dataset(name), folder)
        warn_of_uncommitted()
        for name in params.datasets:
            if new := list_new(dataset := get_dataset(name), folder):
                of_it = [model for model in chosen if params.model(model).dataset == name]
                train = train_rows(dataset, folder)
                show_batches(bring_batches(dataset, new, train, of_it, params.gates_of(name), folder), name)
        targets = [f"train@{model}" for model in models or ()]
        trained = run_in(folder, "flows.pipeline", *targets, *(["--force"] if force else []))
        judged = [model for model in chosen if judge(model, folder)]
        # The stage of the report needs every model, also those that are not asked for.
        report = ["flows.report"] if models or params.leave_out else ["flows.pipeline", "report"]
        if judged and run_in(folder, *report):
            get_run_logger().warning("the report of %s could not be made; its log says why", folder)
        commit = commit_worktree(folder, f"Retrain: {len(judged)} candidates")
        promoted = [event for model in chosen if (event := promote(model, folder, commit))]
        show_results(folder, judged, promoted)
    if trained:
        raise UserError("some stages failed; the log of the run `pipeline` says why. What did not fail is judged.")


def take_arrivals(dataset: Dataset, folder: Path) -> None:
    """Accept or reject what has arrived, and tell of each rejected batch.

    Args:
        dataset: whose rows have arrived.
        folder: the workspace of `retrain`, which has the earlier batches and rows.
    """
    if back := bring_back(dataset, folder):
        get_run_logger().warning("%s: brought back the batches %s, which were missing", dataset.name, ", ".join(back))
    for rejected in receive_task(dataset, folder).rejected:
        tell_of(BATCH_REJECTED, f"dataset.{dataset.name}", dataset=dataset.name, batch=rejected.name)


def train_rows(dataset: Dataset, folder: Path) -> pa.Table | None:
    """Return the raw train rows, with which new batches are compared; None where nothing is prepared yet.

    A run that was killed may have ingested batches without preparing them; `prepare` then runs first.

    Args:
        dataset: whose rows.
        folder: the workspace of `retrain`.
    """
    if not (folder / paths.prepared_table(dataset.name, "train")).exists():
        return None
    with chdir(folder):
        try:
            return read_train_rows(dataset)[0]
        except UserError as error:
            get_run_logger().warning("%s This is done now.", error)
    if run_in(folder, "flows.pipeline", f"prepare@{dataset.name}"):
        raise UserError(f"{dataset.name} could not be prepared; the log of the run `pipeline` says why.")
    with chdir(folder):
        return read_train_rows(dataset)[0]


def show_batches(batches: list[NewBatch], dataset: str) -> None:
    """Show the drift of new batches on the run's page, and tell of those that their drift has kept out.

    Args:
        batches: of one data set.
        dataset: its name.
    """
    for batch in batches:
        if batch.drift:
            create_markdown_artifact(
                key=f"drift-{dataset.replace('_', '-')}",
                markdown=to_page(batch.drift),
                description=f"Drift of {batch.name}",
            )
        if batch.drift and batch.drift.alarm:
            what = f"rejected, see {batch.rejected}" if batch.rejected else "used all the same (gates)"
            get_run_logger().warning("%s: the batch %s drifts from train; it is %s", dataset, batch.name, what)
        if batch.rejected:
            tell_of(BATCH_REJECTED, f"dataset.{dataset}", dataset=dataset, batch=batch.name)


def warn_of_uncommitted() -> None:
    if changed := uncommitted():
        get_run_logger().warning("the last commit is trained, without your changes of %s", ", ".join(changed))


def run_in(folder: Path, module: str, *words: str) -> int:
    """Run a flow in another workspace as a part of this run, and return its exit code; it ends with this process."""
    environment = {**os.environ, **run_environment(), PIPELINE_PROCESS: str(os.getpid())}
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def judge(model: str, folder: Path) -> bool:
    """Judge the candidate of `model` in the workspace `folder`, if there is one; return whether there was."""
    with chdir(folder):
        candidate = find_candidate(model)
    if candidate and run_in(folder, "flows.judge", model):
        raise UserError(f"{model} could not be judged; the log of the run `judge-{model}` says why.")
    return bool(candidate)


def promote(model: str, folder: Path, commit: str) -> Event | None:
    """Make the candidate of `model` a version and the champion, if its verdict says so; return the promotion.

    Args:
        model: its name.
        folder: the workspace with the candidate.
        commit: that holds it.
    """
    with chdir(folder):
        verdict = read_verdict(model) if is_promotable(model) else None
        if not verdict:
            return None
        facts = facts_of(verdict)
        champion = registry.champion(model)
        version = registry.register(model, commit, verdict.reason, facts)
        event = registry.promote(model, version.version, verdict.reason, expected=champion, facts=facts)
    tell_of(MODEL_PROMOTED, f"model.{model}", model=model, version=version.version)
    return event


def show_results(folder: Path, judged: list[str], promoted: list[Event]) -> None:
    """Log what came of the candidates, and show it on the run's page.

    Args:
        folder: the workspace with the candidates.
        judged: the models that were judged in this run.
        promoted: the promotions of this run.
    """
    logger, events = get_run_logger(), {event.model: event for event in promoted}
    if not judged and not promoted:
        logger.info("no model has changed: there is nothing to judge or to promote")
        return
    lines = ["| model | verdict | promoted | reason |", "|---|---|---|---|"]
    for model in sorted({*judged, *events}):
        verdict = verdict_in(folder, model)
        version = events[model].version if model in events else None
        logger.info("%s: %s, %s: %s", model, verdict.outcome, version or "not promoted", verdict.reason)
        lines.append(f"| {model} | {verdict.outcome} | {version or 'no'} | {verdict.reason} |")
    report = (folder / paths.REPORTS / "index.html").resolve()
    lines += ["", f"[Report]({report.as_uri()})"]
    create_markdown_artifact(key="promotions", markdown="\n".join(lines), description="What came of the candidates")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a model of params.yaml; none: all")
    parser.add_argument("--datasets", nargs="+", metavar="DATASET", help="receive only these data sets' arrivals")
    parser.add_argument("--force", action="store_true", help="train even if nothing has changed")
    return parser.parse_args()


def main() -> int:
    given = parse()
    prepare_process()
    with exit_on_user_error("interrupted. What was done until then is kept; the next run goes on from there."):
        params = load_params()
        for name in given.models:
            params.model(name)
        for name in given.datasets or ():
            params.dataset(name)
        with reporting(), parent_run(retrain):
            retrain(given.models or None, given.datasets, given.force)
    return 0


def verdict_in(folder: Path, model: str) -> Verdict:
    with chdir(folder):
        return read_verdict(model)


if __name__ == "__main__":
    sys.exit(main())
