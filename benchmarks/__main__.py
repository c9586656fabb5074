"""The benchmark: the fit of every model against the usual code, the size of the data, streaming, the graph, prediction,
the server, and search.

    python -m benchmarks [--quick] [--models NAME ...] [--parts fit size stream graph predict serving search quality]
                         [--out FILE]

It prints a table and writes benchmarks/results.json. The variants of a fit alternate on the same rows, epochs and
recipe; each has its own process for all its fits. A result is the median of the fits. Times include tracing and
compiling. --quick fits a model briefly, to check that the benchmark works.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import IO, Any

from benchmarks import graph, prediction, quality, search, serving
from config import paths
from config.params import Params, load_params
from orchestration.command_line import exit_on_user_error
from runtime.errors import UserError
from runtime.stderr import quiet_stderr
from tasks.data.files import read_json, write_json
from tasks.data.schema import read_schema

RESULTS = Path("benchmarks/results.json")
FITS = 3
PARTS = ("fit", "size", "stream", "graph", "predict", "serving", "search", "quality")
ROUNDS = 3
# The variants with the same batches in float32, and their names in the results.
EXACT = {"ours_exact": "ours", "loop": "loop", "nudged": "nudged"}
QUICK_STAGES = ["ingest@line"]
QUICK_MODELS = ("linear_neuron",)
# Instead of the epochs of a recipe that take too long, or that early stopping would cut.
EPOCHS = {
    "housing_wide_deep_subclassed": 20,
    "fashion_mlp": 30,
    "fashion_mlp_300": 5,
    "fashion_mlp_tuned": 5,
    "housing_mlp_tuned": 5,
    "housing_neighbours": 5,
}
CONVOLUTIONAL = ("cnn", "feature_extractors", "resnet")  # families
CONVOLUTIONAL_EPOCHS, CONVOLUTIONAL_ROWS = 2, 6400  # of more rows
SIZES = (1, 10, 100)
STREAMED_COPIES = 20  # of the 60,000 train and valid rows
STREAM_MEMORY = 100_000_000  # bytes; larger splits are streamed


@dataclass
class FitWorker:
    """A process that fits a model in one variant on each request."""

    command: list[str]
    process: subprocess.Popen
    errors: IO[str]

    def fit(self) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Return what it says when it is ready, and after each fit."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise UserError(f"{' '.join(self.command[2:])} failed:\n{self.errors.read()[-1500:]}")
        return json.loads(line)

    def stop(self) -> None:
        self.process.communicate()


def start(model: str, variant: str, epochs: int, rows: int = 0) -> FitWorker:
    """Start a process that fits a model, and do not wait until it is ready.

    Args:
        model: its name.
        variant: of `benchmarks.one_fit`.
        epochs: of a fit.
        rows: of the train split; 0: all.
    """
    command = [sys.executable, "-m", "benchmarks.one_fit", model, variant, str(epochs), str(rows)]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=quiet())
    return FitWorker(command, process, errors)


def quiet() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def call(*words: str, cwd: Path | None = None) -> str:
    """Run a module of this folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False, env=quiet()
    )
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed:\n{done.stderr[-1500:]}")
    return done.stdout.strip().splitlines()[-1]


def epochs_of(params: Params, model: str) -> int:
    """Return the epochs of the recipe of the lecture notes, or of EPOCHS."""
    if params.models[model].family in CONVOLUTIONAL:
        return CONVOLUTIONAL_EPOCHS
    recipe = params.lecture_recipes.get(model, params.models[model])
    return EPOCHS.get(model, recipe.fit.epochs)


def compare(params: Params, model: str, epochs: int, rows: int, fits: int, peak: dict[str, Any]) -> dict[str, Any]:
    """Compare the fit of the pipeline with those of the lecture notes and of Keras' fastest settings.

    Args:
        params: of params.yaml.
        model: its name.
        epochs: of a fit.
        rows: of the train split; 0: all.
        fits: of each variant.
        peak: what the machine can do (`benchmarks.peak`).
    """
    timed = ("notes", "keras", "ours", *(["gpu"] if peak["gpu"] else []))
    workers = {variant: start(model, variant, epochs, rows) for variant in (*timed, *EXACT)}
    about = {variant: worker.answer() for variant, worker in workers.items()}["ours"]  # none is busy after this
    taken: dict[str, list[dict[str, Any]]] = {variant: [] for variant in timed}
    for _ in range(fits):
        for variant, runs in taken.items():
            runs.append(workers[variant].fit())
    histories = {name: workers[variant].fit()["history"] for variant, name in EXACT.items()}
    for worker in workers.values():
        worker.stop()
    seconds = {variant: median(run["seconds"] for run in runs) for variant, runs in taken.items()}
    ours, notes = taken["ours"], taken["notes"]
    epoch = {variant: median(epoch_seconds(run["epoch_ends"]) for run in runs) for variant, runs in taken.items()}
    precision = ours[-1]["precision"]
    peak_flops = peak["float32_flops" if precision == "float32" else "bfloat16_flops"]
    return {
        "epochs": epochs,
        "precision": precision,
        "rows": about["rows"],
        "ours_seconds": seconds["ours"],
        "peer_seconds": seconds["notes"],
        "ratio": seconds["notes"] / seconds["ours"],
        "keras_best_seconds": seconds["keras"],
        "gpu_seconds": seconds.get("gpu"),
        "ratio_keras_best": seconds["keras"] / seconds["ours"],
        "ours_epoch_seconds": epoch["ours"],
        "peer_epoch_seconds": epoch["notes"],
        "ratio_epoch": epoch["notes"] / epoch["ours"],
        "to_notes_figure": {
            "ours_seconds": median_or_none([seconds_to_reference(params, model, run) for run in ours]),
            "peer_seconds": median_or_none([seconds_to_reference(params, model, run) for run in notes]),
        },
        "ours_peak_memory_bytes": ours[-1]["peak_memory_bytes"],
        "peer_peak_memory_bytes": notes[-1]["peak_memory_bytes"],
        "ours_rows_per_second": about["rows"] / epoch["ours"],
        # Of the measured matrix products in that precision: 2 operations each, forward and twice as many backward.
        "share_of_peak": about["rows"] / epoch["ours"] * 6 * about["multiply_adds"] / peak_flops,
        "same_batches": {
            metric: {name: history[metric][-1] for name, history in histories.items()} for metric in histories["loop"]
        },
    }


