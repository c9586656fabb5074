"""Predict in processes that are killed: before a step of the file system, or at some moment.

python -m tests.support.killed_predict FOLDER KILLS SEED

It ends with 0 where each run that follows ends with the bytes of an undisturbed one and predicts nothing twice, and
prints how many rows the killed runs had finished. FOLDER is empty.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.prediction import chunks
from tasks.prediction.predict import predict
from tests.support.killed_receive import in_child
from tests.support.models import fake_model, weighted

ROWS, CHUNK, SECONDS = 1500, 64, 0.005
OUT, REJECTED, PARTIAL = Path("answers.parquet"), Path("answers.rejected.parquet"), Path(".answers.partial")
CALLS, THERE = Path("calls.txt"), Path("there.txt")


def put_rows() -> None:
    a = np.arange(float(ROWS))
    a[::700] = np.inf
    pq.write_table(pa.table({"a": a, "b": np.ones(ROWS)}), "1.parquet", row_group_size=500)
    Path("2.csv").write_text("a,b\n" + "".join(f"{row},{'x' * (row % 400 == 0)}1\n" for row in range(ROWS)))


def run(calls: Path | None = None) -> None:
    """Predict slowly; calls: a file for the number of rows that were predicted."""

    def slow(columns):
        time.sleep(SECONDS)
        return weighted(columns)

    chunks.MAX_ROWS = CHUNK
    model = fake_model(slow)
    predict(lambda: model, "[12].*", OUT, tell=lambda text: None)
    if calls:
        calls.write_text(str(sum(model.calls)))


def killed_before(step: int) -> Callable[[], None]:
    """Return what predicts until a step of this number."""

    def work() -> None:
        left = step

        def hook(event: str, given: tuple) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove", "os.mkdir") and "answers" in str(given):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        run()

    return work


def killed_after(seconds: float) -> Callable[[], None]:
    def work() -> None:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        run()
        os._exit(0)

    return work


def finished_rows() -> int:
    """Return how many rows the parts hold."""
    return sum(pa.ipc.open_file(part).read_all().num_rows for part in sorted(PARTIAL.glob("*[0-9].arrow")))


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.chdir(folder)
    draw = random.Random(seed)
    assert in_child(lambda: (put_rows(), run(CALLS))) == 0  # this process forks, so it uses no Arrow
    expected, all_rows = (OUT.read_bytes(), REJECTED.read_bytes()), int(CALLS.read_text())
    finished = []
    for number in range(kills):
        OUT.unlink()
        for _ in range(draw.choice([1, 1, 2])):
            work = killed_before(draw.randint(1, 60)) if number % 2 else killed_after(draw.uniform(0.1, 0.5))
            assert in_child(work) in (0, signal.SIGKILL)
        if OUT.exists():
            assert (OUT.read_bytes(), REJECTED.read_bytes()) == expected
        assert in_child(lambda: THERE.write_text(str(finished_rows()))) == 0
        assert in_child(lambda: run(CALLS)) == 0
        assert (OUT.read_bytes(), REJECTED.read_bytes()) == expected, f"kill {number} changed the output"
        assert not PARTIAL.exists()
        finished.append(int(THERE.read_text()))
        again = int(CALLS.read_text())
        assert again == all_rows - finished[-1], f"kill {number}: {again} rows, {finished[-1]} of {all_rows} were there"
    print(*finished)


if __name__ == "__main__":
    main()
