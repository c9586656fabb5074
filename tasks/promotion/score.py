"""Score a SavedModel in a clean process: its answers to raw rows, and how long it takes.

The process has nothing of this project's code, as one that serves the model. It ends by itself where it takes too long.
"""

import errno
import json
import os
import re
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from config.gates import LoadLimit
from models.common.outputs import MAIN_OUTPUT
from runtime.errors import shortened
from runtime.isolated_process import run_isolated
from tasks.data.files import write_table
from tasks.data.schema import BATCH_ROWS

MAX_REASON = 300  # characters
READY, RESULT = "ready.json", "result.json"

# The alarm's default action ends the process, whatever TensorFlow does meanwhile, and the kernel ends it with ours
# (prctl, on Linux). Rows are read a row group at a time.
PROGRAM = """
import ctypes, json, os, signal, sys, time
began = time.monotonic()
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
seconds, scoring = float(sys.argv[1]), float(sys.argv[2])
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, seconds)
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

model = tf.saved_model.load("saved_model")
if "serving_default" not in model.signatures:
    sys.exit("it has no signature serving_default")
serve = model.signatures["serving_default"]
specs = serve.structured_input_signature[1]
file = pq.ParquetFile("rows.parquet")
if lacking := sorted(set(specs) - set(file.schema_arrow.names)):
    sys.exit(f"it needs {', '.join(lacking)}, which the rows lack")

def inputs(table):
    found = {}
    for name, spec in specs.items():
        column = pa.concat_arrays(table[name].chunks)
        tensor = isinstance(column.type, pa.FixedShapeTensorType)
        values = column.to_numpy_ndarray() if tensor else column.to_numpy(zero_copy_only=False)
        found[name] = tf.cast(values, spec.dtype)
    return found

def answer(given):
    return {name: value.numpy() for name, value in serve(**given).items()}

def read(group):
    return file.read_row_group(group, columns=list(specs))

one = inputs(read(0).slice(0, 1))
answer(one)
with open("ready.json", "w") as ready:
    json.dump({"ready_seconds": time.monotonic() - began}, ready)
signal.setitimer(signal.ITIMER_REAL, scoring)

medians, until = [], time.monotonic() + 5
while len(medians) < 5 and (not medians or time.monotonic() < until):
    calls = []
    for _ in range(10):
        start = time.perf_counter()
        answer(one)
        calls.append(time.perf_counter() - start)
    medians.append(float(np.median(calls)))

start, done, rows, not_finite = time.perf_counter(), 0, file.metadata.num_rows, 0
kept = {}
for group in range(file.num_row_groups):
    table = read(group)
    finite = np.ones(len(table), bool)
    for name, values in answer(inputs(table)).items():
        if values.ndim == 0 or len(values) != len(table) or values.dtype.kind not in "biuf":
            sys.exit(f"output {name} is {values.dtype.name} {list(values.shape)} for {len(table)} rows")
        if name not in kept:
            shape = (rows, *values.shape[1:])
            kept[name] = np.lib.format.open_memmap(f"{len(kept)}.npy", mode="w+", dtype=np.float32, shape=shape)
        kept[name][done : done + len(table)] = values
        finite &= np.isfinite(values).reshape(len(table), -1).all(axis=1)
    done, not_finite = done + len(table), not_finite + int((~finite).sum())
for values in kept.values():
    values.flush()
result = {
    "outputs": list(kept),
    "not_finite": not_finite,
    "latency_ms": 1000 * min(medians),
    "rows_per_second": rows / (time.perf_counter() - start),
}
with open("result.json", "w") as file:
    json.dump(result, file)
"""


@dataclass(frozen=True)
class Scored:
    """The answers of a SavedModel, and what it takes.

    outputs: float32 [rows, ...] by name. ready_seconds: from the start of the program to the first answer.
    latency_ms: the median of ten calls with one row, of five such medians the least, because other programs may be at
    work. rows_per_second: in batches. size: bytes of all files.
    """

    outputs: dict[str, np.ndarray]
    ready_seconds: float
    latency_ms: float
    rows_per_second: float
    size: int


@dataclass(frozen=True)
class Unscored:
    """Why a SavedModel could not be scored. ready_seconds: None if it did not answer the first row."""

    reason: str
    ready_seconds: float | None
    size: int


def write_rows(table: pa.Table, path: Path) -> None:
    """Write raw rows so that a row group is a batch."""
    write_table(path, table, BATCH_ROWS)


def score(saved_model: Path, rows: Path, limit: LoadLimit) -> Scored | Unscored:
    """Have a SavedModel answer raw rows.

    Args:
        saved_model: its folder.
        rows: a Parquet file with at least one row, of `write_rows`; it may have more columns than the model needs.
        limit: of time and tries.

    Returns:
        What it answers; or why it cannot, where it is missing or damaged, takes too long, is killed, or answers
        something else than one finite row of numbers for each row.

    Raises:
        OSError: the disk is full, which is not the model's fault.
    """
    size = sum(file.stat().st_size for file in saved_model.rglob("*") if file.is_file())
    if not (saved_model / "saved_model.pb").is_file():
        return Unscored("saved_model.pb is missing", None, size)
    for _ in range(limit.tries):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            # TensorFlow reads [ ] and the like in a path as a pattern, so it gets a relative path without any.
            (folder / "saved_model").symlink_to(saved_model.resolve())
            (folder / "rows.parquet").symlink_to(rows.resolve())
            code, errors = run_isolated(PROGRAM, [str(limit.seconds), str(limit.scoring)], folder)
            if code and os.strerror(errno.ENOSPC) in errors:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            ready = json.loads((folder / READY).read_text())["ready_seconds"] if (folder / READY).exists() else None
            if code == 0 and ready is not None:
                return read_result(folder, ready, size)
            failed = Unscored(reason_of(code, errors, ready, limit), ready, size)
            if code > 0:  # it would answer the same again
                break
    return failed


def read_result(folder: Path, ready_seconds: float, size: int) -> Scored | Unscored:
    """Read what the process has written.

    Args:
        folder: where it ran.
        ready_seconds: of `Scored`.
        size: likewise.
    """
    result = json.loads((folder / RESULT).read_text())
    outputs = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(result["outputs"])}
    if MAIN_OUTPUT not in outputs:
        return Unscored(f"it has no output {MAIN_OUTPUT!r}, but {', '.join(outputs)}", ready_seconds, size)
    if result["not_finite"]:
        rows = len(outputs[MAIN_OUTPUT])
        return Unscored(f"{result['not_finite']:,} of {rows:,} answers are not finite", ready_seconds, size)
    return Scored(outputs, ready_seconds, result["latency_ms"], result["rows_per_second"], size)


def reason_of(code: int, errors: str, ready_seconds: float | None, limit: LoadLimit) -> str:
    """Return why a process failed.

    Args:
        code: its exit code.
        errors: what it wrote to standard error.
        ready_seconds: until the first answer; None if there was none.
        limit: of its time.
    """
    if code == -signal.SIGALRM:
        task, most = ("loading", limit.seconds) if ready_seconds is None else ("scoring", limit.scoring)
        return f"{task} took more than {most:g} s"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return shortened((told or lines or ["its process failed"])[-1], MAX_REASON)
