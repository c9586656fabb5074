"""The command line of every flow: `python -m flows.NAME [ARGUMENT]`.

The arguments are those of the flow's function. Exit codes: 0 done; 1 a mistake the user can mend, told
in one message without a traceback; 130 interrupted.
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
from typing import NoReturn
from uuid import UUID

import psutil
from prefect import Flow, get_client
from prefect.context import hydrated_context
from prefect.exceptions import TerminationSignal
from prefect.results import get_result_store
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from config.params import load_params
from orchestration.dvc.restore_outputs import restore_this_stage
from orchestration.prefect.server import is_alive, owner_process, prefect_server
from orchestration.workspace_lock import shared_workspace
from runtime.disk import explain
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS, PIPELINE_RUN

LOOK_SECONDS = 0.5  # between two looks whether the process that started this one lives
EXIT_SECONDS = 60  # that a process gets to exit once its work is done: Prefect sends its last logs then
END_SECONDS = 10  # that a process gets to end by itself after an interrupt
# Ctrl-C; what `kill` and service managers send; what a closed terminal sends.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(flow: Flow) -> NoReturn:
    """Run `flow` with the arguments of the command line and exit."""
    arguments = parse(flow)
    prepare_process()
    with telling_mistakes():
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
    tell_errors_once()


@contextmanager
def reporting() -> Iterator[None]:
    """Have the flows of the block report to a Prefect server.

    Without heartbeats, by which a server would notice that a flow has vanished: each flow would wait up to a second
    at its end for the thread that sends them.
    """
    with prefect_server() as server, temporary_settings({**server, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def parent_run(flow: Flow) -> Iterator[None]:
    """Make `flow` a subflow of the pipeline's run that started this process, and end this process with that one."""
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
    """End this process when the DVC that runs it as a stage has ended, however that came about."""
    if "DVC_STAGE" in os.environ and PIPELINE_RUN not in os.environ:
        end_with(owner_process().pid, "the DVC that ran this stage")


def end_with(pid: int, name: str) -> None:
    """Interrupt this process when process `pid` has ended, and kill it when it then does not end.

    name: of that process, for the message.
    """

    def watch() -> None:
        while is_alive(pid):
            time.sleep(LOOK_SECONDS)
        with suppress(OSError):  # where the terminal has ended, too
            print(f"error: {name} has ended.", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_SECONDS)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def restored_by_dvc_cache() -> bool:
    """Bring back the outputs of the stage that this process is for, if only they are missing; return whether it did.

    The pipeline flow has done so before it starts a stage.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage or PIPELINE_RUN in os.environ:
        return False
    restored = restore_this_stage(stage)
    if restored:
        print(f"Nothing else has changed: restored {', '.join(restored)} from DVC's cache.", file=sys.stderr)
    return bool(restored)


@contextmanager
def telling_mistakes(interrupted: str = "interrupted; nothing was published.") -> Iterator[None]:
    """Exit with one message and code 1 where the block raises what the user can mend, with 130 when it is interrupted.

    interrupted: the message for Ctrl-C, SIGTERM and SIGHUP.
    """
    try:
        yield
    except UserError as error:
        end(1, str(error))
    except KeyboardInterrupt:
        end(130, interrupted)
    except Exception as error:
        if found := explain(error):
            end(1, found)
        raise


def end(code: int, message: str) -> NoReturn:
    ignore_interrupts()
    with suppress(OSError):  # where the terminal is gone
        print(f"error: {message}", file=sys.stderr, flush=True)
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit with `code`, at the latest after EXIT_SECONDS.

    A thread of a library that never ends would otherwise hold a `dvc repro`, or a schedule, for ever.
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


def check_names(arguments: dict[str, str]) -> None:
    """Refuse an unknown data set or model, or a faulty params.yaml, before a server is started for it."""
    params = load_params()
    known = {"dataset": params.dataset, "model": params.model}
    for kind in known.keys() & arguments.keys():
        known[kind](arguments[kind])


_last_interrupt = -inf


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt, but not again within END_SECONDS: whoever presses Ctrl-C twice must not stop the ending.

    Later on once more, in case a library has swallowed the first one.
    """
    global _last_interrupt  # noqa: PLW0603 - signal handlers have no other place
    now = time.monotonic()
    if now - _last_interrupt < END_SECONDS:
        return
    _last_interrupt = now
    raise KeyboardInterrupt


def interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Deliver an interrupt once more that came while an object was being destroyed, where Python drops it.

    TensorFlow destroys iterators and functions at every epoch, so that a Ctrl-C can hit one of them.
    """
    global _last_interrupt  # noqa: PLW0603
    if isinstance(lost.exc_value, KeyboardInterrupt | TerminationSignal):
        _last_interrupt = -inf
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def ignore_interrupts() -> None:
    """Let nothing but SIGKILL stop this process any more, which is ending and has things to put back."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def tell_errors_once() -> None:
    """Have Prefect log an error meant for the user as its message alone, and leave the terminal to `run`.

    Prefect logs it in the task, in the flow and in both their states, with a traceback each; its server
    still gets the message with the task and the flow that it belongs to.
    """

    def shorten(record: logging.LogRecord) -> bool:
        shorten_mistake(record)
        return not record.getMessage().startswith("View at")  # a private server has no pages

    def not_told(record: logging.LogRecord) -> bool:
        return not (hasattr(record, "told_by_run") or "Finished in state Failed" in record.getMessage())

    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(shorten)
    for handler in logging.getLogger().handlers:
        handler.addFilter(not_told)


def shorten_mistake(record: logging.LogRecord) -> None:
    """Make of a record with an error meant for the user one with its message alone."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError | KeyboardInterrupt) or explain(error):
        record.exc_info, record.msg, record.args = None, "%s", (explain(error) or error,)
        record.told_by_run = True
    elif isinstance(record.args, tuple):
        record.args = tuple(first_sentence(arg) if isinstance(arg, UserError) else arg for arg in record.args)


def log_mistakes_once() -> None:
    """Have the log of this run, which a worker has started, show an error meant for the user once, as its message.

    Prefect logs it where it was raised, in the run's last state, and where the run's process ends, with two tracebacks.
    """

    def once(record: logging.LogRecord) -> bool:
        shorten_mistake(record)
        if not hasattr(record, "told_by_run"):
            if told and record.getMessage().startswith("Finished in state Failed"):
                record.msg, record.args = "Finished in state Failed.", ()
            return True
        known = str(record.args) in told
        told.add(str(record.args))
        return not known

    told: set[str] = set()
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
        logger = logging.getLogger(name)
        if once.__name__ not in [getattr(known, "__name__", "") for known in logger.filters]:
            logger.addFilter(once)


def first_sentence(error: UserError) -> str:
    return str(error).split(". ")[0]


if __name__ == "__main__":
    sys.exit("This module is the command line of the flows; run one of them, such as `python -m flows.train`.")