def epoch_seconds(ends: list[float]) -> float:
    """Return the median of the epochs after the first."""
    return median(later - earlier for earlier, later in pairwise(ends)) if len(ends) > 1 else ends[0]


def seconds_to_reference(params: Params, model: str, run: dict[str, Any]) -> float | None:
    """Return the seconds until the validation metric reached that of the lecture notes; None: never, or they have none.

    Args:
        params: of params.yaml.
        model: its name.
        run: the results of a fit.
    """
    notes = params.notes.get(model, {})
    reference = {**notes.get("test", {}), **notes.get("valid", {})}
    for metric, more_is_better in (("accuracy", True), ("rmse", False)):
        if metric in reference and f"val_{metric}" in run["history"]:
            for value, end in zip(run["history"][f"val_{metric}"], run["epoch_ends"], strict=True):
                if value >= reference[metric] if more_is_better else value <= reference[metric]:
                    return end
    return None


def median_or_none(values: list[float | None]) -> float | None:
    reached = [value for value in values if value is not None]
    return median(reached) if len(reached) == len(values) else None


def by_size(params: Params, model: str) -> dict[str, Any]:
    """Return the seconds of an epoch after the first, of the pipeline and of the lecture notes, by number of rows."""
    result, train_rows = {}, read_schema(params.model(model).dataset).rows.train
    for times in SIZES:
        rows = times * train_rows
        epoch = {}
        for variant, epochs in (("notes", 4 if times < 100 else 2), ("ours", 4)):
            worker = start(model, variant, epochs, rows)
            worker.answer()
            epoch[variant] = epoch_seconds(worker.fit()["epoch_ends"])
            worker.stop()
        result[f"x{times}"] = {
            "rows": rows,
            "ours_epoch_seconds": epoch["ours"],
            "peer_epoch_seconds": epoch["notes"],
            "ratio": epoch["notes"] / epoch["ours"],
        }
    return result


