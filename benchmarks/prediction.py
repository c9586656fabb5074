"""Batch prediction: `python -m flows.predict` against a bare loop over the SavedModel, whose rows are in memory.

    python -m benchmarks.prediction [--quick] [--artifacts FOLDER] [--out FILE]

python -m benchmarks.prediction loop SAVED_MODEL FILE ROWS SECONDS   time the bare loop, print the results as JSON

Both predict the same rows, one after the other: 10 million of housing as Parquet, and 1.2 million pictures as Arrow
IPC, since Parquet stores each pixel in four bytes. The convolutional network, which takes minutes, gets a tenth of the
pictures. The loop calls the signature on float32 or uint8 arrays, in the fastest of several sizes, and keeps nothing.
The rate of the command is that of its JSON file, from the first row that is read to the last that is written, without
the start of Python, TensorFlow and the compiled program; `wall_seconds` includes it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from config import paths
from datasets.dataset import to_column
from orchestration.command_line import exit_on_user_error
from runtime.errors import UserError
from tasks.data.files import read_json, write_json

RESULTS = Path("benchmarks/results.json")
# The small network computes less than it takes to read a picture.
ROUNDS = {"housing_mlp": 3, "fashion_mlp": 3, "fashion_cnn": 1}
SEED = 42
FORMATS = {"housing_mlp": "parquet", "fashion_mlp": "arrow", "fashion_cnn": "arrow"}
ARROW_ROWS = 16_384  # of a record batch
GROUP_ROWS = {"housing_mlp": 2**20, "fashion_mlp": 50_000, "fashion_cnn": 50_000}  # 600 MB of values, at once in memory
ROWS = {"housing_mlp": 10_000_000, "fashion_mlp": 1_200_000, "fashion_cnn": 120_000}
QUICK_ROWS = {"housing_mlp": 200_000, "fashion_mlp": 5_000}
# In memory; the loop goes over them again and again.
LOOP_ROWS = {"housing_mlp": 2_000_000, "fashion_mlp": 100_000, "fashion_cnn": 100_000}
LOOPED = {"fashion_cnn": 20_000}  # rows that the loop predicts, where all of them would take minutes
# Rows of a call of the bare loop. A convolution's output for 65,536 pictures would take 13 GB.
CALLS = {"fashion_cnn": (256, 512, 1024, 2048)}
MOST_CALLS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)
LOOP_SECONDS = 1.0  # to find the fastest size
HOUSING = {  # mean and standard deviation of the logarithm, or of the value where it may be negative
    "MedInc": (1.2, 0.5),
    "HouseAge": (3.2, 0.6),
    "AveRooms": (1.6, 0.3),
    "AveBedrms": (0.07, 0.1),
    "Population": (7.0, 0.7),
    "AveOccup": (1.1, 0.3),
    "Latitude": (35.6, 2.1),
    "Longitude": (-119.6, 2.0),
}
PLACE = ("Latitude", "Longitude")


def tables(model: str, rows: int) -> Iterator[pa.Table]:
    """Yield random rows for a model, a row group at a time; the same in every call."""
    rng = np.random.default_rng(SEED)
    for first in range(0, rows, GROUP_ROWS[model]):
        count = min(GROUP_ROWS[model], rows - first)
        if model == "housing_mlp":
            drawn = {name: rng.normal(*moments, count) for name, moments in HOUSING.items()}
            yield pa.table({name: v if name in PLACE else np.exp(v) for name, v in drawn.items()})
        else:  # half of a picture of clothing is black
            pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
            yield pa.table({"image": to_column(pixels * (rng.random((count, 28, 1)) < 0.5))})


def write_rows(model: str, rows: int, path: Path) -> None:
    """Write random rows for a model as Parquet or Arrow IPC, by the ending of the path."""
    with ExitStack() as stack:
        writer: Any = None
        for table in tables(model, rows):
            if path.suffix == ".parquet":
                writer = writer or stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table, row_group_size=GROUP_ROWS[model])
            else:
                writer = writer or stack.enter_context(pa.ipc.new_file(path, table.schema))
                writer.write_table(table, max_chunksize=ARROW_ROWS)


def read_rows(path: Path, most: int) -> pa.Table:
    """Return the first rows of a file that `write_rows` has written, at most `most`."""
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        parts = (pa.Table.from_batches([batch]) for batch in file.iter_batches(ARROW_ROWS))
    else:
        reader = pa.ipc.open_file(path)
        parts = (pa.Table.from_batches([reader.get_batch(number)]) for number in range(reader.num_record_batches))
    taken, have = [], 0
    for part in parts:
        taken.append(part)
        have += len(part)
        if have >= most:
            break
    return pa.concat_tables(taken).slice(0, most)


def loop(saved_model: Path, file: Path, rows: int, seconds: float) -> dict[str, Any]:
    """Time the bare loop.

    Args:
        saved_model: its folder.
        file: its first rows are held in memory.
        rows: to predict.
        seconds: to try each size of a call.

    Returns:
        The rows of a call that was the fastest, and the rows per second with it.
    """
    import tensorflow as tf

    from datasets.dataset import to_values

    serve = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    specs = serve.structured_input_signature[1]
    model = saved_model.parent.name
    table = read_rows(file, LOOP_ROWS[model])
    values = {name: to_values(table[name]).astype(spec.dtype.as_numpy_dtype) for name, spec in specs.items()}
    held = table.num_rows
    del table

    def predict(first: int, count: int) -> None:
        given = {name: tf.convert_to_tensor(column[first : first + count]) for name, column in values.items()}
        for value in serve(**given).values():
            value.numpy()

    def rate(size: int, until_rows: float, until_seconds: float) -> float:
        predict(0, size)
        began, done, first = time.perf_counter(), 0, 0
        while done < until_rows and time.perf_counter() - began < until_seconds:
            predict(first, size)
            done, first = done + size, first + size if first + 2 * size <= held else 0
        return done / (time.perf_counter() - began)

    tried = {size: rate(size, np.inf, seconds) for size in CALLS.get(model, MOST_CALLS) if size <= held}
    best = max(tried, key=lambda size: tried[size])
    return {"call_rows": best, "rows_per_second": rate(best, rows, np.inf)}


def command(saved_model: Path, file: Path, output: Path) -> dict[str, Any]:
    """Time the command.

    Args:
        saved_model: the model.
        file: its input.
        output: to write.
    """
    words = [sys.executable, "-m", "flows.predict", str(saved_model), str(file), str(output)]
    began = time.perf_counter()
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(words[2:])} failed:\n{errors[-1500:]}")
    record = read_json(output.with_suffix(".json"), "bench")
    return {
        "rows_per_second": record["rows_per_second"],
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - began,
    }


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(artifacts: Path, quick: bool = False) -> dict[str, Any]:
    """Return the figures by model.

    Args:
        artifacts: the folder with the models.
        quick: few rows, once, to check that the benchmark works.
    """
    results = {}
    for model, rows in (QUICK_ROWS if quick else ROWS).items():
        saved_model = (artifacts / model / "saved_model").resolve()
        if not saved_model.is_dir():
            raise UserError(f"{saved_model} not found. Train {model} first, or name another folder by --artifacts.")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file = folder / f"rows.{FORMATS[model]}"
            write_rows(model, rows, file)
            ours, bare = [], []
            for number in range(1 if quick else ROUNDS[model]):
                looped = LOOPED.get(model, rows)
                words = ["loop", str(saved_model), str(file), str(looped), str(0.05 if quick else LOOP_SECONDS)]
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.prediction", *words],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment(),
                )
                bare.append(json.loads(done.stdout.splitlines()[-1]))
                ours.append(command(saved_model, file, folder / f"{number}.parquet"))
        rates = [run["rows_per_second"] for run in ours], [run["rows_per_second"] for run in bare]
        results[model] = {
            "rows": rows,
            "rows_per_second": median(rates[0]),
            "bare_rows_per_second": median(rates[1]),
            "bare_call_rows": bare[-1]["call_rows"],
            "ratio": median(rates[0]) / median(rates[1]),
            "peak_memory_bytes": max(run["peak_memory_bytes"] for run in ours),
            "cpu_seconds": median(run["cpu_seconds"] for run in ours),
            "wall_seconds": median(run["wall_seconds"] for run in ours),
        }
    return results


def show(results: dict[str, Any]) -> None:
    print(
        f"{'predict':>16}  {'rows':>10}  {'rows/s':>10}  {'bare loop':>10}  {'ratio':>6}  {'peak GB':>7}  {'wall s':>6}"
    )
    for model, row in results.items():
        if model == "machine":
            continue
        print(
            f"{model:>16}  {row['rows']:>10}  {row['rows_per_second']:>10.0f}  {row['bare_rows_per_second']:>10.0f}  "
            f"{row['ratio']:>5.2f}  {row['peak_memory_bytes'] / 1e9:>7.2f}  {row['wall_seconds']:>6.1f}"
        )


def main() -> int:
    if sys.argv[1:2] == ["loop"]:
        saved_model, file, rows, seconds = sys.argv[2:]
        print(json.dumps(loop(Path(saved_model), Path(file), int(rows), float(seconds))))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rows, once")
    parser.add_argument("--artifacts", type=Path, default=paths.ARTIFACTS, metavar="FOLDER", help="of the models")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS}")
    given = parser.parse_args()
    with exit_on_user_error():
        results = measure(given.artifacts, given.quick)
        show(results)
        known = read_json(given.out, "bench") if given.out.exists() else {}
        from benchmarks.__main__ import machine

        write_json(given.out, {**known, "predict": results | {"machine": machine()}})
        print(f"\nWritten to {given.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
