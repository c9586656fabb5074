"""The command line of every flow: `python -m flows.NAME [ARGUMENT]`.

The arguments are those of the flow's function. Exit codes: 0 done; 1 an error that the user can fix, printed as one
message without a traceback; 130 interrupted.
"""

import argparse
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import psutil
from prefect import Flow, get_client
from prefect.context import hydrated_context
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.results import get_result_store
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from config.params import load_params
from orchestration.dvc.restore_outputs import restore_this_stage
from orchestration.prefect.server import is_alive, owner_process, prefect_server
from orchestration.prefect.task_runner import MAX_JOBS
from orchestration.workspace_lock import shared_workspace
from runtime.disk import explain
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS, PIPELINE_RUN

POLL_SECONDS = 0.5  # how often a process checks whether the one that started it still runs
EXIT_SECONDS = 60  # for a process to exit once its work is done: Prefect sends its last logs then
END_SECONDS = 10  # for a process to end by itself after an interrupt
# From Ctrl-C; from `kill` and service managers; from a terminal that is closed.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Ours, and the one that Prefect raises while a flow runs.
INTERRUPTS = (KeyboardInterrupt, TerminationSignal)


NOTHING_PUBLISHED = "interrupted; nothing was published."


def run(flow: Flow) -> NoReturn:
    """Run `flow` with the arguments of the command line and exit."""
    run_stage(flow, parse(flow))


def run_stage(flow: Flow, arguments: dict[str, Any], interrupted: str = NOTHING_PUBLISHED) -> NoReturn:
    """Run the flow of a stage and exit.

    Args:
        flow: what is run.
        arguments: of the flow.
        interrupted: the message for Ctrl-C, SIGTERM and SIGHUP.
    """
    prepare_process()
    with exit_on_user_error(interrupted):
        check_names(arguments)
        end_with_dvc()
        with shared_workspace():
            if not restored_by_dvc_cache():
                with reporting(), parent_run(flow):
                    flow(**arguments)
    leave(0)


def prepare_process() -> None:
    """Set up the signals and the logging of a process that runs a flow."""
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, interrupt)
    sys.unraisablehook = interrupt_again
    shorten_user_errors_in_logs()


