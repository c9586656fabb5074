"""Download a data set into its loader's cache, in a process of its own: `python -m tasks.preparation.download NAME`.

A loader tries for minutes where nobody answers, and does not hear Ctrl-C meanwhile. So the source is asked first, with
a limit; then the loader runs in another process, which may take as long as the line needs and can be ended at any time.
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

ANSWER_SECONDS = 10  # for the first byte: name, connection, proxy and server together
SILENCE_SECONDS = 60  # that a download may stand still, where the loader leaves that to Python
UNUSED_PROXIES = "HEAVISIDE_UNUSED_PROXIES"  # orchestration/environment.py


class NoAnswerError(SourceUnreachableError):
    """The source let us wait, so that to try again is to wait again."""


def download(dataset: Dataset) -> None:
    """Have the loader of `dataset` download it, if it has one and its cache does not hold the data set.

    Raises SourceUnreachableError where the source does not answer or the download breaks off, and UserError where the
    cache cannot be used.
    """
    if dataset.address is None or dataset.cached is None or dataset.cached().exists():
        return
    address = dataset.address()
    try:
        check_answers(address, ANSWER_SECONDS)
    except OSError as error:
        variable = str(dataset.cache)
        folder = os.environ.get(variable) or dataset.cached().parent
        told = unreachable(dataset.name, address, variable, folder, with_proxies(error))
        raise (NoAnswerError(str(told)) if isinstance(error, TimeoutError) else told) from error
    logger.info("downloading %s", address)
    run_loader(dataset.name)


def check_answers(address: str, seconds: float) -> None:
    """Ask for the first byte of `address` as the environment says, through a proxy or not.

    Raises TimeoutError when it has not come after `seconds`, OSError when it cannot come. The question is another
    thread's, for the look-up of a name can neither be limited nor interrupted.
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
    if reason:  # a plain error, for that of urllib holds a connection
        raise OSError(str(reason) if isinstance(reason, OSError) else f"{type(reason).__name__}: {reason}")


def with_proxies(error: OSError) -> Exception:
    """Return `error` with the names of the proxies that the user set and that are not used."""
    names = os.environ.get(UNUSED_PROXIES)
    return OSError(f"{error}; {names} is not used, for only HTTP proxies are") if names else error


def run_loader(name: str) -> None:
    """Run `python -m tasks.preparation.download NAME` until it has ended, and raise the error that it tells."""
    command = [sys.executable, "-m", "tasks.preparation.download", name]
    pipe = subprocess.PIPE
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, errors="replace") as process:
        try:
            assert process.stdout
            told = process.stdout.read()
            process.wait()
        except BaseException:  # Ctrl-C, most likely
            process.kill()
            raise
    if code := process.returncode:
        kinds = {kind.__name__: kind for kind in (SourceUnreachableError, UserError)}
        last = told.strip().rpartition("\n")[2]  # a loader prints, too
        error = json.loads(last) if last.startswith('{"kind"') else {"kind": "", "message": f"exit code {code}"}
        raise kinds.get(error["kind"], RuntimeError)(error["message"])


def end_with_starter() -> None:
    """End this process when the one that started it has closed our standard input, which its end does, too."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    end_with_starter()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        get_dataset(sys.argv[1]).fetch()
    except Exception as error:  # noqa: BLE001  # whatever it is, the starter raises it
        kind = next((each for each in (SourceUnreachableError, UserError) if isinstance(error, each)), type(error))
        message = str(error) if issubclass(kind, UserError) else f"{type(error).__name__}: {error}"
        print(json.dumps({"kind": kind.__name__, "message": message}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
