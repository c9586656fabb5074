"""An interpreter that has imported the slow modules, for tests that run many programs in processes of their own.

Each program runs in a fork of it, as the stages of a run do (orchestration/executors/preload.py).
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# `-I` keeps our code out; a program that needs it puts its folder into sys.path.
SERVER = """
import json, os, sys
for module in sys.argv[1:]:
    __import__(module)
for line in sys.stdin:
    program, arguments, folder, environment, output = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(environment)
        for number, name in ((0, os.devnull), (1, f"{output}.out"), (2, f"{output}.err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        sys.argv = ["-c", *arguments]
        exec(program, {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Ended(NamedTuple):
    """A program that has ended; returncode: negative, the signal that killed it."""

    returncode: int
    stdout: str
    stderr: str


# Runs a program: its text, its command line, its current directory, and its environment.
WarmRun = Callable[[str, list[str], Path, dict[str, str]], Ended]


@contextmanager
def warm_python(folder: Path, *modules: str) -> Iterator[WarmRun]:
    """Start an interpreter that imports `modules`, of which none may start threads, and yield what runs a program.

    Args:
        folder: for what the programs print.
        modules: to import once.
    """
    command = [sys.executable, "-I", "-c", SERVER, *modules]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        requests, answers = server.stdin, server.stdout

        def run(program: str, arguments: list[str], at: Path, environment: dict[str, str]) -> Ended:
            output = folder / "output"
            requests.write(json.dumps([program, arguments, str(at), environment, str(output)]) + "\n")
            requests.flush()
            code = int(answers.readline())
            printed = (output.with_suffix(f".{name}").read_text(errors="replace") for name in ("out", "err"))
            return Ended(code, *printed)

        yield run
        requests.close()
