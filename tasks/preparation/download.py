"""Download a data set into its loader's cache, in a process of its own: `python -m tasks.preparation.download NAME`.

A loader tries for minutes if the source does not answer, and ignores Ctrl-C meanwhile. So the source is asked first,
with a time limit. Then the loader runs in another process, which may take as long as it needs and can be killed.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from queue import Empty, SimpleQueue
from urllib.error import URLError
from urllib.request import Request, urlopen

from datasets import get_dataset
from datasets.dataset import Dataset, unreachable
from runtime.errors import SourceUnreachableError, UserError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 10  # until the first byte, with name lookup, connection and proxy
SILENCE_SECONDS = 60  # without a byte, where the loader uses Python's default
UNUSED_PROXIES = "HEAVISIDE_UNUSED_PROXIES"  # orchestration/environment.py


class NoAnswerError(SourceUnreachableError):
    """The source did not answer in time; a retry would wait as long."""


def download(dataset: Dataset) -> None:
    """Download a data set into its loader's cache, unless it is there or needs no download.

    Raises:
        SourceUnreachableError: the source does not answer, or the download is interrupted.
        UserError: the cache cannot be used.
    """
    if dataset.address is None or dataset.cached is None or dataset.cached().exists():
        return
    address = dataset.address()
    try:
        check_answers(address, ANSWER_SECONDS)
    except OSError as error:
        variable = str(dataset.cache)
        folder = os.environ.get(variable) or dataset.cached().parent
        unreached = unreachable(dataset.name, address, variable, folder, with_proxies(error))
        raise (NoAnswerError(str(unreached)) if isinstance(error, TimeoutError) else unreached) from error
    logger.info("downloading %s", address)
    run_loader(dataset.name)


def check_answers(address: str, seconds: float) -> None:
    """Request the first byte of `address`, with the proxy of the environment.

    Another thread requests it, because a name lookup has no time limit and cannot be interrupted.

    Raises:
        TimeoutError: there is no answer after `seconds`.
        OSError: the source refuses or cannot be reached.
    """
    answers: SimpleQueue[Exception | None] = SimpleQueue()

    def ask() -> None:
        try:
            with urlopen(Request(address, headers={"Range": "bytes=0-0"}), timeout=seconds) as response:
                response.read(1)
            answers.put(None)
        except Exception as error:  # noqa: BLE001  # a proxy may answer anything
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=seconds)
    except Empty:
        error = TimeoutError()
    reason = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(reason, TimeoutError):
        raise TimeoutError(f"no answer within {seconds:g} s")
    if reason:  # a plain error, because urllib's holds a connection
        raise OSError(str(reason) if isinstance(reason, OSError) else f"{type(reason).__name__}: {reason}")


def with_proxies(error: OSError) -> Exception:
    """Return `error` with the names of the user's proxies that are not used."""
    names = os.environ.get(UNUSED_PROXIES)
    return OSError(f"{error}; {names} is not used, for only HTTP proxies are") if names else error


def run_loader(name: str) -> None:
    """Run `python -m tasks.preparation.download NAME` to its end, and raise the error that it reports."""
    command = [sys.executable, "-m", "tasks.preparation.download", name]
    pipe = subprocess.PIPE
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, errors="replace") as process:
        try:
            assert process.stdout
            output = process.stdout.read()
            process.wait()
        except BaseException:  # Ctrl-C, most likely
            process.kill()
            raise
    if code := process.returncode:
        kinds = {kind.__name__: kind for kind in (SourceUnreachableError, UserError)}
        last = output.strip().rpartition("\n")[2]  # a loader prints, too
        error = json.loads(last) if last.startswith('{"kind"') else {"kind": "", "message": f"exit code {code}"}
        raise kinds.get(error["kind"], RuntimeError)(error["message"])


def exit_with_parent() -> None:
    """Exit when the parent process closes our standard input, as its own exit does."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    exit_with_parent()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        get_dataset(sys.argv[1]).fetch()
    except Exception as error:  # noqa: BLE001  # the parent process raises it
        kind = next((each for each in (SourceUnreachableError, UserError) if isinstance(error, each)), type(error))
        message = str(error) if issubclass(kind, UserError) else f"{type(error).__name__}: {error}"
        print(json.dumps({"kind": kind.__name__, "message": message}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
