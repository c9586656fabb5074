"""Search hyperparameters of a model: data/prepared/D -> artifacts/search/M (trials, winner).

After an interruption the same command goes on where it was.
"""

import argparse
import sys

from prefect import flow, get_run_logger

from config import paths
from config.params import load_params
from orchestration.command_line import (
    add_executor_options,
    exit_on_user_error,
    keep_logs_off_the_terminal,
    parse_executor_options,
    run_stage,
)
from orchestration.executors.executor import ExecutorKind
from orchestration.executors.local import start_fork_server
from orchestration.prefect.task_runner import RUNNER
from orchestration.resources import this_machine
from orchestration.search import run_search
from runtime.atomic_outputs import atomic_folder
from tasks.search.apply import difference, others_affected, write_params

INTERRUPTED = "interrupted. The trials that have ended are kept, and the same command goes on from there."


@flow(name="search", flow_run_name="search-{model}", task_runner=RUNNER)
def search(model: str, jobs: int | None = None, address: str | None = None) -> None:
    """Try the trials of a model's search, train the best with several seeds, and measure the winner on test.

    Args:
        model: a name in `search` of params.yaml.
        jobs: maximum of trials at once; without it, as many as there are threads for.
        address: scheduler of a Dask cluster for the trials, such as tcp://host:8786; without it, they run here.
    """
    runner: ExecutorKind = "dask" if address else "local"
    with atomic_folder(paths.search_folder(model)) as folder:
        found = run_search(model, load_params(), folder, runner, address or None, jobs)
    get_run_logger().info(found)
    print(found, file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.search", description=__doc__.partition("\n")[0])
    parser.add_argument("model", metavar="M", help="a name in `search` of params.yaml")
    add_executor_options(parser, "trials")
    parser.add_argument("--apply", action="store_true", help="put the winner of the last search into params.yaml")
    parser.add_argument("--yes", action="store_true", help="with --apply: do not ask")
    return parse_executor_options(parser)


def apply(model: str, asks: bool) -> int:
    """Show how the winner of the last search changes params.yaml, and write it if the user agrees."""
    text, shown = difference(model)
    if not shown:
        print(f"{paths.PARAMS} has the winner of search.{model} already.")
        return 0
    print(shown)
    if others := others_affected(model):
        print(f"The preparation is that of {', '.join(others)}, too, which will be trained anew.")
    if asks and not is_yes(f"Write this to {paths.PARAMS}? [y/N] "):
        print("Nothing was changed.")
        return 0
    write_params(text)
    print(f"{paths.PARAMS} is changed. `dvc repro train@{model}` trains the model with it.")
    return 0


def is_yes(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def main() -> int:
    given = parse()
    with exit_on_user_error():
        load_params().search_of(given.model)
        if given.apply:
            return apply(given.model, asks=not given.yes)
        if given.runner == "local" and not this_machine(load_params(), given.jobs).gpus:
            start_fork_server(trains=True)  # while Prefect's server starts
    keep_logs_off_the_terminal()
    return run_stage(search, {"model": given.model, "jobs": given.jobs, "address": given.address}, INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
