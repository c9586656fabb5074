"""The command line of every flow: `python -m flows.NAME [ARGUMENT]`.

The arguments are those of the flow's function. Exit codes: 0 done; 1 a mistake the user can mend, told
in one message without a traceback; 130 interrupted.
"""

import argparse
import errno
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from uuid import UUID

from prefect import Flow, get_client
from prefect.context import hydrated_context
from prefect.exceptions import TerminationSignal
from prefect.results import get_result_store
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from config.errors import UserError
from config.params import load_params
from flows.server import is_alive, prefect_server
from stages.workspace import PIPELINE_PROCESS, PIPELINE_RUN, shared_workspace

# Read by TensorFlow, Keras and Arrow when they are imported. KERAS_HOME: no keras.json of the user's changes a result.
# jemalloc keeps less of what streaming frees than Arrow's default.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_HOME": ".keras", "ARROW_DEFAULT_MEMORY_POOL": "jemalloc"}
LOOK_SECONDS = 0.5  # between two looks whether the pipeline's process lives


def run(flow: Flow) -> NoReturn:
    """Run `flow` with the arguments of the command line and exit."""
    arguments = parse(flow)
    prepare_process()
    with telling_mistakes():
        check_names(arguments)
        with shared_workspace(), reporting(), parent_run(flow):
            flow(**arguments)
    sys.exit(0)


def prepare_process() -> None:
    """Set up the environment, the signals and the logging of a process that runs a flow."""
    set_environment()
    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = interrupt_again
    tell_errors_once()


def set_environment() -> None:
    """Set what TensorFlow, Keras and Arrow read when they are imported, where the user has not."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


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
        threading.Thread(target=end_with, args=(int(pid),), daemon=True).start()
    with get_client(sync_client=True) as client:
        parent = client.read_flow_run(UUID(run_id))
    context = {"flow": flow, "flow_run": parent, "start_time": parent.start_time, "result_store": get_result_store()}
    with hydrated_context({"flow_run_context": context}):
        yield


def end_with(pid: int) -> None:
    """Kill this process, and those that it started, when process `pid` has ended."""
    while is_alive(pid):
        time.sleep(LOOK_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)


@contextmanager
def telling_mistakes(interrupted: str = "interrupted; nothing was published.") -> Iterator[None]:
    """Exit with one message where the block raises what the user can mend; put a stage's outputs back in any case.

    interrupted: what to say when it was Ctrl-C or SIGTERM.
    """
    try:
        yield
    except UserError as error:
        end(1, str(error))
    except KeyboardInterrupt:
        end(130, interrupted)
    except Exception as error:
        if is_disk_full(error):
            end(1, f"no space left on the disk: {last_line(error)}. Free some space and run again.")
        restore_outputs()
        raise


def end(code: int, message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    restore_outputs()
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


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Deliver an interrupt once more that came while an object was being destroyed, where Python drops it.

    TensorFlow destroys iterators and functions at every epoch, so that a Ctrl-C can hit one of them.
    """
    if isinstance(lost.exc_value, KeyboardInterrupt | TerminationSignal):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


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
    if isinstance(error, UserError | KeyboardInterrupt) or is_disk_full(error):
        record.exc_info, record.msg, record.args = None, "%s", (error,)
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


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether `error` comes from a full disk; TensorFlow, HDF5 and Arrow have exceptions of their own for it."""
    while error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__
    return False


def last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


def restore_outputs() -> None:
    """Put back the outputs that DVC removed before it ran this stage.

    DVC removes a stage's outputs and then runs its command; when the command fails they stay removed,
    though DVC's cache still holds them. Outside DVC nothing was removed, as outputs are replaced whole.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage:
        return
    from tasks.restore import restore

    try:
        restored = restore(stage)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide why the stage failed
        print(f"The previous outputs of {stage} could not be put back: {last_line(error)}", file=sys.stderr)
        return
    if restored:
        print(f"Put back as they were: {', '.join(restored)}.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit("This module is the command line of the flows; run one of them, such as `python -m flows.train`.")