@contextmanager
def reporting() -> Iterator[None]:
    """Report the flows of the block to a Prefect server.

    Heartbeats, by which a server notices that a flow has vanished, are off: each flow would wait up to a second at its
    end for the thread that sends them.
    """
    with prefect_server() as server, temporary_settings({**server, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def parent_run(flow: Flow) -> Iterator[None]:
    """Make `flow` a subflow of the pipeline run that started this process, and end this process when that run ends."""
    run_id = os.environ.get(PIPELINE_RUN)
    if not run_id:
        yield
        return
    if pid := os.environ.get(PIPELINE_PROCESS):  # on this machine
        end_with(int(pid), "the flow that ran this stage")
    with get_client(sync_client=True) as client:
        parent = client.read_flow_run(UUID(run_id))
    context = {"flow": flow, "flow_run": parent, "start_time": parent.start_time, "result_store": get_result_store()}
    with hydrated_context({"flow_run_context": context}):
        yield


def run_in_foreground(command: list[str], folder: Path) -> int:
    """Run `command` in `folder` until it ends, whatever signal comes, and return its exit code.

    A signal that would end this process goes to the command, which ends in its own way.
    """
    process = subprocess.Popen(command, cwd=folder)
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: process.send_signal(number))
    code = process.wait()
    return code if code >= 0 else 128 - code


def end_with_dvc() -> None:
    """End this process when the DVC process that runs it as a stage has ended, for whatever reason."""
    if "DVC_STAGE" in os.environ and PIPELINE_RUN not in os.environ:
        end_with(owner_process().pid, "the DVC that ran this stage")


def end_with(pid: int, name: str) -> None:
    """Interrupt this process when process `pid`, called `name`, has ended; kill it if it then does not end."""

    def watch() -> None:
        while is_alive(pid):
            time.sleep(POLL_SECONDS)
        with suppress(OSError):  # the terminal may have ended, too
            print(f"error: {name} has ended.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_SECONDS)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def restored_by_dvc_cache() -> bool:
    """Restore the outputs of the stage that DVC runs in this process, if only they are missing; return whether it did.

    The pipeline flow does so itself, before it starts a stage.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage or PIPELINE_RUN in os.environ:
        return False
    restored = restore_this_stage(stage)
    if restored:
        print(f"Nothing else has changed: restored {', '.join(restored)} from DVC's cache.", file=sys.stderr)
    return bool(restored)


@contextmanager
def exit_on_user_error(interrupted: str = NOTHING_PUBLISHED) -> Iterator[None]:
    """Turn a user error of the block into one message and exit code 1, and an interrupt into exit code 130.

    interrupted: the message for Ctrl-C, SIGTERM and SIGHUP.
    """
    try:
        yield
    except UserError as error:
        end(1, str(error))
    except INTERRUPTS:
        end(130, interrupted)
    except Exception as error:
        if found := explain(error):
            end(1, found)
        if is_interrupted():
            end(130, interrupted)
        raise


def end(code: int, message: str) -> NoReturn:
    ignore_interrupts()
    with suppress(OSError):  # the terminal may be gone
        print(f"error: {message}", file=sys.stderr, flush=True)
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit with `code`, after EXIT_SECONDS at the latest.

    Otherwise a library's thread that never ends would block `dvc repro` or a schedule forever.
    """

    def force() -> None:
        time.sleep(EXIT_SECONDS)
        os._exit(code)

    threading.Thread(target=force, daemon=True).start()
    sys.exit(code)


def parse(flow: Flow) -> dict[str, str]:
    module = sys.modules["__main__"]
    program = module.__spec__.name if module.__spec__ else flow.name
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=module.__doc__)
    for name, argument in inspect.signature(flow.fn).parameters.items():
        if argument.default is inspect.Parameter.empty:
            parser.add_argument(name, help=f"a name below `{name}s` in params.yaml")
        else:
            parser.add_argument(name, nargs="?", default=argument.default, help=f"{argument.default} unless given")
    return vars(parser.parse_args())


def add_executor_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that say where things run, and how many at once. what: such as "stages"."""
    parser.add_argument("--jobs", type=int, metavar="N", help=f"maximum of {what} at once; as many as there are cores")
    parser.add_argument("--runner", choices=["local", "dask"], default="local", help=f"where the {what} run")
    parser.add_argument("--address", metavar="URL", help="of the Dask scheduler, such as tcp://host:8786")


def parse_executor_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of a parser with the options of `add_executor_options`, and check those."""
    given = parser.parse_args()
    if (given.runner == "dask") != bool(given.address):
        parser.error("--runner dask and --address, of its scheduler, go together")
    if given.jobs is not None and not 1 <= given.jobs <= MAX_JOBS:
        parser.error(f"--jobs must be from 1 to {MAX_JOBS}, got {given.jobs}")
    return given


def check_names(arguments: dict[str, str]) -> None:
    """Refuse an unknown data set or model, or a faulty params.yaml, before a server starts."""
    params = load_params()
    known = {"dataset": params.dataset, "model": params.model}
    for kind in known.keys() & arguments.keys():
        known[kind](arguments[kind])


_last_interrupt = -inf


def is_interrupted() -> bool:
    """Tell whether an interrupt came just now.

    TensorFlow and Keras turn the KeyboardInterrupt that hits them in the middle of their work into errors of their own.
    """
    return time.monotonic() - _last_interrupt < END_SECONDS


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, but not again within END_SECONDS: a second Ctrl-C must not interrupt the cleanup.

    After that it raises again, because a library may have swallowed the first one.
    """
    global _last_interrupt  # noqa: PLW0603 - signal handlers have no other place
    now = time.monotonic()
    if is_interrupted():
        return
    _last_interrupt = now
    raise KeyboardInterrupt


def interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Repeat an interrupt that Python dropped because it came while an object was being destroyed.

    TensorFlow destroys iterators and functions at every epoch, so a Ctrl-C can hit one of them.
    """
    global _last_interrupt  # noqa: PLW0603
    if isinstance(lost.exc_value, INTERRUPTS):
        _last_interrupt = -inf
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def ignore_interrupts() -> None:
    """Let only SIGKILL stop this process from now on: it is ending and has outputs to restore."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def shorten_user_errors_in_logs() -> None:
    """Reduce a user error in Prefect's logs to its message, and keep it off the terminal, where `run` prints it.

    Prefect logs an error in the task, in the flow and in the states of both, each time with a traceback. Its server
    still gets the message, with the task and the flow that raised it.
    """

    def shorten(record: logging.LogRecord) -> bool:
        shorten_user_error(record)
        return not record.getMessage().startswith("View at")  # a private server has no pages

    def is_new(record: logging.LogRecord) -> bool:
        return not (hasattr(record, "printed_by_run") or "Finished in state Failed" in record.getMessage())

    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(shorten)
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_new)


def shorten_user_error(record: logging.LogRecord) -> None:
    """Reduce a log record with a user error to the error's message."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (UserError, *INTERRUPTS)) or explain(error) or (error and is_interrupted()):
        record.exc_info, record.msg, record.args = None, "%s", (explain(error) or error,)
        record.printed_by_run = True
    elif isinstance(record.args, tuple):
        record.args = tuple(first_sentence(arg) if isinstance(arg, UserError) else arg for arg in record.args)


def log_user_errors_once() -> None:
    """Log a user error once, as its message, in a run that a worker has started.

    Prefect logs it three times, with two tracebacks: where it is raised, in the run's last state, and when the run's
    process ends.
    """

    def once(record: logging.LogRecord) -> bool:
        shorten_user_error(record)
        if not hasattr(record, "printed_by_run"):
            if seen and record.getMessage().startswith("Finished in state Failed"):
                record.msg, record.args = "Finished in state Failed.", ()
            return True
        known = str(record.args) in seen
        seen.add(str(record.args))
        return not known

    seen: set[str] = set()
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if once.__name__ not in [getattr(known, "__name__", "") for known in logger.filters]:
            logger.addFilter(once)


def keep_logs_off_the_terminal() -> None:
    """Leave the terminal to `show_progress`; the Prefect server still gets every log line."""
    logging.getLogger("dvc").setLevel(logging.WARNING)
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.getLogger().manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.setLevel(logging.CRITICAL + 1)


def first_sentence(error: UserError) -> str:
    return str(error).split(". ")[0]


if __name__ == "__main__":
    sys.exit("This module is the command line of the flows; run a flow, such as `python -m flows.train`.")
