"""Predict the rows of files, or the pictures of a folder, with a model of the registry: INPUT -> OUTPUT.

Rows that cannot be used go to STEM.rejected.parquet beside OUTPUT, with the reason. After a kill the same command goes
on where it was.
"""

import argparse
import gc
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger

from orchestration.command_line import exit_on_user_error, log_user_errors_once, prepare_process
from orchestration.model_files import champion_or, fetch_saved_model
from runtime.errors import UserError
from tasks.prediction import predict as prediction
from tasks.prediction.inputs import TABLES
from tasks.prediction.progress import LOG_SECONDS, every, reporting
from tasks.prediction.saved_model import LoadedModel, load_model
from tasks.publishing.origin import read_origin

INTERRUPTED = "interrupted; nothing was published. The same command goes on from here."
HASH_DIGITS = 12  # of a SavedModel that is no version of the registry


@flow(name="predict", flow_run_name="predict-{model}")
def predict(
    model: str,
    input: str,
    output: str,
    version: str | None = None,
    keep: list[str] | None = None,
    strict: bool = False,
) -> None:
    """Predict every row of the input.

    Args:
        model: a model of the registry, or a folder with a SavedModel.
        input: a file, a pattern of files such as `new/*.parquet`, or a folder of PNG pictures.
        output: the Parquet file to write.
        version: such as v0.0.3; without it, the champion.
        keep: columns of the input that the output has, too.
        strict: stop at the first row that cannot be used.
    """
    log_user_errors_once()
    tell = get_run_logger().info
    report = every(LOG_SECONDS, tell)
    load = partial(find_model, model, version)
    prediction.predict(load, input, Path(output), keep or (), strict, report=report, tell=tell)


def find_model(model: str, version: str | None) -> LoadedModel:
    """Load a model.

    Args:
        model: a name of the registry, or a folder with a SavedModel.
        version: of the registry; None: the champion.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = Path(model)
    if len(folder.parts) < 2 and not (folder / "saved_model.pb").is_file():
        found = champion_or(model, version)
        return load_model(fetch_saved_model(found), model, found.version)
    if version:
        raise UserError(f"--version {version} is one of the registry, and {model} is a folder: give one of the two.")
    loaded = load_model(folder, name_of(folder), "")
    return replace(loaded, version=f"sha256:{loaded.sha256[:HASH_DIGITS]}")


def name_of(folder: Path) -> str:
    """Return the name of a model that is given as a folder: the export says it, or the folder is named after it."""
    origin, place = read_origin(folder), folder.resolve()
    return (origin and origin.model) or (place.parent.name if place.name == "saved_model" else place.name)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.predict", description=__doc__.partition("\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a model of the registry, or a folder with a SavedModel")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help=f"a file ({', '.join(TABLES)}), a pattern of files in quotes, or a folder of PNG pictures",
    )
    parser.add_argument("output", metavar="OUTPUT", help="the .parquet file to write")
    parser.add_argument("--version", help="such as v0.0.3; the champion unless given")
    parser.add_argument(
        "--keep", nargs="+", action="extend", default=[], metavar="COLUMN", help="columns of INPUT that OUTPUT has, too"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be used")
    return parser.parse_args()


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    given = parse()
    prepare_process()

    def load() -> LoadedModel:
        model = find_model(given.model, given.version)
        gc.freeze()  # each garbage collection, and that at the end, would look at all that TensorFlow has made
        return model

    with exit_on_user_error(INTERRUPTED), reporting(tell) as report:
        prediction.predict(load, given.input, Path(given.output), given.keep, given.strict, report=report, tell=tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