def stream(model: str, copies: int, memory: int, fits: int) -> dict[str, Any]:
    """Return the rows per second and the memory of a training from disk, and the rows per second from memory.

    Args:
        model: its name.
        copies: of the train and valid rows.
        memory: bytes; larger splits are streamed.
        fits: from disk and from memory.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        prepared = workspace / paths.prepared_folder("fashion_mnist")
        prepared.mkdir(parents=True)
        for file in (before / paths.prepared_folder("fashion_mnist")).iterdir():
            if file.name != "train.parquet":
                (prepared / file.name).write_bytes(file.read_bytes())
        (workspace / paths.PARAMS).write_bytes(paths.PARAMS.read_bytes())
        call("benchmarks.stream", "write", str(prepared), str(copies))
        rates: dict[str, list[float]] = {"streamed": [], "memory": []}
        runs = []
        for _ in range(fits):
            runs.append(json.loads(call("benchmarks.stream", "fit", model, str(memory), "2", cwd=workspace)))
            kept = json.loads(call("benchmarks.stream", "fit", model, str(10**15), "8", cwd=before))
            for place, run in (("streamed", runs[-1]), ("memory", kept)):
                rates[place].append(run["rows"] / median(run["epoch_seconds"]))
    streamed, from_memory = median(rates["streamed"]), median(rates["memory"])
    return {
        "model": model,
        "rows": runs[-1]["rows"],
        "streamed": runs[-1]["streamed"],
        "rows_per_second": streamed,
        "in_memory_rows_per_second": from_memory,
        "share_of_in_memory_rate": streamed / from_memory,
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
    }


def machine() -> dict[str, Any]:
    with quiet_stderr():  # it imports TensorFlow
        from tasks.training.hardware import processor_name

    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("keras", "tensorflow", "numpy", "pyarrow")},
    }


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    heading = (
        "model",
        "epochs",
        "notes s",
        "Keras s",
        "ours s",
        "ratio",
        "to Keras",
        "an epoch",
        "GB",
        "of peak",
        "GPU s",
    )
    widths = (30, 7, 9, 9, 9, 8, 9, 9, 6, 8, 6)
    print("  ".join(f"{text:>{width}}" for text, width in zip(heading, widths, strict=True)))
    for name, row in results.get("fit", {}).items():
        cells = (
            name,
            str(row["epochs"]),
            f"{row['peer_seconds']:.2f}",
            f"{row['keras_best_seconds']:.2f}",
            f"{row['ours_seconds']:.2f}",
            f"{row['ratio']:.1f}x",
            f"{row['ratio_keras_best']:.1f}x",
            f"{row['ratio_epoch']:.1f}x",
            f"{row['ours_peak_memory_bytes'] / 1e9:.2f}",
            f"{100 * row['share_of_peak']:.1f} %",
            "none" if row["gpu_seconds"] is None else f"{row['gpu_seconds']:.2f}",
        )
        print("  ".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)))
    for size, row in results.get("size", {}).items():
        if size == "machine":
            continue
        print(f"{size}: {row['rows']} rows, an epoch {row['ours_epoch_seconds']:.3f} s, {row['ratio']:.1f}x the notes'")
    if row := results.get("stream"):
        print(
            f"stream: {row['rows']} rows of {row['model']}, {row['rows_per_second']:.0f} rows/s, "
            f"{100 * row['share_of_in_memory_rate']:.0f} % of the rate from memory, "
            f"at most {row['peak_memory_bytes'] / 1e9:.2f} GB"
        )
    if row := results.get("predict"):
        prediction.show(row)
    if row := results.get("graph"):
        print(
            f"graph: {row['stages']} stages in {row['pipeline_seconds']:.1f} s, "
            f"{row['share_of_repro']:.2f} of what dvc repro takes, "
            f"{row['overhead_seconds_a_stage']:.2f} s of overhead a stage. With nothing changed: "
            f"{row['unchanged_seconds']:.1f} s, {row['unchanged_to_status']:.1f} x dvc status"
        )
    if row := results.get("serving"):
        serving.show(row)
    if row := results.get("search"):
        search.show(row)
    quality.show(results.get("quality", {}))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one model, one short fit")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="the fits of these models only")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="these parts only; FILE keeps the others")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS}")
    given = parser.parse_args()
    parts = given.parts or (["fit"] if given.models else PARTS)
    with exit_on_user_error():
        params = load_params()
        networks = [name for name, model in params.models.items() if not model.seeds]  # not means of the same ones
        names = given.models or (QUICK_MODELS if given.quick else networks)
        for name in names:
            params.model(name)
        peak = json.loads(call("benchmarks.peak"))
        results: dict[str, Any] = read_json(given.out, "bench") if given.parts and given.out.exists() else {}
        here = {**machine(), **peak}
        if "fit" in parts or "machine" not in results:
            results |= {"machine": here, "fit": {}}
        # The other parts can be measured later on another machine.
        apart = {} if results["machine"] is here else {"machine": here}
        for name in names if "fit" in parts else ():
            print(f"{name} ...", flush=True)
            convolutional = params.models[name].family in CONVOLUTIONAL
            rows = 0 if not convolutional else 64 if given.quick else CONVOLUTIONAL_ROWS
            epochs = 2 if given.quick else epochs_of(params, name)
            results["fit"][name] = compare(params, name, epochs, rows, 1 if given.quick else FITS, peak)
            write_json(given.out, results)  # in case the rest is interrupted
        if "size" in parts and not given.quick:
            print("housing_mlp by size ...", flush=True)
            results["size"] = by_size(params, "housing_mlp") | apart
        if "stream" in parts:
            print("streaming ...", flush=True)
            copies, memory, fits = (2, 1, 1) if given.quick else (STREAMED_COPIES, STREAM_MEMORY, FITS)
            results["stream"] = stream("fashion_mlp", copies, memory, fits) | apart
        if "graph" in parts:
            print("the graph ...", flush=True)
            stages, rounds = (QUICK_STAGES, 1) if given.quick else ([], ROUNDS)
            results["graph"] = graph.measure(stages, rounds) | apart
        if "predict" in parts and not given.quick:  # by itself it has a --quick, for which it needs other models
            print("prediction ...", flush=True)
            results["predict"] = prediction.measure(paths.ARTIFACTS) | apart
        if "serving" in parts and not given.quick:
            print("the server ...", flush=True)
            results["serving"] = serving.measure(serving.MODEL, serving.SECONDS, paths.ARTIFACTS) | apart
        if "search" in parts and not given.quick:
            print("search ...", flush=True)
            results["search"] = search.measure() | apart
        if "quality" in (given.parts or ()):  # by its name alone: its peers are not in requirements.lock
            print("gradient boosting ...", flush=True)
            results["quality"] = quality.measure()
        write_json(given.out, results)
        show(results)
        print(f"\nWritten to {given.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
