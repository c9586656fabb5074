"""A search against Keras Tuner's random search, and on two workers against one.

    python -m benchmarks.search [--quick] [--out FILE]

python -m benchmarks.search tuner TRIALS EPOCHS SEED   the peer alone, in a workspace; prints its best loss

Both search the lecture notes' space of housing_mlp with the same number of trials and epochs, on the same rows: Keras
Tuner as the notes use it, in one process and with Keras' own loop; ours with its default sampler, and with the finalist
and the test that Keras Tuner does not have. The seconds of both are those of the whole command, with its start.
"""

import argparse
import compileall
import subprocess
import sys
import tempfile
import time
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from ruamel.yaml import YAML

from benchmarks.graph import environment, seconds
from config import paths
from config.params import load_params
from flows.demo import copy_workspace
from orchestration.command_line import exit_on_user_error
from tasks.data.files import read_json, write_json

RESULTS = Path("benchmarks/results.json")
ROOT = Path(__file__).parents[1]
MODEL, DATASET, SPACE = "housing_mlp", "california_housing", "notes"
TRIALS, EPOCHS, BATCH_ROWS = 24, 20, 32
WORKER_TRIALS, WORKER_EPOCHS = 8, 120  # on one worker and on two
ROUNDS = 2
SEED = 42
QUICK = (2, 1)  # trials and epochs


def tuner(trials: int, epochs: int, seed: int) -> float:
    """Run Keras Tuner's random search on the prepared rows of this workspace.

    Args:
        trials: how many.
        epochs: of each.
        seed: of the search.

    Returns:
        The best loss on valid.
    """
    import keras
    import keras_tuner

    from tasks.data.examples import read_examples

    recipe = load_params().model(MODEL)
    train, valid = (read_examples(recipe, split) for split in ("train", "valid"))

    def build(hyperparameters: Any) -> keras.Model:
        layers = hyperparameters.Int("layers", 0, 8)
        units = hyperparameters.Int("units", 16, 256)
        rate = hyperparameters.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        optimizer = hyperparameters.Choice("optimizer", ["sgd", "adam"])
        normalization = keras.layers.Normalization()
        normalization.adapt(train.x)
        model = keras.Sequential([normalization])
        for _ in range(layers):
            model.add(keras.layers.Dense(units, activation="relu"))
        model.add(keras.layers.Dense(1))
        chosen = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[optimizer](learning_rate=rate)
        model.compile(loss="mean_squared_error", optimizer=chosen)
        return model

    with tempfile.TemporaryDirectory() as folder:
        search = keras_tuner.RandomSearch(build, "val_loss", max_trials=trials, seed=seed, directory=folder)
        search.search(
            train.x,
            train.target,
            epochs=epochs,
            batch_size=BATCH_ROWS,
            validation_data=(valid.x, valid.target),
            verbose=0,
        )
        [best] = search.oracle.get_best_trials(1)
    return float(best.score)


def make_workspace(folder: Path, trials: int, epochs: int, **values: Any) -> None:
    """Make a workspace with the prepared rows of this one and a search of the notes' space."""
    folder.mkdir()
    copy_workspace(folder)
    for kind in (paths.RAW, paths.PREPARED):
        (folder / kind).mkdir(parents=True)
        for entry in kind.glob(f"{DATASET}*"):
            (folder / entry).symlink_to(entry.resolve())
    yaml = YAML()
    params = yaml.load(folder / paths.PARAMS)
    params["data"]["source"] = load_params().data.source
    params["search"] = {
        MODEL: {
            "dataset": DATASET,
            "family": "mlp",
            "spaces": [SPACE],
            "build": {"normalization": True, "outputs": 1},
            "compile": {"loss": "mean_squared_error"},
            "fit": {"epochs": epochs, "batch_size": BATCH_ROWS},
            "objective": "loss",
            "trials": trials,
            "finalists": 1,
            "seeds": [SEED],
            **values,
        }
    }
    yaml.dump(params, folder / paths.PARAMS)
    compileall.compile_dir(folder, quiet=1)  # as after a first run


def ours(folder: Path, jobs: int | None = None) -> float:
    """Run the search of a workspace and return its seconds, with the start of Python and of all processes."""
    words = ["--jobs", str(jobs)] if jobs else []
    return seconds([sys.executable, "-m", "flows.search", MODEL, *words], folder)


def best_loss(folder: Path) -> float:
    """Return the best loss on valid after any epoch of a trial, as Keras Tuner scores them."""
    records = (folder / paths.search_checkpoints_folder(MODEL) / "records").glob("trial-*.json")
    return min(min(read_json(record, "bench")["epochs"], default=inf) for record in records)


def measure(quick: bool = False) -> dict[str, Any]:
    """Return the figures. quick: few trials and epochs, once, to check that the benchmark works."""
    trials, epochs = QUICK if quick else (TRIALS, EPOCHS)
    peer, own, losses, peer_losses = [], [], [], []
    for number in range(1 if quick else ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "search")
            make_workspace(folder, trials, epochs, seed=SEED + number)
            own.append(ours(folder))
            losses.append(best_loss(folder))
            words = ["-m", "benchmarks.search", "tuner", str(trials), str(epochs), str(SEED + number)]
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *words],
                cwd=folder,
                env={**environment(), "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
                capture_output=True,
                text=True,
                check=True,
            )
            peer.append(time.perf_counter() - began)
            peer_losses.append(float(done.stdout.splitlines()[-1]))
    by_jobs, tables = {}, []
    for jobs in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "search")
            few = QUICK if quick else (WORKER_TRIALS, WORKER_EPOCHS)
            make_workspace(folder, *few, round=few[0], seeds=[SEED, SEED + 1])
            by_jobs[jobs] = ours(folder, jobs)
            tables.append((folder / paths.search_folder(MODEL) / "trials.csv").read_bytes())
    return {
        "model": MODEL,
        "trials": trials,
        "epochs": epochs,
        "seconds": median(own),
        "tuner_seconds": median(peer),
        "share_of_tuner": median(own) / median(peer),
        "best_losses": losses,
        "tuner_best_losses": peer_losses,
        "one_worker_seconds": by_jobs[1],
        "two_workers_seconds": by_jobs[2],
        "share_of_one_worker": by_jobs[2] / by_jobs[1],
        "same_results": tables[0] == tables[1],
    }


def show(row: dict[str, Any]) -> None:
    ours, theirs = (", ".join(f"{loss:.4f}" for loss in row[key]) for key in ("best_losses", "tuner_best_losses"))
    print(
        f"search: {row['trials']} trials of {row['epochs']} epochs in {row['seconds']:.1f} s, "
        f"{row['share_of_tuner']:.2f} of Keras Tuner's {row['tuner_seconds']:.1f} s; best losses {ours}, its {theirs}\n"
        f"search: two workers take {row['share_of_one_worker']:.2f} of one worker's {row['one_worker_seconds']:.1f} s, "
        f"{'the same results' if row['same_results'] else 'OTHER RESULTS'}"
    )


def main() -> int:
    if sys.argv[1:2] == ["tuner"]:
        print(tuner(*map(int, sys.argv[2:])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few trials, once")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS}")
    given = parser.parse_args()
    with exit_on_user_error():
        results = measure(given.quick)
        show(results)
        known = read_json(given.out, "bench") if given.out.exists() else {}
        from benchmarks.__main__ import machine

        write_json(given.out, {**known, "search": results | {"machine": machine()}})
        print(f"\nWritten to {given.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
